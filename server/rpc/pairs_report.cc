#include "server/rpc/pairs_report.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/status_macros.h"
#include "server/rpc/proto_time.h"

namespace trimtab {
namespace {

using Kind = v1::PairsFinding::Kind;

constexpr int kMaxNamedPairs = 10;
constexpr int64_t kFewPairs = 20;  // below it the interval of an effect is about as wide as effects are
// One side is longer in so many pairs, by so many tokens in the middle.
constexpr double kUnbalancedShare = 0.85;
constexpr int64_t kUnbalancedTokens = 4;
// Seconds per row of a forward pass and parameter where no fit has been timed yet: about what SmolLM2-135M takes on two
// cores with AVX-512 that serve meanwhile.
constexpr double kSecondsPerRowParameter = 1e-11;
constexpr int64_t kObjectivesPage = 100, kRevisionsPage = 100;

// What a pair says, in a form that can be compared.
std::string PromptKey(const PreferencePair& pair) {
  std::string key;
  for (const ChatMessage& message : pair.prompt) absl::StrAppend(&key, message.role, "\x1f", message.text, "\x1e");
  return key;
}

bool HasUserText(const PreferencePair& pair) {
  return !pair.prompt.empty() && pair.prompt.back().text.find_first_not_of(" \t\r\n") != std::string::npos;
}

// Findings of one list of pairs, by kind.
class Findings {
 public:
  explicit Findings(bool held_out) : held_out_(held_out) {}

  void Add(Kind kind, size_t pair) {
    v1::PairsFinding& finding = findings_[kind];
    finding.set_count(finding.count() + 1);
    if (finding.pair_indices_size() < kMaxNamedPairs) finding.add_pair_indices(static_cast<int32_t>(pair));
  }
  void Note(Kind kind, std::string message) { findings_[kind].set_message(std::move(message)); }
  // Moves them out, with a message each.
  void AppendTo(google::protobuf::RepeatedPtrField<v1::PairsFinding>* all);

 private:
  std::string MessageOf(Kind kind, const v1::PairsFinding& finding) const;

