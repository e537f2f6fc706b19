// Models, operations, drift reports and what a generation reports.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/rpc/grpc_status.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/text.h"
#include "tools/trimctl/watch.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + 1e-9 * duration.nanos();
}

std::string StateText(v1::Model::State state) {
  const std::string name = v1::Model::State_Name(state);
  return name.rfind("STATE_", 0) == 0 ? name.substr(6) : name;
}

// What an operation works on.
std::string Target(const Operation& operation) {
  v1::RegisterObjectiveMetadata fit;
  if (operation.metadata().UnpackTo(&fit)) return fit.objective();
  v1::EvaluateDriftMetadata drift;
  if (operation.metadata().UnpackTo(&drift)) return drift.drift_report();
  v1::EvaluateStrengthMetadata curve;
  if (operation.metadata().UnpackTo(&curve)) {
    // models/m/objectives/x/revisions/3 reads better as x@3.
    const std::string& name = curve.revision();
    return absl::StrCat(ShortName(name.substr(0, name.rfind("/revisions/"))), "@", ShortName(name));
  }
  v1::LoadModelMetadata load;
  if (operation.metadata().UnpackTo(&load)) return load.model();
  v1::UnloadModelMetadata unload;
  if (operation.metadata().UnpackTo(&unload)) return unload.model();
  return "";
}

std::string OperationState(const Operation& operation) {
  if (!operation.done()) return absl::StrFormat("%.0f %%", GetProgress(operation).percent);
  if (!operation.has_error()) return "SUCCEEDED";
  return operation.error().code() == static_cast<int>(absl::StatusCode::kCancelled) ? "CANCELLED" : "FAILED";
}

std::string OperationDetail(const Operation& operation) {
  if (operation.has_error()) return operation.error().message();
  return operation.done() ? "" : GetProgress(operation).phase;
}

std::string KindText(const Operation& operation) {
  if (operation.metadata().Is<v1::RegisterObjectiveMetadata>()) {
    return ShortName(operation.name()).rfind("refit-", 0) == 0 ? "refit" : "register";
  }
  if (operation.metadata().Is<v1::EvaluateStrengthMetadata>()) return "curve";
  if (operation.metadata().Is<v1::LoadModelMetadata>()) return "load";
  if (operation.metadata().Is<v1::UnloadModelMetadata>()) return "unload";
  return operation.metadata().Is<v1::EvaluateDriftMetadata>() ? "drift" : "-";
}

}  // namespace

std::string FormatSteering(const google::protobuf::RepeatedPtrField<v1::SteeringSelection>& steering) {
  return absl::StrJoin(steering, ", ", [](std::string* out, const v1::SteeringSelection& selection) {
    std::string name = selection.objective();
    // .../objectives/x/revisions/3 reads better as x@3.
    if (const size_t at = name.rfind("/revisions/"); at != std::string::npos) {
      name = absl::StrCat(ShortName(name.substr(0, at)), "@", ShortName(name));
    } else {
      name = ShortName(name);
    }
    absl::StrAppend(out, name);
    if (selection.has_strength()) absl::StrAppend(out, " = ", absl::StrFormat("%.4g", selection.strength()));
  });
}

std::string RenderModels(const std::vector<v1::Model>& models, bool color) {
  if (models.empty()) return "No model is served.\n";
  std::vector<std::vector<std::string>> rows = {{"NAME", "STATE", "ARCHITECTURE", "PARAMETERS", "LAYERS", "WIDTH",
                                                 "CONTEXT", "FILE", "RUNS AS", "DEVICE", "DRIFT SUITES"}};
  for (const v1::Model& model : models) {
    if (model.architecture().empty()) {  // not loaded: nothing is known but its name
      rows.push_back({ShortName(model.name()), StateText(model.state()), "", "", "", "", "", "", "", "", ""});
      continue;
    }
    rows.push_back({ShortName(model.name()), StateText(model.state()), model.architecture(),
                    absl::StrFormat("%.1f M", 1e-6 * static_cast<double>(model.parameter_count())),
                    absl::StrCat(model.num_layers()), absl::StrCat(model.hidden_size()),
                    absl::StrCat(model.context_length()), model.file_dtype(), model.dtype(), model.device(),
                    absl::StrJoin(model.drift_suites(), ",")});
  }
  std::string text = FormatTable(rows, color);
  for (const v1::Model& model : models) {
    if (model.state() != v1::Model::STATE_FAILED) continue;
    absl::StrAppend(&text, ShortName(model.name()), " could not be loaded from ", Printable(model.path()), ": ",
                    Printable(model.error().message()), "\n");
  }
  return text;
}

