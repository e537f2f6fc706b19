// GrAInS (arXiv 2507.18043): gradient-based attribution finds the prompt tokens that a preference hangs on; masking
// them on either side gives per-pair differences of activations; their principal directions are where to steer. The
// preset PRODUCT deviates from the paper where held-out pairs say so; PAPER_FAITHFUL does not (grains_config.cc).
#ifndef TRIMTAB_STEERING_METHODS_GRAINS_H_
#define TRIMTAB_STEERING_METHODS_GRAINS_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "steering/method_registry.h"
#include "steering/steering_method.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

class GrainsMethod final : public SteeringMethod {
 public:
  // From a trimtab.methods.v1.GrainsConfig (null: defaults). FIELD_INVALID; METHOD_CONFIG_MISMATCH for another type.
  static absl::StatusOr<std::unique_ptr<SteeringMethod>> Create(const google::protobuf::Any* config);
  static MethodInfo Info();

  explicit GrainsMethod(methods::v1::GrainsConfig resolved) : config_(std::move(resolved)) {}

  absl::StatusOr<FitResult> Fit(const FitInput& input, ModelProbe& probe, JobContext& job) const override;

 private:
  const methods::v1::GrainsConfig config_;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_GRAINS_H_
