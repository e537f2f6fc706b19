#include "server/strength_curve.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

void AddPoint(v1::StrengthCurve& curve, float strength, double gain, double low, double kl) {
  v1::CurvePoint& point = *curve.add_points();
  point.set_strength(strength);
  point.mutable_effect()->set_margin_gain(gain);
  point.mutable_effect()->set_ci95_low(low);
  point.set_kl_text(kl);
}

v1::StrengthCurve Curve() {
  v1::StrengthCurve curve;
  curve.set_max_kl(0.2);
  AddPoint(curve, -0.1f, -0.2, -0.3, 0.1);
  AddPoint(curve, 0, 0, 0, 0);
  AddPoint(curve, 0.02f, 0.02, -0.01, 0.01);
  AddPoint(curve, 0.04f, 0.05, 0.01, 0.05);
  AddPoint(curve, 0.06f, 0.09, 0.03, 0.12);
  AddPoint(curve, 0.08f, 0.11, 0.04, 0.203);  // as near to the budget as a fit comes
  AddPoint(curve, 0.1f, 0.2, 0.1, 0.3);
  return curve;
}

TEST(StrengthCurveTest, TheLargestGainThatIsCertainAndAffordableIsRecommended) {
  v1::StrengthCurve curve = Curve();
  Recommend(curve);
  EXPECT_EQ(curve.recommended_strength(), 0.08f);
  EXPECT_EQ(curve.validated_low(), 0.04f);
  EXPECT_EQ(curve.validated_high(), 0.08f);
}

TEST(StrengthCurveTest, AHoleEndsTheValidatedRange) {
  v1::StrengthCurve curve = Curve();
  curve.mutable_points(4)->mutable_effect()->set_ci95_low(-0.01);
  Recommend(curve);
  EXPECT_EQ(curve.recommended_strength(), 0.08f);
  EXPECT_EQ(curve.validated_low(), 0.08f);
  EXPECT_EQ(curve.validated_high(), 0.08f);
}

TEST(StrengthCurveTest, AReversedVectorIsRecommendedReversed) {
  v1::StrengthCurve curve;
  curve.set_max_kl(0.2);
  AddPoint(curve, -0.1f, 0.2, 0.1, 0.1);
  AddPoint(curve, -0.05f, 0.1, 0.05, 0.05);
  AddPoint(curve, 0, 0, 0, 0);
  AddPoint(curve, 0.05f, -0.1, -0.2, 0.05);
  Recommend(curve);
  EXPECT_EQ(curve.recommended_strength(), -0.1f);
  EXPECT_EQ(curve.validated_low(), -0.1f);
  EXPECT_EQ(curve.validated_high(), -0.05f);
}

TEST(StrengthCurveTest, NothingIsRecommendedWithoutACertainGain) {
  v1::StrengthCurve curve = Curve();
  curve.set_max_kl(0.01);
  curve.set_recommended_strength(1);
  Recommend(curve);
  EXPECT_EQ(curve.recommended_strength(), 0);
  EXPECT_EQ(curve.validated_low(), 0);
  EXPECT_EQ(curve.validated_high(), 0);
}

TEST(StrengthCurveTest, CountsWhatAnAnswerSaysAgain) {
  EXPECT_EQ(RepeatedShare(""), 0);
  EXPECT_EQ(RepeatedShare("one two three four"), 0);
  EXPECT_EQ(RepeatedShare(" a b c d e f g h\n"), 0);
  // Five 4-grams, of which the last says what the first said.
  EXPECT_DOUBLE_EQ(RepeatedShare("a b c d a b c d"), 0.2);
  EXPECT_DOUBLE_EQ(RepeatedShare("no no no no no no no"), 0.75);
}

}  // namespace
}  // namespace trimtab
