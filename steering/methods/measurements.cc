#include "steering/methods/measurements.h"

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "steering/byte_io.h"

namespace trimtab {
namespace {

template <typename T>
void Update(const T& value, Sha256& hash) {
  hash.Update(&value, sizeof(value));
}

void UpdateWithTokens(const std::vector<TokenId>& tokens, Sha256& hash) {
  hash.UpdateField(std::string_view(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(TokenId)));
}

void UpdateWithSetting(const SteeringSetting& setting, Sha256& hash) {
  hash.UpdateField(setting.vector == nullptr ? "" : setting.vector->digest());
  Update(setting.strength, hash);
  Update(static_cast<int32_t>(setting.apply_to), hash);
}

absl::StatusOr<std::optional<std::vector<double>>> Load(const std::string& key, size_t count, JobContext& job) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> saved, job.LoadPartial(key));
  std::vector<double> values;
  if (saved.has_value()) {
    ByteReader reader(*saved);
    reader.Numbers(values);
    if (reader.ok() && reader.remaining() == 0 && values.size() == count) return std::optional(std::move(values));
  }
  return std::optional<std::vector<double>>();
}

absl::Status Save(const std::string& key, const std::vector<double>& values, JobContext& job) {
  ByteWriter writer;
  writer.Numbers(values);
  return job.SavePartial(key, writer.bytes());
}

}  // namespace

void UpdateWithPair(const EncodedPair& pair, Sha256& hash) {
  for (const std::vector<TokenId>* tokens : {&pair.prompt, &pair.preferred, &pair.dispreferred}) {
    UpdateWithTokens(*tokens, hash);
  }
}

void UpdateWithProbe(const ModelProbe& probe, Sha256& hash) {
  hash.UpdateField(probe.fingerprint());
  Update(probe.batch_tokens(), hash);
}

absl::StatusOr<double> MeasureNeutralKl(ModelProbe& probe, const SteeringSetting& setting, JobContext& job) {
  Sha256 hash;
  UpdateWithProbe(probe, hash);
  Update(probe.neutral_tokens(), hash);
  UpdateWithSetting(setting, hash);
  const std::string key = absl::StrCat("kl/", hash.FinishHex());
  TRIMTAB_ASSIGN_OR_RETURN(const auto saved, Load(key, 1, job));
  if (saved.has_value()) return saved->front();
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> kl, probe.NeutralKl({setting}, job));
  TRIMTAB_RETURN_IF_ERROR(Save(key, kl, job));
  return kl.front();
}

absl::StatusOr<std::vector<std::vector<double>>> MeasureMargins(const ModelProbe& probe,
                                                                const std::vector<const EncodedPair*>& pairs,
                                                                MarginKind kind,
                                                                const std::vector<SteeringSetting>& settings,
                                                                JobContext& job) {
  Sha256 hash;
  UpdateWithProbe(probe, hash);
  Update(static_cast<int32_t>(kind), hash);
  for (const SteeringSetting& setting : settings) UpdateWithSetting(setting, hash);
  for (const EncodedPair* pair : pairs) UpdateWithPair(*pair, hash);
  const std::string key = absl::StrCat("margins/", hash.FinishHex());
  TRIMTAB_ASSIGN_OR_RETURN(const auto saved, Load(key, pairs.size() * settings.size(), job));
  if (saved.has_value()) {
    std::vector<std::vector<double>> margins;
    for (auto row = saved->begin(); row != saved->end(); row += static_cast<ptrdiff_t>(settings.size())) {
      margins.emplace_back(row, row + static_cast<ptrdiff_t>(settings.size()));
    }
    return margins;
  }
  TRIMTAB_ASSIGN_OR_RETURN(auto margins, probe.SteeredMargins(pairs, kind, settings, job));
  std::vector<double> flat;
  for (const std::vector<double>& row : margins) flat.insert(flat.end(), row.begin(), row.end());
  TRIMTAB_RETURN_IF_ERROR(Save(key, flat, job));
  return margins;
}

}  // namespace trimtab
