// From the training pairs' evidence at one layer to a direction (steering.md A6, E). Any thread.
#ifndef TRIMTAB_STEERING_METHODS_DIRECTION_H_
#define TRIMTAB_STEERING_METHODS_DIRECTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "steering/steering_vector.h"
#include "trimtab/methods/v1/grains.pb.h"

namespace trimtab {

// What P training pairs say at one layer. Tensors are float32.
struct LayerEvidence {
  int64_t layer = 0;
  at::Tensor positive;          // [P, D]: h(x) - h(x without S+); only for COMBINE_PAPER
  at::Tensor negative;          // [P, D]: h(x) - h(x without S-); only for COMBINE_PAPER
  at::Tensor paired;            // [P, D]: their difference, h(x without S-) - h(x without S+)
  at::Tensor gradients;         // [P, D]: gradient of F with respect to the edit (ModelProbe::SteeringGradients)
  std::vector<bool> has_row;    // [P]: both sides are masked, so the deltas count
  std::vector<double> weights;  // [P], above 0
};

// The direction that `pairs` (indices, repetitions allowed) give: float32 [D], of unit norm, or zero when the pairs
// give none.
at::Tensor DirectionOf(const LayerEvidence& evidence, const std::vector<size_t>& pairs,
                       const methods::v1::GrainsConfig& resolved);

// The direction of all pairs with its quality numbers. Stability, which takes 20 more decompositions, is left 0.
LayerDirection FitLayer(const LayerEvidence& evidence, const methods::v1::GrainsConfig& resolved);
// Mean |cos| with the directions of bootstrap samples of the pairs.
float StabilityOf(const LayerEvidence& evidence, const LayerDirection& direction,
                  const methods::v1::GrainsConfig& resolved);
// Share of the pairs with deltas whose delta points the way of the mean gradient; 1 without such pairs. Well above a
// half when attribution found what the preference hangs on.
double Agreement(const LayerEvidence& evidence);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_DIRECTION_H_
