#include "tools/trimctl/curve_picture.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

// Recommended strength and validated range, if there are any.
void Annotate(const v1::StrengthCurve& curve, LinePanel& panel) {
  panel.x.title = "strength";
  if (curve.recommended_strength() == 0) return;
  panel.marks.push_back(
      {.x = curve.recommended_strength(), .label = absl::StrFormat("recommended %.3g", curve.recommended_strength())});
  if (curve.validated_low() < curve.validated_high()) {
    panel.ranges.push_back({.low = curve.validated_low(), .high = curve.validated_high(), .label = "validated range"});
  }
}

}  // namespace

Picture CurvePicture(const v1::StrengthCurve& curve) {
  Series gain{.name = "gain, 95 % interval"}, kl{.name = "KL"}, lost{.name = "cross-entropy change"},
      repetition{.name = "repeated 4-grams", .right_axis = true};
  for (const v1::CurvePoint& point : curve.points()) {
    for (Series* const series : {&gain, &kl, &lost, &repetition}) series->x.push_back(point.strength());
    gain.y.push_back(point.effect().margin_gain());
    gain.low.push_back(point.effect().ci95_low());
    gain.high.push_back(point.effect().ci95_high());
    kl.y.push_back(point.kl_text());
    lost.y.push_back(point.cross_entropy_change());
    repetition.y.push_back(100 * point.repetition());
  }
  LinePanel effect;
  effect.title = absl::StrCat("Effect on ", curve.pair_count(), " pairs (", curve.pairs_source(), ")");
  effect.left.title = "margin gain, nats per token";
  effect.series = {std::move(gain)};
  Annotate(curve, effect);
  LinePanel cost;
  cost.title = "Cost on neutral text, and repetition in answers";
  cost.left.title = "nats per token";
  cost.right.title = "repeated 4-grams, %";
  cost.right.low = 0;
  cost.series = {std::move(kl), std::move(lost), std::move(repetition)};
  Annotate(curve, cost);
  // models/m/objectives/x/revisions/3 reads better as x@3.
  const std::string& name = curve.revision();
  const std::string objective = name.substr(0, name.rfind("/revisions/"));
  return {.title = absl::StrCat(ShortName(objective), "@", ShortName(name)),
          .width = 900,
          .height = 860,
          .panels = {std::move(effect), std::move(cost)}};
}

}  // namespace trimtab
