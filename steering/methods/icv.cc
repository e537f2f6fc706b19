#include "steering/methods/icv.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "server/base/status_macros.h"
#include "steering/attribution/pca.h"
#include "steering/methods/fit_options.h"
#include "steering/methods/pair_rows_source.h"

namespace trimtab {
namespace {

using methods::v1::IcvConfig;

constexpr size_t kSayingTokens = 4;

// Whether the model reads the prompts, too.
bool ReadsPrompts(const IcvConfig& config, const FitPairs& pairs) {
  if (config.text() != IcvConfig::TEXT_UNSPECIFIED) return config.text() == IcvConfig::TEXT_PROMPT_AND_ANSWER;
  size_t answers = 0, brief = 0;
  for (const FitPair& pair : pairs.training) {
    for (const std::vector<TokenId>* answer : {&pair.encoded.preferred, &pair.encoded.dispreferred}) {
      ++answers;
      brief += answer->size() < kSayingTokens ? 1 : 0;
    }
  }
  return 2 * brief >= answers;
}

// First principal component of centred rows [P, M] double: [M] of unit norm, zero when the rows are all the same. The
// sign is that of the row with the largest projection (scikit-learn's svd_flip by u).
at::Tensor FirstComponent(const at::Tensor& centred) {
  const int64_t count = centred.size(0);
  const at::Tensor gram = at::matmul(centred, centred.t()).contiguous();  // [P, P]
  const double* values = gram.data_ptr<double>();
  const Eigen eigen = SymmetricEigen({values, values + gram.numel()}, count);
  std::vector<double> first(static_cast<size_t>(count));
  for (size_t i = 0; i < first.size(); ++i) first[i] = eigen.vectors[i * first.size()];
  const double largest =
      *std::max_element(first.begin(), first.end(), [](double a, double b) { return std::abs(a) < std::abs(b); });
  const at::Tensor component = at::matmul(at::tensor(first) * (largest < 0 ? -1.0 : 1.0), centred);
  const double norm = component.norm().item<double>();
  return norm > 0 ? component / norm : component;
}

class IcvSource final : public PairRowsSource {
 public:
  explicit IcvSource(IcvConfig config) : config_(std::move(config)) {}

  absl::StatusOr<std::vector<DirectionSet>> Candidates(const FitContext& context) override {
    TRIMTAB_ASSIGN_OR_RETURN(std::vector<DirectionSet> candidates, PairRowsSource::Candidates(context));
    if (StrengthModeOf(context.options) == StrengthMode::kRelative) {
      // The paper's strength is that of each block, whatever their number.
      for (DirectionSet& set : candidates) {
        for (LayerDirection& direction : set) direction.weight = 1;
      }
    }
    return candidates;
  }

 protected:
  // The embedding and all blocks, whichever of them are steered.
  RowRequest Rows(const FitContext& context) const override {
    const bool prompts = ReadsPrompts(config_, context.pairs);
    return {.key = prompts ? "icv/prompts" : "icv/answers",
            .shape = {context.probe.num_layers() + 1, context.probe.hidden_size()},
            .measure = [&context, prompts](const FitPair* pairs,
                                           size_t count) { return Differences(context, prompts, pairs, count); },
            .cost =
                [prompts](const EncodedPair& pair) {
                  const auto prompt = static_cast<int64_t>(pair.prompt.size());
                  return static_cast<double>(prompts ? pair.tokens() + prompt : pair.tokens() - prompt);
                }};
  }

  at::Tensor Prepare(const FitContext& context, const at::Tensor& measured) const override {
    const at::Tensor long_rows = measured.flatten(1);  // [P, (layers + 1) * hidden]
    const at::Tensor component =
        FirstComponent(long_rows - long_rows.mean(0, /*keepdim=*/true)).view({measured.size(1), measured.size(2)});
    std::vector<int64_t> places;  // of the steered blocks; the embedding's place is 0
    for (int64_t layer : context.layers) places.push_back(layer + 1);
    // Adding the component to every row adds it to their mean.
    return (measured + component).index_select(1, at::tensor(places));
  }

  // A strength of 1 adds the vector as the paper computes it.
  float AbsoluteWeight(const at::Tensor& mean) const override { return mean.norm().item<float>(); }

 private:
  // float32 [count, layers + 1, hidden].
  static at::Tensor Differences(const FitContext& context, bool prompts, const FitPair* pairs, size_t count) {
    const ModelProbe& probe = context.probe;
    std::vector<int64_t> layers(static_cast<size_t>(probe.num_layers()));
    std::iota(layers.begin(), layers.end(), 0);
    const std::optional<TokenId> start = probe.text_start();
    std::vector<at::Tensor> before, last;  // embeddings of what comes before each answer, and of its last token
    std::vector<std::vector<TokenId>> answers;
    for (size_t i = 0; i < count; ++i) {
      const EncodedPair& pair = pairs[i].encoded;
      const at::Tensor prompt = prompts ? probe.Embed(pair.prompt)
                                : start ? probe.Embed({*start})
                                        : probe.Embed({pair.preferred.front()}).narrow(0, 0, 0);
      for (const std::vector<TokenId>* answer : {&pair.preferred, &pair.dispreferred}) {
        before.push_back(prompt);
        answers.push_back(*answer);
        last.push_back(probe.Embed({answer->back()}));
      }
    }
    const at::Tensor states = probe.CaptureStates(before, answers, DeltaPosition::kLastResponse, layers);
    const at::Tensor all = at::cat({at::stack(last).to(at::kFloat), states}, 1);  // [2 count, layers + 1, hidden]
    const at::Tensor by_pair = all.unflatten(0, {static_cast<int64_t>(count), 2});
    return by_pair.select(1, 0) - by_pair.select(1, 1);
  }

  const IcvConfig config_;
};

}  // namespace

absl::StatusOr<FitRecipe> IcvRecipe(const IcvConfig& config) {
  ConfigChecker checker;
  IcvConfig resolved = config;
  checker.Require(IcvConfig::Text_IsValid(config.text()), "text", "is unknown");
  *resolved.mutable_fit() = ResolveFitOptions(config.fit(), {}, checker);
  TRIMTAB_RETURN_IF_ERROR(checker.status());
  return FitRecipe{
      .method = "icv",
      .site = Site::kMlpOutput,
      .preserving = config.constant_strength() ? Operation::kAddPreserveNorm : Operation::kAddOpposingPreserveNorm,
      .all_layers = true,
      .options = resolved.fit(),
      .resolved_config = resolved.SerializeAsString(),
      .source = [resolved] { return std::make_unique<IcvSource>(resolved); }};
}

}  // namespace trimtab
