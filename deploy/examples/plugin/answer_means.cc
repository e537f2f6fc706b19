// A steering method outside Trimtab's tree, the smallest that works: the direction from what the model thinks over the
// dispreferred answers to what it thinks over the preferred ones, averaged over the pairs. docs/plugins.md goes through
// it line by line.
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <google/protobuf/any.pb.h>
#include <google/protobuf/wrappers.pb.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "steering/model_probe.h"
#include "steering/plugin.h"

namespace {

using google::protobuf::Int32Value;

constexpr char kId[] = "answer_means";

class AnswerMeans final : public trimtab::SteeringMethod {
 public:
  explicit AnswerMeans(int64_t block) : block_(block) {}

  absl::StatusOr<trimtab::FitResult> Fit(const trimtab::FitInput& input, trimtab::ModelProbe& probe,
                                         trimtab::JobContext& job) const override {
    const int64_t block = block_ < 0 ? probe.num_layers() / 2 : block_;
    if (block >= probe.num_layers()) {
      return trimtab::FieldError(
          {{"method_config", absl::StrCat("the model has blocks 0 to ", probe.num_layers() - 1)}});
    }
    at::Tensor sum = at::zeros({probe.hidden_size()});  // [hidden]
    trimtab::FitReport report;
    for (const trimtab::PreferencePair& pair : input.pairs) {
      // Whether to go on: operators cancel, servers shut down.
      TRIMTAB_RETURN_IF_ERROR(job.Checkpoint());
      TRIMTAB_ASSIGN_OR_RETURN(const trimtab::EncodedPair encoded, probe.Encode(pair));
      const at::Tensor prompt = probe.Embed(encoded.prompt);  // [L, hidden]
      const at::Tensor states =                               // [2, 1, hidden]
          probe.CaptureStates({prompt, prompt}, {encoded.preferred, encoded.dispreferred},
                              trimtab::DeltaPosition::kMeanResponse, {block});
      sum += pair.weight * (states[0][0] - states[1][0]);
      ++report.pair_count;
      job.Report({.phase = trimtab::JobPhase::kDecomposing,
                  .completed = report.pair_count,
                  .total = static_cast<int64_t>(input.pairs.size()),
                  .fraction = static_cast<double>(report.pair_count) / static_cast<double>(input.pairs.size())});
    }
    const double norm = sum.norm().item<double>();
    if (norm == 0) {
      return trimtab::ReasonError(absl::StatusCode::kInvalidArgument, trimtab::kPairsDegenerate,
                                  "the answers leave no difference in the model");
    }
    const at::Tensor unit = (sum / norm).contiguous();
    trimtab::SteeringVectorSpec spec;
    spec.model_fingerprint = probe.fingerprint();
    spec.method = kId;
    spec.hidden_size = probe.hidden_size();
    spec.layers = {{.layer = block,
                    .direction = std::vector<float>(unit.data_ptr<float>(), unit.data_ptr<float>() + unit.numel())}};
    trimtab::FitResult result;
    TRIMTAB_ASSIGN_OR_RETURN(result.vector, trimtab::SteeringVector::Create(std::move(spec)));
    report.objective = kId;
    report.warnings = {"strength and effect were not measured: try it on pairs of your own"};
    result.report = std::move(report);
    return result;
  }

 private:
  const int64_t block_;  // -1: the middle one
};

absl::StatusOr<std::unique_ptr<trimtab::SteeringMethod>> Create(const google::protobuf::Any* config) {
  Int32Value block;
  block.set_value(-1);
  if (config != nullptr && !config->UnpackTo(&block)) {
    return trimtab::ReasonError(absl::StatusCode::kInvalidArgument, trimtab::kMethodConfigMismatch,
                                "method_config must be a google.protobuf.Int32Value, the block to steer");
  }
  if (block.value() < -1)
    return trimtab::FieldError({{"method_config.value", "must be a block, or -1 for the middle"}});
  return std::make_unique<AnswerMeans>(block.value());
}

absl::Status RegisterMethods(trimtab::MethodRegistry& registry) {
  Int32Value block;
  block.set_value(-1);
  return registry.Register({.id = kId,
                            .display_name = "Answer means",
                            .description = "Mean difference of the activations over the two answers. An example.",
                            .config_type = Int32Value::descriptor()->full_name(),
                            .default_config = block.SerializeAsString(),
                            .sites = {"block_output"}},
                           Create);
}

}  // namespace

TRIMTAB_PLUGIN("answer_means 1.0", RegisterMethods)
