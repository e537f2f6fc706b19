#include "tools/plot/render.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "tools/plot/canvas.h"
#include "tools/plot/panel.h"

namespace trimtab {
namespace {

constexpr double kMargin = 10;
constexpr double kMinPanel = 60;  // pixels that a panel takes at least, either way

absl::Status Bad(std::string_view where, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(where), " ", std::string(what)));
}

absl::Status CheckNumbers(const std::string& where, const std::vector<double>& values, bool positive) {
  for (double value : values) {
    if (!std::isfinite(value)) return Bad(where, "has a value that is not finite");
    if (positive && value <= 0) return Bad(where, "has a value that is not above 0 on a logarithmic axis");
  }
  return absl::OkStatus();
}

absl::Status CheckInterval(const std::string& where, const std::vector<double>& low, const std::vector<double>& high,
                           size_t count) {
  if (low.size() != high.size() || (!low.empty() && low.size() != count)) {
    return Bad(where, "must have an interval for all values or for none");
  }
  for (size_t i = 0; i < low.size(); ++i) {
    if (low[i] > high[i]) return Bad(where, "has an interval that ends before it begins");
  }
  return absl::OkStatus();
}

absl::Status CheckAxis(const std::string& where, const Axis& axis) {
  std::vector<double> limits;
  if (axis.low) limits.push_back(*axis.low);
  if (axis.high) limits.push_back(*axis.high);
  TRIMTAB_RETURN_IF_ERROR(CheckNumbers(where, limits, axis.logarithmic));
  if (axis.low && axis.high && !(*axis.low < *axis.high)) return Bad(where, "must end above where it begins");
  return absl::OkStatus();
}

absl::Status Check(const std::string& where, const LinePanel& panel) {
  if (panel.series.empty()) return Bad(where, "has no series");
  TRIMTAB_RETURN_IF_ERROR(CheckAxis(absl::StrCat(where, ".x"), panel.x));
  TRIMTAB_RETURN_IF_ERROR(CheckAxis(absl::StrCat(where, ".left"), panel.left));
  TRIMTAB_RETURN_IF_ERROR(CheckAxis(absl::StrCat(where, ".right"), panel.right));
  for (size_t s = 0; s < panel.series.size(); ++s) {
    const Series& series = panel.series[s];
    const std::string name = absl::StrCat(where, ".series[", s, "]");
    const bool log_y = series.right_axis ? panel.right.logarithmic : panel.left.logarithmic;
    if (series.x.empty()) return Bad(name, "is empty");
    if (series.x.size() != series.y.size()) return Bad(name, "must have as many x as y");
    if (series.color && *series.color < 0) return Bad(name, "must have a color from 0 on");
    TRIMTAB_RETURN_IF_ERROR(CheckNumbers(absl::StrCat(name, ".x"), series.x, panel.x.logarithmic));
    for (const auto* values : {&series.y, &series.low, &series.high}) {
      TRIMTAB_RETURN_IF_ERROR(CheckNumbers(name, *values, log_y));
    }
    TRIMTAB_RETURN_IF_ERROR(CheckInterval(name, series.low, series.high, series.y.size()));
  }
  for (const Mark& mark : panel.marks) {
    TRIMTAB_RETURN_IF_ERROR(CheckNumbers(absl::StrCat(where, ".marks"), {mark.x}, panel.x.logarithmic));
  }
  for (const Range& range : panel.ranges) {
    TRIMTAB_RETURN_IF_ERROR(CheckNumbers(absl::StrCat(where, ".ranges"), {range.low, range.high}, panel.x.logarithmic));
    if (range.low > range.high) return Bad(absl::StrCat(where, ".ranges"), "has a range that ends before it begins");
  }
  return absl::OkStatus();
}

absl::Status Check(const std::string& where, const BarPanel& panel) {
  if (panel.categories.empty()) return Bad(where, "has no categories");
  if (panel.series.empty()) return Bad(where, "has no series");
  if (panel.value.logarithmic) return Bad(where, "has bars on a logarithmic axis");
  TRIMTAB_RETURN_IF_ERROR(CheckAxis(absl::StrCat(where, ".value"), panel.value));
  for (size_t s = 0; s < panel.series.size(); ++s) {
    const BarSeries& series = panel.series[s];
    const std::string name = absl::StrCat(where, ".series[", s, "]");
    if (series.values.size() != panel.categories.size()) return Bad(name, "must have one value for each category");
    for (const auto* values : {&series.values, &series.low, &series.high}) {
      TRIMTAB_RETURN_IF_ERROR(CheckNumbers(name, *values, false));
    }
    TRIMTAB_RETURN_IF_ERROR(CheckInterval(name, series.low, series.high, series.values.size()));
  }
  return absl::OkStatus();
}

void Draw(Canvas& canvas, const Box& box, const LinePanel& panel) { DrawLinePanel(canvas, box, panel); }
void Draw(Canvas& canvas, const Box& box, const BarPanel& panel) { DrawBarPanel(canvas, box, panel); }

}  // namespace

absl::StatusOr<std::string> RenderPng(const Picture& picture) {
  if (std::min(picture.width, picture.height) < 64 || std::max(picture.width, picture.height) > 8192) {
    return absl::InvalidArgumentError("a picture's width and height must be 64 to 8192");
  }
  if (picture.panels.empty()) return absl::InvalidArgumentError("a picture must have a panel");
  if (picture.columns < 1) return absl::InvalidArgumentError("a picture must have at least one column");
  for (size_t p = 0; p < picture.panels.size(); ++p) {
    TRIMTAB_RETURN_IF_ERROR(std::visit([&](const auto& panel) { return Check(absl::StrCat("panels[", p, "]"), panel); },
                                       picture.panels[p]));
  }
  const auto count = static_cast<int>(picture.panels.size());
  const int columns = std::min(picture.columns, count), rows = (count + columns - 1) / columns;
  Box sheet{kMargin, kMargin, picture.width - kMargin, picture.height - kMargin};
  if (!picture.title.empty()) sheet.top += 26;
  const double width = (sheet.width() - kMargin * (columns - 1)) / columns;
  const double height = (sheet.height() - kMargin * (rows - 1)) / rows;
  if (std::min(width, height) < kMinPanel) return absl::InvalidArgumentError("the picture is too small for its panels");

  TRIMTAB_ASSIGN_OR_RETURN(Canvas canvas, Canvas::Create(picture.width, picture.height));
  canvas.Text(picture.title, {picture.width / 2.0, kMargin + 10}, {.size = 15, .bold = true, .align = Align::kCenter});
  for (int p = 0; p < count; ++p) {
    const double left = sheet.left + (width + kMargin) * (p % columns);
    const double top = sheet.top + (height + kMargin) * (p / columns);
    std::visit(
        [&](const auto& panel) {
          Draw(canvas, {left, top, left + width, top + height}, panel);
        },
        picture.panels[static_cast<size_t>(p)]);
  }
  return canvas.EncodePng();
}

absl::Status WritePng(const Picture& picture, const std::string& path) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::string png, RenderPng(picture));
  const std::string unfinished = path + ".part";
  std::ofstream file(unfinished, std::ios::binary | std::ios::trunc);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be written"));
  file.write(png.data(), static_cast<std::streamsize>(png.size()));
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(unfinished, path, error);
  if (!file || error) {
    std::remove(unfinished.c_str());
    return absl::PermissionDeniedError(absl::StrCat(path, ": cannot be written"));
  }
  return absl::OkStatus();
}

}  // namespace trimtab
