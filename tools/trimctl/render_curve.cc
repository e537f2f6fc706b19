// Strength curves, trials of methods and checks of pairs.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

std::string Strength(double strength) { return absl::StrFormat("%.3g", strength); }

// What a strength is good for.
std::string Verdict(const v1::StrengthCurve& curve, const v1::CurvePoint& point) {
  if (point.strength() == 0) return "not steered";
  const bool found = curve.recommended_strength() != 0;
  if (found && point.strength() == curve.recommended_strength()) return "<- recommended";
  if (found && point.strength() >= curve.validated_low() && point.strength() <= curve.validated_high()) {
    return "validated";
  }
  return point.kl_text() > curve.max_kl() ? "costs more than the budget" : "";
}

// Without neutral text in the server nothing was measured on it.
bool HasCost(const v1::StrengthCurve& curve) {
  return std::any_of(curve.points().begin(), curve.points().end(),
                     [](const v1::CurvePoint& point) { return point.kl_text() > 0; });
}

std::string SourceText(const v1::StrengthCurve& curve) {
  const std::string& source = curve.pairs_source();
  const std::string pairs = absl::StrCat(curve.pair_count(), " pairs");
  if (source == "held_out") return absl::StrCat(curve.pair_count(), " held-out pairs");
  if (source == "validation") return pairs + " that chose layer and strength";
  if (source == "training") return pairs + " that it was fitted on: the effect looks better than it is";
  return pairs + " of the request";
}

// "pairs 3, 9, ..."
std::string WhichPairs(const v1::PairsFinding& finding) {
  if (finding.pair_indices().empty()) return "";
  return absl::StrCat(" (", finding.held_out() ? "held-out " : "", "pairs ",
                      absl::StrJoin(finding.pair_indices(), ", "),
                      finding.count() > finding.pair_indices_size() ? ", ..." : "", " counted from 0)");
}

}  // namespace

std::string RenderCurve(const v1::StrengthCurve& curve, bool color) {
  const bool cost = HasCost(curve);
  std::string text = FormatFields({
      {"curve", absl::StrCat("of ", curve.revision(), ", measured ", FormatTime(curve.create_time()))},
      {"measured on", SourceText(curve)},
      {"recommended strength", curve.recommended_strength() != 0
                                   ? Strength(curve.recommended_strength())
                                   : "none: no measured strength gains for certain within the budget"},
      {"validated range", curve.recommended_strength() != 0
                              ? absl::StrCat(Strength(curve.validated_low()), " to ", Strength(curve.validated_high()))
                              : ""},
      {"budget", absl::StrFormat("KL %.3g nats per token of neutral text%s", curve.max_kl(),
                                 cost ? "" : ": not measured, the server has none")},
  });
  std::vector<std::vector<std::string>> rows = {
      {"STRENGTH", "GAIN [95 %]", "PREFERRED LIKELIER", "KL", "CROSS-ENTROPY", "REPETITION", ""}};
  for (const v1::CurvePoint& point : curve.points()) {
    rows.push_back({Strength(point.strength()), FormatGain(point.effect()),
                    absl::StrFormat("%.0f %%", 100 * point.effect().accuracy_after()),
                    cost ? absl::StrFormat("%.4f", point.kl_text()) : "-",
                    cost ? Signed(point.cross_entropy_change(), 4) : "-",
                    absl::StrFormat("%.0f %%", 100 * point.repetition()), Verdict(curve, point)});
  }
  absl::StrAppend(&text, "\n", FormatTable(rows, color));
  return text;
}

std::string RenderTrials(const v1::RevisionSummary& revision, bool color) {
  std::string text;
  if (revision.trials_size() > 0) {
    std::vector<std::vector<std::string>> rows = {
        {"METHOD", "LAYER", "STRENGTH", "VALIDATION GAIN [95 %]", "KL", "GAIN PER KL", ""}};
    for (const v1::MethodTrial& trial : revision.trials()) {
      if (!trial.error().empty()) {
        rows.push_back({trial.method(), "-", "-", "-", "-", "-", trial.error()});
        continue;
      }
      rows.push_back({trial.method(), absl::StrCat(trial.layer()), Strength(trial.strength()),
                      FormatGain(trial.validation()), absl::StrFormat("%.3f", trial.kl_text()),
                      absl::StrFormat("%.3f", trial.efficiency()), trial.chosen() ? "<- chosen" : ""});
    }
    absl::StrAppend(&text, "\n", Styled("Methods that were tried", "1", color), "\n", FormatTable(rows, color));
  }
  if (!revision.choice().empty()) absl::StrAppend(&text, Printable(revision.choice()), "\n");
  return text;
}

std::string RenderPairsReport(const v1::PairsReport& report, bool color) {
  std::string text = FormatFields({
      {"pairs", absl::StrCat(report.pair_count(), ", ", report.usable_pair_count(), " can be used")},
      {"held out", report.held_out_count() == 0
                       ? ""
                       : absl::StrCat(report.held_out_count(), ", ", report.usable_held_out_count(), " can be used")},
      {"tokens", absl::StrCat(report.token_count(), " in all, the longest pair ", report.longest_pair_tokens())},
      {"the fit will take", report.has_estimated_fit_time()
                                ? absl::StrCat("about ", FormatDuration(report.estimated_fit_time()), ", judged by ",
                                               report.estimate_source() == "earlier fits" ? "earlier fits on this model"
                                                                                          : "the model's size alone")
                                : ""},
  });
  for (const v1::PairsFinding& finding : report.findings()) {
    absl::StrAppend(&text, Styled("look: ", "33", color), Printable(finding.message()), WhichPairs(finding), "\n");
  }
  return text;
}

}  // namespace trimtab
