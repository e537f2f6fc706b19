// What a study found. Written as results.json; also how finished arms are kept. No torch. Any thread.
#ifndef TRIMTAB_TOOLS_STUDY_RESULTS_H_
#define TRIMTAB_TOOLS_STUDY_RESULTS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/study/statistics.h"

namespace trimtab {

// An arm at one budget of divergence, on the test pairs. Gains are in nats per token.
struct AtBudget {
  double budget = 0;  // nats per token of the neutral text that sets the strength
  bool reached = false;
  double strength = 0;
  double kl_set = 0;  // on that text, at the strength
  double kl = 0;      // on the other neutral text
  Estimate gain;
  double accuracy = 0;  // share of pairs with a margin above 0
  Estimate accuracy_change;
  Estimate ce_change;  // of cross-entropy on the other neutral text, by chunk
  double efficiency = 0, efficiency_low = 0, efficiency_high = 0;  // gain per nat of kl, with the gain's t interval
  double repeated = 0;                                             // RepeatedShare of greedy continuations
  Estimate random_gain;        // of random directions in its place at the same divergence, mean over the directions
  double random_gain_max = 0;  // of the best of them
  Estimate against_random;     // gain minus random_gain, pair by pair
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(AtBudget, budget, reached, strength, kl_set, kl, gain, accuracy, accuracy_change,
                                   ce_change, efficiency, efficiency_low, efficiency_high, repeated, random_gain,
                                   random_gain_max, against_random)

struct CurvePoint {
  double strength = 0;
  double kl = 0;  // on the text that sets the strength
  Estimate gain;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CurvePoint, strength, kl, gain)

struct ArmResult {
  std::string name;
  std::string error;  // why there is no vector; all else is empty then
  std::string digest;
  std::vector<int64_t> layers;
  double cosine = 0;  // with the mean gradient of the margin, mean over the layers
  double validation_gain = 0;
  double fit_seconds = 0;
  std::vector<std::string> warnings;
  std::vector<AtBudget> budgets;
  std::vector<CurvePoint> curve;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ArmResult, name, error, digest, layers, cosine, validation_gain, fit_seconds,
                                   warnings, budgets, curve)

// A change of the margin with its interval.
struct Change {
  double mean = 0, low = 0, high = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Change, mean, low, high)

// The paper's figure 3 for one attribution (steering/methods/masking_effect.h).
struct MaskingResult {
  std::string name;
  int64_t pairs = 0, low_confidence = 0;
  Change positive, negative, random_positive, random_negative, positive_against_random, negative_against_random;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(MaskingResult, name, pairs, low_confidence, positive, negative, random_positive,
                                   random_negative, positive_against_random, negative_against_random)

struct DataSetResult {
  std::string name;
  int64_t fit_pairs = 0, test_pairs = 0;
  Estimate margin;  // of the test pairs, not steered
  double accuracy = 0;
  double cross_entropy = 0;  // of the neutral text, not steered
  double repeated = 0;
  std::vector<ArmResult> arms;
  std::vector<MaskingResult> masking;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DataSetResult, name, fit_pairs, test_pairs, margin, accuracy, cross_entropy,
                                   repeated, arms, masking)

struct StudyResult {
  std::string model;
  std::string fingerprint;
  uint64_t seed = 0;
  std::vector<double> budgets;
  int64_t random_directions = 0;
  std::vector<DataSetResult> data_sets;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StudyResult, model, fingerprint, seed, budgets, random_directions, data_sets)

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_STUDY_RESULTS_H_
