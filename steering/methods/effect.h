// Paired statistics of what steering does to margins. No torch. Any thread.
#ifndef TRIMTAB_STEERING_METHODS_EFFECT_H_
#define TRIMTAB_STEERING_METHODS_EFFECT_H_

#include <vector>

#include "steering/steering_method.h"

namespace trimtab {

// A mean with its two-sided 95 % interval (Student's t); the interval is the mean itself below two values.
struct MeanInterval {
  double mean = 0;
  double low = 0, high = 0;
};
MeanInterval MeanWithInterval(const std::vector<double>& values);

// Two-sided 95 % quantile of Student's t (Cornish-Fisher expansion; within 1 % from 4 degrees of freedom on, exact
// table values below).
double StudentT95(int degrees_of_freedom);

// `before` and `after`: margins of the same pairs, nats per token, in order.
EffectSummary SummarizeEffect(const std::vector<double>& before, const std::vector<double>& after);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_EFFECT_H_
