// From stored records to messages of the API. Pure; any thread.
#ifndef TRIMTAB_SERVER_RPC_TO_PROTO_H_
#define TRIMTAB_SERVER_RPC_TO_PROTO_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "google/longrunning/operations.pb.h"
#include "server/registry/registry.h"
#include "steering/method_registry.h"
#include "trimtab/v1/drift.pb.h"
#include "trimtab/v1/model.pb.h"
#include "trimtab/v1/objective.pb.h"
#include "trimtab/v1/revision.pb.h"

namespace trimtab {

// Kinds of jobs (JobRecord::kind).
inline constexpr std::string_view kFitJob = "fit";      // of an objective's first revision
inline constexpr std::string_view kRefitJob = "refit";  // of a further one
inline constexpr std::string_view kCurveJob = "curve";
inline constexpr std::string_view kDriftJob = "drift";
inline constexpr std::string_view kLoadJob = "load";
inline constexpr std::string_view kUnloadJob = "unload";

// The stored summary with what was stored beside it: number, name, time, curve.
v1::RevisionSummary ToProto(const RevisionRecord& record);
// `active`: the active revision, null without one.
v1::Objective ToProto(const ObjectiveRecord& record, const RevisionRecord* active);
v1::SteeringMethod ToProto(const MethodInfo& info);
// `error` comes from the record; the response is the stored result.
google::longrunning::Operation ToProto(const JobRecord& record);

// One revision without its vectors, which may be megabytes. OBJECTIVE_NOT_FOUND, REVISION_NOT_FOUND. Blocks on the
// registry.
absl::StatusOr<RevisionRecord> FindRevision(Registry& registry, const std::string& objective, int64_t revision);
// Reads the active revision, if any, and makes the whole message. Blocks on the registry.
absl::StatusOr<v1::Objective> LoadObjective(Registry& registry, const ObjectiveRecord& record);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_TO_PROTO_H_
