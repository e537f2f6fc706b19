// The methods "iti" and "nl_iti": inference-time intervention at the attention heads that know best which answer is
// true (arXiv 2306.03341, 2403.18680). Any thread.
#ifndef TRIMTAB_STEERING_METHODS_ITI_H_
#define TRIMTAB_STEERING_METHODS_ITI_H_

#include "absl/status/statusor.h"
#include "steering/methods/direction_source.h"
#include "trimtab/methods/v1/iti.pb.h"

namespace trimtab {

// Every pair gives a true (preferred) and a false (dispreferred) answer. A probe of each head learns on a part of the
// training pairs to tell them apart by the head's values; the heads whose probes do best on the rest are steered, each
// by strength * sigma * theta: theta is the unit difference of the means of the true and the false answers, sigma the
// standard deviation of the values along it, both over all training pairs. Output projections are linear, so the heads
// of a block together are one vector at the output of its attention (steering.md A12; exact unless a norm stands behind
// the projection, then to first order: ModelProbe::FoldHeads).
//
// "iti" has logistic regressions on the last token of an answer. "nl_iti" has small networks on the mean over the last
// probe_tokens tokens, and takes theta and sigma from the mean over the last direction_tokens. FIELD_INVALID with every
// violation.
absl::StatusOr<FitRecipe> ItiRecipe(const methods::v1::ItiConfig& config);
absl::StatusOr<FitRecipe> NlItiRecipe(const methods::v1::NlItiConfig& config);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_METHODS_ITI_H_
