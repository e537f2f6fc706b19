#include <algorithm>
#include <cstddef>

#include "tools/plot/panel.h"
#include "tools/plot/scale.h"

namespace trimtab {
namespace {

constexpr double kBarShare = 0.76;  // of a category's height, for its bars

Scale ValueScale(const BarPanel& panel) {
  std::vector<double> values = {0};
  for (const BarSeries& series : panel.series) {
    for (const auto* numbers : {&series.values, &series.low, &series.high}) {
      values.insert(values.end(), numbers->begin(), numbers->end());
    }
  }
  return Scale(panel.value, values);
}

}  // namespace

void DrawBarPanel(Canvas& canvas, const Box& whole, const BarPanel& panel) {
  std::vector<LegendEntry> legend;
  for (size_t s = 0; s < panel.series.size(); ++s) {
    if (panel.series[s].name.empty()) continue;
    legend.push_back({.name = panel.series[s].name, .color = PaletteColor(static_cast<int>(s)), .box = true});
  }
  Box box = DrawHeader(canvas, whole, panel.title, legend);
  box.bottom -= kLineHeight + kGap + (panel.value.title.empty() ? 0 : kLineHeight);
  double names = 0;
  for (const std::string& category : panel.categories) names = std::max(names, canvas.TextWidth(category, kTickText));
  box.left += std::min(names, whole.width() * 0.6) + kGap;
  box.right -= 3 * kGap;

  const Scale scale = ValueScale(panel);
  const auto x = [&](double value) { return box.left + scale.Fraction(value) * box.width(); };
  TextStyle style = kTickText;
  style.align = Align::kCenter;
  for (const Tick& tick : scale.Ticks(std::max(2, static_cast<int>(box.width() / 80)))) {
    canvas.Line({{x(tick.value), box.top}, {x(tick.value), box.bottom}}, kGrid, 1);
    canvas.Text(tick.label, {x(tick.value), box.bottom + kGap + 6}, style);
  }
  style = kAxisText;
  style.align = Align::kCenter;
  canvas.Text(panel.value.title, {(box.left + box.right) / 2, box.bottom + kLineHeight + kGap + 6}, style);

  const double row = box.height() / static_cast<double>(panel.categories.size());
  const double thickness = row * kBarShare / static_cast<double>(panel.series.size());
  canvas.Clip(box);
  for (size_t c = 0; c < panel.categories.size(); ++c) {
    const double first = box.top + row * static_cast<double>(c) + row * (1 - kBarShare) / 2;
    for (size_t s = 0; s < panel.series.size(); ++s) {
      const BarSeries& series = panel.series[s];
      const double top = first + thickness * static_cast<double>(s), middle = top + thickness / 2;
      const double zero = x(std::clamp(0.0, scale.low(), scale.high())), end = x(series.values[c]);
      canvas.FillBox({std::min(zero, end), top + 0.5, std::max(zero, end), top + thickness - 0.5},
                     PaletteColor(static_cast<int>(s)));
      if (series.low.empty()) continue;
      const double low = x(series.low[c]), high = x(series.high[c]), cap = std::min(4.0, thickness / 3);
      canvas.Line({{low, middle}, {high, middle}}, kInk, 1.2);
      for (double at : {low, high}) canvas.Line({{at, middle - cap}, {at, middle + cap}}, kInk, 1.2);
    }
  }
  canvas.Unclip();
  if (scale.Contains(0)) canvas.Line({{x(0), box.top}, {x(0), box.bottom}}, kFrame, 1.2);
  style = kTickText;
  style.align = Align::kEnd;
  for (size_t c = 0; c < panel.categories.size(); ++c) {
    canvas.Text(panel.categories[c], {box.left - kGap, box.top + row * (static_cast<double>(c) + 0.5)}, style);
  }
  canvas.Outline(box, kFrame, 1);
}

}  // namespace trimtab
