#include "tools/study/measure.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "steering/attribution/random.h"

namespace trimtab {
namespace {

using Json = nlohmann::json;

constexpr double kTolerance = 0.03;  // of a budget: close enough
constexpr double kReached = 0.1;     // of a budget: still comparable
constexpr int kMaxCalibrations = 10;
constexpr double kMinStrength = 1e-6, kMaxStrength = 1e6;
constexpr double kCurve[] = {-1, -0.5, 0.25, 0.5, 1, 1.5, 2};
constexpr uint64_t kDirectionStream = uint64_t{1} << 33;

SteeringSetting SettingOf(const std::shared_ptr<const SteeringVector>& vector, double strength) {
  return {.vector = vector, .strength = static_cast<float>(strength), .apply_to = vector->spec().apply_to};
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

std::vector<const EncodedPair*> Pointers(const std::vector<EncodedPair>& pairs) {
  std::vector<const EncodedPair*> pointers;
  for (const EncodedPair& pair : pairs) pointers.push_back(&pair);
  return pointers;
}

std::vector<std::vector<double>> Transposed(const std::vector<std::vector<double>>& rows, size_t columns) {
  std::vector<std::vector<double>> result(columns);
  for (const std::vector<double>& row : rows) {
    for (size_t c = 0; c < columns; ++c) result[c].push_back(row[c]);
  }
  return result;
}

// `shape` with random directions in the place of its own.
SteeringVectorSpec RandomDirections(SteeringVectorSpec shape, uint64_t seed, uint64_t number) {
  for (size_t l = 0; l < shape.layers.size(); ++l) {
    Random numbers(seed, kDirectionStream + number * 1024 + l);
    std::vector<float>& direction = shape.layers[l].direction;
    double squares = 0;
    for (float& x : direction) {
      x = static_cast<float>(numbers.Normal());
      squares += static_cast<double>(x) * x;
    }
    for (float& x : direction) x = static_cast<float>(x / std::sqrt(squares));
  }
  return shape;
}

// The digest of a vector without its directions: arms of one shape share their random control.
std::string ShapeKey(SteeringVectorSpec shape) {
  Json layers = Json::array();
  for (const LayerDirection& layer : shape.layers) layers.push_back({layer.layer, layer.weight});
  return Json{static_cast<int>(shape.site), static_cast<int>(shape.operation), static_cast<int>(shape.strength_mode),
              static_cast<int>(shape.apply_to), layers}
      .dump();
}

}  // namespace

absl::StatusOr<NeutralTexts> SplitNeutralText(const Tokenizer& tokenizer, std::string_view text, int64_t chunk_tokens,
                                              int64_t tokens) {
  NeutralTexts texts;
  for (std::vector<TokenId>& chunk : ChunkText(tokenizer, text, chunk_tokens, 2 * tokens)) {
    (texts.setting.size() <= texts.measuring.size() ? texts.setting : texts.measuring).push_back(std::move(chunk));
  }
  if (texts.measuring.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the neutral text must have at least ", 2 * chunk_tokens, " tokens"));
  }
  return texts;
}

Measurer::Measurer(const StudyOptions& options, const DataSet& data, std::shared_ptr<const LoadedModel> model,
                   const NeutralTexts& texts, JobContext& job)
    : options_(options),
      data_(data),
      model_(std::move(model)),
      job_(job),
      text_key_(Json(texts.setting).dump()),
      probe_(model_, {.neutral_text = texts.setting}),
      measuring_probe_(model_, {.neutral_text = texts.measuring}) {}

absl::StatusOr<std::unique_ptr<Measurer>> Measurer::Create(const StudyOptions& options, const DataSet& data,
                                                           std::shared_ptr<const LoadedModel> model,
                                                           const NeutralTexts& texts, JobContext& job) {
  std::unique_ptr<Measurer> measurer(new Measurer(options, data, std::move(model), texts, job));
  TRIMTAB_RETURN_IF_ERROR(measurer->MeasureBaseline(texts.measuring));
  return measurer;
}

absl::Status Measurer::MeasureBaseline(const std::vector<std::vector<TokenId>>& measuring) {
  for (const PreferencePair& pair : data_.test) {
    if (absl::StatusOr<EncodedPair> encoded = probe_.Encode(pair); encoded.ok()) test_.push_back(*std::move(encoded));
  }
  if (test_.size() < 2) return absl::FailedPreconditionError("fewer than two test pairs can be encoded");
  for (const std::vector<TokenId>& chunk : measuring) {
    EncodedPair text;
    const size_t first = std::min<size_t>(2, chunk.size() - 1);  // what begins every text, and one token
    text.prompt.assign(chunk.begin(), chunk.begin() + static_cast<ptrdiff_t>(first));
    text.preferred.assign(chunk.begin() + static_cast<ptrdiff_t>(first), chunk.end());
    text_.push_back(std::move(text));
  }
  TRIMTAB_ASSIGN_OR_RETURN(const auto margins, Margins({{}}));
  margins_ = margins[0];
  TRIMTAB_ASSIGN_OR_RETURN(const auto cross_entropies, CrossEntropies({{}}));
  cross_entropies_ = cross_entropies[0];
  baseline_.name = data_.name;
  baseline_.fit_pairs = static_cast<int64_t>(data_.pairs.size());
  baseline_.test_pairs = static_cast<int64_t>(test_.size());
  baseline_.margin = EstimateMean(margins_, options_.seed);
  baseline_.accuracy = Mean(Hits(margins_));
  baseline_.cross_entropy = Mean(cross_entropies_);
  TRIMTAB_ASSIGN_OR_RETURN(continuations_, Continuations::Create(model_));
  TRIMTAB_ASSIGN_OR_RETURN(baseline_.repeated, Repeated({}));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<double>>> Measurer::Margins(const std::vector<SteeringSetting>& settings) {
  TRIMTAB_ASSIGN_OR_RETURN(const auto margins,
                           probe_.SteeredMargins(Pointers(test_), MarginKind::kPrefMean, settings, job_));
  return Transposed(margins, settings.size());
}

absl::StatusOr<std::vector<std::vector<double>>> Measurer::CrossEntropies(std::vector<SteeringSetting> settings) {
  for (SteeringSetting& setting : settings) setting.apply_to = ApplyTo::kAll;
  TRIMTAB_ASSIGN_OR_RETURN(
      auto likelihoods, measuring_probe_.SteeredMargins(Pointers(text_), MarginKind::kLikelihoodMean, settings, job_));
  for (std::vector<double>& chunk : likelihoods) {
    for (double& value : chunk) value = -value;
  }
  return Transposed(likelihoods, settings.size());
}

absl::StatusOr<double> Measurer::Repeated(const SteeringSetting& setting) {
  std::vector<std::vector<TokenId>> prompts;
  const size_t count = std::min(test_.size(), static_cast<size_t>(options_.continuations));
  for (size_t i = 0; i < count; ++i) prompts.push_back(test_[i].prompt);
  if (prompts.empty()) return 0.0;
  TRIMTAB_ASSIGN_OR_RETURN(const auto answers, continuations_->Run(prompts, setting, options_.continuation_tokens));
  TRIMTAB_RETURN_IF_ERROR(job_.Checkpoint());
  double sum = 0;
  for (const std::vector<TokenId>& answer : answers) sum += RepeatedShare(answer);
  return sum / static_cast<double>(answers.size());
}

absl::StatusOr<Measurer::Calibrated> Measurer::Calibrate(const std::shared_ptr<const SteeringVector>& vector,
                                                         double budget, double first_strength) {
  // The divergence grows about with the square of the strength: interpolate logarithms between the nearest strengths
  // below and above.
  Calibrated best;
  std::pair<double, double> below{0, 0}, above{0, 0};  // strength and divergence; strength 0: none yet
  double strength = std::clamp(first_strength, kMinStrength, kMaxStrength);
  for (int step = 0; step < kMaxCalibrations; ++step) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> kl, probe_.NeutralKl({SettingOf(vector, strength)}, job_));
    const double divergence = std::max(kl[0], 1e-9);
    const auto distance = [&](double value) { return std::abs(std::log(value / budget)); };
    if (best.strength == 0 || distance(divergence) < distance(std::max(best.kl, 1e-9))) {
      best = {.strength = strength, .kl = divergence};
    }
    if (std::abs(divergence / budget - 1) <= kTolerance) break;
    if (divergence < budget && strength > below.first) below = {strength, divergence};
    if (divergence > budget && (above.first == 0 || strength < above.first)) above = {strength, divergence};
    double next = strength * std::clamp(std::sqrt(budget / divergence), 0.1, 10.0);
    if (below.first > 0 && above.first > below.first && above.second > below.second) {
      const double share =
          std::clamp(std::log(budget / below.second) / std::log(above.second / below.second), 0.1, 0.9);
      next = below.first * std::pow(above.first / below.first, share);
    }
    next = std::clamp(next, kMinStrength, kMaxStrength);
    if (next == strength) break;
    strength = next;
  }
  best.reached = std::abs(best.kl / budget - 1) <= kReached;
  return best;
}

absl::StatusOr<std::vector<AtBudget>> Measurer::AtBudgets(const std::shared_ptr<const SteeringVector>& vector,
                                                          double first_strength, double first_kl) {
  std::vector<AtBudget> results;
  std::vector<SteeringSetting> settings;
  std::vector<double> strengths;
  for (double budget : options_.budgets) {
    const double guess = first_kl > 0 ? first_strength * std::sqrt(budget / first_kl) : first_strength;
    TRIMTAB_ASSIGN_OR_RETURN(const Calibrated found, Calibrate(vector, budget, guess));
    results.push_back({.budget = budget, .reached = found.reached, .strength = found.strength, .kl_set = found.kl});
    settings.push_back(SettingOf(vector, found.strength));
    strengths.push_back(found.strength);
    first_strength = found.strength;
    first_kl = found.kl;
  }
  TRIMTAB_ASSIGN_OR_RETURN(const auto margins, Margins(settings));
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> kl, measuring_probe_.NeutralKl(settings, job_));
  TRIMTAB_ASSIGN_OR_RETURN(const auto cross_entropies, CrossEntropies(settings));
  TRIMTAB_ASSIGN_OR_RETURN(const RandomGains random, Random(vector->spec(), strengths));
  for (size_t b = 0; b < results.size(); ++b) {
    AtBudget& result = results[b];
    const std::vector<double> gains = Differences(margins[b], margins_);
    result.kl = kl[b];
    result.gain = EstimateMean(gains, options_.seed);
    result.accuracy = Mean(Hits(margins[b]));
    result.accuracy_change = EstimateMean(Differences(Hits(margins[b]), Hits(margins_)), options_.seed);
    result.ce_change = EstimateMean(Differences(cross_entropies[b], cross_entropies_), options_.seed);
    if (result.kl > 0) {
      result.efficiency = result.gain.mean / result.kl;
      result.efficiency_low = result.gain.low / result.kl;
      result.efficiency_high = result.gain.high / result.kl;
    }
    TRIMTAB_ASSIGN_OR_RETURN(result.repeated, Repeated(settings[b]));
    if (random.by_pair.empty()) continue;
    result.random_gain = EstimateMean(random.by_pair[b], options_.seed);
    result.random_gain_max = random.best[b];
    result.against_random = EstimateMean(Differences(gains, random.by_pair[b]), options_.seed);
  }
  return results;
}

