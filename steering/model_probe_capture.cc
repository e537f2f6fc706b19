// ModelProbe's readings of activations.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "models/attention/dense_attention.h"
#include "steering/model_probe.h"
#include "steering/probe_taps.h"

namespace trimtab {

at::Tensor ModelProbe::CaptureStates(const std::vector<at::Tensor>& prompts,
                                     const std::vector<std::vector<TokenId>>& responses, DeltaPosition position,
                                     const std::vector<int64_t>& layers, Site site, int64_t last_tokens) const {
  at::NoGradGuard no_grad;
  std::vector<SequenceSpan> spans;
  std::vector<at::Tensor> rows;
  std::vector<int64_t> wanted;  // rows to capture, in order of the prompts
  std::vector<int64_t> counts;  // of them per prompt
  int64_t row = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t length = prompts[i].size(0);
    rows.push_back(prompts[i]);
    int64_t response = 0;
    if (position != DeltaPosition::kLastPrompt) {
      rows.push_back(Embed(responses[i]));
      response = static_cast<int64_t>(responses[i].size());
    }
    const int64_t end = row + length + response;
    const int64_t first = position == DeltaPosition::kMeanResponse ? end - std::min(response, last_tokens) : end - 1;
    for (int64_t r = first; r < end; ++r) wanted.push_back(r);
    counts.push_back(end - first);
    spans.push_back({.length = length + response});
    row = end;
  }
  const TokenLayout layout = TokenLayout::Dense(std::move(spans));
  DenseAttention attention;
  CaptureTap tap(layers, at::tensor(wanted), site);
  loaded_->model->Forward(at::cat(rows), {.layout = layout,
                                          .attention = attention,
                                          .tap = tap,
                                          .num_layers = *std::max_element(layers.begin(), layers.end()) + 1,
                                          .arithmetic = kArithmetic});
  std::vector<at::Tensor> by_layer;
  for (const at::Tensor& states : tap.states()) {
    std::vector<at::Tensor> means;
    int64_t begin = 0;
    for (int64_t count : counts) {
      means.push_back(states.narrow(0, begin, count).mean(0));
      begin += count;
    }
    by_layer.push_back(at::stack(means));
  }
  return at::stack(by_layer, 1);
}

at::Tensor ModelProbe::FoldHeads(const std::vector<std::vector<TokenId>>& texts, const std::vector<int64_t>& layers,
                                 const at::Tensor& edits) const {
  at::AutoGradMode grad(true);
  std::vector<SequenceSpan> spans;
  std::vector<at::Tensor> embeddings;
  std::vector<int64_t> last;  // rows
  int64_t row = 0;
  for (const std::vector<TokenId>& text : texts) {
    spans.push_back({.length = static_cast<int64_t>(text.size())});
    embeddings.push_back(Embed(text));
    row += spans.back().length;
    last.push_back(row - 1);
  }
  const TokenLayout layout = TokenLayout::Dense(std::move(spans));
  DenseAttention attention;
  HeadGradientTap tap(layers, at::tensor(last));
  loaded_->model->Forward(at::cat(embeddings), {.layout = layout,
                                                .attention = attention,
                                                .tap = tap,
                                                .num_layers = *std::max_element(layers.begin(), layers.end()) + 1,
                                                .arithmetic = kArithmetic});
  // J e for the Jacobian J of each row's output: the gradient of <J^T w, e> with respect to w.
  std::vector<at::Tensor> weights, products;
  for (const at::Tensor& output : tap.outputs()) {
    weights.push_back(at::ones_like(output).requires_grad_(true));
    products.push_back((output * weights.back()).sum());
  }
  const std::vector<at::Tensor> back = torch::autograd::grad(products, tap.leaves(), /*grad_outputs=*/{},
                                                             /*retain_graph=*/true, /*create_graph=*/true);
  std::vector<at::Tensor> along;
  for (size_t i = 0; i < back.size(); ++i) along.push_back((back[i] * edits[static_cast<int64_t>(i)]).sum());
  std::vector<at::Tensor> folded;
  for (const at::Tensor& rows : torch::autograd::grad(along, weights)) folded.push_back(rows.mean(0));
  return at::stack(folded).to(at::kFloat);
}

}  // namespace trimtab
