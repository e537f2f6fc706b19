#include "steering/drift/drift_stats.h"

#include <algorithm>
#include <cmath>

namespace trimtab {
namespace {

constexpr double kZ = 1.959963984540054;  // 97.5 % quantile of the normal distribution
constexpr double kFloor = 1e-12;          // smallest probability in a divergence

// Probabilities of the choices, renormalised; uniform when nothing is finite.
std::vector<double> Renormalise(std::span<const float> logprobs, double& mass) {
  std::vector<double> p;
  mass = 0;
  for (float logprob : logprobs) {
    p.push_back(std::isfinite(logprob) ? std::exp(static_cast<double>(logprob)) : 0);
    mass += p.back();
  }
  for (double& value : p) value = mass > 0 ? value / mass : 1.0 / static_cast<double>(p.size());
  return p;
}

int64_t ArgMax(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

double Kl(const std::vector<double>& p, const std::vector<double>& q) {
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] > 0) kl += p[i] * std::log(p[i] / std::max(q[i], kFloor));
  }
  return std::max(kl, 0.0);
}

double WilsonLow(double share, double n) {
  const double z2 = kZ * kZ;
  return (share + z2 / (2 * n) - kZ * std::sqrt(share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n);
}

}  // namespace

double McNemarP(int64_t b, int64_t c) {
  const int64_t n = b + c;
  if (n == 0) return 1;
  if (n >= 25) {
    const double excess = std::max(std::abs(static_cast<double>(b - c)) - 1, 0.0);
    return std::erfc(std::sqrt(excess * excess / static_cast<double>(n) / 2));
  }
  // Two-sided exact binomial with p = 1/2.
  double tail = 0;
  for (int64_t k = 0; k <= std::min(b, c); ++k) {
    tail += std::exp(std::lgamma(n + 1.0) - std::lgamma(k + 1.0) - std::lgamma(n - k + 1.0) - n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

double KlWithTail(std::span<const float> log_p, std::span<const float> log_q) {
  std::vector<double> p, q;
  double rest_p = 1, rest_q = 1;
  for (size_t i = 0; i < log_p.size(); ++i) {
    p.push_back(std::exp(static_cast<double>(log_p[i])));
    q.push_back(std::isfinite(log_q[i]) ? std::exp(static_cast<double>(log_q[i])) : 0);
    rest_p -= p.back();
    rest_q -= q.back();
  }
  p.push_back(std::max(rest_p, 0.0));
  q.push_back(std::max(rest_q, 0.0));
  return Kl(p, q);
}

ChoiceStats CompareChoices(std::span<const ChoiceComparison> items) {
  ChoiceStats stats;
  stats.items = static_cast<int64_t>(items.size());
  if (items.empty()) return stats;
  int64_t right_before = 0, right_after = 0, changed = 0;
  for (const ChoiceComparison& item : items) {
    double mass_before = 0, mass_after = 0;
    const std::vector<double> before = Renormalise(item.baseline, mass_before);
    const std::vector<double> after = Renormalise(item.steered, mass_after);
    const bool was_right = mass_before > 0 && ArgMax(before) == item.answer;
    const bool is_right = mass_after > 0 && ArgMax(after) == item.answer;
    right_before += was_right;
    right_after += is_right;
    stats.right_to_wrong += was_right && !is_right;
    stats.wrong_to_right += !was_right && is_right;
    changed += ArgMax(before) != ArgMax(after);
    stats.mean_kl_choice += Kl(before, after);
    stats.baseline_letter_mass += mass_before;
    stats.letter_mass += mass_after;
    stats.gold_probability_delta += after[item.answer] - before[item.answer];
    stats.expected_chance += 1.0 / static_cast<double>(before.size());
  }
  const double n = static_cast<double>(items.size());
  const double b = static_cast<double>(stats.right_to_wrong), c = static_cast<double>(stats.wrong_to_right);
  stats.baseline_accuracy = static_cast<double>(right_before) / n;
  stats.accuracy = static_cast<double>(right_after) / n;
  stats.delta = (c - b) / n;
  const double half = kZ * std::sqrt(std::max((b + c) - (b - c) * (b - c) / n, 0.0)) / n;
  stats.ci_low = stats.delta - half;
  stats.ci_high = stats.delta + half;
  stats.mcnemar_p = McNemarP(stats.right_to_wrong, stats.wrong_to_right);
  stats.flip_rate = (b + c) / n;
  stats.choice_change_rate = static_cast<double>(changed) / n;
  for (double* sum : {&stats.mean_kl_choice, &stats.baseline_letter_mass, &stats.letter_mass,
                      &stats.gold_probability_delta, &stats.expected_chance}) {
    *sum /= n;
  }
  stats.minimum_detectable_delta = 2.8 * std::sqrt(std::max(stats.flip_rate, 1 / n) / n);
  stats.at_chance = WilsonLow(stats.baseline_accuracy, n) <= stats.expected_chance;
  return stats;
}

Summary Summarize(std::vector<double> values) {
  Summary summary;
  if (values.empty()) return summary;
  for (double value : values) summary.mean += value / static_cast<double>(values.size());
  const size_t rank = std::min(values.size() - 1, static_cast<size_t>(std::ceil(0.95 * values.size())) - 1);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(rank), values.end());
  summary.p95 = values[rank];
  return summary;
}

}  // namespace trimtab
