#include <algorithm>
#include <cstddef>

#include "tools/plot/panel.h"
#include "tools/plot/scale.h"

namespace trimtab {
namespace {

// An upright axis and what it takes up beside the plot.
struct Side {
  Scale scale;
  std::vector<Tick> ticks;
  double width = 0;
};

Side MakeSide(Canvas& canvas, const LinePanel& panel, bool right, double height) {
  std::vector<double> values;
  for (const Series& series : panel.series) {
    if (series.right_axis != right) continue;
    for (const auto* numbers : {&series.y, &series.low, &series.high}) {
      values.insert(values.end(), numbers->begin(), numbers->end());
    }
  }
  const Axis& axis = right ? panel.right : panel.left;
  Side side{.scale = Scale(axis, values)};
  side.ticks = side.scale.Ticks(std::max(2, static_cast<int>(height / 42)));
  for (const Tick& tick : side.ticks) side.width = std::max(side.width, canvas.TextWidth(tick.label, kTickText));
  side.width += 2 * kGap + (axis.title.empty() ? 0 : kLineHeight);
  return side;
}

Scale XScale(const LinePanel& panel) {
  std::vector<double> values;
  for (const Series& series : panel.series) values.insert(values.end(), series.x.begin(), series.x.end());
  for (const Mark& mark : panel.marks) values.push_back(mark.x);
  for (const Range& range : panel.ranges) values.insert(values.end(), {range.low, range.high});
  return Scale(panel.x, values);
}

// Positions in the plot's box.
struct Place {
  const Box& box;
  const Scale& x;
  const Scale& y;
  double X(double value) const { return box.left + x.Fraction(value) * box.width(); }
  double Y(double value) const { return box.bottom - y.Fraction(value) * box.height(); }
  Point At(double px, double py) const { return {X(px), Y(py)}; }
};

Color ColorOf(const LinePanel& panel, size_t index) {
  return PaletteColor(panel.series[index].color.value_or(static_cast<int>(index)));
}

void DrawInterval(Canvas& canvas, const Series& series, const Place& place, const Color& color) {
  constexpr double kCap = 4;
  if (series.low.empty()) return;
  if (series.interval == Series::Interval::kBand) {
    std::vector<Point> outline;
    for (size_t i = 0; i < series.x.size(); ++i) outline.push_back(place.At(series.x[i], series.low[i]));
    for (size_t i = series.x.size(); i-- > 0;) outline.push_back(place.At(series.x[i], series.high[i]));
    canvas.Fill(outline, Faded(color, 0.18));
    return;
  }
  for (size_t i = 0; i < series.x.size(); ++i) {
    const Point low = place.At(series.x[i], series.low[i]), high = place.At(series.x[i], series.high[i]);
    canvas.Line({low, high}, color, 1.5);
    for (const Point& end : {low, high}) canvas.Line({{end.x - kCap, end.y}, {end.x + kCap, end.y}}, color, 1.5);
  }
}

void DrawSeries(Canvas& canvas, const Series& series, const Place& place, const Color& color, int shape) {
  std::vector<Point> points;
  for (size_t i = 0; i < series.x.size(); ++i) points.push_back(place.At(series.x[i], series.y[i]));
  if (series.line) canvas.Line(points, color, 2);
  for (const Point& point : points) canvas.Marker(shape, point, 3.5, color);
}

}  // namespace

void DrawLinePanel(Canvas& canvas, const Box& whole, const LinePanel& panel) {
  std::vector<LegendEntry> legend;
  for (size_t s = 0; s < panel.series.size(); ++s) {
    if (panel.series[s].name.empty()) continue;
    legend.push_back({.name = panel.series[s].name, .color = ColorOf(panel, s), .shape = static_cast<int>(s)});
  }
  const Color range_color = {0.95, 0.95, 0.87};
  for (const Range& range : panel.ranges) {
    if (!range.label.empty()) legend.push_back({.name = range.label, .color = range_color, .box = true});
  }
  Box box = DrawHeader(canvas, whole, panel.title, legend);
  box.bottom -= kLineHeight + kGap + (panel.x.title.empty() ? 0 : kLineHeight);
  const bool two_axes =
      std::any_of(panel.series.begin(), panel.series.end(), [](const Series& series) { return series.right_axis; });
  const bool has_left =
      std::any_of(panel.series.begin(), panel.series.end(), [](const Series& series) { return !series.right_axis; });
  const Side left = MakeSide(canvas, panel, !has_left, box.height());
  const Side right = two_axes ? MakeSide(canvas, panel, true, box.height()) : left;
  const Axis& left_axis = has_left ? panel.left : panel.right;
  box.left += left.width;
  box.right -= two_axes && has_left ? right.width : 3 * kGap;

  const Scale x = XScale(panel);
  const Place on_left{box, x, left.scale}, on_right{box, x, right.scale};
  for (const Range& range : panel.ranges) {
    canvas.FillBox({on_left.X(range.low), box.top, on_left.X(range.high), box.bottom}, range_color);
  }
  for (const Tick& tick : left.ticks) {
    const double y = on_left.Y(tick.value);
    canvas.Line({{box.left, y}, {box.right, y}}, kGrid, 1);
    TextStyle style = kTickText;
    style.align = Align::kEnd;
    canvas.Text(tick.label, {box.left - kGap, y}, style);
  }
  if (two_axes && has_left) {
    for (const Tick& tick : right.ticks) {
      const double y = on_right.Y(tick.value);
      canvas.Line({{box.right, y}, {box.right + 4, y}}, kFrame, 1);
      canvas.Text(tick.label, {box.right + kGap, y}, kTickText);
    }
    TextStyle style = kAxisText;
    style.align = Align::kCenter;
    style.upward = true;
    canvas.Text(panel.right.title, {box.right + right.width - kLineHeight / 2, (box.top + box.bottom) / 2}, style);
  }
  TextStyle centered = kTickText;
  centered.align = Align::kCenter;
  for (const Tick& tick : x.Ticks(std::max(2, static_cast<int>(box.width() / 80)))) {
    canvas.Line({{on_left.X(tick.value), box.top}, {on_left.X(tick.value), box.bottom}}, kGrid, 1);
    canvas.Text(tick.label, {on_left.X(tick.value), box.bottom + kGap + 6}, centered);
  }
  if (left.scale.Contains(0)) canvas.Line({{box.left, on_left.Y(0)}, {box.right, on_left.Y(0)}}, kFrame, 1);
  TextStyle title = kAxisText;
  title.align = Align::kCenter;
  canvas.Text(panel.x.title, {(box.left + box.right) / 2, box.bottom + kLineHeight + kGap + 6}, title);
  title.upward = true;
  canvas.Text(left_axis.title, {whole.left + kLineHeight / 2, (box.top + box.bottom) / 2}, title);

  // Limits that the caller set may cut the data off.
  canvas.Clip(box);
  for (size_t s = 0; s < panel.series.size(); ++s) {
    DrawInterval(canvas, panel.series[s], panel.series[s].right_axis ? on_right : on_left, ColorOf(panel, s));
  }
  canvas.Unclip();
  canvas.Clip({box.left - 5, box.top - 5, box.right + 5, box.bottom + 5});
  for (const Mark& mark : panel.marks) {
    canvas.Line({{on_left.X(mark.x), box.top}, {on_left.X(mark.x), box.bottom}}, kInk, 1.2, /*dashed=*/true);
  }
  for (size_t s = 0; s < panel.series.size(); ++s) {
    DrawSeries(canvas, panel.series[s], panel.series[s].right_axis ? on_right : on_left, ColorOf(panel, s),
               static_cast<int>(s));
  }
  canvas.Unclip();
  double label_y = box.top + kLineHeight / 2;
  for (const Mark& mark : panel.marks) {
    const double at = on_left.X(mark.x);
    const bool before = at > (box.left + box.right) / 2;
    TextStyle style = kTickText;
    style.align = before ? Align::kEnd : Align::kStart;
    canvas.Text(mark.label, {before ? at - kGap : at + kGap, label_y}, style);
    label_y += kLineHeight;
  }
  canvas.Outline(box, kFrame, 1);
}

}  // namespace trimtab
