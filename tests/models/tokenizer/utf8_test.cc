#include "models/tokenizer/utf8.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

TEST(Utf8Test, ReplacesMaximalBrokenParts) {
  // As Python's bytes.decode("utf-8", "replace").
  const std::string r(kReplacementCharacter);
  EXPECT_EQ(ReplaceInvalidUtf8("a\xF0\x9F\x98z"), "a" + r + "z");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98"), r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), r + r + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\x80"), r + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x90\x80\x80"), r + r + r + r);
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x82\xE2\x82\xAC"), r + "\xE2\x82\xAC");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x8F\xBF\xBF"), "\xF4\x8F\xBF\xBF");
}

TEST(Utf8Test, HoldsBackOnlyWhatMoreBytesCouldComplete) {
  std::string out;
  EXPECT_EQ(AppendCompleteUtf8("ab\xE2\x82", out), 2u);
  EXPECT_EQ(out, "ab");
  EXPECT_EQ(AppendCompleteUtf8("\xE2\x28", out), 2u);  // can never be completed
  EXPECT_EQ(AppendCompleteUtf8("\xC0", out), 1u);
  EXPECT_EQ(AppendCompleteUtf8("\xE2\x82\xAC", out), 3u);
}

TEST(Utf8Test, Validity) {
  EXPECT_TRUE(IsValidUtf8(""));
  EXPECT_TRUE(IsValidUtf8("\xEF\xBF\xBF\xF0\x90\x80\x80"));
  EXPECT_FALSE(IsValidUtf8("\xE2\x82"));
  EXPECT_FALSE(IsValidUtf8("\xF8\x88\x80\x80\x80"));
}

}  // namespace
}  // namespace trimtab
