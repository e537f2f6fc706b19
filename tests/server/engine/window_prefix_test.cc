// The prefix cache of models whose layers see the last positions only: what it holds behind a window serves like the
// rest, and what lies behind a window must not be seen.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "models/testing/tiny_model.h"
#include "tests/server/engine/engine_testing.h"

namespace trimtab {
namespace {

constexpr int64_t kBlockSize = 4;
constexpr int64_t kPrefix = 3 * kTinyWindow;

class WindowPrefixTest : public testing::TestWithParam<TinyArchitecture> {
 protected:
  std::unique_ptr<Engine> Make(bool caching, int64_t step_tokens) const {
    EngineConfig config;
    config.block_size = kBlockSize;
    config.kv_cache_bytes = 128 * kBlockSize * model_->model->spec().kv_bytes_per_token(4);
    config.max_step_tokens = step_tokens;
    config.steering_slots = 4;
    config.prefix_caching = caching;
    return *Engine::Create(model_, config, clock_, nullptr);
  }
  // The shared prefix of `length` tokens and a tail of its own.
  static std::vector<TokenId> Prompt(int64_t length, int64_t tail, uint32_t seed) {
    std::vector<TokenId> prompt = RandomTokens(length, 1);
    for (const TokenId token : RandomTokens(tail, seed)) prompt.push_back(token);
    return prompt;
  }

  const std::shared_ptr<const LoadedModel> model_ = MakeTinyLoadedModel({.architecture = GetParam(), .num_layers = 3});
  const RealClock clock_;
};

TEST_P(WindowPrefixTest, APrefixLongerThanTheWindowGivesTheTokensOfNoCache) {
  for (const int64_t step_tokens : {7, 256}) {  // prompts in pieces shorter than a window, and whole
    const auto engine = Make(/*caching=*/true, step_tokens);
    RunOne(*engine, MakeRequest("first", Prompt(kPrefix, 3, 2)));
    int64_t hits = engine->stats().prefix_cache_hit_tokens;
    // All of the prefix; a part that ends behind, on and before the window's edge; and one shorter than a window.
    for (const int64_t shared : {kPrefix, kPrefix - kBlockSize, kTinyWindow + kBlockSize, kTinyWindow, kBlockSize}) {
      for (const int64_t tail : {int64_t{1}, kBlockSize + 1, kTinyWindow + 5}) {
        const std::vector<TokenId> prompt = Prompt(shared, tail, static_cast<uint32_t>(10 * shared + tail));
        const Answer answer = RunOne(*engine, MakeRequest("a", prompt));
        EXPECT_GE(engine->stats().prefix_cache_hit_tokens, hits + shared) << shared << " + " << tail;
        hits = engine->stats().prefix_cache_hit_tokens;
        EXPECT_EQ(answer.tokens, RunOne(*Make(false, step_tokens), MakeRequest("b", prompt)).tokens)
            << shared << " + " << tail;
        EXPECT_EQ(answer.tokens, DenseGreedy(*model_, prompt, {}, 12)) << shared << " + " << tail;
      }
    }
  }
}

// An answer grows out of the window, becomes the next turn's prompt, and so on.
TEST_P(WindowPrefixTest, TurnsGoOnBehindTheWindow) {
  const auto engine = Make(/*caching=*/true, 256);
  std::vector<TokenId> turn = RandomTokens(kBlockSize, 1);
  for (int i = 0; i < 5; ++i) {
    auto request = MakeRequest("turn", turn);
    request->sampling.max_output_tokens = kTinyWindow + 3;
    const Answer answer = RunOne(*engine, std::move(request));
    EXPECT_EQ(answer.tokens, DenseGreedy(*model_, turn, {}, static_cast<int64_t>(answer.tokens.size()))) << i;
    turn.insert(turn.end(), answer.tokens.begin(), answer.tokens.end());
    turn.push_back(static_cast<TokenId>(40 + i));
  }
  EXPECT_GT(engine->stats().prefix_cache_hit_tokens, 4 * kTinyWindow);
}

INSTANTIATE_TEST_SUITE_P(Windows, WindowPrefixTest,
                         testing::Values(TinyArchitecture::kMistral, TinyArchitecture::kGemma3), [](const auto& info) {
                           return info.param == TinyArchitecture::kMistral ? "EveryLayer" : "TwoLayersOfThree";
                         });

}  // namespace
}  // namespace trimtab
