// What a picture shows: line charts with bands or error bars, and bars with intervals, one or more panels to a picture.
// Plain data; RenderPng (render.h) draws it. Any thread.
#ifndef TRIMTAB_TOOLS_PLOT_CHART_H_
#define TRIMTAB_TOOLS_PLOT_CHART_H_

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace trimtab {

// All numbers must be finite. Texts are UTF-8.
struct Axis {
  std::string title;
  std::optional<double> low, high;  // unset: from the data, with some room
  bool logarithmic = false;         // all values above 0
};

// Points in order of `x`, with an interval of each where `low` and `high` are given (as many as points).
struct Series {
  enum class Interval { kBand, kErrorBars };

  std::string name;  // in the legend; empty: not there
  std::vector<double> x, y;
  std::vector<double> low, high;
  Interval interval = Interval::kBand;
  bool line = true;          // join the points
  bool right_axis = false;   // belongs to LinePanel::right
  std::optional<int> color;  // of the palette, from 0; unset: the place among the panel's series
};

// A dashed line upright at `x`.
struct Mark {
  double x = 0;
  std::string label;
};

// A shaded stretch of the x axis.
struct Range {
  double low = 0, high = 0;
  std::string label;  // in the legend; empty: not there
};

struct LinePanel {
  std::string title;
  Axis x, left, right;
  std::vector<Series> series;  // at least one
  std::vector<Mark> marks;
  std::vector<Range> ranges;
};

// One value for each category, with an interval where `low` and `high` are given.
struct BarSeries {
  std::string name;
  std::vector<double> values;
  std::vector<double> low, high;
};

// Bars that lie, from 0, the first category on top: long names stay readable.
struct BarPanel {
  std::string title;
  Axis value;                           // not logarithmic
  std::vector<std::string> categories;  // at least one
  std::vector<BarSeries> series;        // at least one
};

struct Picture {
  std::string title;
  int width = 900, height = 480;                          // pixels, 64 to 8192
  int columns = 1;                                        // of panels, filled row by row
  std::vector<std::variant<LinePanel, BarPanel>> panels;  // at least one
};

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_PLOT_CHART_H_
