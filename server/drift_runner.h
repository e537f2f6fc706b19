// Drift jobs: measure through the model's own engine, store the report. Worker threads.
#ifndef TRIMTAB_SERVER_DRIFT_RUNNER_H_
#define TRIMTAB_SERVER_DRIFT_RUNNER_H_

#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/base/job_context.h"
#include "server/drift_suites.h"
#include "server/jobs/job_manager.h"
#include "server/registry/registry.h"
#include "server/rpc/model_directory.h"
#include "steering/steering_plan.h"
#include "steering/vector_store.h"
#include "trimtab/v1/drift.pb.h"

namespace trimtab {

class DriftRunner {
 public:
  // All must outlive the runner.
  struct Parts {
    const ModelDirectory& models;
    const VectorStore& vectors;
    const DriftSuites& suites;
    Registry& registry;
    JobManager& jobs;
    const Clock& clock;
    // Told about a report that a drift job stored, and about a job that failed.
    std::function<void(const v1::DriftReport& report)> on_drift;
    std::function<void(const v1::EvaluateDriftRequest& request)> on_error;
  };
  explicit DriftRunner(Parts parts) : parts_(std::move(parts)) {}

  // As the job manager's kind "drift".
  JobManager::Runner Runner();

  // Measures `plan` as `request` says and fills a report named `name`; does not store it. Errors: those of
  // EvaluateDrift; RESOURCE_NOT_FOUND for an unknown suite (empty: the default).
  absl::StatusOr<v1::DriftReport> Evaluate(const v1::EvaluateDriftRequest& request, const SteeringPlan& plan,
                                           const std::string& name, JobContext& job) const;

 private:
  absl::Status Run(const JobRecord& job, JobContext& context) const;
  absl::Status Fail(const JobRecord& job, const absl::Status& error) const;

  const Parts parts_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_DRIFT_RUNNER_H_
