#include "server/strength_curve.h"

#include <array>
#include <cstddef>
#include <set>
#include <vector>

namespace trimtab {
namespace {

constexpr size_t kGram = 4;                // words
constexpr double kBudgetTolerance = 1.02;  // a fit's search for the strength that costs the budget ends this near
constexpr std::string_view kSpaces = " \t\r\n\f\v";

// The strength's effect is above chance and its divergence within the budget.
bool Holds(const v1::CurvePoint& point, double max_kl) {
  return point.effect().ci95_low() > 0 && point.kl_text() <= kBudgetTolerance * max_kl;
}

}  // namespace

double RepeatedShare(std::string_view answer) {
  std::vector<std::string_view> words;
  for (size_t at = answer.find_first_not_of(kSpaces); at != std::string_view::npos;) {
    const size_t end = answer.find_first_of(kSpaces, at);
    words.push_back(answer.substr(at, end - at));
    at = end == std::string_view::npos ? end : answer.find_first_not_of(kSpaces, end);
  }
  if (words.size() <= kGram) return 0;
  std::set<std::array<std::string_view, kGram>> seen;
  size_t repeated = 0;
  const size_t grams = words.size() - kGram + 1;
  for (size_t i = 0; i < grams; ++i) {
    if (!seen.insert({words[i], words[i + 1], words[i + 2], words[i + 3]}).second) ++repeated;
  }
  return static_cast<double>(repeated) / static_cast<double>(grams);
}

void Recommend(v1::StrengthCurve& curve) {
  curve.clear_recommended_strength();
  curve.clear_validated_low();
  curve.clear_validated_high();
  int best = -1;
  for (int i = 0; i < curve.points_size(); ++i) {
    const bool better = best < 0 || curve.points(i).effect().margin_gain() > curve.points(best).effect().margin_gain();
    if (Holds(curve.points(i), curve.max_kl()) && better) best = i;
  }
  if (best < 0) return;
  int low = best, high = best;
  while (low > 0 && Holds(curve.points(low - 1), curve.max_kl())) --low;
  while (high + 1 < curve.points_size() && Holds(curve.points(high + 1), curve.max_kl())) ++high;
  curve.set_recommended_strength(curve.points(best).strength());
  curve.set_validated_low(curve.points(low).strength());
  curve.set_validated_high(curve.points(high).strength());
}

}  // namespace trimtab
