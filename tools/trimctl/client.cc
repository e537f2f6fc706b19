#include "tools/trimctl/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;  // audits are long

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

Client::Client(const std::string& address, absl::Duration timeout, Interrupt& interrupt)
    : address_(address),
      timeout_(timeout),
      interrupt_(interrupt),
      channel_(MakeChannel(address)),
      generation_(v1::GenerationService::NewStub(channel_)),
      models_(v1::ModelService::NewStub(channel_)),
      objectives_(v1::ObjectiveService::NewStub(channel_)),
      drift_(v1::DriftService::NewStub(channel_)),
      operations_(google::longrunning::Operations::NewStub(channel_)) {}

void Client::Prepare(grpc::ClientContext& context) const {
  if (timeout_ < absl::InfiniteDuration()) context.set_deadline(absl::ToChronoTime(absl::Now() + timeout_));
}

absl::Status Client::Stream(const v1::GenerateRequest& request,
                            const std::function<void(const v1::GenerateResponse&)>& on_piece) {
  grpc::ClientContext context;
  Prepare(context);
  const Interrupt::Guard guard(interrupt_, context);
  const std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader =
      generation_->StreamGenerate(&context, request);
  v1::GenerateResponse piece;
  while (reader->Read(&piece)) on_piece(piece);
  return FromGrpcStatus(reader->Finish());
}

absl::StatusOr<std::string> Client::ModelName(std::string_view model) {
  if (!model.empty()) return ParseModelName(model) ? std::string(model) : trimtab::ModelName(model);
  if (!only_model_.empty()) return only_model_;
  std::vector<std::string> names;
  TRIMTAB_RETURN_IF_ERROR((ForEachPage<v1::ModelService::Stub, v1::ListModelsRequest, v1::ListModelsResponse>(
      *models_, &v1::ModelService::Stub::ListModels, {}, [&](v1::ListModelsResponse& page) {
        for (const v1::Model& entry : page.models()) {
          if (entry.state() != v1::Model::STATE_FAILED) names.push_back(entry.name());
        }
      })));
  if (names.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("the server serves ", names.size(),
                                                   " models; choose one with --model: ", absl::StrJoin(names, ", ")));
  }
  return only_model_ = names.front();
}

absl::StatusOr<std::string> Client::ObjectiveName(std::string_view model, std::string_view objective) {
  // A full name needs no question to the server.
  std::optional<ObjectiveReference> reference = ParseObjectiveReference("", objective);
  if (!reference || reference->objective.model.empty()) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::string parent, ModelName(model));
    reference = ParseObjectiveReference(ParseModelName(parent).value_or(""), objective);
  }
  if (!reference) {
    return absl::InvalidArgumentError(absl::StrCat("\"", std::string(objective), "\" is not an objective's name"));
  }
  if (!reference->revision) return reference->objective.name();
  return RevisionId{.objective = reference->objective, .revision = *reference->revision}.name();
}

}  // namespace trimtab
