#include "steering/methods/margin_gradient.h"

#include <memory>

#include "server/base/status_macros.h"
#include "steering/methods/fit_options.h"
#include "steering/methods/pair_rows_source.h"

namespace trimtab {
namespace {

class MarginGradientSource final : public PairRowsSource {
 protected:
  RowRequest Rows(const FitContext& context) const override { return MarginGradientRows(context); }
  bool ComparesAnswers() const override { return false; }
  bool RowsAreGradients() const override { return true; }
};

}  // namespace

absl::StatusOr<FitRecipe> MarginGradientRecipe(const methods::v1::MarginGradientConfig& config) {
  ConfigChecker checker;
  methods::v1::MarginGradientConfig resolved = config;
  *resolved.mutable_fit() = ResolveFitOptions(config.fit(), {}, checker);
  TRIMTAB_RETURN_IF_ERROR(checker.status());
  return FitRecipe{.method = "margin_gradient",
                   .options = resolved.fit(),
                   .resolved_config = resolved.SerializeAsString(),
                   .source = [] { return std::make_unique<MarginGradientSource>(); }};
}

}  // namespace trimtab
