// A forest computes for each path what the path gets alone, whatever the model's windows.
#include "steering/token_tree.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "models/attention/dense_attention.h"
#include "models/testing/tiny_model.h"

namespace trimtab {
namespace {

class TreeAttentionTest : public testing::TestWithParam<TinyArchitecture> {
 protected:
  const std::shared_ptr<const CausalModel> model_ = MakeTinyModel({.architecture = GetParam()});

  at::Tensor Embed(int64_t length, int64_t seed) const {
    std::vector<int64_t> tokens;
    for (int64_t i = 0; i < length; ++i) tokens.push_back((i * 37 + seed * 101) % 256);
    return model_->Embed(at::tensor(tokens));
  }
  at::Tensor Alone(const at::Tensor& embeddings) const {
    SequenceSpan span;
    span.length = embeddings.size(0);
    const TokenLayout layout = TokenLayout::Dense({span});
    DenseAttention attention;
    IdentityTap tap;
    return model_->Forward(embeddings, {layout, attention, tap});
  }
};

// Two trees: the first branches twice and into paths of different lengths, all longer than a window.
TEST_P(TreeAttentionTest, PathsGetWhatTheyGetAlone) {
  static_assert(kTinyWindow < 20);
  const at::Tensor root = Embed(20, 1).requires_grad_(true), left = Embed(9, 2), right = Embed(15, 3),
                   leaf = Embed(4, 4), other = Embed(11, 5);
  TokenForest forest;
  const TokenForest::Place top = forest.Add({}, root);
  const TokenForest::Place left_end = forest.Add({top.segment, 18}, left);
  const TokenForest::Place leaf_end = forest.Add({left_end.segment, 7}, leaf);
  const TokenForest::Place right_end = forest.Add({top.segment, 5}, right);
  const TokenForest::Place other_end = forest.Add({}, other);
  TreeAttention attention(forest, model_->dtype());
  IdentityTap tap;
  const TokenLayout layout = forest.Layout();
  const at::Tensor rows = model_->Forward(forest.Embeddings(), {layout, attention, tap});
  const std::vector<std::pair<TokenForest::Place, at::Tensor>> paths = {
      {top, root},
      {left_end, at::cat({root.narrow(0, 0, 18), left})},
      {leaf_end, at::cat({root.narrow(0, 0, 18), left.narrow(0, 0, 7), leaf})},
      {right_end, at::cat({root.narrow(0, 0, 5), right})},
      {other_end, other},
  };
  at::Tensor together, apart;
  for (const auto& [place, path] : paths) {
    const at::Tensor row = rows[forest.last_row(place)], alone = Alone(path)[-1];
    EXPECT_LT((row - alone).abs().max().item<float>(), 1e-4f);
    together = together.defined() ? together + row.sum() : row.sum();
    apart = apart.defined() ? apart + alone.sum() : alone.sum();
  }
  const at::Tensor a = torch::autograd::grad({together}, {root})[0], b = torch::autograd::grad({apart}, {root})[0];
  EXPECT_GT(b.norm().item<float>(), 0.1f);
  EXPECT_LT(((a - b).norm() / b.norm()).item<float>(), 1e-4f);
}

INSTANTIATE_TEST_SUITE_P(Architectures, TreeAttentionTest,
                         testing::Values(TinyArchitecture::kLlama, TinyArchitecture::kMistral,
                                         TinyArchitecture::kGemma3));

}  // namespace
}  // namespace trimtab
