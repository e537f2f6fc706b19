#include "server/rpc/field_checker.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/utf8.h"

namespace trimtab {

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
