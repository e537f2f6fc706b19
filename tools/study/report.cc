#include "tools/study/report.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace trimtab {
namespace {

constexpr char kGainTitle[] = "margin gain on test pairs, nats per token";

const ArmResult* FindArm(const DataSetResult& data, const std::string& name) {
  for (const ArmResult& arm : data.arms) {
    if (arm.name == name && arm.error.empty()) return &arm;
  }
  return nullptr;
}

std::string WithInterval(const Estimate& estimate) {
  return absl::StrFormat("%+.3f [%+.3f, %+.3f]", estimate.mean, estimate.low, estimate.high);
}

std::string Layers(const ArmResult& arm) {
  if (arm.layers.size() <= 4) return absl::StrJoin(arm.layers, ", ");
  return absl::StrFormat("%d-%d (%d)", arm.layers.front(), arm.layers.back(), arm.layers.size());
}

std::string BudgetName(double budget) { return absl::StrFormat("KL %g", budget); }

void AddSummary(const StudyResult& result, std::string& text) {
  absl::StrAppendFormat(&text, "## Gain at %s\n\n| arm |", BudgetName(result.budgets.front()));
  for (const DataSetResult& data : result.data_sets) absl::StrAppend(&text, " ", data.name, " |");
  absl::StrAppend(&text, "\n|---|");
  for (size_t d = 0; d < result.data_sets.size(); ++d) absl::StrAppend(&text, "---|");
  absl::StrAppend(&text, "\n");
  // Arms in the order in which they first occur.
  std::vector<std::string> names;
  for (const DataSetResult& data : result.data_sets) {
    for (const ArmResult& arm : data.arms) {
      if (std::find(names.begin(), names.end(), arm.name) == names.end()) names.push_back(arm.name);
    }
  }
  for (const std::string& name : names) {
    absl::StrAppend(&text, "| ", name, " |");
    for (const DataSetResult& data : result.data_sets) {
      const ArmResult* arm = FindArm(data, name);
      if (arm == nullptr) {
        absl::StrAppend(&text, " - |");
        continue;
      }
      const AtBudget& at = arm->budgets.front();
      const bool clear = at.against_random.count > 0 && at.against_random.low > 0;
      absl::StrAppend(&text, " ", WithInterval(at.gain), clear ? " *" : "", at.reached ? "" : " (KL not reached)",
                      " |");
    }
    absl::StrAppend(&text, "\n");
  }
  absl::StrAppend(&text,
                  "\n\\* better than random directions at the same KL: the paired 95 % interval of the "
                  "difference is above 0.\n");
}

void AddBudget(const DataSetResult& data, size_t budget, std::string& text) {
  absl::StrAppend(&text,
                  "| arm | layers | cos g | strength | gain | bootstrap | random: mean, best | gain - random | "
                  "accuracy | KL | CE | repeated | gain per nat |\n"
                  "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const ArmResult& arm : data.arms) {
    if (!arm.error.empty()) {
      absl::StrAppend(&text, "| ", arm.name, " | no vector: ", arm.error, " | | | | | | | | | | | |\n");
      continue;
    }
    const AtBudget& at = arm.budgets[budget];
    absl::StrAppendFormat(&text, "| %s | %s | %.2f | %.4g%s | %s | [%+.3f, %+.3f] | %+.3f, %+.3f | %s | %.2f (%s) | ",
                          arm.name, Layers(arm), arm.cosine, at.strength, at.reached ? "" : " (KL not reached)",
                          WithInterval(at.gain), at.gain.bootstrap_low, at.gain.bootstrap_high, at.random_gain.mean,
                          at.random_gain_max, WithInterval(at.against_random), at.accuracy,
                          WithInterval(at.accuracy_change));
    absl::StrAppendFormat(&text, "%.3f | %s | %.2f | %.2f [%.2f, %.2f] |\n", at.kl, WithInterval(at.ce_change),
                          at.repeated, at.efficiency, at.efficiency_low, at.efficiency_high);
  }
  absl::StrAppend(&text, "\n");
}

void AddMasking(const DataSetResult& data, std::string& text) {
  if (data.masking.empty()) return;
  absl::StrAppend(&text,
                  "### Masking what attribution found (figure 3 of the paper)\n\n"
                  "| attribution | pairs | S+ masked | as many random | difference | S- masked | as many random | "
                  "difference |\n|---|---|---|---|---|---|---|---|\n");
  const auto cell = [](const Change& c) { return absl::StrFormat("%+.3f [%+.3f, %+.3f]", c.mean, c.low, c.high); };
  for (const MaskingResult& m : data.masking) {
    absl::StrAppend(&text, "| ", m.name, " | ", m.pairs, " | ", cell(m.positive), " | ", cell(m.random_positive), " | ",
                    cell(m.positive_against_random));
    absl::StrAppend(&text, " | ", cell(m.negative), " | ", cell(m.random_negative), " | ",
                    cell(m.negative_against_random), " |\n");
  }
  absl::StrAppend(&text, "\n");
}

std::vector<const Arm*> ArmsOf(const ArmList& list, const std::string& group, const DataSetResult& data) {
  std::vector<const Arm*> arms;
  for (const Arm& arm : list.arms) {
    const bool member = std::find(arm.groups.begin(), arm.groups.end(), group) != arm.groups.end();
    if (member && FindArm(data, arm.name) != nullptr) arms.push_back(&arm);
  }
  return arms;
}

BarPanel Bars(const std::string& title, const std::vector<const Arm*>& arms, const DataSetResult& data,
              const std::vector<double>& budgets) {
  BarPanel panel{.title = title, .value = {.title = kGainTitle}};
  for (const Arm* arm : arms) panel.categories.push_back(arm->name);
  panel.categories.push_back("random (mean)");
  for (size_t b = 0; b < budgets.size(); ++b) {
    BarSeries series{.name = BudgetName(budgets[b])};
    const auto add = [&](const Estimate& estimate) {
      series.values.push_back(estimate.mean);
      series.low.push_back(estimate.low);
      series.high.push_back(estimate.high);
    };
    for (const Arm* arm : arms) add(FindArm(data, arm->name)->budgets[b].gain);
    add(FindArm(data, arms.front()->name)->budgets[b].random_gain);  // at the first arm's layers
    panel.series.push_back(std::move(series));
  }
  return panel;
}

LinePanel Line(const ArmGroup& group, std::vector<const Arm*> arms, const DataSetResult& data,
               const std::vector<double>& budgets) {
  std::sort(arms.begin(), arms.end(), [](const Arm* a, const Arm* b) { return a->x < b->x; });
  LinePanel panel{.title = absl::StrCat(group.title, ", ", data.name),
                  .x = {.title = group.x_title, .logarithmic = group.logarithmic},
                  .left = {.title = kGainTitle}};
  for (size_t b = 0; b < budgets.size(); ++b) {
    Series series{.name = BudgetName(budgets[b]), .interval = Series::Interval::kErrorBars};
    for (const Arm* arm : arms) {
      const Estimate& gain = FindArm(data, arm->name)->budgets[b].gain;
      series.x.push_back(arm->x);
      series.y.push_back(gain.mean);
      series.low.push_back(gain.low);
      series.high.push_back(gain.high);
    }
    panel.series.push_back(std::move(series));
  }
  return panel;
}

int BarHeight(size_t bars) { return 130 + 17 * static_cast<int>(bars); }

Picture GroupPicture(const ArmGroup& group, const std::vector<const Arm*>& arms, const DataSetResult& data,
                     const std::vector<double>& budgets) {
  if (!group.x_title.empty()) return {.width = 620, .height = 400, .panels = {Line(group, arms, data, budgets)}};
  return {.width = 760,
          .height = BarHeight((arms.size() + 1) * budgets.size()),
          .panels = {Bars(absl::StrCat(group.title, ", ", data.name), arms, data, budgets)}};
}

Picture CurvePicture(const DataSetResult& data) {
  LinePanel gain{.title = absl::StrCat("Gain over cost, ", data.name),
                 .x = {.title = "KL on neutral text, nats per token (left of 0: reversed)"},
                 .left = {.title = kGainTitle}};
  LinePanel strength{.title = "Cost over strength",
                     .x = {.title = "strength, in units of the first budget's"},
                     .left = {.title = "KL on neutral text, nats per token"}};
  for (const ArmResult& arm : data.arms) {
    if (arm.curve.empty()) continue;
    Series gains{.name = arm.name}, costs{.name = ""};
    for (const CurvePoint& point : arm.curve) {
      gains.x.push_back(point.strength < 0 ? -point.kl : point.kl);
      gains.y.push_back(point.gain.mean);
      gains.low.push_back(point.gain.low);
      gains.high.push_back(point.gain.high);
      costs.x.push_back(point.strength / arm.budgets.front().strength);
      costs.y.push_back(point.kl);
    }
    gain.series.push_back(std::move(gains));
    strength.series.push_back(std::move(costs));
  }
  return {.width = 1000, .height = 420, .columns = 2, .panels = {gain, strength}};
}

Picture MaskingPicture(const DataSetResult& data) {
  BarPanel panel{.title = absl::StrCat("Masking what attribution found, ", data.name),
                 .value = {.title = "change of the margin, nats per token"}};
  BarSeries positive{.name = "tokens for the preferred answer masked"};
  BarSeries negative{.name = "tokens for the dispreferred answer masked"};
  const auto add = [](BarSeries& series, const Change& change) {
    series.values.push_back(change.mean);
    series.low.push_back(change.low);
    series.high.push_back(change.high);
  };
  for (const MaskingResult& masking : data.masking) {
    panel.categories.push_back(masking.name);
    add(positive, masking.positive);
    add(negative, masking.negative);
  }
  panel.categories.push_back("as many random tokens");
  add(positive, data.masking.front().random_positive);
  add(negative, data.masking.front().random_negative);
  panel.series = {positive, negative};
  return {.width = 760, .height = BarHeight(2 * panel.categories.size()), .panels = {panel}};
}

}  // namespace

