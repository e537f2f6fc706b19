#include "tools/plot/panel.h"

#include <cstddef>

namespace trimtab {

Color PaletteColor(int index) {
  constexpr Color kColors[] = {{0.000, 0.447, 0.698}, {0.835, 0.369, 0.000}, {0.000, 0.620, 0.451},
                               {0.800, 0.475, 0.655}, {0.902, 0.624, 0.000}, {0.337, 0.706, 0.914},
                               {0.350, 0.350, 0.350}};
  return kColors[static_cast<size_t>(index) % std::size(kColors)];
}

Color Faded(Color color, double alpha) {
  color.alpha = alpha;
  return color;
}

Box DrawHeader(Canvas& canvas, Box box, const std::string& title, const std::vector<LegendEntry>& legend) {
  constexpr double kKeyWidth = 26, kBetween = 16;
  if (!title.empty()) {
    canvas.Text(title, {(box.left + box.right) / 2, box.top + kLineHeight / 2},
                {.size = 13, .bold = true, .align = Align::kCenter});
    box.top += kLineHeight + 2;
  }
  double x = box.left;
  for (const LegendEntry& entry : legend) {
    const double width = kKeyWidth + canvas.TextWidth(entry.name, kTickText);
    if (x > box.left && x + width > box.right) {
      x = box.left;
      box.top += kLineHeight;
    }
    const double y = box.top + kLineHeight / 2;
    if (entry.box) {
      canvas.FillBox({x, y - 5, x + kKeyWidth - kGap, y + 5}, entry.color);
    } else {
      canvas.Line({{x, y}, {x + kKeyWidth - kGap, y}}, entry.color, 2);
      canvas.Marker(entry.shape, {x + (kKeyWidth - kGap) / 2, y}, 3.5, entry.color);
    }
    canvas.Text(entry.name, {x + kKeyWidth, y}, kTickText);
    x += width + kBetween;
  }
  if (!legend.empty()) box.top += kLineHeight;
  box.top += kGap;
  return box;
}

}  // namespace trimtab
