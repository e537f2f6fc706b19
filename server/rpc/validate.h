// From request messages to plain structs. Every Parse function looks at the whole message and reports all that is wrong
// with it in one FIELD_INVALID; none looks at anything but the message. Pure; any thread.
#ifndef TRIMTAB_SERVER_RPC_VALIDATE_H_
#define TRIMTAB_SERVER_RPC_VALIDATE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/longrunning/operations.pb.h"
#include "server/base/resource_name.h"
#include "server/engine/request.h"
#include "server/rpc/page_token.h"
#include "server/rpc/parse_common.h"
#include "steering/preference.h"
#include "steering/steering_plan.h"
#include "trimtab/v1/drift.pb.h"
#include "trimtab/v1/generation.pb.h"
#include "trimtab/v1/model.pb.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {

// --- GenerationService ---

struct GenerateCall {
  std::string model;  // id
  PromptInput input;
  SamplingParams sampling;       // seed and end_tokens are not set here
  std::optional<uint64_t> seed;  // unset: the server draws one
  std::vector<std::string> stop_sequences;
  bool ignore_eos = false;
  std::vector<SteeringSelection> steering;
  Priority priority = Priority::kInteractive;
  std::string request_id;  // empty: the server makes one
};
absl::StatusOr<GenerateCall> ParseGenerateRequest(const v1::GenerateRequest& request);

struct ScoreCall {
  std::string model;  // id
  PromptInput input;
  std::vector<std::string> continuations;
  std::vector<SteeringSelection> steering;
  Priority priority = Priority::kInteractive;
};
absl::StatusOr<ScoreCall> ParseScoreRequest(const v1::ScoreRequest& request);

struct CountTokensCall {
  std::string model;  // id
  PromptInput input;
};
absl::StatusOr<CountTokensCall> ParseCountTokensRequest(const v1::CountTokensRequest& request);

// --- Names and pages ---

// Gets and deletes that have nothing but a name.
absl::StatusOr<std::string> ParseGetModelRequest(const v1::GetModelRequest& request);  // id
absl::StatusOr<ObjectiveId> ParseGetObjectiveRequest(const v1::GetObjectiveRequest& request);
absl::StatusOr<RevisionId> ParseGetRevisionRequest(const v1::GetRevisionRequest& request);
absl::StatusOr<DriftReportId> ParseDriftReportRequest(std::string_view name);
absl::StatusOr<std::string> ParseGetSteeringMethodRequest(const v1::GetSteeringMethodRequest& request);  // id
absl::StatusOr<std::string> ParseOperationRequest(std::string_view name);                                // the name

// A list below `parent` (empty for lists without one).
struct ListCall {
  std::string parent;  // full name
  std::string scope;   // of page tokens
  PageQuery page;
};
absl::StatusOr<ListCall> ParseListModelsRequest(const v1::ListModelsRequest& request, const PageTokenCodec& codec);
absl::StatusOr<ListCall> ParseListObjectivesRequest(const v1::ListObjectivesRequest& request,
                                                    const PageTokenCodec& codec);
absl::StatusOr<ListCall> ParseListRevisionsRequest(const v1::ListRevisionsRequest& request,
                                                   const PageTokenCodec& codec);
absl::StatusOr<ListCall> ParseListSteeringMethodsRequest(const v1::ListSteeringMethodsRequest& request,
                                                         const PageTokenCodec& codec);
absl::StatusOr<ListCall> ParseListDriftReportsRequest(const v1::ListDriftReportsRequest& request,
                                                      const PageTokenCodec& codec);
absl::StatusOr<ListCall> ParseListOperationsRequest(const google::longrunning::ListOperationsRequest& request,
                                                    const PageTokenCodec& codec);

// --- ModelService ---

// Everything but what the disk and other models say.
absl::Status ParseLoadModelRequest(const v1::LoadModelRequest& request);

struct UnloadModelCall {
  std::string model;                            // id
  std::optional<absl::Duration> drain_timeout;  // unset: the server's
};
absl::StatusOr<UnloadModelCall> ParseUnloadModelRequest(const v1::UnloadModelRequest& request);

// --- ObjectiveService ---

struct PairSet {
  std::vector<PreferencePair> pairs;     // to fit and to validate on
  std::vector<PreferencePair> held_out;  // only measured on
};

