// The requests of ObjectiveService that change something.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

constexpr int64_t kMaxPairs = 10'000;
constexpr int64_t kMaxPairContents = 64;
constexpr size_t kMaxAnswerBytes = size_t{64} << 10;
constexpr size_t kMaxDisplayNameBytes = 128;
constexpr size_t kMaxDescriptionBytes = 4096;
constexpr size_t kMaxMethodBytes = 63;
constexpr size_t kMaxEtagBytes = 128;
constexpr size_t kMaxNamedPairs = 10;
constexpr int64_t kMaxStrengths = 41;
constexpr int64_t kDefaultMaxPairs = 200;

PreferencePair ParsePair(FieldChecker& checker, const std::string& path, const v1::PreferencePair& proto) {
  PreferencePair pair;
  bool has_image = false;
  pair.prompt = ParseContents(checker, path + ".prompt", proto.prompt(), kMaxPairContents, has_image);
  if (has_image) checker.Fail(path + ".prompt", "images are not supported by this model");
  if (!proto.prompt().empty() && proto.prompt().rbegin()->role() != v1::ROLE_USER) {
    checker.Fail(path + ".prompt", "must end with a user's content");
  }
  checker.Text(path + ".preferred", proto.preferred(), 1, kMaxAnswerBytes);
  checker.Text(path + ".dispreferred", proto.dispreferred(), 0, kMaxAnswerBytes);
  checker.Number(path + ".weight", proto.weight(), 0, 1000);
  pair.preferred = proto.preferred();
  pair.dispreferred = proto.dispreferred();
  pair.weight = proto.weight() == 0 ? 1 : proto.weight();
  return pair;
}

std::vector<PreferencePair> ParsePairList(FieldChecker& checker, const std::string& path,
                                          const google::protobuf::RepeatedPtrField<v1::PreferencePair>& protos) {
  std::vector<PreferencePair> pairs;
  if (!checker.Count(path, protos.size(), 0, kMaxPairs)) return pairs;
  for (int i = 0; i < protos.size(); ++i) {
    pairs.push_back(ParsePair(checker, absl::StrCat(path, "[", i, "]"), protos[i]));
    if (pairs.back().dispreferred.empty() != pairs.front().dispreferred.empty()) {
      checker.Fail(absl::StrCat(path, "[", i, "].dispreferred"), "must be empty in all pairs or in none");
    }
  }
  return pairs;
}

// Whether a direction can come out of the pairs at all.
absl::Status CheckNotDegenerate(const std::vector<PreferencePair>& pairs) {
  if (static_cast<int64_t>(pairs.size()) < kMinPairs) {
    return ReasonError(absl::StatusCode::kInvalidArgument, kPairsDegenerate,
                       absl::StrCat("at least ", kMinPairs, " pairs are needed; about 50 are good"),
                       {{"pairs", absl::StrCat(pairs.size())}, {"minimum", absl::StrCat(kMinPairs)}});
  }
  std::vector<size_t> equal;
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (pairs[i].preferred == pairs[i].dispreferred) equal.push_back(i);
  }
  if (equal.empty()) return absl::OkStatus();
  const size_t count = equal.size();
  equal.resize(std::min(count, kMaxNamedPairs));
  return ReasonError(absl::StatusCode::kInvalidArgument, kPairsDegenerate,
                     absl::StrCat(count, " pairs have equal answers, for example pair ", equal.front(),
                                  "; remove them or make the answers differ"),
                     {{"count", absl::StrCat(count)}, {"pair_indices", absl::StrJoin(equal, ",")}});
}

void CheckLabels(FieldChecker& checker, const v1::Objective& objective) {
  checker.Text("objective.display_name", objective.display_name(), 0, kMaxDisplayNameBytes);
  checker.Text("objective.description", objective.description(), 0, kMaxDescriptionBytes);
}

std::optional<float> ParseDefaultStrength(FieldChecker& checker, const v1::Objective& objective) {
  if (!objective.has_default_strength()) return std::nullopt;
  checker.Number("objective.default_strength", objective.default_strength(), -kMaxStrength, kMaxStrength);
  return objective.default_strength();
}

