#include "server/rpc/call_environment.h"

#include <algorithm>

namespace trimtab {

void CallEnvironment::TellRejected(const absl::Status& error) {
  if (metrics == nullptr || absl::IsCancelled(error) || absl::IsDeadlineExceeded(error)) return;
  metrics->OnRejected(error);
}

void CallEnvironment::TellSteered(const SteeringPlan& plan, const std::vector<AppliedDose>& doses) {
  if (metrics == nullptr) return;
  for (size_t i = 0; i < std::min(plan.entries().size(), doses.size()); ++i) {
    if (plan.entries()[i].strength != 0) metrics->OnSteered(plan.entries()[i].objective, doses[i].steered_tokens);
  }
}

void AddApplied(const SteeringPlan& plan, const std::vector<AppliedDose>& doses,
                google::protobuf::RepeatedPtrField<v1::AppliedSteering>* applied) {
  for (size_t i = 0; i < plan.entries().size(); ++i) {
    const PlannedSteering& entry = plan.entries()[i];
    v1::AppliedSteering& proto = *applied->Add();
    proto.set_objective(entry.objective);
    proto.set_revision(entry.revision);
    proto.set_digest(entry.vector->digest());
    proto.set_strength(entry.strength);
    proto.set_apply_to(static_cast<v1::ApplyTo>(entry.apply_to));
    if (i < doses.size()) {
      proto.set_steered_tokens(doses[i].steered_tokens);
      proto.set_mean_relative_dose(doses[i].mean_relative_dose);
    }
  }
}

}  // namespace trimtab
