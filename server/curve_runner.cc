#include "server/curve_runner.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "google/protobuf/any.pb.h"
#include "models/kernels/thread_team.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/fit_runner.h"
#include "server/greedy_answers.h"
#include "server/rpc/common_fit_options.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/to_proto.h"
#include "server/rpc/validate.h"
#include "server/strength_curve.h"
#include "steering/methods/effect.h"
#include "steering/methods/fit_pairs.h"
#include "steering/model_probe.h"

namespace trimtab {
namespace {

using methods::v1::FitOptions;

constexpr int64_t kNeutralTokens = 768, kNeutralChunk = 128;  // as fits measure divergence
constexpr int64_t kBatchTokens = 512;                         // a pass of them ends well within a second
constexpr size_t kChunkPairs = 16;                            // measured and kept together
constexpr size_t kMinPairsMeasured = 2;                       // of which an interval can be told
constexpr size_t kAnsweredPrompts = 8;
constexpr int64_t kAnswerTokens = 64;
constexpr double kAnswerTokenCost = 2;  // in rows of forward passes: decoded few at a time
constexpr size_t kMaxPartialFailures = 20;
// What options say when neither a configuration nor a method does.
constexpr float kUsualMaxKl = 0.2f, kUsualValidationFraction = 0.2f;
constexpr int32_t kUsualMaxPairTokens = 1024;

FitOptions WithUsual(FitOptions options) {
  if (!options.has_max_kl()) options.set_max_kl(kUsualMaxKl);
  if (!options.has_validation_fraction()) options.set_validation_fraction(kUsualValidationFraction);
  if (!options.has_max_pair_tokens()) options.set_max_pair_tokens(kUsualMaxPairTokens);
  return options;
}

// Partial results of this process's own machine: doubles as they are in memory.
std::string ToBytes(const std::vector<double>& values) {
  std::string bytes(values.size() * sizeof(double), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// Empty when `bytes` are not `count` doubles.
std::vector<double> FromBytes(const std::optional<std::string>& bytes, size_t count) {
  if (!bytes || bytes->size() != count * sizeof(double)) return {};
  std::vector<double> values(count);
  std::memcpy(values.data(), bytes->data(), bytes->size());
  return values;
}

bool Same(const EncodedPair& a, const EncodedPair& b) {
  return a.prompt == b.prompt && a.preferred == b.preferred && a.dispreferred == b.dispreferred;
}

std::string Metadata(const JobRecord& job, const JobProgressSnapshot& snapshot) {
  v1::EvaluateStrengthMetadata metadata;
  metadata.ParseFromString(job.metadata);  // keeps where the pairs come from
  metadata.set_revision(job.target);
  metadata.set_completed_percent(static_cast<float>(100 * snapshot.progress.fraction));
  metadata.clear_eta();
  if (snapshot.eta < absl::InfiniteDuration()) *metadata.mutable_eta() = ToProto(snapshot.eta);
  *metadata.mutable_create_time() = ToProto(snapshot.create_time);
  *metadata.mutable_update_time() = ToProto(snapshot.update_time);
  metadata.clear_partial_failures();
  for (const auto& [item, reason] : snapshot.progress.partial_failures) {
    google::rpc::Status& failure = *metadata.add_partial_failures();
    failure.set_code(static_cast<int32_t>(absl::StatusCode::kInvalidArgument));
    failure.set_message(absl::StrCat(item, ": ", reason));
  }
  return metadata.SerializeAsString();
}

}  // namespace

struct CurveRunner::Task {
  RevisionId revision;
  std::string digest;
  std::shared_ptr<const SteeringVector> vector;
  FitOptions options;            // of the fit, usual values filled in
  std::vector<float> strengths;  // ascending, with 0
  std::string source;            // of the pairs
  std::vector<PreferencePair> pairs;
  std::vector<EncodedPair> encoded;  // of `pairs`, once encoded
  MarginKind kind = MarginKind::kPrefMean;

  SteeringSetting Setting(float strength) const {
    return {.vector = vector, .strength = strength, .apply_to = vector->spec().apply_to};
  }
};

// Counts work in rows of forward passes.
class CurveRunner::Progress {
 public:
  explicit Progress(JobContext& job) : job_(job) { progress_.phase = JobPhase::kValidating; }

  void set_total(double rows) { total_ = std::max(rows, 1.0); }
  void Add(double rows) {
    done_ += rows;
    progress_.fraction = std::min(done_ / total_, 1.0);
    job_.Report(progress_);
  }
  void Fail(const std::string& item, const std::string& reason) {
    if (progress_.partial_failures.size() < kMaxPartialFailures) progress_.partial_failures[item] = reason;
    job_.Report(progress_);
  }
  void Finish() {
    progress_.phase = JobPhase::kPersisting;
    progress_.fraction = 1;
    job_.Report(progress_);
  }

 private:
  JobContext& job_;
  JobProgress progress_;
  double total_ = 1, done_ = 0;
};

absl::StatusOr<CurveRunner::Task> CurveRunner::Load(const JobRecord& job) const {
  v1::EvaluateStrengthRequest request;
  v1::EvaluateStrengthMetadata metadata;
  const std::optional<RevisionId> id = ParseRevisionName(job.target);
  if (!id || !request.ParseFromString(job.request) || !metadata.ParseFromString(job.metadata)) {
    return absl::DataLossError("the stored request is damaged");
  }
  Task task{.revision = *id, .source = metadata.pairs_source()};
  task.strengths.assign(request.strengths().begin(), request.strengths().end());
  TRIMTAB_ASSIGN_OR_RETURN(const RevisionRecord revision,
                           parts_.registry.GetRevision(id->objective.name(), id->revision));
  task.digest = revision.digest;
  TRIMTAB_ASSIGN_OR_RETURN(task.vector, SteeringVector::Parse(revision.vector));
  google::protobuf::Any config;
  const bool given = !revision.method_config.empty() && config.ParseFromString(revision.method_config);
  task.options = WithUsual(CommonFitOptions(parts_.methods.Find(revision.method), given ? &config : nullptr));

  v1::Objective pairs;
  *pairs.mutable_pairs() = request.pairs();
  if (request.pairs().empty()) {
    TRIMTAB_ASSIGN_OR_RETURN(const ObjectiveRecord objective, parts_.registry.GetObjective(id->objective.name()));
    if (objective.pairs_hash != revision.pairs_hash || !pairs.ParseFromString(objective.pairs)) {
      return absl::FailedPreconditionError(
          "the objective was fitted on other pairs meanwhile: give pairs to measure on");
    }
    pairs.clear_held_out_pairs();
  }
  FieldChecker checker;
  task.pairs = ParsePairs(checker, "objective", pairs).pairs;
  TRIMTAB_RETURN_IF_ERROR(checker.status());
  return task;
}

absl::Status CurveRunner::EncodeGiven(const ModelProbe& probe, Task& task, Progress& progress,
                                      JobContext& context) const {
  std::vector<PreferencePair> usable;
  for (size_t i = 0; i < task.pairs.size(); ++i) {
    TRIMTAB_RETURN_IF_ERROR(context.Checkpoint());
    absl::StatusOr<EncodedPair> encoded = probe.Encode(task.pairs[i]);
    if (encoded.ok() && encoded->tokens() > task.options.max_pair_tokens()) {
      encoded = absl::InvalidArgumentError(
          absl::StrCat("has ", encoded->tokens(), " tokens, at most ", task.options.max_pair_tokens(), " are allowed"));
    }
    if (!encoded.ok()) {
      progress.Fail(absl::StrCat("pairs[", i, "]"), std::string(encoded.status().message()));
      continue;
    }
    task.encoded.push_back(*std::move(encoded));
    usable.push_back(task.pairs[i]);
  }
  task.pairs = std::move(usable);
  const bool preference = !task.pairs.empty() && !task.pairs.front().dispreferred.empty();
  task.kind = preference ? MarginKind::kPrefMean : MarginKind::kLikelihoodMean;
  return absl::OkStatus();
}

absl::Status CurveRunner::EncodeValidation(const ModelProbe& probe, Task& task, JobContext& context) const {
  TRIMTAB_ASSIGN_OR_RETURN(
      FitPairs split, PreparePairs(task.options, {.pairs = task.pairs}, probe, [&] { return context.Checkpoint(); }));
  task.kind = split.report_kind;
  // Which pairs those are: in their order, the ones that are not trained on.
  std::set<int64_t> training;
  for (const FitPair& pair : split.training) training.insert(pair.index);
  const bool apart = split.validation.size() >= kMinPairsMeasured;
  if (!apart) task.source = "training";
  std::vector<PreferencePair> chosen;
  for (size_t i = 0; i < task.pairs.size(); ++i) {
    if (training.contains(static_cast<int64_t>(i)) == apart) continue;
    absl::StatusOr<EncodedPair> encoded = probe.Encode(task.pairs[i]);
    if (!encoded.ok()) continue;
    if (!IsPreference(task.kind)) encoded->dispreferred.clear();
    if (apart) {
      const size_t next = task.encoded.size();
      if (next == split.validation.size() || !Same(*encoded, split.validation[next])) continue;
    }
    task.encoded.push_back(*std::move(encoded));
    chosen.push_back(task.pairs[i]);
  }
  task.pairs = std::move(chosen);
  return absl::OkStatus();
}

absl::Status CurveRunner::Encode(const ModelProbe& probe, Task& task, Progress& progress, JobContext& context) const {
  TRIMTAB_RETURN_IF_ERROR(task.source == "validation" ? EncodeValidation(probe, task, context)
                                                      : EncodeGiven(probe, task, progress, context));
  if (task.encoded.size() >= kMinPairsMeasured) return absl::OkStatus();
  return PairsDegenerate(absl::StrCat("only ", task.encoded.size(), " pairs can be used, at least ", kMinPairsMeasured,
                                      " are needed to tell an interval"),
                         static_cast<int64_t>(task.encoded.size()));
}

absl::Status CurveRunner::MeasureEffect(const ModelProbe& probe, const Task& task, v1::StrengthCurve& curve,
                                        Progress& progress, JobContext& context) const {
  std::vector<SteeringSetting> settings;
  for (const float strength : task.strengths) settings.push_back(task.Setting(strength));
  std::vector<std::vector<double>> margins(settings.size());  // [strength][pair]
  for (size_t begin = 0; begin < task.encoded.size(); begin += kChunkPairs) {
    const size_t count = std::min(kChunkPairs, task.encoded.size() - begin);
    const std::string key = absl::StrCat("margins/", begin);
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> kept, context.LoadPartial(key));
    std::vector<double> values = FromBytes(kept, count * settings.size());
    std::vector<const EncodedPair*> pairs;
    double rows = 0;
    for (size_t i = begin; i < begin + count; ++i) {
      pairs.push_back(&task.encoded[i]);
      rows += static_cast<double>(task.encoded[i].tokens()) * static_cast<double>(settings.size());
    }
    if (values.empty()) {
      TRIMTAB_ASSIGN_OR_RETURN(const auto by_pair, probe.SteeredMargins(pairs, task.kind, settings, context));
      for (const std::vector<double>& pair : by_pair) values.insert(values.end(), pair.begin(), pair.end());
      TRIMTAB_RETURN_IF_ERROR(context.SavePartial(key, ToBytes(values)));
    }
    for (size_t i = 0; i < values.size(); ++i) margins[i % settings.size()].push_back(values[i]);
    progress.Add(rows);
  }
  const size_t zero =
      static_cast<size_t>(std::find(task.strengths.begin(), task.strengths.end(), 0.0f) - task.strengths.begin());
  for (size_t s = 0; s < settings.size(); ++s) {
    v1::CurvePoint& point = *curve.add_points();
    point.set_strength(task.strengths[s]);
    *point.mutable_effect() = ToProto(SummarizeEffect(margins[zero], margins[s]), task.strengths[s]);
  }
  return absl::OkStatus();
}

absl::Status CurveRunner::MeasureCost(ModelProbe& probe, const Task& task, v1::StrengthCurve& curve, Progress& progress,
                                      JobContext& context) const {
  if (!probe.has_neutral_text()) return absl::OkStatus();
  for (int i = 0; i < curve.points_size(); ++i) {
    v1::CurvePoint& point = *curve.mutable_points(i);
    const std::string key = absl::StrCat("cost/", i);
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> kept, context.LoadPartial(key));
    std::vector<double> values = FromBytes(kept, 2);
    if (values.empty()) {
      TRIMTAB_ASSIGN_OR_RETURN(const std::vector<NeutralCost> cost,
                               probe.NeutralCosts({task.Setting(point.strength())}, context));
      values = {cost[0].kl, cost[0].cross_entropy_change};
      TRIMTAB_RETURN_IF_ERROR(context.SavePartial(key, ToBytes(values)));
    }
    point.set_kl_text(values[0]);
    point.set_cross_entropy_change(values[1]);
    progress.Add(static_cast<double>(probe.neutral_tokens()));
  }
  return absl::OkStatus();
}

absl::Status CurveRunner::MeasureRepetition(const Task& task, const std::string& id, v1::StrengthCurve& curve,
                                            Progress& progress, JobContext& context) const {
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<ServedModel> model, parts_.models.Find(task.revision.objective.model));
  const int64_t longest = model->Describe().context_length() - kAnswerTokens;
  std::vector<std::vector<TokenId>> prompts;  // the first distinct ones
  for (const EncodedPair& pair : task.encoded) {
    const bool known = std::find(prompts.begin(), prompts.end(), pair.prompt) != prompts.end();
    if (!known && static_cast<int64_t>(pair.prompt.size()) <= longest) prompts.push_back(pair.prompt);
    if (prompts.size() == kAnsweredPrompts) break;
  }
  if (prompts.empty()) return absl::OkStatus();
  for (int i = 0; i < curve.points_size(); ++i) {
    v1::CurvePoint& point = *curve.mutable_points(i);
    const std::string key = absl::StrCat("repetition/", i);
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> kept, context.LoadPartial(key));
    std::vector<double> values = FromBytes(kept, 1);
    if (values.empty()) {
      const SteeringPlan plan({{.vector = task.vector,
                                .objective = task.revision.objective.name(),
                                .revision = task.revision.revision,
                                .strength = point.strength(),
                                .apply_to = task.vector->spec().apply_to}});
      TRIMTAB_ASSIGN_OR_RETURN(const std::vector<std::string> answers,
                               GreedyAnswers(*model, prompts, plan, kAnswerTokens, absl::StrCat(id, "-", i), context));
      double sum = 0;
      for (const std::string& answer : answers) sum += RepeatedShare(answer);
      values = {sum / static_cast<double>(answers.size())};
      TRIMTAB_RETURN_IF_ERROR(context.SavePartial(key, ToBytes(values)));
    }
    point.set_repetition(values[0]);
    progress.Add(kAnswerTokenCost * static_cast<double>(kAnswerTokens) * static_cast<double>(prompts.size()));
  }
  return absl::OkStatus();
}