std::optional<float> ParseMaxStrength(FieldChecker& checker, const v1::Objective& objective) {
  if (!objective.has_max_strength()) return std::nullopt;
  checker.NumberAbove("objective.max_strength", objective.max_strength(), 0, kMaxStrength);
  return objective.max_strength();
}

// The pairs and held_out_pairs of `message`; `prefix` stands before these names.
template <typename Message>
PairSet ParsePairSet(FieldChecker& checker, const std::string& prefix, const Message& message) {
  PairSet set;
  set.pairs = ParsePairList(checker, prefix + "pairs", message.pairs());
  set.held_out = ParsePairList(checker, prefix + "held_out_pairs", message.held_out_pairs());
  if (!set.pairs.empty() && !set.held_out.empty() &&
      set.pairs.front().dispreferred.empty() != set.held_out.front().dispreferred.empty()) {
    checker.Fail(prefix + "held_out_pairs", "must have dispreferred answers exactly if the pairs have");
  }
  return set;
}

}  // namespace

PairSet ParsePairs(FieldChecker& checker, std::string_view field, const v1::Objective& objective) {
  return ParsePairSet(checker, std::string(field) + ".", objective);
}

absl::StatusOr<RegisterCall> ParseRegisterObjectiveRequest(const v1::RegisterObjectiveRequest& request) {
  FieldChecker checker;
  RegisterCall call;
  call.id.model = ParseModel(checker, "parent", request.parent());
  if (!IsValidId(request.objective_id())) {
    checker.Fail("objective_id", absl::StrCat("must be of the form ", std::string(kIdPattern)));
  }
  call.id.objective = request.objective_id();
  checker.Token("request_id", request.request_id(), kMaxRequestIdBytes);
  call.request_id = request.request_id();
  call.validate_only = request.validate_only();
  call.evaluate_drift = request.evaluate_drift();
  if (!request.has_objective()) {
    checker.Fail("objective", "must be set");
    return checker.status();
  }
  const v1::Objective& objective = request.objective();
  if (!objective.name().empty() && objective.name() != call.id.name()) {
    checker.Fail("objective.name", "must be empty or {parent}/objectives/{objective_id}");
  }
  CheckLabels(checker, objective);
  call.display_name = objective.display_name();
  call.description = objective.description();
  checker.Text("objective.method", objective.method(), 1, kMaxMethodBytes);
  call.method = objective.method();
  call.default_strength = ParseDefaultStrength(checker, objective);
  call.max_strength = ParseMaxStrength(checker, objective);
  call.pairs = ParsePairs(checker, "objective", objective);
  if (!checker.ok()) return checker.status();
  TRIMTAB_RETURN_IF_ERROR(CheckNotDegenerate(call.pairs.pairs));
  return call;
}

absl::Status CheckStrengths(std::optional<float> default_strength, std::optional<float> max_strength) {
  if (!default_strength || !max_strength || std::abs(*default_strength) <= *max_strength) return absl::OkStatus();
  return FieldError({{"objective.default_strength", absl::StrCat("must be within max_strength, ", *max_strength)}});
}

absl::StatusOr<RefitCall> ParseRefitObjectiveRequest(const v1::RefitObjectiveRequest& request) {
  FieldChecker checker;
  RefitCall call;
  call.id = ParseObjective(checker, "name", request.name());
  checker.Text("method", request.method(), 0, kMaxMethodBytes);
  call.method = request.method();
  call.pairs = ParsePairSet(checker, "", request);
  if (request.pairs().empty() && !request.held_out_pairs().empty()) {
    checker.Fail("held_out_pairs", "must be empty without pairs");
  }
  checker.Token("request_id", request.request_id(), kMaxRequestIdBytes);
  call.request_id = request.request_id();
  call.keep_active = request.keep_active();
  call.validate_only = request.validate_only();
  call.evaluate_drift = request.evaluate_drift();
  checker.Token("etag", request.etag(), kMaxEtagBytes);
  call.etag = request.etag();
  if (!checker.ok()) return checker.status();
  if (!request.pairs().empty()) TRIMTAB_RETURN_IF_ERROR(CheckNotDegenerate(call.pairs.pairs));
  return call;
}

