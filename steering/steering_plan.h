// A request's steering, resolved: which vectors, how strong, from where. Captured by the request, so that an update or
// a deletion never changes a request in flight. No torch. Any thread.
#ifndef TRIMTAB_STEERING_STEERING_PLAN_H_
#define TRIMTAB_STEERING_STEERING_PLAN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/hash.h"
#include "steering/steering_vector.h"
#include "steering/vector_store.h"

namespace trimtab {

inline constexpr int kMaxSelections = 4;

// What the caller asked for (parsed, not yet resolved).
struct SteeringSelection {
  std::string objective;            // full name models/{m}/objectives/{o}
  std::optional<int64_t> revision;  // unset: the active one
  std::optional<float> strength;    // unset: the objective's default; negative reverses
  std::optional<ApplyTo> apply_to;  // unset: the vector's default
};

struct PlannedSteering {
  std::shared_ptr<const SteeringVector> vector;
  std::string objective;  // full name
  int64_t revision = 0;
  float strength = 0;
  ApplyTo apply_to = ApplyTo::kFromLastPrompt;

  // First absolute position that is steered in a request whose prompt has `prompt_length` tokens.
  int64_t steer_from(int64_t prompt_length) const;
};

// At most kMaxSelections entries. Entries of strength 0 are kept (they are reported) but steer nothing.
class SteeringPlan {
 public:
  SteeringPlan() = default;
  explicit SteeringPlan(std::vector<PlannedSteering> entries);

  const std::vector<PlannedSteering>& entries() const { return entries_; }
  // True when no entry has a strength other than 0: results are bit-identical to an unsteered request.
  bool is_identity() const { return identity_; }
  // Key for the prefix cache: what the plan does to positions [block_begin, block_end) of a sequence whose prompt has
  // `prompt_length` tokens. All zero when no position of the block is steered, so that unsteered blocks are shared with
  // all traffic (architecture.md section 7).
  Digest128 BlockKey(int64_t prompt_length, int64_t block_begin, int64_t block_end) const;

 private:
  std::vector<PlannedSteering> entries_;
  bool identity_ = true;
};

// Looks the selections up. Errors: NOT_FOUND (OBJECTIVE_NOT_FOUND, REVISION_NOT_FOUND); FAILED_PRECONDITION
// (OBJECTIVE_NOT_READY with its state; FINGERPRINT_MISMATCH; STRENGTH_OUT_OF_RANGE with the limit). Nothing is ever
// served unsteered instead.
absl::StatusOr<SteeringPlan> ResolvePlan(const VectorStore& store, std::string_view model_fingerprint,
                                         const std::vector<SteeringSelection>& selections);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_STEERING_PLAN_H_
