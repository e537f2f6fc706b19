#include "server/rpc/page_token.h"

#include <gtest/gtest.h>

#include <string>

namespace trimtab {
namespace {

TEST(PageToken, RoundTrip) {
  const PageTokenCodec codec("key");
  for (const std::string& cursor : {std::string("models/m/objectives/x"), std::string(), std::string("\0\xFF", 2)}) {
    const std::string token = codec.Encode("objectives models/m", cursor);
    EXPECT_EQ(codec.Decode("objectives models/m", token), cursor);
    EXPECT_EQ(PageTokenCodec("key").Decode("objectives models/m", token), cursor);
    EXPECT_EQ(token.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="),
              std::string::npos);
  }
}

TEST(PageToken, BelongsToOneListAndKey) {
  const PageTokenCodec codec("key");
  const std::string token = codec.Encode("objectives models/m", "x");
  EXPECT_FALSE(codec.Decode("objectives models/n", token));
  EXPECT_FALSE(codec.Decode("revisions models/m", token));
  EXPECT_FALSE(PageTokenCodec("other").Decode("objectives models/m", token));
  // Moving the border between scope and cursor does not help.
  EXPECT_FALSE(codec.Decode("objectives models/mx", codec.Encode("objectives models/m", "")));
}

TEST(PageToken, AnyChangeIsNoticed) {
  const PageTokenCodec codec("key");
  const std::string token = codec.Encode("s", "models/m/objectives/abc");
  for (size_t i = 0; i < token.size(); ++i) {
    for (const char c : {'A', 'b', '7', '_', '!'}) {
      if (token[i] == c) continue;
      std::string changed = token;
      changed[i] = c;
      // Unused low bits of the last character may decode to the same bytes.
      const auto cursor = codec.Decode("s", changed);
      if (cursor) {
        EXPECT_EQ(*cursor, "models/m/objectives/abc");
        EXPECT_GE(i + 2, token.size());
      }
    }
  }
  EXPECT_FALSE(codec.Decode("s", ""));
  EXPECT_FALSE(codec.Decode("s", "AAAA"));
  EXPECT_FALSE(codec.Decode("s", token + "AAAA"));
  EXPECT_FALSE(codec.Decode("s", token.substr(4)));
  EXPECT_FALSE(codec.Decode("s", std::string(100'000, 'A')));
}

}  // namespace
}  // namespace trimtab
