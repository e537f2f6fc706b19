#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "steering/attribution/random.h"
#include "steering/methods/head_probes.h"

namespace trimtab {
namespace {

constexpr int64_t kBatch = 32;
constexpr double kLearningRate = 5e-4, kWeightDecay = 1e-4;
constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kAdamEpsilon = 1e-8;  // PyTorch's
constexpr double kNormMomentum = 0.1, kNormEpsilon = 1e-5;           // likewise

at::Tensor Uniform(std::vector<int64_t> shape, double bound, Random& random) {
  at::Tensor values = at::empty(shape, at::kFloat);
  float* to = values.data_ptr<float>();
  for (int64_t i = 0; i < values.numel(); ++i) to[i] = static_cast<float>(bound * (2 * random.Uniform() - 1));
  return values;
}

// Running statistics of the batch norms.
struct NormStatistics {
  at::Tensor mean, variance;  // [H * 16]
};

// Logits [H, B] of values [H, B, head_dim]. Training takes the batch's statistics and updates the running ones.
at::Tensor Forward(const NetworkProbes& probes, const at::Tensor& values, NormStatistics& running, bool training) {
  const int64_t heads = values.size(0), rows = values.size(1);
  const at::Tensor hidden = at::bmm(values, probes.in_weights) + probes.in_biases.unsqueeze(1);  // [H, B, 16]
  const at::Tensor normed = at::batch_norm(hidden.transpose(0, 1).reshape({rows, heads * NetworkProbes::kWidth}),
                                           probes.norm_weights.flatten(), probes.norm_biases.flatten(), running.mean,
                                           running.variance, training, kNormMomentum, kNormEpsilon,
                                           /*cudnn_enabled=*/false);
  const at::Tensor active = at::relu(normed).view({rows, heads, NetworkProbes::kWidth});
  return ((active * probes.out_weights).sum(2) + probes.out_biases).t();
}

ProbeScores ScoresOf(const at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor margins = logits.to(at::kDouble) * (2 * labels.to(at::kDouble) - 1);  // [H, N]
  return {.accuracy = (margins > 0).to(at::kDouble).mean(1), .cross_entropy = at::softplus(-margins).mean(1)};
}

}  // namespace

NetworkProbes InitialNetworkProbes(int64_t heads, int64_t head_dim, uint64_t seed, uint64_t stream) {
  constexpr int64_t kWidth = NetworkProbes::kWidth;
  Random random(seed, stream);
  const double in = 1 / std::sqrt(static_cast<double>(head_dim)), out = 1 / std::sqrt(static_cast<double>(kWidth));
  NetworkProbes probes;
  probes.in_weights = Uniform({heads, head_dim, kWidth}, in, random);
  probes.in_biases = Uniform({heads, kWidth}, in, random);
  probes.norm_weights = at::ones({heads, kWidth});
  probes.norm_biases = at::zeros({heads, kWidth});
  probes.out_weights = Uniform({heads, kWidth}, out, random);
  probes.out_biases = Uniform({heads}, out, random);
  return probes;
}

ProbeScores TrainNetworkProbes(NetworkProbes probes, const HeadSamples& training, const HeadSamples& unseen,
                               const std::vector<std::vector<size_t>>& orders) {
  const int64_t heads = training.values.size(0);
  std::vector<at::Tensor> parameters, first_moments, second_moments, steps;
  for (at::Tensor* parameter : {&probes.in_weights, &probes.in_biases, &probes.norm_weights, &probes.norm_biases,
                                &probes.out_weights, &probes.out_biases}) {
    *parameter = parameter->detach().clone().requires_grad_(true);
    parameters.push_back(*parameter);
    first_moments.push_back(at::zeros_like(parameter->detach()));
    second_moments.push_back(at::zeros_like(parameter->detach()));
    steps.push_back(at::zeros({}, at::kFloat));
  }
  NormStatistics running{at::zeros({heads * NetworkProbes::kWidth}), at::ones({heads * NetworkProbes::kWidth})};
  ProbeScores best{.accuracy = at::full({heads}, -1, at::kDouble),
                   .cross_entropy = at::full({heads}, std::numeric_limits<double>::infinity(), at::kDouble)};
  for (const std::vector<size_t>& order : orders) {
    const at::Tensor shuffled = at::tensor(std::vector<int64_t>(order.begin(), order.end()));
    const int64_t count = shuffled.size(0);
    for (int64_t begin = 0; begin < count; begin += kBatch) {
      const int64_t size = std::min(kBatch, count - begin);
      if (size == 1 && count > 1) continue;  // one answer has no variance
      at::AutoGradMode grad(true);
      const at::Tensor rows = shuffled.narrow(0, begin, size);
      const at::Tensor logits = Forward(probes, training.values.index_select(1, rows), running, /*training=*/true);
      const at::Tensor labels = training.labels.index_select(0, rows).unsqueeze(0).expand_as(logits);
      // The sum over heads of each head's mean: no head's gradient depends on another.
      const at::Tensor loss =
          at::binary_cross_entropy_with_logits(logits, labels, {}, {}, /*reduction=*/1) * static_cast<double>(heads);
      const std::vector<at::Tensor> gradients = torch::autograd::grad({loss}, parameters);
      at::NoGradGuard no_grad;
      for (at::Tensor& step : steps) step += 1;
      at::_fused_adam_(parameters, gradients, first_moments, second_moments, /*max_exp_avg_sqs=*/{}, steps,
                       kLearningRate, kBeta1, kBeta2, kWeightDecay, kAdamEpsilon, /*amsgrad=*/false,
                       /*maximize=*/false);
    }
    at::NoGradGuard no_grad;
    const ProbeScores now = ScoresOf(Forward(probes, unseen.values, running, /*training=*/false), unseen.labels);
    const at::Tensor better =
        (now.accuracy > best.accuracy) | ((now.accuracy == best.accuracy) & (now.cross_entropy < best.cross_entropy));
    best.accuracy = at::where(better, now.accuracy, best.accuracy);
    best.cross_entropy = at::where(better, now.cross_entropy, best.cross_entropy);
  }
  return best;
}

}  // namespace trimtab
