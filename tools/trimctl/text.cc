#include "tools/trimctl/text.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace trimtab {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Whether a table's cell reads as a number, so that its column is aligned right.
bool IsNumeric(std::string_view cell) {
  if (cell.empty() || cell == "-") return true;
  const size_t digit = cell.find_first_of("0123456789");
  return digit <= 1 && cell.find_first_not_of("0123456789+-.,% ±") == std::string_view::npos;
}

// Byte offset after `cells` code points, at most the text's size.
size_t OffsetOf(std::string_view text, size_t cells) {
  size_t offset = 0;
  while (offset < text.size()) {
    if (!IsContinuation(text[offset]) && cells-- == 0) break;
    ++offset;
  }
  return offset;
}

}  // namespace

std::string Styled(std::string_view text, std::string_view style, bool color) {
  if (!color || text.empty() || style.empty()) return std::string(text);
  return absl::StrCat("\033[", std::string(style), "m", std::string(text), "\033[0m");
}

std::string Printable(std::string_view text, bool multi_line) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0 &&
                    IsContinuation(text[i + 1]);
    if (c == '\n' || c == '\t') {
      out += multi_line ? std::string(1, text[i]) : (c == '\n' ? "\\n" : "\\t");
    } else if (c < 0x20 || c == 0x7F || c1) {
      out += "\uFFFD";
      if (c1) ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

size_t DisplayWidth(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); }));
}

std::string Shorten(std::string_view text, size_t width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  const size_t kept = width > 3 ? width - 3 : 0;
  return absl::StrCat(std::string(text.substr(0, OffsetOf(text, kept))), std::string(width - kept, '.'));
}

std::vector<std::string> Wrap(std::string_view text, size_t width) {
  std::vector<std::string> lines;
  while (true) {
    const size_t fits = OffsetOf(text, width);
    const size_t feed = text.find('\n');
    if (feed <= fits && feed != std::string_view::npos) {
      lines.emplace_back(text.substr(0, feed));
      text.remove_prefix(feed + 1);
      continue;
    }
    if (fits == text.size()) {
      lines.emplace_back(text);
      return lines;
    }
    const size_t space = text.substr(0, fits + 1).rfind(' ');
    const bool at_space = space != std::string_view::npos && space > 0;
    lines.emplace_back(text.substr(0, at_space ? space : fits));
    text.remove_prefix(at_space ? space + 1 : fits);
  }
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows, bool color) {
  std::vector<size_t> widths;
  std::vector<bool> numeric;
  std::vector<std::vector<std::string>> cells;
  for (const std::vector<std::string>& row : rows) {
    std::vector<std::string>& safe = cells.emplace_back();
    for (const std::string& cell : row) safe.push_back(Printable(cell));
  }
  for (size_t r = 0; r < cells.size(); ++r) {
    widths.resize(std::max(widths.size(), cells[r].size()), 0);
    numeric.resize(widths.size(), true);
    for (size_t c = 0; c < cells[r].size(); ++c) {
      widths[c] = std::max(widths[c], DisplayWidth(cells[r][c]));
      if (r > 0 && !IsNumeric(cells[r][c])) numeric[c] = false;
    }
  }
  std::string out;
  for (size_t r = 0; r < cells.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < cells[r].size(); ++c) {
      const std::string space(widths[c] - DisplayWidth(cells[r][c]), ' ');
      absl::StrAppend(&line, c == 0 ? "" : "  ", numeric[c] ? space : "", cells[r][c], numeric[c] ? "" : space);
    }
    absl::StripTrailingAsciiWhitespace(&line);
    absl::StrAppend(&out, r == 0 ? Styled(line, "1", color) : line, "\n");
  }
  return out;
}

std::string FormatFields(const std::vector<std::pair<std::string, std::string>>& fields) {
  size_t width = 0;
  for (const auto& [name, value] : fields) {
    if (!value.empty()) width = std::max(width, DisplayWidth(name));
  }
  std::string out;
  for (const auto& [name, value] : fields) {
    if (value.empty()) continue;
    absl::StrAppend(&out, name, ":", std::string(width - DisplayWidth(name) + 2, ' '), Printable(value), "\n");
  }
  return out;
}

std::string ShortName(std::string_view name) {
  return std::string(name.substr(name.rfind('/') == std::string_view::npos ? 0 : name.rfind('/') + 1));
}

std::string Signed(double value, int digits) { return absl::StrFormat("%+.*f", digits, value); }

std::string FormatDuration(double seconds) {
  if (seconds < 1) return absl::StrFormat("%.0f ms", std::max(0.0, seconds) * 1e3);
  if (seconds < 60) return absl::StrFormat("%.1f s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  return absl::StrFormat("%d min %d s", whole / 60, whole % 60);
}

std::string FormatDuration(const google::protobuf::Duration& duration) {
  return FormatDuration(static_cast<double>(duration.seconds()) + 1e-9 * duration.nanos());
}

std::string FormatTime(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0 && time.nanos() == 0) return "";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::FromUnixSeconds(time.seconds()), absl::UTCTimeZone());
}

}  // namespace trimtab
