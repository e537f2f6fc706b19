// Samples or scores the rows of a step, several at a time where threads are free. Owned by ModelRunner, engine thread.
#ifndef TRIMTAB_SERVER_ENGINE_ROW_SAMPLER_H_
#define TRIMTAB_SERVER_ENGINE_ROW_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/engine/request.h"
#include "server/engine/sampler.h"

namespace trimtab {

// One row of logits and what is asked of it; the result is written into it. The spans' owners outlive the call.
struct LogitsRow {
  absl::Span<const float> logits;  // [vocab_size]
  const Request* request = nullptr;
  int64_t position = 0;            // of the token in the output, or in the continuation to score, from 0
  absl::Span<const TokenId> seen;  // the tokens so far, prompt included; not needed to score

  absl::Status status;  // INTERNAL (NON_FINITE) when a logit is NaN or infinite
  OutputToken token;    // unless the request scores
  ScoredToken scored;   // if it does
};

// The result of a row does not depend on the other rows nor on the number of threads.
class RowSampler {
 public:
  explicit RowSampler(int64_t vocab_size);

  // Uses the calling thread's team (models/kernels/thread_team.h) when the work is worth it.
  void Run(absl::Span<LogitsRow> rows);

 private:
  static void RunRow(Sampler& sampler, LogitsRow& row);

  const int64_t vocab_size_;
  std::vector<Sampler> samplers_;  // one per task
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_ROW_SAMPLER_H_
