#include "server/base/hash.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

// FIPS 180-4, examples.
TEST(HashTest, MatchesPublishedDigests) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(HashTest, PartsGiveTheSameDigestAsTheWhole) {
  EXPECT_EQ(Sha256().Update("ab").Update("").Update("c").FinishHex(), Sha256Hex("abc"));
}

TEST(HashTest, FieldsAreKeptApart) {
  const auto digest = [](std::string_view a, std::string_view b) {
    return Sha256().UpdateField(a).UpdateField(b).FinishHex();
  };
  EXPECT_NE(digest("ab", "c"), digest("a", "bc"));
  EXPECT_NE(digest("", "a"), digest("a", ""));
  EXPECT_EQ(digest("ab", "c"), digest("ab", "c"));
}

TEST(HashTest, TheShortDigestIsTheBeginningOfTheLongOne) {
  const Digest128 digest = Sha256().Update("abc").Finish128();
  EXPECT_EQ(ToHex(digest.data(), sizeof(digest)), Sha256Hex("abc").substr(0, 32));
}

TEST(HashTest, HexHasTwoLowerCaseDigitsPerByte) {
  const unsigned char bytes[] = {0x00, 0x0f, 0xa5, 0xff};
  EXPECT_EQ(ToHex(bytes, sizeof(bytes)), "000fa5ff");
  EXPECT_EQ(ToHex(bytes, 0), "");
}

}  // namespace
}  // namespace trimtab
