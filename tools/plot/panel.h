// Drawing of one panel, already checked (render.cc). One thread.
#ifndef TRIMTAB_TOOLS_PLOT_PANEL_H_
#define TRIMTAB_TOOLS_PLOT_PANEL_H_

#include <string>
#include <vector>

#include "tools/plot/canvas.h"
#include "tools/plot/chart.h"

namespace trimtab {

inline constexpr Color kInk = {0.13, 0.13, 0.13}, kGrid = {0.88, 0.88, 0.88}, kFrame = {0.45, 0.45, 0.45};
inline constexpr TextStyle kTickText = {.size = 11}, kAxisText = {.size = 12};
inline constexpr double kGap = 6;          // between texts and what they belong to
inline constexpr double kLineHeight = 18;  // of a row of text

// Colours that people with any colour vision tell apart (Okabe and Ito 2008), in the order of use, then again.
Color PaletteColor(int index);
Color Faded(Color color, double alpha);

struct LegendEntry {
  std::string name;
  Color color;
  bool box = false;  // a filled box in place of a line with its marker
  int shape = 0;
};

// The panel's title and legend, in rows at the top of `box`; returns what is left of it.
Box DrawHeader(Canvas& canvas, Box box, const std::string& title, const std::vector<LegendEntry>& legend);

void DrawLinePanel(Canvas& canvas, const Box& box, const LinePanel& panel);
void DrawBarPanel(Canvas& canvas, const Box& box, const BarPanel& panel);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_PLOT_PANEL_H_
