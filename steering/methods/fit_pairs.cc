#include "steering/methods/fit_pairs.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "steering/attribution/random.h"

namespace trimtab {
namespace {

using methods::v1::FitOptions;

constexpr size_t kMinTraining = 4, kMinValidation = 2;
constexpr int64_t kLengthDifference = 4;  // median, in tokens, above which sums would reward short answers
constexpr int kCheckpointEvery = 64;
constexpr uint64_t kSplitStream = uint64_t{1} << 40;

absl::Status CheckTexts(const PreferencePair& pair, bool preference) {
  if (preference && pair.dispreferred.empty()) return absl::InvalidArgumentError("there is no dispreferred answer");
  if (preference && pair.preferred == pair.dispreferred) return absl::InvalidArgumentError("the answers are the same");
  if (!std::isfinite(pair.weight) || pair.weight < 0) return absl::InvalidArgumentError("the weight is out of range");
  return absl::OkStatus();
}

absl::StatusOr<EncodedPair> EncodeUsable(const FitOptions& options, const PreferencePair& pair, bool preference,
                                         const ModelProbe& probe) {
  TRIMTAB_RETURN_IF_ERROR(CheckTexts(pair, preference));
  TRIMTAB_ASSIGN_OR_RETURN(EncodedPair encoded, probe.Encode(pair));
  if (preference && encoded.preferred == encoded.dispreferred) {
    return absl::InvalidArgumentError("the answers are the same tokens");
  }
  if (!preference) encoded.dispreferred.clear();
  if (encoded.candidates.empty()) return absl::InvalidArgumentError("the user's message has no tokens");
  if (encoded.tokens() > options.max_pair_tokens()) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", encoded.tokens(), " tokens, at most ", options.max_pair_tokens(), " are allowed"));
  }
  return encoded;
}

bool WantsPreference(const FitOptions& options, const std::vector<PreferencePair>& pairs) {
  switch (options.objective()) {
    case methods::v1::OBJECTIVE_KIND_LIKELIHOOD_SUM:
    case methods::v1::OBJECTIVE_KIND_LIKELIHOOD_MEAN:
      return false;
    case methods::v1::OBJECTIVE_KIND_UNSPECIFIED:
      return std::any_of(pairs.begin(), pairs.end(), [](const PreferencePair& p) { return !p.dispreferred.empty(); });
    default:
      return true;
  }
}

MarginKind ChooseKind(const FitOptions& options, bool preference, const std::vector<FitPair>& pairs) {
  switch (options.objective()) {
    case methods::v1::OBJECTIVE_KIND_PREF_SUM:
      return MarginKind::kPrefSum;
    case methods::v1::OBJECTIVE_KIND_PREF_MEAN:
      return MarginKind::kPrefMean;
    case methods::v1::OBJECTIVE_KIND_LIKELIHOOD_SUM:
      return MarginKind::kLikelihoodSum;
    case methods::v1::OBJECTIVE_KIND_LIKELIHOOD_MEAN:
      return MarginKind::kLikelihoodMean;
    default:
      break;
  }
  if (!preference) return MarginKind::kLikelihoodMean;
  std::vector<int64_t> differences;
  for (const FitPair& pair : pairs) {
    differences.push_back(std::abs(static_cast<int64_t>(pair.encoded.preferred.size()) -
                                   static_cast<int64_t>(pair.encoded.dispreferred.size())));
  }
  const auto middle = differences.begin() + static_cast<ptrdiff_t>(differences.size() / 2);
  std::nth_element(differences.begin(), middle, differences.end());
  return *middle > kLengthDifference ? MarginKind::kPrefMean : MarginKind::kPrefSum;
}

size_t ValidationCount(const FitOptions& options, size_t usable) {
  const auto wanted = static_cast<size_t>(std::lround(options.validation_fraction() * static_cast<float>(usable)));
  const size_t most = usable > kMinTraining ? usable - kMinTraining : 0;
  const size_t count = std::min(wanted, most);
  return count < kMinValidation ? 0 : count;
}

}  // namespace

