// The method "icv": in-context vectors (arXiv 2311.06668). Any thread.
#ifndef TRIMTAB_STEERING_METHODS_ICV_H_
#define TRIMTAB_STEERING_METHODS_ICV_H_

#include "absl/status/statusor.h"
#include "steering/methods/direction_source.h"
#include "trimtab/methods/v1/icv.pb.h"

namespace trimtab {

// The vector of a pair is the difference of the last token's residual stream, over the embedding and all blocks as one
// long row, between the preferred and the dispreferred text; that of the pairs is the rows' mean plus their first
// principal component (centred, of unit norm, so the mean dominates). Its part of each block is added to the output of
// that block's MLP, m' = |m| n(n(m) + strength (1 + max(0, cos(m, -v))) n(v)) with n(z) = z / |z|, in all blocks at
// once. As the authors' code (github.com/shengliu66/ICV), but the state after the last block is read before the final
// norm, and prompts are not steered unless a request asks for it. FIELD_INVALID with every violation.
absl::StatusOr<FitRecipe> IcvRecipe(const methods::v1::IcvConfig& config);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_ICV_H_
