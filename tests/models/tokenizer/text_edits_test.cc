#include "models/tokenizer/text_edits.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

TEST(TextEditsTest, WithoutEditsPlacesStay) {
  EXPECT_TRUE(TextEdits().empty());
  EXPECT_EQ(TextEdits().ToOld({2, 5}), (TextRange{2, 5}));
}

TEST(TextEditsTest, PlacesAfterLongerAndShorterReplacements) {
  TextEditor editor("a bc  d");
  editor.Replace({1, 2}, "___");  // longer
  editor.Replace({4, 6}, "");     // gone
  EXPECT_EQ(editor.Finish(), "a___bcd");
  const TextEdits& edits = editor.edits();
  EXPECT_EQ(edits.ToOld({0, 1}), (TextRange{0, 1}));
  EXPECT_EQ(edits.ToOld({1, 4}), (TextRange{1, 2}));
  EXPECT_EQ(edits.ToOld({2, 3}), (TextRange{1, 2}));  // a part of a replacement stands for all that it replaced
  EXPECT_EQ(edits.ToOld({3, 6}), (TextRange{1, 4}));
  EXPECT_EQ(edits.ToOld({6, 7}), (TextRange{6, 7}));
  EXPECT_EQ(edits.ToOld({4, 7}), (TextRange{2, 7}));
  EXPECT_EQ(edits.ToOld({7, 7}), (TextRange{7, 7}));
}

TEST(TextEditsTest, InsertedTextStandsForNothing) {
  TextEditor editor("xy");
  editor.Replace({0, 0}, "_");
  EXPECT_EQ(editor.Finish(), "_xy");
  EXPECT_EQ(editor.edits().ToOld({0, 1}), (TextRange{0, 0}));
  EXPECT_EQ(editor.edits().ToOld({0, 2}), (TextRange{0, 1}));
  EXPECT_EQ(editor.edits().ToOld({1, 3}), (TextRange{0, 2}));
}

}  // namespace
}  // namespace trimtab
