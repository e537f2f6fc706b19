#include "tools/study/study.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "steering/methods/grains_config.h"
#include "steering/methods/masking_effect.h"

namespace trimtab {
namespace {

using Json = nlohmann::json;

absl::StatusOr<google::protobuf::Any> PackConfig(const std::string& type_name, const Json& config,
                                                 const std::string& arm) {
  const auto* type = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(type_name);
  if (type == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(arm, ": this program does not know the type ", type_name));
  }
  const std::unique_ptr<google::protobuf::Message> message(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
  const auto status = google::protobuf::util::JsonStringToMessage(config.dump(), message.get());
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(arm, ": the config is no ", type_name, ": ", std::string(status.message())));
  }
  google::protobuf::Any any;
  any.PackFrom(*message);
  return any;
}

// The arm's configuration with what the study sets for all arms.
Json ConfigOf(const Arm& arm, const StudyOptions& options, int64_t num_layers) {
  Json config = arm.config;
  Json fit = config.value("fit", Json::object());
  if (!fit.contains("max_kl")) fit["max_kl"] = options.budgets.front();
  if (!fit.contains("random_directions")) fit["random_directions"] = 0;  // the study has its own control
  fit["seed"] = options.seed;
  fit["validation_fraction"] = static_cast<double>(options.split.validation) /
                               static_cast<double>(options.split.training + options.split.validation);
  if (!arm.depths.empty()) {
    std::set<int64_t> layers;
    for (double depth : arm.depths) layers.insert(static_cast<int64_t>(depth * static_cast<double>(num_layers) + 1e-9));
    fit["layers"] = layers;
  }
  config["fit"] = std::move(fit);
  return config;
}

absl::StatusOr<std::unique_ptr<SteeringMethod>> MakeMethod(const Arm& arm, const Json& config,
                                                           const MethodRegistry& methods) {
  const MethodInfo* info = methods.Find(arm.method);
  if (info == nullptr) return methods.Create(arm.method, nullptr);  // says which methods there are
  TRIMTAB_ASSIGN_OR_RETURN(const google::protobuf::Any any, PackConfig(info->config_type, config, arm.name));
  return methods.Create(arm.method, &any);
}

bool EndsTheRun(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsCancelled(status); }

Change ToChange(const MeanInterval& interval) {
  return {.mean = interval.mean, .low = interval.low, .high = interval.high};
}

// One data set's run.
class Run {
 public:
  Run(const StudyOptions& options, const DataSet& data, const MethodRegistry& methods, const std::string& identity,
      Measurer& measurer, JobContext& job)
      : options_(options), data_(data), methods_(methods), identity_(identity), measurer_(measurer), job_(job) {}