absl::StatusOr<Measurer::RandomGains> Measurer::Random(const SteeringVectorSpec& shape,
                                                       const std::vector<double>& first_strengths) {
  RandomGains random;
  if (options_.random_directions == 0) return random;
  Sha256 hash;
  hash.UpdateField(model_->fingerprint).UpdateField(PairsHash(data_.test)).UpdateField(ShapeKey(shape));
  hash.UpdateField(Json{options_.budgets, options_.random_directions, options_.seed}.dump()).UpdateField(text_key_);
  const std::string key = absl::StrCat("random/", hash.FinishHex());
  TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> saved, job_.LoadPartial(key));
  if (saved.has_value()) {
    const Json json = Json::parse(*saved, nullptr, false);
    if (json.is_object()) return RandomGains{.by_pair = json.at("by_pair"), .best = json.at("best")};
  }
  std::vector<SteeringSetting> settings;
  std::vector<double> strengths = first_strengths;
  for (int r = 0; r < options_.random_directions; ++r) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const SteeringVector> vector,
                             SteeringVector::Create(RandomDirections(shape, options_.seed, static_cast<uint64_t>(r))));
    for (size_t b = 0; b < options_.budgets.size(); ++b) {
      TRIMTAB_ASSIGN_OR_RETURN(const Calibrated found, Calibrate(vector, options_.budgets[b], strengths[b]));
      strengths[b] = found.strength;  // near that of the next direction
      settings.push_back(SettingOf(vector, found.strength));
    }
  }
  TRIMTAB_ASSIGN_OR_RETURN(const auto margins, Margins(settings));
  for (size_t b = 0; b < options_.budgets.size(); ++b) {
    std::vector<double> mean(test_.size(), 0.0);
    double best = 0;
    for (int r = 0; r < options_.random_directions; ++r) {
      const size_t setting = static_cast<size_t>(r) * options_.budgets.size() + b;
      const std::vector<double> gains = Differences(margins[setting], margins_);
      for (size_t p = 0; p < gains.size(); ++p) mean[p] += gains[p] / options_.random_directions;
      best = r == 0 ? Mean(gains) : std::max(best, Mean(gains));
    }
    random.by_pair.push_back(std::move(mean));
    random.best.push_back(best);
  }
  TRIMTAB_RETURN_IF_ERROR(job_.SavePartial(key, Json{{"by_pair", random.by_pair}, {"best", random.best}}.dump()));
  return random;
}

