// Probes that tell from one attention head's values whether an answer is true: how ITI and NL-ITI compare heads
// (arXiv 2306.03341, 2403.18680). Pure functions of tensors; any thread.
#ifndef TRIMTAB_STEERING_METHODS_HEAD_PROBES_H_
#define TRIMTAB_STEERING_METHODS_HEAD_PROBES_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace trimtab {

// Answers as the heads of one layer see them.
struct HeadSamples {
  at::Tensor values;  // [H, N, head_dim] float32
  at::Tensor labels;  // [N] float32: 1 true, 0 false
};

// How well each head tells answers that its probe has not seen apart.
struct ProbeScores {
  at::Tensor accuracy;       // [H] double: share of the answers on the right side
  at::Tensor cross_entropy;  // [H] double: mean over the answers, nats
};

// Logistic regression of each head with an L2 penalty: minimises |w|^2 / 2 + C sum log(1 + exp(-y (w.x + b))) as
// scikit-learn's LogisticRegression(C=inverse_regularization) does, by Newton steps in double.
struct LogisticProbes {
  at::Tensor weights;  // [H, head_dim] double
  at::Tensor biases;   // [H] double
};
LogisticProbes FitLogisticProbes(const HeadSamples& training, double inverse_regularization);
ProbeScores Score(const LogisticProbes& probes, const HeadSamples& unseen);

// A network for each head: head_dim -> 16, batch norm, ReLU, -> 1.
struct NetworkProbes {
  static constexpr int64_t kWidth = 16;
  at::Tensor in_weights;    // [H, head_dim, 16] float32
  at::Tensor in_biases;     // [H, 16]
  at::Tensor norm_weights;  // [H, 16]
  at::Tensor norm_biases;   // [H, 16]
  at::Tensor out_weights;   // [H, 16]
  at::Tensor out_biases;    // [H]
};
// As PyTorch makes linear layers: uniform in +-1 / sqrt(inputs), reproducible from the seed; `stream` tells the layers
// of a model apart.
NetworkProbes InitialNetworkProbes(int64_t heads, int64_t head_dim, uint64_t seed, uint64_t stream);
// Trains with binary cross-entropy, Adam (learning rate 5e-4, weight decay 1e-4) and batches of 32, one pass over the
// training answers in each of `orders`. The scores are those of each head's best pass by accuracy on `unseen`, then by
// cross-entropy.
ProbeScores TrainNetworkProbes(NetworkProbes probes, const HeadSamples& training, const HeadSamples& unseen,
                               const std::vector<std::vector<size_t>>& orders);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_HEAD_PROBES_H_