  absl::StatusOr<ArmResult> ArmOf(const Arm& arm) {
    const Json config = ConfigOf(arm, options_, measurer_.probe().num_layers());
    const std::string key =
        absl::StrCat("arm/", Sha256Hex(Json{identity_, arm.name, arm.method, config, arm.curve}.dump()));
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<ArmResult> saved, Load<ArmResult>(key));
    if (saved.has_value()) return *saved;
    absl::StatusOr<ArmResult> result = Measure(arm, config);
    if (!result.ok()) {
      if (EndsTheRun(result.status())) return result.status();
      result = ArmResult{.error = std::string(result.status().message())};
    }
    result->name = arm.name;
    TRIMTAB_RETURN_IF_ERROR(job_.SavePartial(key, Json(*result).dump()));
    return result;
  }

  absl::StatusOr<MaskingResult> MaskingOf(const std::string& name, const Json& config) {
    const std::string key =
        absl::StrCat("masking/", Sha256Hex(Json{identity_, name, config, options_.masking_pairs}.dump()));
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<MaskingResult> saved, Load<MaskingResult>(key));
    if (saved.has_value()) return *saved;
    methods::v1::GrainsConfig grains;
    const auto parsed = google::protobuf::util::JsonStringToMessage(config.dump(), &grains);
    if (!parsed.ok()) return absl::InvalidArgumentError(absl::StrCat(name, ": ", std::string(parsed.message())));
    TRIMTAB_ASSIGN_OR_RETURN(const methods::v1::GrainsConfig resolved, ResolveGrainsConfig(grains));
    std::vector<EncodedPair> pairs = measurer_.test();
    pairs.resize(std::min(pairs.size(), static_cast<size_t>(options_.masking_pairs)));
    TRIMTAB_ASSIGN_OR_RETURN(const MaskingEffect effect,
                             MeasureMaskingEffect(resolved, measurer_.probe(), pairs, MarginKind::kPrefMean, job_));
    const MaskingResult result{.name = name,
                               .pairs = effect.pairs,
                               .low_confidence = effect.low_confidence,
                               .positive = ToChange(effect.positive),
                               .negative = ToChange(effect.negative),
                               .random_positive = ToChange(effect.random_positive),
                               .random_negative = ToChange(effect.random_negative),
                               .positive_against_random = ToChange(effect.positive_against_random),
                               .negative_against_random = ToChange(effect.negative_against_random)};
    TRIMTAB_RETURN_IF_ERROR(job_.SavePartial(key, Json(result).dump()));
    return result;
  }

 private:
  template <typename T>
  absl::StatusOr<std::optional<T>> Load(const std::string& key) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> saved, job_.LoadPartial(key));
    if (!saved.has_value()) return std::optional<T>();
    try {
      return std::optional<T>(Json::parse(*saved).get<T>());
    } catch (const Json::exception&) {
      return std::optional<T>();  // of another version of this program: computed again
    }
  }

  absl::StatusOr<ArmResult> Measure(const Arm& arm, const Json& config) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::unique_ptr<SteeringMethod> method, MakeMethod(arm, config, methods_));
    const absl::Time start = absl::Now();
    TRIMTAB_ASSIGN_OR_RETURN(const FitResult fit, method->Fit({.pairs = data_.pairs}, measurer_.probe(), job_));
    ArmResult result{.digest = fit.vector->digest(),
                     .validation_gain = fit.report.validation.margin_gain,
                     .fit_seconds = absl::ToDoubleSeconds(absl::Now() - start),
                     .warnings = fit.report.warnings};
    for (const LayerDirection& layer : fit.vector->spec().layers) result.layers.push_back(layer.layer);
    TRIMTAB_ASSIGN_OR_RETURN(result.cosine, measurer_.CosineToMarginGradient(*fit.vector));
    TRIMTAB_ASSIGN_OR_RETURN(
        result.budgets, measurer_.AtBudgets(fit.vector, fit.vector->spec().default_strength, fit.report.kl_at_default));
    if (arm.curve) {
      TRIMTAB_ASSIGN_OR_RETURN(result.curve, measurer_.Curve(fit.vector, result.budgets.front().strength));
    }
    return result;
  }

  const StudyOptions& options_;
  const DataSet& data_;
  const MethodRegistry& methods_;
  const std::string& identity_;
  Measurer& measurer_;
  JobContext& job_;
};

}  // namespace

absl::Status CheckArms(const ArmList& list, const MethodRegistry& methods) {
  for (const Arm& arm : list.arms) {
    TRIMTAB_RETURN_IF_ERROR(MakeMethod(arm, ConfigOf(arm, {}, 1), methods).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<DataSetResult> RunStudy(const StudyOptions& options, const ArmList& list, const DataSet& data,
                                       std::shared_ptr<const LoadedModel> model, const NeutralTexts& texts,
                                       const MethodRegistry& methods, JobContext& job, const StudyLog& log) {
  const auto say = [&](const std::string& line) {
    if (log) log(line);
  };
  // Whatever the numbers of an arm depend on beside its own configuration.
  const std::string identity = Json{model->fingerprint,    PairsHash(data.pairs),
                                    PairsHash(data.test),  options.budgets,
                                    options.seed,          options.random_directions,
                                    options.continuations, options.continuation_tokens,
                                    texts.setting,         texts.measuring}
                                   .dump();
  TRIMTAB_ASSIGN_OR_RETURN(const std::unique_ptr<Measurer> measurer,
                           Measurer::Create(options, data, std::move(model), texts, job));
  DataSetResult result = measurer->baseline();
  Run run(options, data, methods, identity, *measurer, job);
  for (const Arm& arm : list.arms) {
    TRIMTAB_ASSIGN_OR_RETURN(ArmResult measured, run.ArmOf(arm));
    if (!measured.error.empty()) {
      say(absl::StrCat(data.name, "  ", arm.name, ": ", measured.error));
    } else {
      const AtBudget& first = measured.budgets.front();
      say(absl::StrFormat("%s  %s: gain %+.3f [%+.3f, %+.3f] at KL %.2f, random %+.3f", data.name, arm.name,
                          first.gain.mean, first.gain.low, first.gain.high, first.kl_set, first.random_gain.mean));
    }
    result.arms.push_back(std::move(measured));
  }
  for (const auto& [name, config] : list.masking) {
    TRIMTAB_ASSIGN_OR_RETURN(MaskingResult masking, run.MaskingOf(name, config));
    say(absl::StrFormat("%s  masking by %s: %+.3f, %+.3f", data.name, name, masking.positive.mean,
                        masking.negative.mean));
    result.masking.push_back(std::move(masking));
  }
  return result;
}

}  // namespace trimtab
