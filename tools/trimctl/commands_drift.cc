// drift: measure, list, get, delete.
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "server/rpc/grpc_status.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/error_text.h"
#include "tools/trimctl/flags.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/watch.h"

namespace trimtab {
namespace {

using Stub = v1::DriftService::Stub;
using google::longrunning::Operation;

absl::StatusOr<ExitCode> Measure(Cli& cli) {
  v1::EvaluateDriftRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<v1::SteeringSelection> steering, SteeringFromFlags());
  if (steering.empty()) return UsageError("what shall be measured? give --steer");
  request.mutable_steering()->Assign(steering.begin(), steering.end());
  request.set_suite(absl::GetFlag(FLAGS_suite));
  request.set_max_items(absl::GetFlag(FLAGS_max_items));
  request.set_seed(absl::GetFlag(FLAGS_seed).value_or(0));
  request.set_shots(absl::GetFlag(FLAGS_shots));
  if (const auto value = absl::GetFlag(FLAGS_max_text_tokens)) request.set_max_text_tokens(*value);
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_parent(), cli.client.ModelName(absl::GetFlag(FLAGS_model)));
  TRIMTAB_ASSIGN_OR_RETURN(const Operation operation,
                           cli.client.Call(cli.client.drift(), &Stub::EvaluateDrift, request));
  absl::StatusOr<Operation> done = operation;
  {
    ProgressBar bar(std::cerr, cli.progress_color);
    if (!operation.done()) done = Watch(cli.client, operation.name(), bar);
  }
  if (!done.ok() && cli.client.interrupt().requested()) {
    std::cerr << "\nThe evaluation goes on without you. Watch it with\n  trimctl operations wait " << operation.name()
              << "\nor stop it with\n  trimctl operations cancel " << operation.name() << "\n";
  }
  if (!done.ok()) return done.status();
  if (const std::string failures = FormatPartialFailures(*done); !failures.empty()) {
    std::cerr << "Questions that were left out:\n" << failures;
  }
  if (done->has_error()) {
    cli.Print(*done, absl::StrCat("The evaluation did not succeed. ",
                                  FormatError(FromRpcStatus(done->error()), cli.client.address())));
    return ExitCode::kJobFailed;
  }
  v1::DriftReport report;
  if (!done->response().UnpackTo(&report)) return absl::InternalError("the operation's result is no drift report");
  cli.Print(report, RenderDriftReport(report, cli.color));
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> List(Cli& cli) {
  v1::ListDriftReportsRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_parent(), cli.client.ModelName(absl::GetFlag(FLAGS_model)));
  v1::ListDriftReportsResponse all;
  TRIMTAB_RETURN_IF_ERROR((cli.client.ForEachPage<Stub, v1::ListDriftReportsRequest, v1::ListDriftReportsResponse>(
      cli.client.drift(), &Stub::ListDriftReports, request,
      [&](v1::ListDriftReportsResponse& page) { all.MergeFrom(page); })));
  cli.Print(all, RenderDriftReports({all.drift_reports().begin(), all.drift_reports().end()}, cli.color));
  return ExitCode::kOk;
}

// "x" or a full name.
absl::StatusOr<std::string> ReportName(Cli& cli, const std::string& argument) {
  if (argument.find('/') != std::string::npos) return argument;
  TRIMTAB_ASSIGN_OR_RETURN(const std::string model, cli.client.ModelName(absl::GetFlag(FLAGS_model)));
  return absl::StrCat(model, "/driftReports/", argument);
}

absl::StatusOr<ExitCode> Drift(Cli& cli, const std::vector<std::string>& arguments) {
  if (arguments.empty()) return Measure(cli);
  const std::string& verb = arguments[0];
  if (verb == "list" && arguments.size() == 1) return List(cli);
  if ((verb != "get" && verb != "delete") || arguments.size() != 2) {
    return UsageError("drift takes no argument, or \"list\", \"get NAME\" or \"delete NAME\"");
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::string name, ReportName(cli, arguments[1]));
  if (verb == "get") {
    v1::GetDriftReportRequest request;
    request.set_name(name);
    TRIMTAB_ASSIGN_OR_RETURN(const v1::DriftReport report,
                             cli.client.Call(cli.client.drift(), &Stub::GetDriftReport, request));
    cli.Print(report, RenderDriftReport(report, cli.color));
    return ExitCode::kOk;
  }
  v1::DeleteDriftReportRequest request;
  request.set_name(name);
  TRIMTAB_ASSIGN_OR_RETURN(const google::protobuf::Empty empty,
                           cli.client.Call(cli.client.drift(), &Stub::DeleteDriftReport, request));
  cli.Print(empty, absl::StrCat(name, " is deleted\n"));
  return ExitCode::kOk;
}

}  // namespace

std::vector<Command> DriftCommands() {
  return {{.name = "drift",
           .arguments = "[list | get NAME | delete NAME]",
           .summary = "measure how far steering moves the model from itself, or read the reports",
           .details = "Without an argument it measures --steer against the unsteered model and waits for the report.",
           .flags = {"steer", "apply_to", "suite", "max_items", "shots", "max_text_tokens", "seed"},
           .min_arguments = 0,
           .max_arguments = 2,
           .run = Drift}};
}

}  // namespace trimtab
