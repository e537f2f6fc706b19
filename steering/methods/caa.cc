#include "steering/methods/caa.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "steering/methods/fit_options.h"
#include "steering/methods/pair_rows_source.h"

namespace trimtab {
namespace {

using methods::v1::CaaConfig;

// Index of the first token at which the answers differ; the last token of the shorter one when it begins the other.
size_t FirstDifference(const EncodedPair& pair) {
  const size_t common = std::min(pair.preferred.size(), pair.dispreferred.size());
  size_t i = 0;
  while (i + 1 < common && pair.preferred[i] == pair.dispreferred[i]) ++i;
  return i;
}

bool DifferInOneToken(const EncodedPair& pair) {
  if (pair.preferred.size() != pair.dispreferred.size()) return false;
  int64_t differences = 0;
  for (size_t i = 0; i < pair.preferred.size(); ++i) differences += pair.preferred[i] != pair.dispreferred[i] ? 1 : 0;
  return differences == 1;
}

CaaConfig::Position PositionFor(const CaaConfig& config, const FitPairs& pairs) {
  if (config.position() != CaaConfig::POSITION_UNSPECIFIED) return config.position();
  const bool letters = std::all_of(pairs.training.begin(), pairs.training.end(),
                                   [](const FitPair& pair) { return DifferInOneToken(pair.encoded); });
  return letters ? CaaConfig::POSITION_ANSWER_LETTER : CaaConfig::POSITION_LAST_RESPONSE;
}

class CaaSource final : public PairRowsSource {
 public:
  explicit CaaSource(CaaConfig config) : config_(std::move(config)) {}

 protected:
  RowRequest Rows(const FitContext& context) const override {
    const CaaConfig::Position position = PositionFor(config_, context.pairs);
    const auto answer = [position](const EncodedPair& pair, bool preferred) {
      std::vector<TokenId> tokens = preferred ? pair.preferred : pair.dispreferred;
      if (position == CaaConfig::POSITION_ANSWER_LETTER) tokens.resize(FirstDifference(pair) + 1);
      return tokens;
    };
    const bool mean = position == CaaConfig::POSITION_MEAN_RESPONSE;
    return {.key = mean ? "answers/mean_response" : absl::StrCat("answers/", static_cast<int>(position)),
            .shape = {static_cast<int64_t>(context.layers.size()), context.probe.hidden_size()},
            .measure =
                [&context, answer, mean](const FitPair* pairs, size_t count) {
                  return AnswerDifferences(context, pairs, count,
                                           mean ? DeltaPosition::kMeanResponse : DeltaPosition::kLastResponse, answer);
                },
            .cost = [&context](const EncodedPair& pair) { return AnswerDifferenceCost(context, pair); }};
  }
  // A strength of 1 adds the mean difference itself.
  float AbsoluteWeight(const at::Tensor& mean) const override { return mean.norm().item<float>(); }

 private:
  const CaaConfig config_;
};

}  // namespace

absl::StatusOr<FitRecipe> CaaRecipe(const CaaConfig& config) {
  ConfigChecker checker;
  CaaConfig resolved = config;
  checker.Require(CaaConfig::Position_IsValid(config.position()), "position", "is unknown");
  *resolved.mutable_fit() = ResolveFitOptions(config.fit(), {}, checker);
  TRIMTAB_RETURN_IF_ERROR(checker.status());
  return FitRecipe{.method = "caa",
                   .options = resolved.fit(),
                   .resolved_config = resolved.SerializeAsString(),
                   .source = [resolved] { return std::make_unique<CaaSource>(resolved); }};
}

}  // namespace trimtab
