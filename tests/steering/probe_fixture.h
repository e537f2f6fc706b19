// A probe of a tiny model, and slow references for what it measures.
#ifndef TRIMTAB_TESTS_STEERING_PROBE_FIXTURE_H_
#define TRIMTAB_TESTS_STEERING_PROBE_FIXTURE_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "models/attention/dense_attention.h"
#include "models/testing/tiny_model.h"
#include "steering/model_probe.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"
#include "tests/steering/testing/vectors.h"

namespace trimtab {

class ModelProbeTest : public ::testing::Test {
 protected:
  ModelProbeTest() : probe_(loaded_, {.neutral_text = {{1, 2, 3, 4, 5, 6, 7, 8}, {9, 8, 7, 6}}}) {}

  // Log-probability of `answer` after prompt embeddings, in a pass of its own: the slow reference.
  double LogProb(const at::Tensor& prompt, const std::vector<TokenId>& answer, LayerTap& tap) const {
    at::NoGradGuard no_grad;
    const TokenLayout layout = TokenLayout::Dense({{.length = prompt.size(0) + static_cast<int64_t>(answer.size())}});
    DenseAttention attention;
    const at::Tensor hidden = loaded_->model->Forward(at::cat({prompt, probe_.Embed(answer)}),
                                                      {.layout = layout, .attention = attention, .tap = tap});
    const at::Tensor logprobs = at::log_softmax(loaded_->model->Logits(hidden), -1);
    double sum = 0;
    for (size_t t = 0; t < answer.size(); ++t) {
      sum += logprobs[prompt.size(0) - 1 + static_cast<int64_t>(t)][answer[t]].item<double>();
    }
    return sum;
  }
  double Margin(const EncodedPair& pair, const at::Tensor& prompt, bool mean) const {
    IdentityTap tap;
    const double p = LogProb(prompt, pair.preferred, tap), d = LogProb(prompt, pair.dispreferred, tap);
    return mean ? p / static_cast<double>(pair.preferred.size()) - d / static_cast<double>(pair.dispreferred.size())
                : p - d;
  }
  std::shared_ptr<const SteeringVector> AtSite(Site site, std::vector<int64_t> layers, uint32_t seed) const {
    SteeringVectorSpec spec = RandomSpec(std::move(layers), probe_.hidden_size(), seed);
    spec.site = site;
    return *SteeringVector::Create(spec);
  }
  EncodedPair Encoded(const char* prompt, const char* preferred, const char* dispreferred) const {
    return *probe_.Encode(Pair(prompt, preferred, dispreferred));
  }

  const std::shared_ptr<const LoadedModel> loaded_ = MakeTinyLoadedModel();
  ModelProbe probe_;
  MemoryJob job_;
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_STEERING_PROBE_FIXTURE_H_
