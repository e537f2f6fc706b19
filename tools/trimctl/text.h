// Text for terminals: safe characters, colours, tables and numbers. Pure functions; any thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_TEXT_H_
#define TRIMTAB_TOOLS_TRIMCTL_TEXT_H_

#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace trimtab {

// Styles of the SGR escape sequence: "1" bold, "2" faint, "31" red and so on. Plain text when `color` is false.
std::string Styled(std::string_view text, std::string_view style, bool color);

// `text` without what could steer a terminal: control characters, also C1, become U+FFFD. Line feeds and tabs stay if
// `multi_line`; else they become "\n" and "\t" in two characters.
std::string Printable(std::string_view text, bool multi_line = false);

// Character cells of UTF-8 `text`, one for each code point.
size_t DisplayWidth(std::string_view text);

// At most `width` cells of `text`, ending with "..." when cut.
std::string Shorten(std::string_view text, size_t width);

// Lines of at most `width` cells, broken at spaces where possible and at line feeds always; at least one.
std::vector<std::string> Wrap(std::string_view text, size_t width);

// Rows in columns two spaces apart, each line ending with a line feed; the first row is the heading. Columns whose
// cells below the heading are all numbers are aligned right. Cells go through Printable.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows, bool color);

// "name:   value" lines, values aligned; pairs with an empty value are left out.
std::string FormatFields(const std::vector<std::pair<std::string, std::string>>& fields);

// The last part of a resource's name: "calm" of "models/m/objectives/calm".
std::string ShortName(std::string_view name);

// "+0.123" and "-0.045": always with a sign.
std::string Signed(double value, int digits = 3);

// "850 ms", "12.3 s", "4 min 5 s".
std::string FormatDuration(double seconds);
std::string FormatDuration(const google::protobuf::Duration& duration);

// "2026-11-24 09:30:00 UTC"; empty for an unset time.
std::string FormatTime(const google::protobuf::Timestamp& time);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_TEXT_H_
