// What a model answers to prompts under a plan, through its engine: what is judged is what is served. Job workers.
#ifndef TRIMTAB_SERVER_GREEDY_ANSWERS_H_
#define TRIMTAB_SERVER_GREEDY_ANSWERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/tokenizer/tokenizer.h"
#include "server/base/job_context.h"
#include "server/rpc/served_model.h"
#include "steering/steering_plan.h"

namespace trimtab {

// The greedy answers to `prompts`, in order, of at most `max_tokens` tokens each, as background requests. `id`: names
// the requests to the engine; unique among those under way. Waits, with checkpoints of `job`; a cancelled job's
// requests are taken back. The first failure of a request fails the call.
absl::StatusOr<std::vector<std::string>> GreedyAnswers(ServedModel& model,
                                                       const std::vector<std::vector<TokenId>>& prompts,
                                                       const SteeringPlan& plan, int64_t max_tokens,
                                                       const std::string& id, JobContext& job);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_GREEDY_ANSWERS_H_
