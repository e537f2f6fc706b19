#include "tools/plot/scale.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace trimtab {
namespace {

constexpr double kRoom = 0.05;  // beyond the data, of its width, on each side

// The smallest of 1, 2, 5 times a power of ten that is not below `value`.
double RoundUp(double value) {
  const double power = std::pow(10, std::floor(std::log10(value)));
  for (double step : {1.0, 2.0, 5.0}) {
    if (step * power >= value * (1 - 1e-9)) return step * power;
  }
  return 10 * power;
}

std::vector<Tick> LinearTicks(double low, double high, double step) {
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 12);
  std::vector<Tick> ticks;
  for (double index = std::ceil(low / step - 1e-9); index * step <= high + step * 1e-9; ++index) {
    const double value = index == 0 ? 0 : index * step;  // no "-0"
    const bool large = std::abs(value) >= 1e6;
    ticks.push_back({value, large ? absl::StrFormat("%g", value) : absl::StrFormat("%.*f", decimals, value)});
  }
  return ticks;
}

}  // namespace

Scale::Scale(const Axis& axis, const std::vector<double>& values) : logarithmic_(axis.logarithmic) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  low_ = axis.low.value_or(*least);
  high_ = axis.high.value_or(*most);
  if (logarithmic_) {
    const double room = low_ < high_ ? std::pow(high_ / low_, kRoom) : 2;
    if (!axis.low) low_ /= room;
    if (!axis.high) high_ *= room;
    return;
  }
  // A single value gets room on both sides.
  const double width = high_ - low_, room = width > 0 ? width * kRoom : std::max(1e-6, 0.5 * std::abs(low_));
  if (!axis.low) low_ -= room;
  if (!axis.high) high_ += room;
}

double Scale::Fraction(double value) const {
  if (logarithmic_) return std::log(value / low_) / std::log(high_ / low_);
  return (value - low_) / (high_ - low_);
}

std::vector<Tick> Scale::Ticks(int count) const {
  if (logarithmic_) {
    std::vector<Tick> ticks;
    for (double power = std::pow(10, std::floor(std::log10(low_))); power <= high_; power *= 10) {
      for (double step : {1.0, 2.0, 5.0}) {
        if (Contains(step * power)) ticks.push_back({step * power, absl::StrFormat("%g", step * power)});
      }
    }
    if (ticks.size() >= 2) return ticks;
  }
  // Rounding the step up can leave one tick or none; then take the next finer step.
  double step = RoundUp((high_ - low_) / std::max(1, count));
  std::vector<Tick> ticks = LinearTicks(low_, high_, step);
  while (ticks.size() < 2) ticks = LinearTicks(low_, high_, step = RoundUp(step / 2.5));
  return ticks;
}

}  // namespace trimtab
