// Vectorised passes over one row of logits, for Sampler. The first pass leaves the largest logit of each block of 64,
// so that later ones touch only the blocks that matter. Any thread.
#ifndef TRIMTAB_SERVER_ENGINE_LOGIT_SCAN_H_
#define TRIMTAB_SERVER_ENGINE_LOGIT_SCAN_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "models/tokenizer/token_id.h"

namespace trimtab {

constexpr int64_t kLogitBlock = 64;

struct LogitScan {
  std::vector<float> block_max;  // [ceil(vocab / kLogitBlock)]
  float max = 0;
  TokenId argmax = 0;  // the lowest id among the largest
  bool finite = true;  // false: some logit is NaN or infinite, and the rest is meaningless
};

// `logits`: [vocab], not empty. Allocates only when `scan` was never used for so many.
void ScanLogits(absl::Span<const float> logits, LogitScan& scan);

// The sum of e^((logit - max) * scale), `max` being the largest logit; its relative error is below 1e-6. With
// `block_sums` also the sum of each block, whose total in order is the result.
double SumExp(absl::Span<const float> logits, float max, float scale, std::vector<double>* block_sums = nullptr);

// out[i] = e^((logits[i] - max) * scale), computed as SumExp does.
void Weights(absl::Span<const float> logits, float max, float scale, float* out);

// Appends the logits of at least `cut` and their ids, in the order of ids. `block_max` as ScanLogits left it.
void GatherLogits(absl::Span<const float> logits, absl::Span<const float> block_max, float cut,
                  std::vector<TokenId>& ids, std::vector<float>& values);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_LOGIT_SCAN_H_
