// register and refit: pairs in, an objective's vectors out.
#include <fstream>
#include <iostream>
#include <iterator>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/rpc/grpc_status.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/error_text.h"
#include "tools/trimctl/flags.h"
#include "tools/trimctl/json_output.h"
#include "tools/trimctl/pairs_file.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/text.h"
#include "tools/trimctl/watch.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;

absl::StatusOr<std::vector<v1::PreferencePair>> ReadPairs(const std::string& path) {
  absl::StatusOr<std::vector<v1::PreferencePair>> pairs = ReadPairsFile(path);
  if (!pairs.ok()) return AsUsageError(pairs.status());
  return pairs;
}

// --config: the text itself or, after "@", the file that holds it.
absl::StatusOr<std::string> ConfigText(const std::string& flag) {
  if (flag.empty() || flag.front() != '@') return flag;
  std::ifstream file(flag.substr(1));
  if (!file) return UsageError(absl::StrCat("--config: ", flag.substr(1), " cannot be opened"));
  return std::string(std::istreambuf_iterator<char>(file), {});
}

constexpr char kDefaultMethod[] = "grains";

// The method_config of --config in `message`, for `method`.
template <typename Message>
absl::Status SetConfig(Client& client, const std::string& method, Message& message) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string text, ConfigText(absl::GetFlag(FLAGS_config)));
  if (text.empty()) return absl::OkStatus();
  v1::GetSteeringMethodRequest request;
  request.set_name(absl::StrCat("steeringMethods/", method));
  TRIMTAB_ASSIGN_OR_RETURN(const v1::SteeringMethod description,
                           client.Call(client.objectives(), &v1::ObjectiveService::Stub::GetSteeringMethod, request));
  absl::StatusOr<google::protobuf::Any> config = ParseConfig(description.config_type(), text);
  if (!config.ok()) return AsUsageError(config.status());
  *message.mutable_method_config() = *std::move(config);
  return absl::OkStatus();
}

absl::StatusOr<v1::RegisterObjectiveRequest> MakeRequest(Client& client, const std::string& path) {
  v1::RegisterObjectiveRequest request;
  if (absl::GetFlag(FLAGS_id).empty()) return UsageError("--id, the objective's name, is missing");
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<v1::PreferencePair> pairs, ReadPairs(path));
  v1::Objective& objective = *request.mutable_objective();
  objective.mutable_pairs()->Assign(pairs.begin(), pairs.end());
  if (const std::string held_out = absl::GetFlag(FLAGS_held_out); !held_out.empty()) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<v1::PreferencePair> held_out_pairs, ReadPairs(held_out));
    objective.mutable_held_out_pairs()->Assign(held_out_pairs.begin(), held_out_pairs.end());
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::string parent, client.ModelName(absl::GetFlag(FLAGS_model)));
  request.set_parent(parent);
  request.set_objective_id(absl::GetFlag(FLAGS_id));
  request.set_request_id(absl::GetFlag(FLAGS_request_id));
  request.set_evaluate_drift(absl::GetFlag(FLAGS_evaluate_drift));
  request.set_validate_only(absl::GetFlag(FLAGS_validate_only));
  objective.set_method(absl::GetFlag(FLAGS_method).value_or(kDefaultMethod));
  objective.set_display_name(absl::GetFlag(FLAGS_display_name).value_or(""));
  objective.set_description(absl::GetFlag(FLAGS_description).value_or(""));
  if (const auto strength = absl::GetFlag(FLAGS_default_strength)) objective.set_default_strength(*strength);
  if (const auto strength = absl::GetFlag(FLAGS_max_strength)) objective.set_max_strength(*strength);
  TRIMTAB_RETURN_IF_ERROR(SetConfig(client, objective.method(), objective));
  return request;
}

// The finished fit: the objective, and the drift report if one was asked for.
absl::StatusOr<ExitCode> ShowResult(Cli& cli, const Operation& operation) {
  if (const std::string failures = FormatPartialFailures(operation); !failures.empty()) {
    std::cerr << "Pairs that were left out:\n" << failures;
  }
  if (operation.has_error()) {
    cli.Print(operation, absl::StrCat("The fit did not succeed. ",
                                      FormatError(FromRpcStatus(operation.error()), cli.client.address())));
    return ExitCode::kJobFailed;
  }
  v1::Objective objective;
  if (!operation.response().UnpackTo(&objective)) return absl::InternalError("the operation's result is no objective");
  std::string text = RenderObjective(objective, {}, cli.color);
  v1::RegisterObjectiveMetadata metadata;
  if (operation.metadata().UnpackTo(&metadata) && !metadata.drift_report().empty() && !cli.json) {
    v1::GetDriftReportRequest request;
    request.set_name(metadata.drift_report());
    TRIMTAB_ASSIGN_OR_RETURN(const v1::DriftReport report,
                             cli.client.Call(cli.client.drift(), &v1::DriftService::Stub::GetDriftReport, request));
    absl::StrAppend(&text, "\n", Styled("Drift", "1", cli.color), "\n", RenderDriftReport(report, cli.color));
  }
  cli.Print(objective, text);
  return ExitCode::kOk;
}

// What a validation found.
absl::StatusOr<ExitCode> ShowValidation(Cli& cli, const std::string& what, const Operation& operation) {
  v1::RegisterObjectiveMetadata metadata;
  operation.metadata().UnpackTo(&metadata);
  cli.Print(operation, absl::StrCat("The ", what, " is valid. Nothing was stored.\n",
                                    RenderPairsReport(metadata.pairs_report(), cli.color)));
  return ExitCode::kOk;
}

