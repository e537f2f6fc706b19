#include "steering/methods/random_direction.h"

#include <memory>
#include <utility>
#include <vector>

#include "server/base/status_macros.h"
#include "steering/attribution/random.h"
#include "steering/methods/fit_options.h"

namespace trimtab {
namespace {

constexpr uint64_t kStream = uint64_t{1} << 42;  // apart from those of the control, the split and attribution

class RandomSource final : public DirectionSource {
 public:
  double Cost(const FitContext&) const override { return 0; }
  absl::StatusOr<std::vector<DirectionSet>> Candidates(const FitContext& context) override {
    std::vector<LayerDirection> directions;
    for (int64_t layer : context.layers) {
      directions.push_back(
          {.layer = layer,
           .direction = RandomUnitVector(static_cast<size_t>(context.probe.hidden_size()), context.options.seed(),
                                         kStream + static_cast<uint64_t>(layer))});
    }
    return CandidatesOf(context, std::move(directions));
  }
  float Stability(const FitContext&, const LayerDirection&) const override { return 1; }
  void Describe(const FitContext& context, const DirectionSet&, FitReport& report) const override {
    report.pair_count = static_cast<int64_t>(context.pairs.training.size());
  }
};

}  // namespace

absl::StatusOr<FitRecipe> RandomRecipe(const methods::v1::RandomConfig& config) {
  ConfigChecker checker;
  methods::v1::RandomConfig resolved = config;
  *resolved.mutable_fit() = ResolveFitOptions(config.fit(), {}, checker);
  TRIMTAB_RETURN_IF_ERROR(checker.status());
  return FitRecipe{
      .method = "random", .options = resolved.fit(), .resolved_config = resolved.SerializeAsString(), .source = [] {
        return std::make_unique<RandomSource>();
      }};
}

}  // namespace trimtab
