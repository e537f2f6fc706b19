// Means with intervals, and how much a text repeats itself. No torch. Any thread.
#ifndef TRIMTAB_TOOLS_STUDY_STATISTICS_H_
#define TRIMTAB_TOOLS_STUDY_STATISTICS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

namespace trimtab {

// A mean over pairs (or texts) with two 95 % intervals: Student's t, and the percentile bootstrap, which does not
// assume that the values are normal.
struct Estimate {
  int64_t count = 0;
  double mean = 0;
  double low = 0, high = 0;
  double bootstrap_low = 0, bootstrap_high = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Estimate, count, mean, low, high, bootstrap_low, bootstrap_high)

// Of no values: zeros. The bootstrap resamples 2,000 times; the same seed gives the same numbers.
Estimate EstimateMean(const std::vector<double>& values, uint64_t seed);
// Element by element; the same size.
std::vector<double> Differences(const std::vector<double>& after, const std::vector<double>& before);
// 1 where a margin is above 0, else 0.
std::vector<double> Hits(const std::vector<double>& margins);

// Share of the text's n-grams that occurred before in it, n = 3: 0 for a text that never repeats itself, near 1 for one
// that goes round in circles. 0 when it has no n-gram.
double RepeatedShare(const std::vector<int32_t>& tokens);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_STUDY_STATISTICS_H_
