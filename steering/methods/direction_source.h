// What a steering method contributes to a fit: directions. Everything else - encoding and splitting the pairs, choosing
// layer and strength within a budget of divergence, turning a direction round, the held-out effect, the random control,
// warnings, report and vector - is the pipeline's (fit_pipeline.h). One job's thread.
//
// To add a method "x":
//   1. proto/trimtab/methods/v1/x.proto: message XConfig { FitOptions fit = 1; ... }, named in proto/BUILD.
//   2. steering/methods/x.{h,cc}: a DirectionSource, for most methods a PairRowsSource (pair_rows_source.h: one row of
//      numbers per training pair and layer, a direction from them); and
//        absl::StatusOr<FitRecipe> XRecipe(const methods::v1::XConfig& config);
//      which checks the configuration (ConfigChecker, ResolveFitOptions: all violations at once) and says method, site
//      and source.
//   3. one line in builtin_methods.cc: MakePipelineMethod("x", name, description, &XRecipe); and XConfig among the
//   linked
//      types of tools/trimctl/json_output.cc.
// margin_gradient.cc is the smallest one.
#ifndef TRIMTAB_STEERING_METHODS_DIRECTION_SOURCE_H_
#define TRIMTAB_STEERING_METHODS_DIRECTION_SOURCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/site.h"
#include "server/base/job_context.h"
#include "steering/methods/fit_pairs.h"
#include "steering/methods/progress.h"
#include "steering/model_probe.h"
#include "steering/steering_method.h"
#include "steering/steering_vector.h"
#include "trimtab/methods/v1/fit.pb.h"

namespace trimtab {

// Layers that are steered together, ascending; one in the usual case.
using DirectionSet = std::vector<LayerDirection>;

// What a source works with. All outlive it.
struct FitContext {
  const methods::v1::FitOptions& options;  // resolved
  const Site site;
  const FitPairs& pairs;               // directions come from pairs.training
  const std::vector<int64_t>& layers;  // blocks to measure at, ascending
  const bool together;                 // all of them make one candidate; else each makes one
  const ModelProbe& probe;
  ProgressMeter& progress;
  JobContext& job;
};

// One fit's work; its state is that fit's.
class DirectionSource {
 public:
  virtual ~DirectionSource() = default;

  // Rows of forward passes that Candidates takes, of which it tells context.progress; a row with gradients counts as
  // four.
  virtual double Cost(const FitContext& context) const = 0;

  // The directions to choose from, of unit norm. Starts the phases it has (attributing, masking, decomposing),
  // checkpoints between micro-batches and keeps what it computes as partial results: the same input gives the same bits
  // after an interruption. PAIRS_DEGENERATE when the pairs give no direction; the errors of context.job unchanged.
  virtual absl::StatusOr<std::vector<DirectionSet>> Candidates(const FitContext& context) = 0;

  // Mean |cos| of a chosen direction with those of resampled pairs (LayerDirection::bootstrap_stability). Takes no
  // model pass. 1 for what does not depend on the pairs.
  virtual float Stability(const FitContext& context, const LayerDirection& direction) const = 0;

  // Adds what only the method knows to the report: pair_count, attributions and sentences for `warnings`.
  virtual void Describe(const FitContext& context, const DirectionSet& chosen, FitReport& report) const = 0;
};

// A method with its options, ready to fit any pairs. Const once made; several fits may run from one.
struct FitRecipe {
  std::string method;              // "grains"; becomes the vector's
  Site site = Site::kBlockOutput;  // where the directions are added
  // The vector's operation unless the options say NORM_NONE.
  Operation preserving = Operation::kAddPreserveNorm;
  bool all_layers = false;          // without layers in the options, every block is steered together
  methods::v1::FitOptions options;  // resolved (ResolveFitOptions)
  std::string resolved_config;      // serialized configuration, defaults filled in
  std::function<std::unique_ptr<DirectionSource>()> source;
};

// One candidate of all `directions`, each with its share of a relative strength, or one of each (context.together).
std::vector<DirectionSet> CandidatesOf(const FitContext& context, std::vector<LayerDirection> directions);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_DIRECTION_SOURCE_H_
