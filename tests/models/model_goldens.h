// Real models against transformers in float32: reads the goldens of tests/golden/make_model_golden.py and runs a model
// over them.
#ifndef TRIMTAB_TESTS_MODELS_MODEL_GOLDENS_H_
#define TRIMTAB_TESTS_MODELS_MODEL_GOLDENS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "models/causal_model.h"

namespace trimtab {

// A text, and its logits' goldens at the last so many positions: some of the largest, and the sum of all.
struct ScoredText {
  struct Position {
    std::vector<int64_t> ids;
    std::vector<double> logits;
    double logsumexp;
  };
  std::vector<int64_t> tokens;
  std::vector<Position> positions;
};
std::vector<ScoredText> ReadScored(const std::string& path);

// Logits of a text at the positions of its goldens [positions, vocab]; what comes before them is one chunk.
at::Tensor ScoredLogits(const CausalModel& model, const ScoredText& text);

// The largest difference of `logits` and of their sum from the text's goldens.
double LargestDifference(const at::Tensor& logits, const ScoredText& text);

// KL divergences in nats, of all positions of the texts: from `exact`, log-probabilities per text, to those of `model`.
struct Divergence {
  double mean, largest;
  int64_t positions;
};
Divergence DivergenceOf(const CausalModel& model, const std::vector<ScoredText>& texts,
                        const std::vector<at::Tensor>& exact);

// A prompt and the tokens that the most probable continuation of it begins with.
struct GreedyText {
  std::vector<int64_t> prompt, tokens;
};
std::vector<GreedyText> ReadGreedy(const std::string& path);

// How many of the prompts the model continues as given, all of them in one batch.
int CountGreedyEqual(const CausalModel& model, const std::vector<GreedyText>& goldens);

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_MODELS_MODEL_GOLDENS_H_
