#include "server/engine/row_sampler.h"

#include <algorithm>
#include <utility>

#include "models/kernels/thread_team.h"

namespace trimtab {
namespace {

// Logits that one thread reads in the time that starting a parallel section may cost.
constexpr int64_t kWorthAThread = 16384;

}  // namespace

RowSampler::RowSampler(int64_t vocab_size) : vocab_size_(vocab_size) { samplers_.emplace_back(vocab_size); }

void RowSampler::Run(absl::Span<LogitsRow> rows) {
  const int64_t count = static_cast<int64_t>(rows.size());
  // Twice as many tasks as threads, so that a late thread costs little; a task's rows are far from each other, so that
  // neighbours of one kind are spread.
  int64_t tasks = 1;
  if (count > 1 && count * vocab_size_ > 2 * kWorthAThread) {
    tasks = std::min<int64_t>(count, 2 * static_cast<int64_t>(ParallelThreads()));
  }
  while (static_cast<int64_t>(samplers_.size()) < tasks) samplers_.emplace_back(vocab_size_);
  const auto run = [&](int64_t task) {
    for (int64_t i = task; i < count; i += tasks) RunRow(samplers_[task], rows[i]);
  };
  if (tasks == 1) {
    run(0);
  } else {
    ParallelTasks(tasks, run);
  }
}

void RowSampler::RunRow(Sampler& sampler, LogitsRow& row) {
  const Request& request = *row.request;
  if (request.score) {
    const TokenId token = request.tokens[request.prompt_length + row.position];
    absl::StatusOr<ScoredToken> scored =
        sampler.Score(row.logits, token, request.score_top,
                      request.score_watch.empty() ? absl::Span<const TokenId>()
                                                  : absl::MakeConstSpan(request.score_watch[row.position]));
    row.status = scored.status();
    if (scored.ok()) row.scored = *std::move(scored);
    return;
  }
  absl::StatusOr<OutputToken> token = sampler.Sample(row.logits, request.sampling, row.seen, row.position);
  row.status = token.status();
  if (token.ok()) row.token = *std::move(token);
}

}  // namespace trimtab