std::string StudyTable(const StudyResult& result) {
  std::string text = absl::StrFormat(
      "# Study of steering methods on %s\n\nGains are changes of the margin (log-probability of the preferred answer "
      "minus that of the dispreferred one, nats per token) on test pairs that no fit has seen, with 95 %% intervals "
      "(Student's t over pairs). All arms cost the same: the strength of each is set so that the KL divergence on one "
      "neutral text is the budget; KL and CE (change of cross-entropy) are measured on another. cos g: cosine with "
      "the mean gradient of the margin. Random: %d random directions at the same layers and KL. Repeated: share of "
      "repeated 3-grams in greedy answers. Seed %d.\n\n",
      result.model, result.random_directions, result.seed);
  AddSummary(result, text);
  for (const DataSetResult& data : result.data_sets) {
    absl::StrAppendFormat(&text,
                          "\n## %s\n\n%d pairs to fit on, %d test pairs. Without steering: margin %s, accuracy %.2f, "
                          "cross-entropy of neutral text %.3f, repeated %.2f.\n\n",
                          data.name, data.fit_pairs, data.test_pairs, WithInterval(data.margin), data.accuracy,
                          data.cross_entropy, data.repeated);
    for (size_t b = 0; b < result.budgets.size(); ++b) {
      absl::StrAppend(&text, "### At ", BudgetName(result.budgets[b]), "\n\n");
      AddBudget(data, b, text);
    }
    AddMasking(data, text);
  }
  return text;
}

