#include "steering/methods/effect.h"

#include <cmath>
#include <cstddef>

namespace trimtab {

double StudentT95(int n) {
  constexpr double kSmall[] = {12.7062, 4.3027, 3.1824};
  if (n < 1) return 0;
  if (n <= 3) return kSmall[n - 1];
  const double z = 1.959963984540054, z2 = z * z;
  const double first = z * (z2 + 1) / 4;
  const double second = z * (5 * z2 * z2 + 16 * z2 + 3) / 96;
  const double third = z * (3 * z2 * z2 * z2 + 19 * z2 * z2 + 17 * z2 - 15) / 384;
  return z + first / n + second / (n * n) + third / (static_cast<double>(n) * n * n);
}

MeanInterval MeanWithInterval(const std::vector<double>& values) {
  MeanInterval result;
  if (values.empty()) return result;
  const auto n = static_cast<double>(values.size());
  for (double value : values) result.mean += value / n;
  double half = 0;
  if (values.size() > 1) {
    double squares = 0;
    for (double value : values) squares += (value - result.mean) * (value - result.mean);
    half = StudentT95(static_cast<int>(values.size()) - 1) * std::sqrt(squares / (n - 1) / n);
  }
  result.low = result.mean - half;
  result.high = result.mean + half;
  return result;
}

EffectSummary SummarizeEffect(const std::vector<double>& before, const std::vector<double>& after) {
  EffectSummary summary{.pairs = static_cast<int64_t>(before.size())};
  if (before.empty()) return summary;
  const auto n = static_cast<float>(before.size());
  std::vector<double> gains;
  double margin = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    gains.push_back(after[i] - before[i]);
    margin += before[i];
    summary.accuracy_before += before[i] > 0 ? 1 / n : 0;
    summary.accuracy_after += after[i] > 0 ? 1 / n : 0;
    summary.anti_steerable_share += after[i] < before[i] ? 1 / n : 0;
  }
  const MeanInterval gain = MeanWithInterval(gains);
  summary.margin_before = static_cast<float>(margin / n);
  summary.margin_gain = static_cast<float>(gain.mean);
  summary.ci_low = static_cast<float>(gain.low);
  summary.ci_high = static_cast<float>(gain.high);
  return summary;
}

}  // namespace trimtab