absl::StatusOr<SwitchCall> ParseSwitchRequest(const std::string& name, const std::string& etag) {
  FieldChecker checker;
  SwitchCall call{.id = ParseObjective(checker, "name", name), .etag = etag};
  checker.Token("etag", etag, kMaxEtagBytes);
  if (!checker.ok()) return checker.status();
  return call;
}

absl::StatusOr<StrengthCall> ParseEvaluateStrengthRequest(const v1::EvaluateStrengthRequest& request) {
  FieldChecker checker;
  StrengthCall call;
  if (const auto revision = ParseRevisionName(request.name())) {
    call.objective = revision->objective;
    call.revision = revision->revision;
  } else if (const auto objective = ParseObjectiveName(request.name())) {
    call.objective = *objective;
  } else {
    checker.Fail("name", "must be the name of an objective or of a revision");
  }
  if (checker.Count("strengths", request.strengths_size(), 0, kMaxStrengths)) {
    for (int i = 0; i < request.strengths_size(); ++i) {
      checker.Number(absl::StrCat("strengths[", i, "]"), request.strengths(i), -kMaxStrength, kMaxStrength);
    }
    call.strengths.assign(request.strengths().begin(), request.strengths().end());
    std::sort(call.strengths.begin(), call.strengths.end());
    call.strengths.erase(std::unique(call.strengths.begin(), call.strengths.end()), call.strengths.end());
  }
  call.pairs = ParsePairList(checker, "pairs", request.pairs());
  checker.Integer("max_pairs", request.max_pairs(), 0, kMaxPairs);
  if (request.max_pairs() > 0 && request.max_pairs() < kMinPairs) {
    checker.Fail("max_pairs", absl::StrCat("must be 0 or at least ", kMinPairs));
  }
  call.max_pairs = request.max_pairs() == 0 ? kDefaultMaxPairs : request.max_pairs();
  checker.Token("request_id", request.request_id(), kMaxRequestIdBytes);
  call.request_id = request.request_id();
  if (!checker.ok()) return checker.status();
  if (!request.pairs().empty()) TRIMTAB_RETURN_IF_ERROR(CheckNotDegenerate(call.pairs));
  return call;
}

absl::StatusOr<UpdateCall> ParseUpdateObjectiveRequest(const v1::UpdateObjectiveRequest& request) {
  FieldChecker checker;
  UpdateCall call;
  const v1::Objective& objective = request.objective();
  call.id = ParseObjective(checker, "objective.name", objective.name());
  checker.Token("objective.etag", objective.etag(), kMaxEtagBytes);
  call.etag = objective.etag();
  CheckLabels(checker, objective);
  if (request.update_mask().paths().empty()) checker.Fail("update_mask.paths", "must name at least one field");
  for (int i = 0; i < request.update_mask().paths_size(); ++i) {
    const std::string& path = request.update_mask().paths(i);
    if (path == "display_name") {
      call.display_name = objective.display_name();
    } else if (path == "description") {
      call.description = objective.description();
    } else if (path == "default_strength") {
      call.default_strength = ParseDefaultStrength(checker, objective);
    } else if (path == "max_strength") {
      call.max_strength = ParseMaxStrength(checker, objective);
    } else {
      checker.Fail(absl::StrCat("update_mask.paths[", i, "]"),
                   "must be display_name, description, default_strength or max_strength");
    }
  }
  if (!checker.ok()) return checker.status();
  return call;
}

absl::StatusOr<DeleteObjectiveCall> ParseDeleteObjectiveRequest(const v1::DeleteObjectiveRequest& request) {
  FieldChecker checker;
  DeleteObjectiveCall call;
  call.id = ParseObjective(checker, "name", request.name());
  checker.Token("etag", request.etag(), kMaxEtagBytes);
  call.etag = request.etag();
  if (!checker.ok()) return checker.status();
  return call;
}

absl::StatusOr<PromoteCall> ParsePromoteRevisionRequest(const v1::PromoteRevisionRequest& request) {
  FieldChecker checker;
  PromoteCall call;
  call.id.objective = ParseObjective(checker, "name", request.name());
  if (request.revision() < 1) checker.Fail("revision", "must be at least 1");
  call.id.revision = request.revision();
  checker.Token("etag", request.etag(), kMaxEtagBytes);
  call.etag = request.etag();
  if (!checker.ok()) return checker.status();
  return call;
}

}  // namespace trimtab