absl::StatusOr<std::vector<CurvePoint>> Measurer::Curve(const std::shared_ptr<const SteeringVector>& vector,
                                                        double strength) {
  std::vector<SteeringSetting> settings;
  for (double multiple : kCurve) settings.push_back(SettingOf(vector, multiple * strength));
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> kl, probe_.NeutralKl(settings, job_));
  TRIMTAB_ASSIGN_OR_RETURN(const auto margins, Margins(settings));
  std::vector<CurvePoint> points;
  for (size_t s = 0; s < settings.size(); ++s) {
    points.push_back({.strength = settings[s].strength,
                      .kl = kl[s],
                      .gain = EstimateMean(Differences(margins[s], margins_), options_.seed)});
  }
  points.push_back({.gain = EstimateMean(std::vector<double>(margins_.size(), 0.0), options_.seed)});
  std::sort(points.begin(), points.end(),
            [](const CurvePoint& a, const CurvePoint& b) { return a.strength < b.strength; });
  return points;
}

absl::StatusOr<double> Measurer::CosineToMarginGradient(const SteeringVector& vector) {
  std::vector<int64_t> missing;
  for (const LayerDirection& layer : vector.spec().layers) {
    if (gradients_.count({vector.spec().site, layer.layer}) == 0) missing.push_back(layer.layer);
  }
  if (!missing.empty()) {
    std::vector<EncodedPair> pairs;
    for (const PreferencePair& pair : data_.pairs) {
      if (absl::StatusOr<EncodedPair> encoded = probe_.Encode(pair); encoded.ok()) pairs.push_back(*std::move(encoded));
    }
    at::Tensor sum;  // [layers, hidden]
    for (size_t begin = 0; begin < pairs.size();) {
      std::vector<const EncodedPair*> batch;
      int64_t tokens = 0;
      do {
        tokens += pairs[begin].tokens();
        batch.push_back(&pairs[begin++]);
      } while (begin < pairs.size() && tokens + pairs[begin].tokens() <= probe_.gradient_tokens());
      const at::Tensor own =
          probe_.SteeringGradients(batch, MarginKind::kPrefMean, missing, vector.spec().apply_to, vector.spec().site)
              .sum(0);
      sum = sum.defined() ? sum + own : own;
      TRIMTAB_RETURN_IF_ERROR(job_.Checkpoint());
    }
    for (size_t l = 0; l < missing.size(); ++l)
      gradients_[{vector.spec().site, missing[l]}] = sum[static_cast<int64_t>(l)].contiguous();
  }
  double mean = 0;
  for (const LayerDirection& layer : vector.spec().layers) {
    const float* gradient = gradients_.at({vector.spec().site, layer.layer}).data_ptr<float>();
    double dot = 0, squares = 0;
    for (size_t i = 0; i < layer.direction.size(); ++i) {
      dot += static_cast<double>(layer.direction[i]) * gradient[i];
      squares += static_cast<double>(gradient[i]) * gradient[i];
    }
    mean += squares > 0 ? dot / std::sqrt(squares) / static_cast<double>(vector.spec().layers.size()) : 0;
  }
  return mean;
}

}  // namespace trimtab
