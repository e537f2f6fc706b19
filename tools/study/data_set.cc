#include "tools/study/data_set.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/status_macros.h"
#include "steering/attribution/random.h"
#include "tools/trimctl/pairs_file.h"

namespace trimtab {
namespace {

constexpr uint64_t kSplitStream = 7;

const char* RoleName(v1::Role role) {
  switch (role) {
    case v1::ROLE_SYSTEM:
      return "system";
    case v1::ROLE_ASSISTANT:
      return "assistant";
    default:
      return "user";
  }
}

PreferencePair FromProto(const v1::PreferencePair& proto) {
  PreferencePair pair{.preferred = proto.preferred(),
                      .dispreferred = proto.dispreferred(),
                      .weight = proto.weight() == 0 ? 1 : proto.weight()};
  for (const v1::Content& content : proto.prompt()) {
    std::string text;
    for (const v1::Part& part : content.parts()) text += part.text();
    pair.prompt.push_back({.role = RoleName(content.role()), .text = std::move(text)});
  }
  return pair;
}

}  // namespace

absl::StatusOr<DataSet> ReadDataSet(const std::string& spec, const SplitSizes& sizes, uint64_t seed) {
  const std::vector<std::string> paths = absl::StrSplit(spec, '+');
  std::vector<PreferencePair> pairs;
  std::set<std::string> seen;
  for (const std::string& path : paths) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<v1::PreferencePair> read, ReadPairsFile(path));
    for (const v1::PreferencePair& proto : read) {
      PreferencePair pair = FromProto(proto);
      if (pair.dispreferred.empty()) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": a study needs a dispreferred answer in every pair"));
      }
      if (seen.insert(PairsHash({pair})).second) pairs.push_back(std::move(pair));
    }
  }
  const int64_t needed = sizes.training + sizes.validation + sizes.test;
  if (static_cast<int64_t>(pairs.size()) < needed) {
    return absl::FailedPreconditionError(absl::StrCat(spec, ": holds ", pairs.size(), " pairs, ", needed,
                                                      " are needed; lower --train, --validation or --test"));
  }
  DataSet data;
  const std::string file = paths.front().substr(paths.front().rfind('/') + 1);
  data.name = file.substr(0, file.find('.'));
  const std::vector<size_t> order = Random(seed, kSplitStream).Permutation(pairs.size());
  size_t next = 0;
  const auto deal = [&](int64_t count, std::vector<PreferencePair>& part) {
    for (int64_t i = 0; i < count; ++i) part.push_back(pairs[order[next++]]);
  };
  deal(sizes.test, data.test);
  deal(sizes.training + sizes.validation, data.pairs);
  return data;
}

}  // namespace trimtab
