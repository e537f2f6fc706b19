// Objectives, revisions and methods.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/rpc/grpc_status.h"
#include "tools/trimctl/error_text.h"
#include "tools/trimctl/render.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

// "ACTIVE" of STATE_ACTIVE.
std::string StateText(v1::Objective::State state) {
  const std::string name = v1::Objective::State_Name(state);
  return name.rfind("STATE_", 0) == 0 ? name.substr(6) : name;
}

std::string SiteText(v1::Site site) {
  switch (site) {
    case v1::SITE_BLOCK_OUTPUT:
      return "block output";
    case v1::SITE_ATTENTION_OUTPUT:
      return "attention output";
    case v1::SITE_MLP_OUTPUT:
      return "feed-forward output";
    default:
      return "-";
  }
}

std::string ApplyToText(v1::ApplyTo apply_to) {
  switch (apply_to) {
    case v1::APPLY_TO_ALL:
      return "all positions";
    case v1::APPLY_TO_FROM_LAST_PROMPT:
      return "from the last prompt token on";
    case v1::APPLY_TO_RESPONSE:
      return "generated tokens only";
    default:
      return "";
  }
}

std::string Percent(double share) { return absl::StrFormat("%.0f %%", 100 * share); }

std::string LayerList(const v1::RevisionSummary& revision) {
  return absl::StrJoin(revision.layers(), ",",
                       [](std::string* out, const v1::LayerSummary& layer) { absl::StrAppend(out, layer.layer()); });
}

float DefaultStrength(const v1::Objective& objective) {
  return objective.has_default_strength() ? objective.default_strength() : objective.active().recommended_strength();
}

float MaxStrength(const v1::Objective& objective) {
  return objective.has_max_strength() ? objective.max_strength() : objective.active().max_strength();
}

void AddEffect(const v1::EffectSummary& effect, const std::string& name,
               std::vector<std::pair<std::string, std::string>>& fields) {
  if (effect.pair_count() == 0) return;
  fields.emplace_back(name, absl::StrCat(FormatGain(effect), " nats per token on ", effect.pair_count(), " pairs"));
  fields.emplace_back(
      "  preferred answer is the likelier",
      absl::StrCat(Percent(effect.accuracy_before()), " -> ", Percent(effect.accuracy_after()), " of these pairs"));
  if (effect.anti_steerable_share() > 0) {
    fields.emplace_back("  steered the wrong way", absl::StrCat(Percent(effect.anti_steerable_share()), " of them"));
  }
}

}  // namespace

std::string FormatGain(const v1::EffectSummary& effect) {
  return absl::StrCat(Signed(effect.margin_gain()), " [", Signed(effect.ci95_low()), ", ", Signed(effect.ci95_high()),
                      "]");
}

std::string RenderObjectives(const std::vector<v1::Objective>& objectives, bool color) {
  if (objectives.empty()) return "There are no objectives yet; `trimctl register` makes one.\n";
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "STATE", "REVISION", "LAYERS", "STRENGTH", "HELD-OUT GAIN [95 %]", "KL", "METHOD", "UPDATED"}};
  for (const v1::Objective& objective : objectives) {
    const v1::RevisionSummary& active = objective.active();
    const bool fitted = objective.has_active();
    const bool measured = active.held_out().pair_count() > 0;
    rows.push_back({ShortName(objective.name()), StateText(objective.state()),
                    fitted ? absl::StrCat(active.revision()) : "-", fitted ? LayerList(active) : "-",
                    fitted ? absl::StrFormat("%.3g", DefaultStrength(objective)) : "-",
                    measured ? FormatGain(active.held_out()) : "-",
                    fitted ? absl::StrFormat("%.3f", active.kl_at_recommended()) : "-", objective.method(),
                    FormatTime(objective.update_time())});
  }
  return FormatTable(rows, color);
}

