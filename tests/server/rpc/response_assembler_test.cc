#include "server/rpc/response_assembler.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/rpc/fake_model.h"

namespace trimtab {
namespace {

struct Assembled {
  std::vector<std::string> pieces;  // per token, then what Flush released
  std::string text;
  bool stopped = false;
};

Assembled Assemble(const std::string& bytes, std::vector<std::string> stops) {
  const FakeModel model;
  ResponseAssembler assembler(model, std::move(stops), {FakeModel::kEnd}, false);
  Assembled result;
  for (const char c : bytes) {
    v1::GenerateResponse piece;
    assembler.Push({.token = static_cast<unsigned char>(c)}, piece);
    result.pieces.push_back(piece.text());
  }
  v1::GenerateResponse last;
  assembler.Flush(last);
  result.pieces.push_back(last.text());
  for (const std::string& piece : result.pieces) result.text += piece;
  result.stopped = assembler.stopped();
  return result;
}

TEST(ResponseAssembler, TextComesAtOnceAndInWholeCharacters) {
  const Assembled plain = Assemble("a\xC3\xA4", {});
  EXPECT_EQ(plain.pieces, (std::vector<std::string>{"a", "", "\xC3\xA4", ""}));
  EXPECT_FALSE(plain.stopped);
  const Assembled broken = Assemble("a\xC3", {});
  EXPECT_EQ(broken.text, "a\xEF\xBF\xBD");
}

TEST(ResponseAssembler, HoldsBackWhatMayBeAStopSequence) {
  const Assembled found = Assemble("hello\n\nworld", {"\n\n"});
  EXPECT_EQ(found.text, "hello");
  EXPECT_TRUE(found.stopped);
  const Assembled almost = Assemble("a\nb\n", {"\n\n"});
  EXPECT_EQ(almost.pieces, (std::vector<std::string>{"a", "", "\nb", "", "\n"}));
  EXPECT_FALSE(almost.stopped);
  EXPECT_EQ(Assemble("xababac", {"abac", "zz"}).text, "xab");
  EXPECT_EQ(Assemble("STOP", {"STOP"}).text, "");
}

TEST(ResponseAssembler, TokensAfterAStopAreIgnored) {
  const FakeModel model;
  ResponseAssembler assembler(model, {"."}, {FakeModel::kEnd}, false);
  v1::GenerateResponse response;
  for (const char c : std::string("a.b")) assembler.Push({.token = c}, response);
  assembler.Flush(response);
  EXPECT_EQ(response.text(), "a");
  EXPECT_EQ(response.token_ids_size(), 2);
  EXPECT_EQ(assembler.token_count(), 2);
}

TEST(ResponseAssembler, EndTokensLeaveNoTrace) {
  const FakeModel model;
  ResponseAssembler assembler(model, {}, {FakeModel::kEnd}, true);
  v1::GenerateResponse response;
  assembler.Push({.token = 'a'}, response);
  assembler.Push({.token = FakeModel::kEnd}, response);
  assembler.Flush(response);
  EXPECT_EQ(response.text(), "a");
  EXPECT_EQ(response.token_ids_size(), 1);
  EXPECT_EQ(response.logprobs_size(), 1);
}

TEST(ResponseAssembler, ReportsLogProbabilities) {
  const FakeModel model;
  ResponseAssembler assembler(model, {}, {}, true);
  v1::GenerateResponse response;
  assembler.Push(
      {.token = 'a', .logprob = -0.5f, .top = {{.token = 'a', .logprob = -0.5f}, {.token = 'b', .logprob = -2}}},
      response);
  ASSERT_EQ(response.logprobs_size(), 1);
  EXPECT_EQ(response.logprobs(0).text(), "a");
  EXPECT_EQ(response.logprobs(0).logprob(), -0.5f);
  ASSERT_EQ(response.logprobs(0).top_size(), 2);
  EXPECT_EQ(response.logprobs(0).top(1).text(), "b");
  EXPECT_EQ(response.logprobs(0).top(1).token_id(), 'b');
}

}  // namespace
}  // namespace trimtab