absl::Status PairsDegenerate(std::string_view message, int64_t usable) {
  return ReasonError(absl::StatusCode::kInvalidArgument, kPairsDegenerate, message,
                     {{"usable_pairs", absl::StrCat(usable)}});
}

absl::StatusOr<FitPairs> PreparePairs(const FitOptions& options, const FitInput& input, const ModelProbe& probe,
                                      const std::function<absl::Status()>& checkpoint) {
  const bool preference = WantsPreference(options, input.pairs);
  FitPairs result;
  std::vector<FitPair> usable;
  for (size_t i = 0; i < input.pairs.size(); ++i) {
    if (checkpoint && i % kCheckpointEvery == 0) TRIMTAB_RETURN_IF_ERROR(checkpoint());
    absl::StatusOr<EncodedPair> encoded = EncodeUsable(options, input.pairs[i], preference, probe);
    if (!encoded.ok()) {
      result.unusable.push_back({absl::StrCat("pairs[", i, "]"), std::string(encoded.status().message())});
      ++result.left_out;
      continue;
    }
    usable.push_back({.index = static_cast<int64_t>(i),
                      .encoded = *std::move(encoded),
                      .weight = input.pairs[i].weight == 0 ? 1 : input.pairs[i].weight});
  }
  if (preference && !input.pairs.empty() &&
      std::all_of(input.pairs.begin(), input.pairs.end(),
                  [](const PreferencePair& pair) { return pair.preferred == pair.dispreferred; })) {
    return PairsDegenerate("the preferred and the dispreferred answer are the same in every pair", 0);
  }
  if (usable.size() < kMinTraining) {
    return PairsDegenerate(absl::StrCat("only ", usable.size(), " of ", input.pairs.size(),
                                        " pairs can be used, at least ", kMinTraining, " are needed"),
                           static_cast<int64_t>(usable.size()));
  }
  result.kind = ChooseKind(options, preference, usable);
  result.report_kind = preference ? MarginKind::kPrefMean : MarginKind::kLikelihoodMean;

  const size_t validation = ValidationCount(options, usable.size());
  const std::vector<size_t> order = Random(options.seed(), kSplitStream).Permutation(usable.size());
  std::vector<size_t> chosen(order.begin(), order.begin() + static_cast<ptrdiff_t>(validation));
  std::sort(chosen.begin(), chosen.end());
  size_t next = 0;
  for (size_t i = 0; i < usable.size(); ++i) {
    if (next < chosen.size() && chosen[next] == i) {
      result.validation.push_back(std::move(usable[i].encoded));
      ++next;
    } else {
      result.training.push_back(std::move(usable[i]));
    }
  }
  for (size_t i = 0; i < input.held_out_pairs.size(); ++i) {
    if (checkpoint && i % kCheckpointEvery == 0) TRIMTAB_RETURN_IF_ERROR(checkpoint());
    absl::StatusOr<EncodedPair> encoded = EncodeUsable(options, input.held_out_pairs[i], preference, probe);
    if (encoded.ok()) {
      result.held_out.push_back(*std::move(encoded));
    } else {
      result.unusable.push_back({absl::StrCat("held_out_pairs[", i, "]"), std::string(encoded.status().message())});
    }
  }
  return result;
}

std::vector<const EncodedPair*> ValidationPairs(const FitPairs& pairs) {
  std::vector<const EncodedPair*> chosen;
  for (const EncodedPair& pair : pairs.validation) chosen.push_back(&pair);
  if (!chosen.empty()) return chosen;
  for (const FitPair& pair : pairs.training) chosen.push_back(&pair.encoded);
  return chosen;
}

std::vector<const EncodedPair*> HeldOutPairs(const FitPairs& pairs) {
  std::vector<const EncodedPair*> held_out;
  for (const EncodedPair& pair : pairs.held_out) held_out.push_back(&pair);
  return held_out;
}

}  // namespace trimtab