std::string RenderRevision(const v1::RevisionSummary& revision, bool color) {
  const bool imported = !revision.imported_from().empty();
  std::vector<std::pair<std::string, std::string>> fields = {
      {"revision", imported ? absl::StrCat(revision.revision(), ", of the method ", revision.method())
                            : absl::StrCat(revision.revision(), ", fitted by ", revision.method(), " on ",
                                           revision.pair_count(), " pairs in ", FormatDuration(revision.fit_time()))},
      {"imported from", Printable(revision.imported_from())},
      {"recommended strength",
       absl::StrFormat("%.3g (largest allowed %.3g)", revision.recommended_strength(), revision.max_strength())},
      {"steers", ApplyToText(revision.apply_to())},
  };
  AddEffect(revision.held_out(), "held-out gain", fields);
  AddEffect(revision.validation(), "validation gain", fields);
  if (revision.has_random_control() && revision.random_control().directions() > 0) {
    const v1::RandomControl& control = revision.random_control();
    fields.emplace_back("random directions",
                        absl::StrFormat("%+.3f on average, %+.3f at most (%d directions)", control.mean_margin_gain(),
                                        control.max_margin_gain(), control.directions()));
  }
  if (!imported || revision.kl_at_recommended() > 0) {
    fields.emplace_back("cost on neutral text",
                        absl::StrFormat("KL %.4f nats per token, all positions steered", revision.kl_at_recommended()));
  }
  if (revision.median_completeness_error() > 0 || revision.low_confidence_pairs() > 0) {
    fields.emplace_back("attribution",
                        absl::StrFormat("median completeness error %.3f, %d pairs of low confidence",
                                        revision.median_completeness_error(), revision.low_confidence_pairs()));
  }
  fields.emplace_back("attributed scalar", revision.objective_kind());
  fields.emplace_back(imported ? "imported" : "fitted", FormatTime(revision.create_time()));
  fields.emplace_back("digest", revision.digest());
  std::string text = FormatFields(fields);
  std::vector<std::vector<std::string>> rows = {
      {"LAYER", "SITE", "WEIGHT", "EXPLAINED", "COSINE TO MEAN", "COSINE TO GRADIENT", "STABILITY"}};
  for (const v1::LayerSummary& layer : revision.layers()) {
    rows.push_back({absl::StrCat(layer.layer()), SiteText(layer.site()), absl::StrFormat("%.3g", layer.weight()),
                    absl::StrFormat("%.2f", layer.explained_variance()),
                    absl::StrFormat("%.2f", layer.cosine_to_mean()),
                    absl::StrFormat("%.2f", layer.cosine_to_margin_gradient()),
                    absl::StrFormat("%.2f", layer.bootstrap_stability())});
  }
  absl::StrAppend(&text, "\n", FormatTable(rows, color), RenderTrials(revision, color));
  for (const std::string& warning : revision.warnings()) {
    absl::StrAppend(&text, Styled("warning: ", "33", color), Printable(warning), "\n");
  }
  if (revision.has_curve()) absl::StrAppend(&text, "\n", RenderCurve(revision.curve(), color));
  return text;
}

std::string RenderObjective(const v1::Objective& objective, const std::vector<v1::RevisionSummary>& revisions,
                            bool color) {
  std::string state = StateText(objective.state());
  if (!objective.operation().empty()) {
    const bool creating = objective.state() == v1::Objective::STATE_CREATING;
    absl::StrAppend(&state, creating ? ", by " : ", being refitted by ", objective.operation());
  }
  std::string text = FormatFields({
      {"objective", objective.name()},
      {"display name", objective.display_name()},
      {"description", objective.description()},
      {"state", state},
      {"method", objective.method()},
      {"default strength", objective.has_active() || objective.has_default_strength()
                               ? absl::StrFormat("%.3g", DefaultStrength(objective))
                               : ""},
      {"max strength",
       objective.has_active() || objective.has_max_strength() ? absl::StrFormat("%.3g", MaxStrength(objective)) : ""},
      {"created", FormatTime(objective.create_time())},
      {"updated", FormatTime(objective.update_time())},
      {"etag", objective.etag()},
  });
  if (objective.has_error()) {
    absl::StrAppend(&text, Styled("failed: ", "31", color), FormatError(FromRpcStatus(objective.error()), ""));
  }
  if (objective.has_active()) {
    absl::StrAppend(&text, "\n", Styled("Active revision", "1", color), "\n",
                    RenderRevision(objective.active(), color));
  }
  if (revisions.size() > 1) {
    std::vector<std::vector<std::string>> rows = {{"REVISION", "LAYERS", "STRENGTH", "HELD-OUT GAIN [95 %]", "FITTED"}};
    for (const v1::RevisionSummary& revision : revisions) {
      rows.push_back(
          {absl::StrCat(revision.revision(), revision.revision() == objective.active().revision() ? "*" : ""),
           LayerList(revision), absl::StrFormat("%.3g", revision.recommended_strength()),
           revision.held_out().pair_count() > 0 ? FormatGain(revision.held_out()) : "-",
           FormatTime(revision.create_time())});
    }
    absl::StrAppend(&text, "\n", FormatTable(rows, color));
  }
  return text;
}

std::string RenderMethods(const std::vector<v1::SteeringMethod>& methods, bool color) {
  std::string text;
  for (const v1::SteeringMethod& method : methods) {
    absl::StrAppend(&text, text.empty() ? "" : "\n", Styled(ShortName(method.name()), "1", color), "\n");
    std::vector<std::string> sites;
    for (const int site : method.sites()) sites.push_back(SiteText(static_cast<v1::Site>(site)));
    absl::StrAppend(&text, FormatFields({{"  name", method.display_name()},
                                         {"  what", method.description()},
                                         {"  configuration", method.config_type()},
                                         {"  steers", absl::StrJoin(sites, ", ")}}));
  }
  return text;
}

}  // namespace trimtab
