// curve: effect and side effects over strengths.
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/resource_name.h"
#include "server/base/status_macros.h"
#include "server/rpc/grpc_status.h"
#include "tools/plot/render.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/curve_picture.h"
#include "tools/trimctl/error_text.h"
#include "tools/trimctl/flags.h"
#include "tools/trimctl/pairs_file.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/watch.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;
using Stub = v1::ObjectiveService::Stub;

// Prints the curve and, under --png, draws it.
absl::StatusOr<ExitCode> ShowCurve(Cli& cli, const v1::StrengthCurve& curve) {
  cli.Print(curve, RenderCurve(curve, cli.color));
  const std::string path = absl::GetFlag(FLAGS_png);
  if (path.empty()) return ExitCode::kOk;
  const absl::Status written = WritePng(CurvePicture(curve), path);
  if (!written.ok()) return UsageError(absl::StrCat("--png: ", std::string(written.message())));
  std::cerr << "wrote " << path << "\n";
  return ExitCode::kOk;
}

// The curve that is stored with the revision, or the objective's active one; without points when there is none.
absl::StatusOr<v1::StrengthCurve> StoredCurve(Cli& cli, const std::string& name) {
  if (ParseRevisionName(name)) {
    v1::GetRevisionRequest request;
    request.set_name(name);
    TRIMTAB_ASSIGN_OR_RETURN(const v1::RevisionSummary revision,
                             cli.client.Call(cli.client.objectives(), &Stub::GetRevision, request));
    return revision.curve();
  }
  v1::GetObjectiveRequest request;
  request.set_name(name);
  TRIMTAB_ASSIGN_OR_RETURN(const v1::Objective objective,
                           cli.client.Call(cli.client.objectives(), &Stub::GetObjective, request));
  return objective.active().curve();
}

absl::StatusOr<v1::EvaluateStrengthRequest> MakeRequest(const std::string& name) {
  v1::EvaluateStrengthRequest request;
  request.set_name(name);
  request.set_max_pairs(absl::GetFlag(FLAGS_max_pairs));
  request.set_request_id(absl::GetFlag(FLAGS_request_id));
  for (const std::string& text : absl::GetFlag(FLAGS_strengths)) {
    float strength = 0;
    if (!absl::SimpleAtof(text, &strength)) {
      return UsageError(absl::StrCat("--strengths: \"", text, "\" is not a number"));
    }
    request.add_strengths(strength);
  }
  if (const std::string path = absl::GetFlag(FLAGS_held_out); !path.empty()) {
    const absl::StatusOr<std::vector<v1::PreferencePair>> pairs = ReadPairsFile(path);
    if (!pairs.ok()) return AsUsageError(pairs.status());
    request.mutable_pairs()->Assign(pairs->begin(), pairs->end());
  }
  return request;
}

absl::StatusOr<ExitCode> Measure(Cli& cli, const v1::EvaluateStrengthRequest& request) {
  TRIMTAB_ASSIGN_OR_RETURN(const Operation operation,
                           cli.client.Call(cli.client.objectives(), &Stub::EvaluateStrength, request));
  if (!absl::GetFlag(FLAGS_watch) && absl::GetFlag(FLAGS_png).empty()) {
    cli.Print(operation, absl::StrCat(operation.name(), " measures the curve of ", request.name(),
                                      ". Watch it with\n  trimctl operations wait ", operation.name(), "\n"));
    return ExitCode::kOk;
  }
  absl::StatusOr<Operation> done = operation;
  {
    ProgressBar bar(std::cerr, cli.progress_color);
    if (!operation.done()) done = Watch(cli.client, operation.name(), bar);
  }
  if (!done.ok() && cli.client.interrupt().requested()) {
    std::cerr << "\nThe measuring goes on without you. Watch it with\n  trimctl operations wait " << operation.name()
              << "\nor stop it with\n  trimctl operations cancel " << operation.name() << "\n";
  }
  if (!done.ok()) return done.status();
  if (const std::string failures = FormatPartialFailures(*done); !failures.empty()) {
    std::cerr << "Pairs that were left out:\n" << failures;
  }
  if (done->has_error()) {
    cli.Print(*done, absl::StrCat("The curve was not measured. ",
                                  FormatError(FromRpcStatus(done->error()), cli.client.address())));
    return ExitCode::kJobFailed;
  }
  v1::StrengthCurve curve;
  if (!done->response().UnpackTo(&curve)) return absl::InternalError("the operation's result is no curve");
  return ShowCurve(cli, curve);
}

absl::StatusOr<ExitCode> Curve(Cli& cli, const std::vector<std::string>& arguments) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string name, cli.client.ObjectiveName(absl::GetFlag(FLAGS_model), arguments[0]));
  const bool measure =
      absl::GetFlag(FLAGS_watch) || !absl::GetFlag(FLAGS_strengths).empty() || !absl::GetFlag(FLAGS_held_out).empty();
  if (!measure) {
    TRIMTAB_ASSIGN_OR_RETURN(const v1::StrengthCurve stored, StoredCurve(cli, name));
    if (stored.points_size() > 0) return ShowCurve(cli, stored);
  }
  TRIMTAB_ASSIGN_OR_RETURN(const v1::EvaluateStrengthRequest request, MakeRequest(name));
  return Measure(cli, request);
}

}  // namespace

std::vector<Command> CurveCommands() {
  return {{.name = "curve",
           .arguments = "NAME[@REVISION]",
           .summary = "effect and cost of a revision over strengths, as a table and a picture",
           .details =
               "Shows the curve that is stored with the revision. When there is none, and with --watch, --strengths\n"
               "or --held_out, it is measured first, in the background unless --watch or --png waits for it, and\n"
               "stored in place of an earlier one.",
           .flags = {"strengths", "held_out", "max_pairs", "png", "watch", "request_id"},
           .min_arguments = 1,
           .max_arguments = 1,
           .run = Curve}};
}

}  // namespace trimtab
