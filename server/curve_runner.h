// Curve jobs: effect and side effects of a revision over strengths, stored with it. Worker threads.
#ifndef TRIMTAB_SERVER_CURVE_RUNNER_H_
#define TRIMTAB_SERVER_CURVE_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/loaded_model.h"
#include "server/base/clock.h"
#include "server/base/job_context.h"
#include "server/base/resource_name.h"
#include "server/drift_suites.h"
#include "server/jobs/job_manager.h"
#include "server/registry/registry.h"
#include "server/rpc/model_directory.h"
#include "steering/method_registry.h"
#include "steering/preference.h"
#include "steering/steering_vector.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {

class ModelProbe;
struct EncodedPair;

class CurveRunner {
 public:
  // All must outlive the runner.
  struct Parts {
    Registry& registry;
    const MethodRegistry& methods;
    const ModelDirectory& models;
    const DriftSuites& suites;
    JobManager& jobs;
    const Clock& clock;
    std::function<absl::StatusOr<std::shared_ptr<const LoadedModel>>(std::string_view id)> find_model;
  };
  explicit CurveRunner(Parts parts) : parts_(std::move(parts)) {}

  // As the job manager's kind "curve".
  JobManager::Runner Runner();

 private:
  // What a job works on, read once at its start.
  struct Task;
  class Progress;

  absl::Status Run(const JobRecord& job, JobContext& context) const;
  absl::StatusOr<Task> Load(const JobRecord& job) const;
  // Encodes what is measured on; pairs that cannot be used are reported to `progress`.
  absl::Status Encode(const ModelProbe& probe, Task& task, Progress& progress, JobContext& context) const;
  absl::Status EncodeGiven(const ModelProbe& probe, Task& task, Progress& progress, JobContext& context) const;
  absl::Status EncodeValidation(const ModelProbe& probe, Task& task, JobContext& context) const;
  absl::Status MeasureEffect(const ModelProbe& probe, const Task& task, v1::StrengthCurve& curve, Progress& progress,
                             JobContext& context) const;
  absl::Status MeasureCost(ModelProbe& probe, const Task& task, v1::StrengthCurve& curve, Progress& progress,
                           JobContext& context) const;
  absl::Status MeasureRepetition(const Task& task, const std::string& id, v1::StrengthCurve& curve, Progress& progress,
                                 JobContext& context) const;
  absl::Status Commit(const Task& task, const v1::StrengthCurve& curve, const JobRecord& job) const;
  absl::Status Fail(const JobRecord& job, const absl::Status& error) const;

  const Parts parts_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_CURVE_RUNNER_H_