absl::Status CurveRunner::Run(const JobRecord& job, JobContext& context) const {
  TRIMTAB_ASSIGN_OR_RETURN(Task task, Load(job));
  ThreadTeam team(ParallelThreads());  // its threads have this one's priority
  const ScopedTeam scope(&team);
  TRIMTAB_ASSIGN_OR_RETURN(std::shared_ptr<const LoadedModel> model, parts_.find_model(task.revision.objective.model));
  ProbeOptions options{.batch_tokens = kBatchTokens};
  options.neutral_text = ChunkText(*model->tokenizer, parts_.suites.neutral_text(), kNeutralChunk, kNeutralTokens);
  ModelProbe probe(std::move(model), std::move(options));
  if (probe.fingerprint() != task.vector->spec().model_fingerprint) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, kFingerprintMismatch,
                       "the revision was fitted on other weights than this model's", {{"revision", job.target}});
  }
  Progress progress(context);
  TRIMTAB_RETURN_IF_ERROR(Encode(probe, task, progress, context));
  double rows = static_cast<double>(probe.neutral_tokens()) +
                kAnswerTokenCost * static_cast<double>(kAnswerTokens) * static_cast<double>(kAnsweredPrompts);
  for (const EncodedPair& pair : task.encoded) rows += static_cast<double>(pair.tokens());
  progress.set_total(rows * static_cast<double>(task.strengths.size()));

  v1::StrengthCurve curve;
  TRIMTAB_RETURN_IF_ERROR(MeasureEffect(probe, task, curve, progress, context));
  TRIMTAB_RETURN_IF_ERROR(MeasureCost(probe, task, curve, progress, context));
  TRIMTAB_RETURN_IF_ERROR(
      MeasureRepetition(task, ParseOperationName(job.name).value_or("curve"), curve, progress, context));
  curve.set_max_kl(task.options.max_kl());
  curve.set_pair_count(static_cast<int32_t>(task.encoded.size()));
  curve.set_pairs_digest(PairsHash(task.pairs));
  curve.set_pairs_source(task.source);
  curve.set_revision(job.target);
  *curve.mutable_create_time() = ToProto(parts_.clock.Now());
  Recommend(curve);
  TRIMTAB_RETURN_IF_ERROR(context.Checkpoint());
  progress.Finish();
  // A worker at idle priority must not hold the registry's lock.
  TRIMTAB_RETURN_IF_ERROR(parts_.jobs.RunAtNormalPriority([&] { return Commit(task, curve, job); }));
  LogInfo("strengths evaluated", {{"revision", job.target}});
  return absl::OkStatus();
}

