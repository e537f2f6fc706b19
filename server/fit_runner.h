// Fit jobs: from an objective's stored pairs to a published revision. Worker threads.
#ifndef TRIMTAB_SERVER_FIT_RUNNER_H_
#define TRIMTAB_SERVER_FIT_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/any.pb.h"
#include "models/loaded_model.h"
#include "server/base/clock.h"
#include "server/base/job_context.h"
#include "server/base/resource_name.h"
#include "server/drift_runner.h"
#include "server/drift_suites.h"
#include "server/jobs/job_manager.h"
#include "server/objective_publisher.h"
#include "server/registry/registry.h"
#include "steering/method_registry.h"
#include "steering/steering_method.h"
#include "trimtab/v1/drift.pb.h"
#include "trimtab/v1/revision.pb.h"

namespace trimtab {

class ModelProbe;

// `effect`, measured at `strength`.
v1::EffectSummary ToProto(const EffectSummary& effect, float strength);
// The audit of one pair.
v1::Attribution ToProto(const PairAttribution& attribution);
// What a fit found out, without what only the objective or storing knows: method, pairs, number, name, time.
v1::RevisionSummary ToSummary(const FitResult& result, absl::Duration fit_time);

class FitRunner {
 public:
  // All must outlive the runner.
  struct Parts {
    Registry& registry;
    const MethodRegistry& methods;
    ObjectivePublisher& publisher;
    const DriftSuites& suites;
    const DriftRunner& drift;
    JobManager& jobs;
    const Clock& clock;
    std::function<absl::StatusOr<std::shared_ptr<const LoadedModel>>(std::string_view id)> find_model;
    std::function<void(const v1::DriftReport& report)> on_drift;  // told about a report that was stored with a fit
  };
  explicit FitRunner(Parts parts) : parts_(std::move(parts)) {}

  // What a fit of `input` on the model (an id) would work with. `config`: null for the method's defaults. Errors: those
  // of SteeringMethod::Preview and of finding the model and the method. Any thread that may encode pairs.
  absl::StatusOr<FitPreview> Preview(std::string_view model, const std::string& method,
                                     const google::protobuf::Any* config, const FitInput& input) const;

  // As the job manager's kinds "fit" and "refit".
  JobManager::Runner Runner();

 private:
  // What a job works on, read once at its start.
  struct Task {
    ObjectiveId id;
    ObjectiveRecord objective;
    std::string method, method_config;  // of this fit; the configuration serialized, empty for the method's defaults
    google::protobuf::Any config;
    std::string pairs_hash;
    FitInput input;
    int64_t revision = 0;  // that the result will be
    bool with_drift = false;
    std::optional<RefitRecord> refit;
  };

  absl::Status Run(const JobRecord& job, JobContext& context) const;
  absl::StatusOr<Task> Load(const JobRecord& job, JobContext& context) const;
  absl::Status LoadRegistration(const JobRecord& job, Task& task) const;
  absl::Status LoadRefit(const JobRecord& job, JobContext& context, Task& task) const;
  // `rows`: of forward passes that it takes, about; 0 when the method cannot tell.
  absl::StatusOr<FitResult> Fit(const Task& task, JobContext& job, double& rows) const;
  std::unique_ptr<ModelProbe> MakeProbe(std::shared_ptr<const LoadedModel> model) const;
  absl::StatusOr<v1::DriftReport> MeasureDrift(const Task& task, const FitResult& result, const JobRecord& record,
                                               JobContext& job) const;
  absl::Status Commit(const Task& task, const FitResult& result, const v1::RevisionSummary& summary,
                      const std::optional<v1::DriftReport>& drift, const JobRecord& job) const;
  absl::Status Fail(const JobRecord& job, const absl::Status& error) const;

  const Parts parts_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_FIT_RUNNER_H_
