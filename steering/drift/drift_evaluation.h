// Measures how far a steering plan moves a model from itself: the same questions and the same neutral text, unsteered
// and steered, through the Scorer that also serves. No torch. Runs on a job worker.
#ifndef TRIMTAB_STEERING_DRIFT_DRIFT_EVALUATION_H_
#define TRIMTAB_STEERING_DRIFT_DRIFT_EVALUATION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/job_context.h"
#include "steering/drift/drift_stats.h"
#include "steering/drift/question_bank.h"
#include "steering/drift/scorer.h"

namespace trimtab {

struct DriftOptions {
  int64_t max_items = 0;  // questions; 0: all
  uint64_t seed = 0;
  int64_t shots = 0;               // solved examples before each question
  int64_t max_text_tokens = 2048;  // of neutral text; 0: none
  int64_t chunk_tokens = 128;      // neutral text is scored in chunks of so many tokens
  int64_t batch_items = 16;        // scored together between two checkpoints
};

struct DriftResult {
  ChoiceStats choices;
  std::map<std::string, ChoiceStats> subjects;
  double mean_kl_vocabulary = 0;  // over the whole vocabulary at the answer's position, nats (KlWithTail)
  // Neutral text: the first token of a chunk is its prompt and the plan's prompt positions begin there, so all text is
  // steered whatever apply_to says, except the prompt token itself under kResponse.
  int64_t text_tokens = 0;
  Summary kl_text;                    // nats per token
  double baseline_cross_entropy = 0;  // nats per token
  double cross_entropy_delta = 0;     // steered - unsteered
  std::vector<std::string> warnings;  // plain English, for the operator
};

// How the evaluation turns text into tokens: of the model that `scorer` serves.
struct DriftEncoder {
  std::function<absl::StatusOr<std::vector<TokenId>>(std::string_view prompt)> raw_prompt;
  std::function<std::vector<TokenId>(std::string_view text)> continuation;
  int64_t max_tokens = 0;           // longest sequence that the scorer takes
  std::vector<TokenId> text_start;  // what the model wants before every text, BOS or nothing; not steered by default
};

// Questions whose prompt is too long for the model are left out and named in the progress's partial failures. Errors:
// INVALID_ARGUMENT when nothing is left or a choice letter is more than one token; CANCELLED and UNAVAILABLE from the
// job; what the scorer returns. Baseline answers are saved as partial results: a resumed job does not score them again.
absl::StatusOr<DriftResult> EvaluateDrift(const QuestionBank& bank, std::string_view neutral_text,
                                          const SteeringPlan& plan, const DriftOptions& options,
                                          const DriftEncoder& encoder, Scorer& scorer, JobContext& job);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_DRIFT_DRIFT_EVALUATION_H_
