#include "steering/methods/mean_diff.h"

#include <memory>

#include "server/base/status_macros.h"
#include "steering/methods/fit_options.h"
#include "steering/methods/pair_rows_source.h"

namespace trimtab {
namespace {

class MeanDiffSource final : public PairRowsSource {
 protected:
  RowRequest Rows(const FitContext& context) const override {
    const auto answer = [](const EncodedPair& pair, bool preferred) {
      return preferred ? pair.preferred : pair.dispreferred;
    };
    return {.key = "answers/mean_response",
            .shape = {static_cast<int64_t>(context.layers.size()), context.probe.hidden_size()},
            .measure =
                [&context, answer](const FitPair* pairs, size_t count) {
                  return AnswerDifferences(context, pairs, count, DeltaPosition::kMeanResponse, answer);
                },
            .cost = [&context](const EncodedPair& pair) { return AnswerDifferenceCost(context, pair); }};
  }
};

}  // namespace

absl::StatusOr<FitRecipe> MeanDiffRecipe(const methods::v1::MeanDiffConfig& config) {
  ConfigChecker checker;
  methods::v1::MeanDiffConfig resolved = config;
  *resolved.mutable_fit() = ResolveFitOptions(config.fit(), {}, checker);
  TRIMTAB_RETURN_IF_ERROR(checker.status());
  return FitRecipe{
      .method = "mean_diff", .options = resolved.fit(), .resolved_config = resolved.SerializeAsString(), .source = [] {
        return std::make_unique<MeanDiffSource>();
      }};
}

}  // namespace trimtab
