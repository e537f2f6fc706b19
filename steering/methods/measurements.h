// What steering does, measured and kept: a resumed fit, and another method that measures the same, does not repeat it.
// One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_MEASUREMENTS_H_
#define TRIMTAB_STEERING_METHODS_MEASUREMENTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/hash.h"
#include "server/base/job_context.h"
#include "steering/model_probe.h"

namespace trimtab {

// ModelProbe::NeutralKl of one setting, nats.
absl::StatusOr<double> MeasureNeutralKl(ModelProbe& probe, const SteeringSetting& setting, JobContext& job);

// ModelProbe::SteeredMargins: [pair][setting].
absl::StatusOr<std::vector<std::vector<double>>> MeasureMargins(const ModelProbe& probe,
                                                                const std::vector<const EncodedPair*>& pairs,
                                                                MarginKind kind,
                                                                const std::vector<SteeringSetting>& settings,
                                                                JobContext& job);

// Adds a pair's tokens to the name of a partial result.
void UpdateWithPair(const EncodedPair& pair, Sha256& hash);
// The start of such a name: model and batch size, which decides how results round.
void UpdateWithProbe(const ModelProbe& probe, Sha256& hash);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_MEASUREMENTS_H_