// At least this many pairs to fit on.
inline constexpr int64_t kMinPairs = 4;

struct RegisterCall {
  ObjectiveId id;
  PairSet pairs;
  std::string display_name, description, method;
  std::optional<float> default_strength, max_strength;
  std::string request_id;
  bool validate_only = false, evaluate_drift = false;
};
// PAIRS_DEGENERATE when the fields are fine but no direction can come out of the pairs: too few, or a preferred answer
// that equals its dispreferred one. method_config is for the method to check.
absl::StatusOr<RegisterCall> ParseRegisterObjectiveRequest(const v1::RegisterObjectiveRequest& request);

// The pairs of an objective message; used for requests and for what the registry keeps of them.
PairSet ParsePairs(FieldChecker& checker, std::string_view field, const v1::Objective& objective);

// A default strength that every request would be refused for is a mistake.
absl::Status CheckStrengths(std::optional<float> default_strength, std::optional<float> max_strength);

struct RefitCall {
  ObjectiveId id;
  PairSet pairs;       // none: the objective's
  std::string method;  // empty: the objective's
  std::string request_id;
  bool keep_active = false, validate_only = false, evaluate_drift = false;
  std::string etag;  // empty: whatever is stored
};
// As ParseRegisterObjectiveRequest.
absl::StatusOr<RefitCall> ParseRefitObjectiveRequest(const v1::RefitObjectiveRequest& request);

// DisableObjective and EnableObjective.
struct SwitchCall {
  ObjectiveId id;
  std::string etag;  // empty: whatever is stored
};
absl::StatusOr<SwitchCall> ParseSwitchRequest(const std::string& name, const std::string& etag);

struct StrengthCall {
  ObjectiveId objective;
  std::optional<int64_t> revision;    // unset: the active one
  std::vector<float> strengths;       // ascending, each once; empty: the server's choice
  std::vector<PreferencePair> pairs;  // none: the server's choice
  int64_t max_pairs = 0;
  std::string request_id;
};
// PAIRS_DEGENERATE as ParseRegisterObjectiveRequest. The limit of strengths is the revision's to check.
absl::StatusOr<StrengthCall> ParseEvaluateStrengthRequest(const v1::EvaluateStrengthRequest& request);

struct UpdateCall {
  ObjectiveId id;
  std::string etag;  // empty: whatever is stored
  // The outer optional: whether to change the field at all.
  std::optional<std::string> display_name, description;
  std::optional<std::optional<float>> default_strength, max_strength;
};
absl::StatusOr<UpdateCall> ParseUpdateObjectiveRequest(const v1::UpdateObjectiveRequest& request);

struct DeleteObjectiveCall {
  ObjectiveId id;
  std::string etag;  // empty: whatever is stored
};
absl::StatusOr<DeleteObjectiveCall> ParseDeleteObjectiveRequest(const v1::DeleteObjectiveRequest& request);

struct PromoteCall {
  RevisionId id;
  std::string etag;  // empty: whatever is stored
};
absl::StatusOr<PromoteCall> ParsePromoteRevisionRequest(const v1::PromoteRevisionRequest& request);

struct AttributionsCall {
  ObjectiveId objective;
  std::optional<int64_t> revision;  // unset: the active one
  std::string scope;                // of page tokens
  PageQuery page;
};
absl::StatusOr<AttributionsCall> ParseGetAttributionsRequest(const v1::GetAttributionsRequest& request,
                                                             const PageTokenCodec& codec);

// --- DriftService ---

struct DriftCall {
  std::string model;  // id
  std::vector<SteeringSelection> steering;
  std::string suite;  // empty: the server's default
  int64_t max_items = 0;
  uint64_t seed = 0;
  int64_t shots = 0;
  int64_t max_text_tokens = 0;
  std::string request_id;
};
absl::StatusOr<DriftCall> ParseEvaluateDriftRequest(const v1::EvaluateDriftRequest& request);

// --- Operations ---

struct WaitCall {
  std::string name;
  absl::Duration timeout;  // at most kMaxOperationWait
};
inline constexpr absl::Duration kMaxOperationWait = absl::Minutes(10);
absl::StatusOr<WaitCall> ParseWaitOperationRequest(const google::longrunning::WaitOperationRequest& request);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_VALIDATE_H_