// The end of a fit that was begun as `operation`: watched under --watch, else how to watch it. `what`: "builds x".
absl::StatusOr<ExitCode> Follow(Cli& cli, const std::string& what, const Operation& operation) {
  if (!absl::GetFlag(FLAGS_watch)) {
    cli.Print(operation, absl::StrCat(operation.name(), " ", what, ". Watch it with\n  trimctl operations wait ",
                                      operation.name(), "\n"));
    return ExitCode::kOk;
  }
  absl::StatusOr<Operation> done = operation;
  {
    ProgressBar bar(std::cerr, cli.progress_color);
    if (!operation.done()) done = Watch(cli.client, operation.name(), bar);
  }
  if (!done.ok() && cli.client.interrupt().requested()) {
    std::cerr << "\nThe fit goes on without you. Watch it with\n  trimctl operations wait " << operation.name()
              << "\nor stop it with\n  trimctl operations cancel " << operation.name() << "\n";
  }
  if (!done.ok()) return done.status();
  return ShowResult(cli, *done);
}

absl::StatusOr<ExitCode> Register(Cli& cli, const std::vector<std::string>& arguments) {
  TRIMTAB_ASSIGN_OR_RETURN(const v1::RegisterObjectiveRequest request, MakeRequest(cli.client, arguments[0]));
  TRIMTAB_ASSIGN_OR_RETURN(
      const Operation operation,
      cli.client.Call(cli.client.objectives(), &v1::ObjectiveService::Stub::RegisterObjective, request));
  if (request.validate_only()) return ShowValidation(cli, "registration", operation);
  return Follow(cli,
                absl::StrCat("builds ", request.objective_id(), " from ", request.objective().pairs_size(), " pairs"),
                operation);
}

absl::StatusOr<ExitCode> Refit(Cli& cli, const std::vector<std::string>& arguments) {
  v1::RefitObjectiveRequest request;
  TRIMTAB_ASSIGN_OR_RETURN(*request.mutable_name(), cli.client.ObjectiveName(absl::GetFlag(FLAGS_model), arguments[0]));
  const std::string held_out = absl::GetFlag(FLAGS_held_out);
  if (arguments.size() == 2) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<v1::PreferencePair> pairs, ReadPairs(arguments[1]));
    request.mutable_pairs()->Assign(pairs.begin(), pairs.end());
    if (!held_out.empty()) {
      TRIMTAB_ASSIGN_OR_RETURN(const std::vector<v1::PreferencePair> held_out_pairs, ReadPairs(held_out));
      request.mutable_held_out_pairs()->Assign(held_out_pairs.begin(), held_out_pairs.end());
    }
  } else if (!held_out.empty()) {
    return UsageError("--held_out needs a file of pairs to fit on");
  }
  request.set_method(absl::GetFlag(FLAGS_method).value_or(""));
  if (!absl::GetFlag(FLAGS_config).empty()) {
    std::string method = request.method();
    if (method.empty()) {
      v1::GetObjectiveRequest get;
      get.set_name(request.name());
      TRIMTAB_ASSIGN_OR_RETURN(
          const v1::Objective objective,
          cli.client.Call(cli.client.objectives(), &v1::ObjectiveService::Stub::GetObjective, get));
      method = objective.method();
    }
    TRIMTAB_RETURN_IF_ERROR(SetConfig(cli.client, method, request));
  }
  request.set_keep_active(absl::GetFlag(FLAGS_keep_active));
  request.set_evaluate_drift(absl::GetFlag(FLAGS_evaluate_drift));
  request.set_validate_only(absl::GetFlag(FLAGS_validate_only));
  request.set_request_id(absl::GetFlag(FLAGS_request_id));
  request.set_etag(absl::GetFlag(FLAGS_etag));
  TRIMTAB_ASSIGN_OR_RETURN(
      const Operation operation,
      cli.client.Call(cli.client.objectives(), &v1::ObjectiveService::Stub::RefitObjective, request));
  if (request.validate_only()) return ShowValidation(cli, "refit", operation);
  return Follow(cli,
                absl::StrCat("builds a new revision of ", arguments[0],
                             request.keep_active() ? "; the active one stays" : "; the active one serves meanwhile"),
                operation);
}

}  // namespace

std::vector<Command> RegisterCommands() {
  return {
      {.name = "register",
       .arguments = "FILE.jsonl",
       .summary = "build an objective's steering vectors from preference pairs",
       .details =
           "FILE holds one JSON object a line:\n"
           "  {\"prompt\": \"...\", \"preferred\": \"...\", \"dispreferred\": \"...\"}\n"
           "A prompt may be a list of turns, [{\"role\": \"user\", \"text\": \"...\"}]; the names question, chosen\n"
           "and rejected are understood too. About 50 pairs are enough. The server builds in the background and\n"
           "serves meanwhile; Ctrl-C under --watch stops only the watching.",
       .flags = {"id", "held_out", "watch", "evaluate_drift", "method", "config", "display_name", "description",
                 "default_strength", "max_strength", "validate_only", "request_id"},
       .min_arguments = 1,
       .max_arguments = 1,
       .run = Register},
      {.name = "refit",
       .arguments = "NAME [FILE.jsonl]",
       .summary = "build a new revision of an objective; the active one serves meanwhile",
       .details =
           "Without FILE it is built from the pairs of the last fit. Without --method the objective's method and\n"
           "configuration are kept. `trimctl promote NAME@REVISION` goes back to an earlier revision.",
       .flags = {"held_out", "watch", "evaluate_drift", "method", "config", "keep_active", "validate_only",
                 "request_id", "etag"},
       .min_arguments = 1,
       .max_arguments = 2,
       .run = Refit}};
}

}  // namespace trimtab
