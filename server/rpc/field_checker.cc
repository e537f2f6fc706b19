#include "server/rpc/field_checker.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace trimtab {

// Well-formed per Unicode 15 table 3-7: no overlong forms, surrogates or values above U+10FFFF.
bool IsValidUtf8(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const auto* const end = p + text.size();
  while (p < end) {
    if (*p < 0x80) {
      ++p;
      continue;
    }
    int tail = 0;
    unsigned char low = 0x80, high = 0xBF;
    if (*p >= 0xC2 && *p <= 0xDF) {
      tail = 1;
    } else if (*p >= 0xE0 && *p <= 0xEF) {
      tail = 2;
      if (*p == 0xE0) low = 0xA0;
      if (*p == 0xED) high = 0x9F;
    } else if (*p >= 0xF0 && *p <= 0xF4) {
      tail = 3;
      if (*p == 0xF0) low = 0x90;
      if (*p == 0xF4) high = 0x8F;
    } else {
      return false;
    }
    if (end - p <= tail) return false;
    if (p[1] < low || p[1] > high) return false;
    for (int i = 2; i <= tail; ++i) {
      if (p[i] < 0x80 || p[i] > 0xBF) return false;
    }
    p += tail + 1;
  }
  return true;
}

void FieldChecker::Fail(std::string_view field, std::string_view description) {
  violations_.push_back({std::string(field), std::string(description)});
}

bool FieldChecker::Text(std::string_view field, std::string_view value, size_t min_bytes, size_t max_bytes) {
  if (value.size() < min_bytes && value.empty()) {
    Fail(field, "must not be empty");
  } else if (value.size() < min_bytes || value.size() > max_bytes) {
    Fail(field, absl::StrCat("must be ", min_bytes, " to ", max_bytes, " bytes, is ", value.size()));
  } else if (!IsValidUtf8(value)) {
    Fail(field, "must be UTF-8");
  } else {
    return true;
  }
  return false;
}

bool FieldChecker::Token(std::string_view field, std::string_view value, size_t max_bytes) {
  bool printable = true;
  for (const char c : value) printable = printable && c > 0x20 && c < 0x7F;
  if (printable && value.size() <= max_bytes) return true;
  Fail(field, absl::StrCat("must be at most ", max_bytes, " printable ASCII characters without blanks"));
  return false;
}

bool FieldChecker::Count(std::string_view field, int64_t count, int64_t min, int64_t max) {
  if (count >= min && count <= max) return true;
  if (min == 0) {
    Fail(field, absl::StrCat("must have at most ", max, " entries, has ", count));
  } else {
    Fail(field, absl::StrCat("must have ", min, " to ", max, " entries, has ", count));
  }
  return false;
}

bool FieldChecker::Integer(std::string_view field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return true;
  Fail(field, absl::StrCat("must be ", min, " to ", max, ", is ", value));
  return false;
}

bool FieldChecker::Number(std::string_view field, double value, double min, double max) {
  if (std::isfinite(value) && value >= min && value <= max) return true;
  Fail(field, absl::StrCat("must be a number from ", min, " to ", max, ", is ", value));
  return false;
}

bool FieldChecker::NumberAbove(std::string_view field, double value, double min, double max) {
  if (std::isfinite(value) && value > min && value <= max) return true;
  Fail(field, absl::StrCat("must be a number above ", min, " and at most ", max, ", is ", value));
  return false;
}

absl::Status FieldChecker::status() const { return ok() ? absl::OkStatus() : FieldError(violations_); }

}  // namespace trimtab