std::string RenderOperations(const std::vector<Operation>& operations, bool color) {
  if (operations.empty()) return "There are no operations.\n";
  std::vector<std::vector<std::string>> rows = {{"NAME", "KIND", "STATE", "TARGET", "DETAIL"}};
  for (const Operation& operation : operations) {
    rows.push_back({operation.name(), KindText(operation), OperationState(operation), ShortName(Target(operation)),
                    Shorten(OperationDetail(operation), 60)});
  }
  return FormatTable(rows, color);
}

std::string RenderDriftReport(const v1::DriftReport& report, bool color) {
  std::string text = FormatFields({
      {"report", report.name()},
      {"steering", FormatSteering(report.steering())},
      {"suite", absl::StrFormat("%s, %d questions, %d-shot", report.suite(), report.items(), report.shots())},
      {"took", FormatDuration(report.run_time())},
  });
  std::vector<std::vector<std::string>> rows = {{"", "UNSTEERED", "STEERED", "CHANGE"}};
  if (report.text_tokens() > 0) {
    rows.push_back({"cross-entropy on neutral text, nats per token",
                    absl::StrFormat("%.4f", report.baseline_cross_entropy()),
                    absl::StrFormat("%.4f", report.baseline_cross_entropy() + report.cross_entropy_delta()),
                    Signed(report.cross_entropy_delta(), 4)});
  }
  rows.push_back({"questions answered right", absl::StrFormat("%.1f %%", 100 * report.baseline_accuracy()),
                  absl::StrFormat("%.1f %%", 100 * report.accuracy()),
                  absl::StrFormat("%+.1f %%", 100 * report.accuracy_delta())});
  rows.push_back({"probability of the answer letters", absl::StrFormat("%.3f", report.baseline_letter_mass()),
                  absl::StrFormat("%.3f", report.letter_mass()),
                  Signed(report.letter_mass() - report.baseline_letter_mass())});
  absl::StrAppend(&text, "\n", FormatTable(rows, color), "\n");
  std::vector<std::pair<std::string, std::string>> fields;
  if (report.text_tokens() > 0) {
    fields.emplace_back("KL on neutral text",
                        absl::StrFormat("%.4f nats per token (95th percentile %.4f, %d tokens)", report.mean_kl_text(),
                                        report.kl_text_p95(), report.text_tokens()));
  }
  fields.emplace_back("KL of the choices", absl::StrFormat("%.4f nats (whole vocabulary %.4f)", report.mean_kl_choice(),
                                                           report.mean_kl_vocabulary()));
  fields.emplace_back("accuracy change",
                      absl::StrFormat("%+.1f %% [%+.1f, %+.1f], McNemar p = %.2g; %d questions can show %.1f %%",
                                      100 * report.accuracy_delta(), 100 * report.ci95_low(), 100 * report.ci95_high(),
                                      report.mcnemar_p(), report.items(), 100 * report.minimum_detectable_delta()));
  fields.emplace_back(
      "answers that flipped",
      absl::StrFormat("%d right to wrong, %d wrong to right; another letter in %.1f %%", report.right_to_wrong(),
                      report.wrong_to_right(), 100 * report.choice_change_rate()));
  absl::StrAppend(&text, FormatFields(fields));
  if (report.subjects_size() > 1) {
    std::vector<std::vector<std::string>> subjects = {{"SUBJECT", "QUESTIONS", "UNSTEERED", "STEERED", "KL CHOICES"}};
    for (const v1::SubjectDrift& subject : report.subjects()) {
      subjects.push_back({subject.subject(), absl::StrCat(subject.items()),
                          absl::StrFormat("%.1f %%", 100 * subject.baseline_accuracy()),
                          absl::StrFormat("%.1f %%", 100 * subject.accuracy()),
                          absl::StrFormat("%.4f", subject.mean_kl_choice())});
    }
    absl::StrAppend(&text, "\n", FormatTable(subjects, color));
  }
  for (const std::string& warning : report.warnings()) {
    absl::StrAppend(&text, Styled("warning: ", "33", color), Printable(warning), "\n");
  }
  return text;
}

