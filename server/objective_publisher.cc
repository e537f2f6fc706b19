#include "server/objective_publisher.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "steering/steering_vector.h"
#include "trimtab/v1/revision.pb.h"

namespace trimtab {
namespace {

constexpr int64_t kPage = 100;

// On held-out pairs, else on the validation pairs.
double EffectOf(const RevisionRecord& revision) {
  v1::RevisionSummary summary;
  summary.ParseFromString(revision.summary);
  return summary.has_held_out() ? summary.held_out().margin_gain() : summary.validation().margin_gain();
}

}  // namespace

// Revisions never change: what is served already is not read again. Null for one that cannot be read.
absl::StatusOr<std::shared_ptr<const SteeringVector>> ObjectivePublisher::LoadVector(const ServedObjective* before,
                                                                                     const RevisionRecord& listed) {
  if (before != nullptr) {
    const auto known = before->revisions.find(listed.revision);
    if (known != before->revisions.end() && known->second->digest() == listed.digest) return known->second;
  }
  TRIMTAB_ASSIGN_OR_RETURN(const RevisionRecord revision, registry_.GetRevision(listed.objective, listed.revision));
  absl::StatusOr<std::shared_ptr<const SteeringVector>> vector = SteeringVector::Parse(revision.vector);
  if (vector.ok()) return *std::move(vector);
  LogError("a stored revision cannot be read", {{"objective", listed.objective},
                                                {"revision", absl::StrCat(listed.revision)},
                                                {"error", std::string(vector.status().message())}});
  return std::shared_ptr<const SteeringVector>();
}

absl::Status ObjectivePublisher::PublishRecord(const ObjectiveRecord& record) {
  const std::shared_ptr<const ServedObjective> before = vectors_.Find(record.name);
  auto served = std::make_shared<ServedObjective>();
  served->name = record.name;
  served->state = static_cast<ServedObjective::State>(record.state);
  served->active_revision = record.active_revision;
  double effect = 0;
  for (int64_t after = 0;;) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<RevisionRecord> revisions,
                             registry_.ListRevisions(record.name, after, kPage));
    for (const RevisionRecord& revision : revisions) {
      after = revision.revision;
      if (revision.revision == record.active_revision) effect = EffectOf(revision);
      TRIMTAB_ASSIGN_OR_RETURN(std::shared_ptr<const SteeringVector> vector, LoadVector(before.get(), revision));
      if (vector != nullptr) served->revisions[revision.revision] = std::move(vector);
    }
    if (static_cast<int64_t>(revisions.size()) < kPage) break;
  }
  const auto active = served->revisions.find(record.active_revision);
  if (active != served->revisions.end()) {
    served->default_strength = active->second->spec().default_strength;
    served->max_strength = active->second->spec().max_strength;
  }
  if (record.default_strength) served->default_strength = *record.default_strength;
  if (record.max_strength) served->max_strength = *record.max_strength;
  vectors_.Put(served);
  if (observer_) observer_(record.name, served.get(), effect);
  return absl::OkStatus();
}

absl::Status ObjectivePublisher::Publish(std::string_view objective) {
  absl::MutexLock lock(&mutex_);
  const absl::StatusOr<ObjectiveRecord> record = registry_.GetObjective(objective);
  if (absl::IsNotFound(record.status())) {
    vectors_.Remove(objective);
    if (observer_) observer_(std::string(objective), nullptr, 0);
    return absl::OkStatus();
  }
  if (!record.ok()) return record.status();
  return PublishRecord(*record);
}

void ObjectivePublisher::Withdraw(std::string_view model) {
  const std::string folder = std::string(model) + "/";
  absl::MutexLock lock(&mutex_);
  for (const std::shared_ptr<const ServedObjective>& objective : vectors_.List()) {
    if (objective->name.starts_with(folder)) vectors_.Remove(objective->name);
  }
}

absl::Status ObjectivePublisher::PublishAll(std::string_view model) {
  absl::MutexLock lock(&mutex_);
  for (std::string after;;) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<ObjectiveRecord> records,
                             registry_.ListObjectives(model, {.after = after, .limit = kPage}));
    for (const ObjectiveRecord& record : records) {
      after = record.name;
      TRIMTAB_RETURN_IF_ERROR(PublishRecord(record));
    }
    if (static_cast<int64_t>(records.size()) < kPage) return absl::OkStatus();
  }
}

}  // namespace trimtab
