#include "steering/steering_plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

const char* StateName(ServedObjective::State state) {
  switch (state) {
    case ServedObjective::State::kCreating:
      return "CREATING";
    case ServedObjective::State::kActive:
      return "ACTIVE";
    case ServedObjective::State::kFailed:
      return "FAILED";
    case ServedObjective::State::kDisabled:
      return "DISABLED";
  }
  return "UNKNOWN";
}

absl::StatusOr<PlannedSteering> Resolve(const VectorStore& store, std::string_view model_fingerprint,
                                        const SteeringSelection& selection) {
  const std::shared_ptr<const ServedObjective> objective = store.Find(selection.objective);
  if (objective == nullptr) return NotFoundError(kObjectiveNotFound, "objective", selection.objective);
  if (objective->state != ServedObjective::State::kActive) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, kObjectiveNotReady,
                       absl::StrCat("objective \"", objective->name, "\" is ", StateName(objective->state),
                                    ", only ACTIVE ones steer"),
                       {{"objective", objective->name}, {"state", StateName(objective->state)}});
  }
  PlannedSteering entry;
  entry.objective = objective->name;
  entry.revision = selection.revision.value_or(objective->active_revision);
  const auto revision = objective->revisions.find(entry.revision);
  if (revision == objective->revisions.end()) {
    return NotFoundError(kRevisionNotFound, "revision", absl::StrCat(objective->name, "/revisions/", entry.revision));
  }
  entry.vector = revision->second;
  const SteeringVectorSpec& spec = entry.vector->spec();
  if (spec.model_fingerprint != model_fingerprint) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, kFingerprintMismatch,
                       absl::StrCat("revision ", entry.revision, " of \"", objective->name,
                                    "\" was fitted on other weights than this model's: refit the objective"),
                       {{"objective", objective->name},
                        {"revision", absl::StrCat(entry.revision)},
                        {"fitted_on", spec.model_fingerprint},
                        {"model", std::string(model_fingerprint)}});
  }
  entry.strength = selection.strength.value_or(objective->default_strength);
  entry.apply_to = selection.apply_to.value_or(spec.apply_to);
  const float limit = objective->max_strength > 0 ? objective->max_strength : spec.max_strength;
  if (!std::isfinite(entry.strength) || std::abs(entry.strength) > limit) {
    return ReasonError(
        absl::StatusCode::kFailedPrecondition, kStrengthOutOfRange,
        absl::StrCat("strength ", entry.strength, " of \"", objective->name, "\" is outside -", limit, " to ", limit),
        {{"objective", objective->name}, {"strength", absl::StrCat(entry.strength)}, {"limit", absl::StrCat(limit)}});
  }
  return entry;
}

}  // namespace

int64_t PlannedSteering::steer_from(int64_t prompt_length) const {
  switch (apply_to) {
    case ApplyTo::kAll:
      return 0;
    case ApplyTo::kFromLastPrompt:
      return std::max<int64_t>(prompt_length - 1, 0);
    case ApplyTo::kResponse:
      return prompt_length;
  }
  return 0;
}

SteeringPlan::SteeringPlan(std::vector<PlannedSteering> entries) : entries_(std::move(entries)) {
  identity_ = std::all_of(entries_.begin(), entries_.end(), [](const PlannedSteering& e) { return e.strength == 0; });
}

Digest128 SteeringPlan::BlockKey(int64_t prompt_length, int64_t block_begin, int64_t block_end) const {
  if (identity_ || block_begin >= block_end) return {};
  Sha256 hash;
  bool steered = false;
  for (const PlannedSteering& entry : entries_) {
    if (entry.strength == 0) continue;
    const int64_t from = entry.steer_from(prompt_length);
    if (from >= block_end) continue;
    steered = true;
    hash.UpdateField(entry.vector->digest());
    hash.Update(&entry.strength, sizeof(entry.strength));
    hash.Update(&from, sizeof(from));
  }
  if (!steered) return {};
  return hash.Finish128();
}

absl::StatusOr<SteeringPlan> ResolvePlan(const VectorStore& store, std::string_view model_fingerprint,
                                         const std::vector<SteeringSelection>& selections) {
  if (selections.size() > static_cast<size_t>(kMaxSelections)) {
    return FieldError({{"steering", absl::StrCat("has ", selections.size(), " entries, at most ", kMaxSelections)}});
  }
  std::vector<PlannedSteering> entries;
  entries.reserve(selections.size());
  for (const SteeringSelection& selection : selections) {
    TRIMTAB_ASSIGN_OR_RETURN(PlannedSteering entry, Resolve(store, model_fingerprint, selection));
    entries.push_back(std::move(entry));
  }
  return SteeringPlan(std::move(entries));
}

}  // namespace trimtab