std::string RenderDriftReports(const std::vector<v1::DriftReport>& reports, bool color) {
  if (reports.empty()) return "There are no drift reports yet; `trimctl drift --steer NAME` makes one.\n";
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "STEERING", "SUITE", "QUESTIONS", "KL TEXT", "ACCURACY CHANGE [95 %]", "MADE"}};
  for (const v1::DriftReport& report : reports) {
    rows.push_back({ShortName(report.name()), FormatSteering(report.steering()), report.suite(),
                    absl::StrCat(report.items()), absl::StrFormat("%.4f", report.mean_kl_text()),
                    absl::StrFormat("%+.1f %% [%+.1f, %+.1f]", 100 * report.accuracy_delta(), 100 * report.ci95_low(),
                                    100 * report.ci95_high()),
                    FormatTime(report.create_time())});
  }
  return FormatTable(rows, color);
}

std::string RenderApplied(const google::protobuf::RepeatedPtrField<v1::AppliedSteering>& applied) {
  std::string text;
  for (const v1::AppliedSteering& entry : applied) {
    absl::StrAppend(&text, absl::StrFormat("steered by %s@%d at %.4g: %d tokens, mean relative dose %.4f\n",
                                           Printable(ShortName(entry.objective())), entry.revision(), entry.strength(),
                                           entry.steered_tokens(), entry.mean_relative_dose()));
  }
  return text;
}

std::string RenderStats(const v1::GenerateResponse& last) {
  const v1::Usage& usage = last.usage();
  const v1::Timing& timing = last.timing();
  std::string text = absl::StrFormat("%d prompt tokens (%d from the cache), %d generated", usage.prompt_tokens(),
                                     usage.cached_prompt_tokens(), usage.output_tokens());
  if (timing.has_time_to_first_token()) {
    absl::StrAppend(&text, "; first token after ", FormatDuration(timing.time_to_first_token()));
  }
  if (const double decode = Seconds(timing.decode()); decode > 0 && usage.output_tokens() > 1) {
    absl::StrAppend(&text, absl::StrFormat(", then %.1f tokens/s", (usage.output_tokens() - 1) / decode));
  }
  return absl::StrCat(text, "; ended by ", v1::FinishReason_Name(last.finish_reason()).substr(14), "\n");
}

std::string RenderScores(const std::vector<std::string>& continuations, const v1::ScoreResponse& response, bool color) {
  std::vector<std::vector<std::string>> rows = {{"LOG-LIKELIHOOD", "PER TOKEN", "TOKENS", "GREEDY", "CONTINUATION"}};
  for (int i = 0; i < response.scores_size(); ++i) {
    const v1::ContinuationScore& score = response.scores(i);
    rows.push_back({absl::StrFormat("%.4f", score.log_likelihood()),
                    absl::StrFormat("%.4f", score.log_likelihood() / std::max(1, score.token_count())),
                    absl::StrCat(score.token_count()), score.is_greedy() ? "yes" : "no",
                    Shorten(continuations[static_cast<size_t>(i)], 60)});
  }
  return FormatTable(rows, color);
}

}  // namespace trimtab