std::vector<std::pair<std::string, Picture>> StudyPictures(const StudyResult& result, const ArmList& list) {
  std::vector<std::pair<std::string, Picture>> pictures;
  if (!list.groups.empty() && list.groups.front().x_title.empty()) {
    Picture overview{.title = absl::StrCat(list.groups.front().title, ", ", result.model), .columns = 2};
    size_t most = 0;
    for (const DataSetResult& data : result.data_sets) {
      const std::vector<const Arm*> arms = ArmsOf(list, list.groups.front().id, data);
      if (arms.empty()) continue;
      most = std::max(most, arms.size() + 1);
      overview.panels.push_back(Bars(data.name, arms, data, {result.budgets.front()}));
    }
    const int rows = (static_cast<int>(overview.panels.size()) + 1) / 2;
    overview.width = 1000;
    overview.height = 40 + rows * BarHeight(most);
    if (overview.panels.size() > 1) pictures.emplace_back("overview.png", std::move(overview));
  }
  for (const DataSetResult& data : result.data_sets) {
    for (const ArmGroup& group : list.groups) {
      const std::vector<const Arm*> arms = ArmsOf(list, group.id, data);
      if (arms.empty()) continue;
      pictures.emplace_back(absl::StrCat(data.name, "-", group.id, ".png"),
                            GroupPicture(group, arms, data, result.budgets));
    }
    if (std::any_of(data.arms.begin(), data.arms.end(), [](const ArmResult& arm) { return !arm.curve.empty(); })) {
      pictures.emplace_back(absl::StrCat(data.name, "-curves.png"), CurvePicture(data));
    }
    if (!data.masking.empty()) pictures.emplace_back(absl::StrCat(data.name, "-masking.png"), MaskingPicture(data));
  }
  return pictures;
}

}  // namespace trimtab
