// Paired statistics of steered against unsteered answers to the same items (steering.md C2). Pure functions of numbers.
#ifndef TRIMTAB_STEERING_DRIFT_DRIFT_STATS_H_
#define TRIMTAB_STEERING_DRIFT_DRIFT_STATS_H_

#include <cstdint>
#include <span>
#include <vector>

namespace trimtab {

// One multiple-choice item, unsteered and steered: natural-log probabilities of its choices' answer tokens under the
// full vocabulary.
struct ChoiceComparison {
  int64_t answer = 0;
  std::vector<float> baseline, steered;  // one per choice
};

struct ChoiceStats {
  int64_t items = 0;
  double baseline_accuracy = 0, accuracy = 0, delta = 0;  // shares; delta = accuracy - baseline_accuracy
  double ci_low = 0, ci_high = 0;  // paired Wald 95 % interval of delta: +-1.96 sqrt((b+c) - (b-c)^2/n) / n
  int64_t right_to_wrong = 0, wrong_to_right = 0;  // b, c
  double mcnemar_p = 1;  // exact binomial below 25 discordant items, else chi-squared with continuity correction
  double flip_rate = 0;  // (b + c) / n
  double choice_change_rate = 0;                     // share of items whose most likely choice changed
  double mean_kl_choice = 0;                         // KL(unsteered || steered) of the choices renormalised, nats
  double baseline_letter_mass = 0, letter_mass = 0;  // mean total probability of the choices' tokens
  double gold_probability_delta = 0;                 // mean change of the right choice's renormalised probability
  double expected_chance = 0;                        // mean of 1 / number of choices
  // Smallest |delta| that n items show with 80 % power at 5 % two-sided, for the share of discordant items found (at
  // least one item): 2.8 sqrt(d / n).
  double minimum_detectable_delta = 0;
  // The unsteered accuracy is not above chance: lower end of its Wilson 95 % interval is at or below expected_chance.
  bool at_chance = true;
};

// Items with a non-finite log-probability count as wrong and as mass 0. All zero for no items.
ChoiceStats CompareChoices(std::span<const ChoiceComparison> items);

// McNemar's test for b and c discordant pairs: two-sided p.
double McNemarP(int64_t b, int64_t c);

// KL(p || q) in nats from log-probabilities of the same `n` outcomes, the rest of each distribution being one more
// outcome. Exact when the outcomes are all there is; otherwise a lower bound that is close when they hold most mass.
double KlWithTail(std::span<const float> log_p, std::span<const float> log_q);

// Mean and 95th percentile; zeros for nothing.
struct Summary {
  double mean = 0, p95 = 0;
};
Summary Summarize(std::vector<double> values);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_DRIFT_DRIFT_STATS_H_