absl::Status CurveRunner::Commit(const Task& task, const v1::StrengthCurve& curve, const JobRecord& job) const {
  JobRecord done = job;
  done.state = JobRecord::State::kSucceeded;
  done.end_time = parts_.clock.Now();
  done.metadata.clear();  // the last progress stands
  google::protobuf::Any result;
  result.PackFrom(curve);
  done.result = result.SerializeAsString();
  return parts_.registry.CommitCurve(task.revision.objective.name(), task.revision.revision, task.digest,
                                     curve.SerializeAsString(), done);
}

absl::Status CurveRunner::Fail(const JobRecord& job, const absl::Status& error) const {
  LogWarning(
      "strengths were not evaluated",
      {{"revision", job.target}, {"reason", GetErrorDetail(error).reason}, {"error", std::string(error.message())}});
  JobRecord failed = job;
  failed.state = absl::IsCancelled(error) ? JobRecord::State::kCancelled : JobRecord::State::kFailed;
  failed.error = ToRpcStatus(error).SerializeAsString();
  failed.end_time = parts_.clock.Now();
  return parts_.registry.UpdateJob(failed);
}

JobManager::Runner CurveRunner::Runner() {
  return {.run = [this](const JobRecord& job, JobContext& context) { return Run(job, context); },
          .fail = [this](const JobRecord& job, const absl::Status& error) { return Fail(job, error); },
          .metadata = Metadata};
}

}  // namespace trimtab
