// operations.
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/rpc/grpc_status.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/error_text.h"
#include "tools/trimctl/flags.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/watch.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;
using Operations = google::longrunning::Operations::Stub;

absl::StatusOr<ExitCode> List(Cli& cli) {
  google::longrunning::ListOperationsRequest request;
  request.set_name("operations");
  google::longrunning::ListOperationsResponse all;
  TRIMTAB_RETURN_IF_ERROR((cli.client.ForEachPage<Operations, google::longrunning::ListOperationsRequest,
                                                  google::longrunning::ListOperationsResponse>(
      cli.client.operations(), &Operations::ListOperations, request,
      [&](google::longrunning::ListOperationsResponse& page) { all.MergeFrom(page); })));
  cli.Print(all, RenderOperations({all.operations().begin(), all.operations().end()}, cli.color));
  return ExitCode::kOk;
}

// The operation with its error, if it has one.
absl::StatusOr<ExitCode> Report(Cli& cli, const Operation& operation) {
  std::string text = RenderOperations({operation}, cli.color);
  absl::StrAppend(&text, FormatPartialFailures(operation));
  if (operation.has_error()) {
    absl::StrAppend(&text, FormatError(FromRpcStatus(operation.error()), cli.client.address()));
  }
  cli.Print(operation, text);
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> Wait(Cli& cli, const std::string& name) {
  absl::StatusOr<Operation> done;
  {
    ProgressBar bar(std::cerr, cli.progress_color);
    done = Watch(cli.client, name, bar);
  }
  if (!done.ok()) return done.status();
  TRIMTAB_RETURN_IF_ERROR(Report(cli, *done).status());
  return done->has_error() ? ExitCode::kJobFailed : ExitCode::kOk;
}

absl::StatusOr<ExitCode> OperationsCommand(Cli& cli, const std::vector<std::string>& arguments) {
  const std::string verb = arguments.empty() ? "list" : arguments[0];
  if (verb == "list" && arguments.size() <= 1) return List(cli);
  if (arguments.size() != 2)
    return UsageError("operations takes \"list\", or \"get\", \"wait\", \"cancel\" or \"delete\" and a name");
  const std::string name =
      arguments[1].find('/') == std::string::npos ? absl::StrCat("operations/", arguments[1]) : arguments[1];
  if (verb == "wait") return Wait(cli, name);
  if (verb == "get") {
    google::longrunning::GetOperationRequest request;
    request.set_name(name);
    TRIMTAB_ASSIGN_OR_RETURN(const Operation operation,
                             cli.client.Call(cli.client.operations(), &Operations::GetOperation, request));
    return Report(cli, operation);
  }
  if (verb == "cancel") {
    google::longrunning::CancelOperationRequest request;
    request.set_name(name);
    TRIMTAB_ASSIGN_OR_RETURN(const google::protobuf::Empty empty,
                             cli.client.Call(cli.client.operations(), &Operations::CancelOperation, request));
    cli.Print(empty, absl::StrCat(name, " will stop\n"));
    return ExitCode::kOk;
  }
  if (verb == "delete") {
    google::longrunning::DeleteOperationRequest request;
    request.set_name(name);
    TRIMTAB_ASSIGN_OR_RETURN(const google::protobuf::Empty empty,
                             cli.client.Call(cli.client.operations(), &Operations::DeleteOperation, request));
    cli.Print(empty, absl::StrCat(name, " is forgotten\n"));
    return ExitCode::kOk;
  }
  return UsageError(absl::StrCat("operations has no \"", verb, "\""));
}

}  // namespace

std::vector<Command> ServerCommands() {
  return {
      {.name = "operations",
       .arguments = "[list | get NAME | wait NAME | cancel NAME | delete NAME]",
       .summary = "background work: fits, drift evaluations, models that are loaded",
       .details = "",
       .flags = {},
       .min_arguments = 0,
       .max_arguments = 2,
       .run = OperationsCommand},
  };
}

}  // namespace trimtab