  const bool held_out_;
  std::map<Kind, v1::PairsFinding> findings_;
};

std::string Findings::MessageOf(Kind kind, const v1::PairsFinding& finding) const {
  const std::string which =
      absl::StrCat(finding.count(), held_out_ ? " held-out" : "", finding.count() == 1 ? " pair " : " pairs ");
  const bool one = finding.count() == 1;
  switch (kind) {
    case v1::PairsFinding::KIND_DUPLICATE:
      return which + (one ? "repeats" : "repeat") + " an earlier one; remove the repetitions";
    case v1::PairsFinding::KIND_EQUAL_ANSWERS:
      return which + (one ? "has" : "have") + " answers of the same tokens and will be left out";
    case v1::PairsFinding::KIND_EMPTY_PROMPT:
      return which + (one ? "has" : "have") + " a prompt without text and will be left out";
    case v1::PairsFinding::KIND_CONTRADICTION:
      return which + (one ? "prefers" : "prefer") + " what an earlier one of the same prompt does not; decide for one";
    case v1::PairsFinding::KIND_HELD_OUT_OVERLAP:
      return which + (one ? "is" : "are") + " among the pairs too: the measured effect will look better than it is";
    default:
      return which + (one ? "needs" : "need") + " a look";
  }
}

void Findings::AppendTo(google::protobuf::RepeatedPtrField<v1::PairsFinding>* all) {
  for (auto& [kind, finding] : findings_) {
    finding.set_kind(kind);
    finding.set_held_out(held_out_);
    if (finding.message().empty()) finding.set_message(MessageOf(kind, finding));
    *all->Add() = std::move(finding);
  }
}

// Tokens of a pair's parts.
struct Lengths {
  int64_t prompt = 0, preferred = 0, dispreferred = 0;
  int64_t total() const { return prompt + preferred + dispreferred; }
};

// Encodes `pair` number `index` as a fit would. False: it will be left out, and a finding says why.
bool Encode(const PreferencePair& pair, size_t index, const ServedModel& model, bool has_template, int64_t limit,
            Findings& findings, Lengths& lengths) {
  if (!HasUserText(pair)) {
    findings.Add(v1::PairsFinding::KIND_EMPTY_PROMPT, index);
    return false;
  }
  PromptInput input;
  if (has_template) {
    input.messages = pair.prompt;
  } else {
    input.raw = pair.prompt.back().text;
  }
  const absl::StatusOr<std::vector<TokenId>> prompt = model.Encode(input);
  const std::vector<TokenId> preferred = model.EncodeContinuation(pair.preferred);
  const std::vector<TokenId> dispreferred = model.EncodeContinuation(pair.dispreferred);
  if (!prompt.ok() || preferred.empty()) {
    findings.Add(v1::PairsFinding::KIND_NOT_ENCODABLE, index);
    findings.Note(v1::PairsFinding::KIND_NOT_ENCODABLE,
                  absl::StrCat("pairs that cannot be turned into tokens will be left out; the last one: ",
                               prompt.ok() ? "its preferred answer has no tokens" : prompt.status().message()));
    return false;
  }
  if (!pair.dispreferred.empty() && preferred == dispreferred) {
    findings.Add(v1::PairsFinding::KIND_EQUAL_ANSWERS, index);
    return false;
  }
  lengths = {static_cast<int64_t>(prompt->size()), static_cast<int64_t>(preferred.size()),
             static_cast<int64_t>(dispreferred.size())};
  if (lengths.total() <= limit) return true;
  findings.Add(v1::PairsFinding::KIND_TOO_LONG, index);
  findings.Note(v1::PairsFinding::KIND_TOO_LONG,
                absl::StrCat("pairs of more than ", limit,
                             " tokens, prompt and both answers, will be left out; shorten them or raise "
                             "max_pair_tokens"));
  return false;
}

// Whether one side's answers are longer nearly everywhere.
void CheckBalance(const std::vector<Lengths>& usable, Findings& findings) {
  int64_t preferred_longer = 0, dispreferred_longer = 0;
  std::vector<int64_t> differences;
  for (const Lengths& pair : usable) {
    if (pair.dispreferred == 0) return;
    preferred_longer += pair.preferred > pair.dispreferred;
    dispreferred_longer += pair.preferred < pair.dispreferred;
    differences.push_back(pair.preferred - pair.dispreferred);
  }
  if (usable.empty()) return;
  const auto middle = differences.begin() + static_cast<ptrdiff_t>(differences.size() / 2);
  std::nth_element(differences.begin(), middle, differences.end());
  const int64_t most = std::max(preferred_longer, dispreferred_longer);
  const double share = static_cast<double>(most) / static_cast<double>(usable.size());
  if (share < kUnbalancedShare || std::abs(*middle) <= kUnbalancedTokens) return;
  findings.Note(
      v1::PairsFinding::KIND_UNBALANCED_LENGTH,
      absl::StrFormat("the %s answers are longer in %.0f %% of the pairs, by %d tokens in the middle: the vector may "
                      "learn length; balance the lengths",
                      most == preferred_longer ? "preferred" : "dispreferred", 100 * share, std::abs(*middle)));
}

}  // namespace

v1::PairsReport ReportPairs(const PairSet& pairs, const ServedModel& model, int64_t max_pair_tokens) {
  const v1::Model description = model.Describe();
  const int64_t limit = std::min<int64_t>(max_pair_tokens, description.context_length());
  v1::PairsReport report;
  report.set_pair_count(static_cast<int32_t>(pairs.pairs.size()));
  report.set_held_out_count(static_cast<int32_t>(pairs.held_out.size()));
  std::set<std::array<std::string, 3>> training;  // prompt, preferred, dispreferred
  for (const bool held_out : {false, true}) {
    Findings findings(held_out);
    std::set<std::array<std::string, 3>> seen;
    std::vector<Lengths> usable;
    const std::vector<PreferencePair>& list = held_out ? pairs.held_out : pairs.pairs;
    for (size_t i = 0; i < list.size(); ++i) {
      const PreferencePair& pair = list[i];
      const std::string prompt = PromptKey(pair);
      if (!seen.insert({prompt, pair.preferred, pair.dispreferred}).second) {
        findings.Add(v1::PairsFinding::KIND_DUPLICATE, i);
      } else if (pair.preferred != pair.dispreferred && seen.contains({prompt, pair.dispreferred, pair.preferred})) {
        findings.Add(v1::PairsFinding::KIND_CONTRADICTION, i);
      }
      if (held_out && training.contains({prompt, pair.preferred, pair.dispreferred})) {
        findings.Add(v1::PairsFinding::KIND_HELD_OUT_OVERLAP, i);
      }
      Lengths lengths;
      if (!Encode(pair, i, model, description.has_chat_template(), limit, findings, lengths)) continue;
      usable.push_back(lengths);
      report.set_token_count(report.token_count() + lengths.total());
      report.set_longest_pair_tokens(
          static_cast<int32_t>(std::max<int64_t>(report.longest_pair_tokens(), lengths.total())));
    }
    const auto count = static_cast<int64_t>(usable.size());
    if (held_out) {
      report.set_usable_held_out_count(static_cast<int32_t>(count));
    } else {
      report.set_usable_pair_count(static_cast<int32_t>(count));
      CheckBalance(usable, findings);
      if (count < kMinPairs) {
        findings.Note(v1::PairsFinding::KIND_TOO_FEW_PAIRS,
                      absl::StrCat("only ", count, " pairs can be used, at least ", kMinPairs, " are needed"));
      } else if (count < kFewPairs) {
        findings.Note(v1::PairsFinding::KIND_FEW_PAIRS,
                      absl::StrCat("only ", count, " pairs can be used: layer, strength and effect will be uncertain; ",
                                   "about 50 are good"));
      }
      training = std::move(seen);
    }
    findings.AppendTo(report.mutable_findings());
  }
  return report;
}

absl::Status EstimateFitTime(Registry& registry, const v1::Model& model, double rows, v1::PairsReport& report) {
  std::vector<double> rates;  // seconds per row
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<ObjectiveRecord> objectives,
                           registry.ListObjectives(model.name(), {.limit = kObjectivesPage}));
  for (const ObjectiveRecord& objective : objectives) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<RevisionRecord> revisions,
                             registry.ListRevisions(objective.name, 0, kRevisionsPage));
    for (const RevisionRecord& revision : revisions) {
      v1::RevisionSummary summary;
      if (revision.model_fingerprint != model.fingerprint() || !summary.ParseFromString(revision.summary)) continue;
      if (summary.fit_rows() <= 0) continue;
      const google::protobuf::Duration& time = summary.fit_time();
      rates.push_back((static_cast<double>(time.seconds()) + 1e-9 * time.nanos()) / summary.fit_rows());
    }
  }
  double rate = kSecondsPerRowParameter * static_cast<double>(model.parameter_count());
  report.set_estimate_source("model's size");
  if (!rates.empty()) {
    const auto middle = rates.begin() + static_cast<ptrdiff_t>(rates.size() / 2);
    std::nth_element(rates.begin(), middle, rates.end());
    rate = *middle;
    report.set_estimate_source("earlier fits");
  }
  *report.mutable_estimated_fit_time() = ToProto(absl::Seconds(rate * rows));
  return absl::OkStatus();
}

}  // namespace trimtab
