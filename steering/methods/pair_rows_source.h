// Sources whose direction at a layer comes from one row of numbers per training pair: a difference of activations, a
// gradient. Measuring in resumable groups, quality numbers and warnings are here. One job's thread.
#ifndef TRIMTAB_STEERING_METHODS_PAIR_ROWS_SOURCE_H_
#define TRIMTAB_STEERING_METHODS_PAIR_ROWS_SOURCE_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "steering/methods/direction_source.h"

namespace trimtab {

// What is measured of every training pair.
struct RowRequest {
  // Everything that the numbers depend on beyond the model, site, layers, the pairs' tokens and the batch size: names
  // the partial results. Fits that measure the same of the same pairs share them.
  std::string key;
  std::function<std::string(const FitPair& pair)> pair_key;  // the same of one pair; may be null
  std::vector<int64_t> shape;                                // of one pair's numbers, for example {layers, hidden}
  // Numbers of `count` pairs: float32 [count, shape...].
  std::function<at::Tensor(const FitPair* pairs, size_t count)> measure;
  std::function<double(const EncodedPair& pair)> cost;  // rows of forward passes
};

// Rows of all training pairs: float32 [P, shape...]. Measured in groups within the probe's gradient_tokens that are
// saved as partial results: a resumed job computes what is missing in the same groups, hence with the same bits. Pairs
// whose numbers are not finite become zeros.
absl::StatusOr<at::Tensor> CollectRows(const FitContext& context, const RowRequest& request);

// Gradient of F of every training pair with respect to a relative edit at context.site (ModelProbe::SteeringGradients):
// float32 [P, layers, hidden].
absl::StatusOr<at::Tensor> CollectMarginGradients(const FitContext& context);
RowRequest MarginGradientRows(const FitContext& context);
double MarginGradientCost(const EncodedPair& pair);  // rows of forward passes

// Difference of a pair's activations after its preferred and its dispreferred answer at context.site: float32
// [count, layers, hidden]. `tokens` gives an answer up to the position that is looked at.
using AnswerTokens = std::function<std::vector<TokenId>(const EncodedPair& pair, bool preferred)>;
at::Tensor AnswerDifferences(const FitContext& context, const FitPair* pairs, size_t count, DeltaPosition position,
                             const AnswerTokens& tokens);
double AnswerDifferenceCost(const FitContext& context, const EncodedPair& pair);  // rows of forward passes

class PairRowsSource : public DirectionSource {
 public:
  double Cost(const FitContext& context) const override;
  absl::StatusOr<std::vector<DirectionSet>> Candidates(const FitContext& context) override;
  float Stability(const FitContext& context, const LayerDirection& direction) const override;
  void Describe(const FitContext& context, const DirectionSet& chosen, FitReport& report) const override;

 protected:
  // Rows [layers, hidden] per pair, or what Prepare makes them of.
  virtual RowRequest Rows(const FitContext& context) const = 0;
  // The rows that directions are made of, [P, layers, hidden], from all that were measured; both double.
  virtual at::Tensor Prepare(const FitContext& /*context*/, const at::Tensor& measured) const { return measured; }
  // The direction of rows [M, hidden] with weights [M], both double: [hidden] of any norm, zero for none. By default
  // the weighted mean.
  virtual at::Tensor Combine(const at::Tensor& rows, const at::Tensor& weights) const;
  // Whether the rows need a dispreferred answer in every pair.
  virtual bool ComparesAnswers() const { return true; }
  // Whether the rows are CollectMarginGradients, which are otherwise measured as well: each direction's cosine to them
  // is reported.
  virtual bool RowsAreGradients() const { return false; }
  // Weight of an absolute direction whose rows have the mean `mean` [hidden].
  virtual float AbsoluteWeight(const at::Tensor& /*mean*/) const { return 1; }

 private:
  // Of the pairs at these places among the training pairs (repetitions allowed), at context.layers[layer].
  at::Tensor DirectionOf(const std::vector<size_t>& places, int64_t layer) const;  // [hidden] double

  at::Tensor rows_;     // [P, layers, hidden] double
  at::Tensor weights_;  // [P] double
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_PAIR_ROWS_SOURCE_H_
