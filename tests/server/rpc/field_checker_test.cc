#include "server/rpc/field_checker.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace trimtab {
namespace {

TEST(FieldChecker, FineValuesLeaveNoTrace) {
  FieldChecker checker;
  EXPECT_TRUE(checker.Text("a", "text", 1, 10));
  EXPECT_TRUE(checker.Token("b", "id-1", 10));
  EXPECT_TRUE(checker.Token("b", "", 10));
  EXPECT_TRUE(checker.Count("c", 3, 1, 3));
  EXPECT_TRUE(checker.Integer("d", -1, -1, 1));
  EXPECT_TRUE(checker.Number("e", 0, 0, 1));
  EXPECT_TRUE(checker.NumberAbove("f", 1, 0, 1));
  EXPECT_TRUE(checker.ok());
  EXPECT_TRUE(checker.status().ok());
}

TEST(FieldChecker, CollectsEveryViolation) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  FieldChecker checker;
  EXPECT_FALSE(checker.Text("a", "", 1, 10));
  EXPECT_FALSE(checker.Text("b", "12345", 1, 4));
  EXPECT_FALSE(checker.Text("c", "\xFF", 1, 4));
  EXPECT_FALSE(checker.Token("d", "has blank", 20));
  EXPECT_FALSE(checker.Token("e", "toolong", 3));
  EXPECT_FALSE(checker.Count("f", 5, 0, 4));
  EXPECT_FALSE(checker.Count("g", 0, 1, 4));
  EXPECT_FALSE(checker.Integer("h", 7, 0, 6));
  EXPECT_FALSE(checker.Number("i", kNan, 0, 1));
  EXPECT_FALSE(checker.Number("j", kInfinity, 0, kInfinity));
  EXPECT_FALSE(checker.NumberAbove("k", 0, 0, 1));
  EXPECT_FALSE(checker.NumberAbove("l", kNan, 0, 1));
  checker.Fail("m", "because");
  const ErrorDetail detail = GetErrorDetail(checker.status());
  EXPECT_EQ(detail.reason, "FIELD_INVALID");
  std::string fields;
  for (const FieldViolation& violation : detail.violations) {
    fields += violation.field;
    EXPECT_FALSE(violation.description.empty());
  }
  EXPECT_EQ(fields, "abcdefghijklm");
  EXPECT_EQ(detail.violations[0].description, "must not be empty");
  EXPECT_EQ(detail.violations[1].description, "must be 1 to 4 bytes, is 5");
}

}  // namespace
}  // namespace trimtab
