// A connection to a Trimtab server for command-line programs: the stubs, calls that Ctrl-C cancels, names in their
// short forms, whole lists. Errors carry the server's reason and violations (server/base/error.h). One thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_CLIENT_H_
#define TRIMTAB_TOOLS_TRIMCTL_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "server/rpc/grpc_status.h"
#include "tools/trimctl/interrupt.h"
#include "trimtab/v1/drift.grpc.pb.h"
#include "trimtab/v1/generation.grpc.pb.h"
#include "trimtab/v1/model.grpc.pb.h"
#include "trimtab/v1/objective.grpc.pb.h"

namespace trimtab {

class Client {
 public:
  // Connects lazily to `address`, "host:port". A call is given up after `timeout`.
  Client(const std::string& address, absl::Duration timeout, Interrupt& interrupt);

  // One unary call: client.Call(client.models(), &v1::ModelService::Stub::GetModel, request).
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const Request& request) {
    grpc::ClientContext context;
    Prepare(context);
    const Interrupt::Guard guard(interrupt_, context);
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  // StreamGenerate; `on_piece` gets every message.
  absl::Status Stream(const v1::GenerateRequest& request,
                      const std::function<void(const v1::GenerateResponse&)>& on_piece);

  // Calls `method` for every page of a list; `on_page` takes each response.
  template <typename Stub, typename Request, typename Response>
  absl::Status ForEachPage(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                           Request request, const std::function<void(Response&)>& on_page) {
    while (true) {
      absl::StatusOr<Response> page = Call(stub, method, request);
      if (!page.ok()) return page.status();
      const std::string next = page->next_page_token();
      page->clear_next_page_token();
      on_page(*page);
      if (next.empty()) return absl::OkStatus();
      request.set_page_token(next);
    }
  }

  // "models/x" of `model` ("x" or "models/x"). Empty: the server's only model, else INVALID_ARGUMENT with their names.
  absl::StatusOr<std::string> ModelName(std::string_view model);
  // "models/{m}/objectives/x" of "x", with ModelName(model) for m; full names stay. "x@2" names a revision.
  absl::StatusOr<std::string> ObjectiveName(std::string_view model, std::string_view objective);

  v1::GenerationService::Stub& generation() { return *generation_; }
  v1::ModelService::Stub& models() { return *models_; }
  v1::ObjectiveService::Stub& objectives() { return *objectives_; }
  v1::DriftService::Stub& drift() { return *drift_; }
  google::longrunning::Operations::Stub& operations() { return *operations_; }
  const std::string& address() const { return address_; }
  Interrupt& interrupt() { return interrupt_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  void Prepare(grpc::ClientContext& context) const;

  const std::string address_;
  const absl::Duration timeout_;
  Interrupt& interrupt_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GenerationService::Stub> generation_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<v1::ObjectiveService::Stub> objectives_;
  std::unique_ptr<v1::DriftService::Stub> drift_;
  std::unique_ptr<google::longrunning::Operations::Stub> operations_;
  std::string only_model_;  // once asked for
};

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_CLIENT_H_
