// From values to pixels, and where an axis has its ticks. Any thread.
#ifndef TRIMTAB_TOOLS_PLOT_SCALE_H_
#define TRIMTAB_TOOLS_PLOT_SCALE_H_

#include <string>
#include <vector>

#include "tools/plot/chart.h"

namespace trimtab {

struct Tick {
  double value = 0;
  std::string label;
};

// The stretch of an axis that is drawn.
class Scale {
 public:
  // Covers `values` (not empty) and the axis' own limits, where it has them.
  Scale(const Axis& axis, const std::vector<double>& values);

  double low() const { return low_; }
  double high() const { return high_; }
  // Place of `value` along the axis: 0 at low(), 1 at high().
  double Fraction(double value) const;
  bool Contains(double value) const { return value >= low_ && value <= high_; }
  // At most about `count` round values within the scale; at least two.
  std::vector<Tick> Ticks(int count) const;

 private:
  bool logarithmic_ = false;
  double low_ = 0, high_ = 1;
};

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_PLOT_SCALE_H_
