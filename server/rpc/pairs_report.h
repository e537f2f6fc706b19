// What can be said about pairs before they are fitted: what is wrong with them and how long the fit will take. For
// validate_only. Encodes every pair: never from a gRPC reaction.
#ifndef TRIMTAB_SERVER_RPC_PAIRS_REPORT_H_
#define TRIMTAB_SERVER_RPC_PAIRS_REPORT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "server/registry/registry.h"
#include "server/rpc/served_model.h"
#include "server/rpc/validate.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {

// All of a report but the time. Pairs beyond `max_pair_tokens`, or the model's context, count as too long.
v1::PairsReport ReportPairs(const PairSet& pairs, const ServedModel& model, int64_t max_pair_tokens);

// Adds the time that a fit of `rows` rows of forward passes will take: at the speed of earlier fits on the same
// weights; without any by the model's size. Blocks on the registry; its errors.
absl::Status EstimateFitTime(Registry& registry, const v1::Model& model, double rows, v1::PairsReport& report);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_PAIRS_REPORT_H_
