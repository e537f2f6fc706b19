#include "tools/study/statistics.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "steering/attribution/random.h"
#include "steering/methods/effect.h"

namespace trimtab {
namespace {

constexpr size_t kResamples = 2000;
constexpr size_t kGram = 3;

// Value at `share` of the sorted values, interpolated.
double Quantile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(std::floor(place));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = place - static_cast<double>(below);
  return sorted[below] * (1 - part) + sorted[above] * part;
}

}  // namespace

Estimate EstimateMean(const std::vector<double>& values, uint64_t seed) {
  Estimate estimate{.count = static_cast<int64_t>(values.size())};
  if (values.empty()) return estimate;
  const MeanInterval interval = MeanWithInterval(values);
  estimate.mean = interval.mean;
  estimate.low = interval.low;
  estimate.high = interval.high;
  Random random(seed, 0);
  std::vector<double> means;
  for (size_t r = 0; r < kResamples; ++r) {
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) sum += values[random.Index(values.size())];
    means.push_back(sum / static_cast<double>(values.size()));
  }
  std::sort(means.begin(), means.end());
  estimate.bootstrap_low = Quantile(means, 0.025);
  estimate.bootstrap_high = Quantile(means, 0.975);
  return estimate;
}

std::vector<double> Differences(const std::vector<double>& after, const std::vector<double>& before) {
  std::vector<double> differences;
  for (size_t i = 0; i < after.size(); ++i) differences.push_back(after[i] - before[i]);
  return differences;
}

std::vector<double> Hits(const std::vector<double>& margins) {
  std::vector<double> hits;
  for (double margin : margins) hits.push_back(margin > 0 ? 1 : 0);
  return hits;
}

double RepeatedShare(const std::vector<int32_t>& tokens) {
  if (tokens.size() < kGram) return 0;
  std::set<std::vector<int32_t>> seen;
  const size_t count = tokens.size() - kGram + 1;
  for (size_t i = 0; i < count; ++i) seen.insert({tokens.begin() + i, tokens.begin() + i + kGram});
  return 1 - static_cast<double>(seen.size()) / static_cast<double>(count);
}

}  // namespace trimtab
