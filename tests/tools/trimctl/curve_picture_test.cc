#include "tools/trimctl/curve_picture.h"

#include <gtest/gtest.h>

#include <variant>

#include "tools/plot/render.h"

namespace trimtab {
namespace {

v1::StrengthCurve Curve() {
  v1::StrengthCurve curve;
  curve.set_revision("models/m/objectives/calm/revisions/2");
  curve.set_pair_count(43);
  curve.set_pairs_source("held_out");
  for (const float strength : {-0.05f, 0.0f, 0.025f, 0.05f}) {
    v1::CurvePoint& point = *curve.add_points();
    point.set_strength(strength);
    point.mutable_effect()->set_margin_gain(strength);
    point.mutable_effect()->set_ci95_low(strength - 0.01);
    point.mutable_effect()->set_ci95_high(strength + 0.01);
    point.set_kl_text(40 * strength * strength);
  }
  return curve;
}

TEST(CurvePictureTest, EffectAndCostAreDrawnWithTheRecommendation) {
  v1::StrengthCurve curve = Curve();
  curve.set_recommended_strength(0.05f);
  curve.set_validated_low(0.025f);
  curve.set_validated_high(0.05f);
  const Picture picture = CurvePicture(curve);
  EXPECT_EQ(picture.title, "calm@2");
  ASSERT_EQ(picture.panels.size(), 2u);
  const LinePanel& effect = std::get<LinePanel>(picture.panels[0]);
  EXPECT_EQ(effect.title, "Effect on 43 pairs (held_out)");
  EXPECT_EQ(effect.series[0].x.size(), 4u);
  EXPECT_EQ(effect.series[0].low.size(), 4u);
  for (const auto& panel : picture.panels) {
    const LinePanel& lines = std::get<LinePanel>(panel);
    ASSERT_EQ(lines.marks.size(), 1u);
    EXPECT_EQ(lines.marks[0].x, 0.05f);
    ASSERT_EQ(lines.ranges.size(), 1u);
    EXPECT_EQ(lines.ranges[0].low, 0.025f);
  }
  EXPECT_EQ(std::get<LinePanel>(picture.panels[1]).series.size(), 3u);
  const absl::StatusOr<std::string> png = RenderPng(picture);
  EXPECT_TRUE(png.ok()) << png.status();
}

TEST(CurvePictureTest, WithoutARecommendationNothingIsMarked) {
  const Picture picture = CurvePicture(Curve());
  EXPECT_TRUE(std::get<LinePanel>(picture.panels[0]).marks.empty());
  EXPECT_TRUE(std::get<LinePanel>(picture.panels[0]).ranges.empty());
  EXPECT_TRUE(RenderPng(picture).ok());
}

}  // namespace
}  // namespace trimtab
