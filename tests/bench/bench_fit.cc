// Fits a pairs file and prints the report:
//   bench_fit MODEL TRAIN.jsonl HELD_OUT.jsonl NEUTRAL.txt [METHOD [CONFIG_TEXTPROTO]]
// METHOD is "grains" without one; CONFIG_TEXTPROTO is its configuration, for example
// "combine: COMBINE_MEAN fit { max_kl: 0.1 }".
#include <google/protobuf/any.pb.h>

#include <cstdio>
#include <iostream>
#include <string>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "models/kernels/thread_team.h"
#include "models/loaded_model.h"
#include "steering/method_registry.h"
#include "steering/model_probe.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"
#include "tools/trimctl/json_output.h"

namespace trimtab {
namespace {

constexpr int64_t kChunkTokens = 128, kNeutralTokens = 768;

// Prints how long each phase took when the next one starts.
class PhaseClock {
 public:
  explicit PhaseClock(const MemoryJob& job) : job_(job) {}
  void Print() const {
    for (const auto& [phase, seconds] : seconds_) absl::PrintF("  phase %d: %.1f s\n", phase, seconds);
  }
  void Tick() {
    const absl::Time now = absl::Now();
    if (!job_.reports.empty()) {
      seconds_[static_cast<int>(job_.reports.back().phase)] += absl::ToDoubleSeconds(now - last_);
    }
    last_ = now;
  }

 private:
  const MemoryJob& job_;
  absl::Time last_ = absl::Now();
  std::map<int, double> seconds_;
};

class TimedJob final : public JobContext {
 public:
  absl::Status Checkpoint() override {
    clock_.Tick();
    return job_.Checkpoint();
  }
  void Report(const JobProgress& progress) override {
    clock_.Tick();
    job_.Report(progress);
  }
  absl::Status SavePartial(std::string_view key, std::string_view bytes) override {
    return job_.SavePartial(key, bytes);
  }
  absl::StatusOr<std::optional<std::string>> LoadPartial(std::string_view key) override {
    return job_.LoadPartial(key);
  }
  void Print() const { clock_.Print(); }

 private:
  MemoryJob job_;
  PhaseClock clock_{job_};
};

void PrintEffect(const char* name, const EffectSummary& effect) {
  absl::PrintF("%s (%d pairs): margin %+.4f, gain %+.4f, 95%% [%+.4f, %+.4f], accuracy %.3f -> %.3f\n", name,
               effect.pairs, effect.margin_before, effect.margin_gain, effect.ci_low, effect.ci_high,
               effect.accuracy_before, effect.accuracy_after);
}

int Run(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: bench_fit MODEL TRAIN.jsonl HELD_OUT.jsonl NEUTRAL.txt [METHOD [CONFIG_TEXTPROTO]]\n";
    return 2;
  }
  MethodRegistry methods;
  if (!RegisterBuiltinMethods(methods).ok()) return 1;
  const char* name = argc > 5 ? argv[5] : "grains";
  const MethodInfo* info = methods.Find(name);
  if (info == nullptr) {
    std::cerr << "there is no method " << name << "\n";
    return 2;
  }
  const auto config = ParseConfig(info->config_type, argc > 6 ? argv[6] : "");
  if (!config.ok()) {
    std::cerr << config.status() << "\n";
    return 2;
  }
  const auto method = methods.Create(name, &*config);
  ThreadTeam team(ParallelThreads());
  const ScopedTeam scope(&team);
  const auto model = LoadModel("bench", argv[1], {});
  if (!method.ok() || !model.ok()) {
    std::cerr << method.status() << " " << model.status() << "\n";
    return 1;
  }
  ModelProbe probe(*model,
                   {.neutral_text = ChunkText(*(*model)->tokenizer, ReadFile(argv[4]), kChunkTokens, kNeutralTokens)});
  const FitInput input{ReadPairs(argv[2], 100000), ReadPairs(argv[3], 100000)};
  TimedJob job;
  const absl::Time start = absl::Now();
  const auto fit = (*method)->Fit(input, probe, job);
  if (!fit.ok()) {
    std::cerr << fit.status() << "\n";
    return 1;
  }
  const FitReport& report = fit->report;
  absl::PrintF("fit of %d pairs: %.1f s, objective %s, rows %d, low confidence %d, completeness error %.3f\n",
               input.pairs.size(), absl::ToDoubleSeconds(absl::Now() - start), report.objective, report.pair_count,
               report.low_confidence_pairs, report.median_completeness_error);
  job.Print();
  for (const LayerDirection& layer : fit->vector->spec().layers) {
    absl::PrintF("layer %d: explained %.3f, cos mean %.3f, cos gradient %.3f, stability %.3f\n", layer.layer,
                 layer.explained_variance, layer.cosine_to_mean, layer.cosine_to_margin_gradient,
                 layer.bootstrap_stability);
  }
  for (const StrengthPoint& point : report.search) {
    absl::PrintF("  tried layer %d strength %.4f: gain %+.4f, KL %.4f\n", point.layer, point.strength,
                 point.margin_gain, point.kl);
  }
  for (const MethodTrial& trial : report.trials) {
    absl::PrintF("  %s%s: layer %d strength %.4f gain %+.4f [%+.4f, %+.4f], KL %.4f %s\n", trial.method,
                 trial.chosen ? " (chosen)" : "", trial.layer, trial.strength, trial.validation.margin_gain,
                 trial.validation.ci_low, trial.validation.ci_high, trial.kl, trial.error);
  }
  if (!report.choice.empty()) absl::PrintF("%s\n", report.choice);
  absl::PrintF("strength %.4f, KL %.4f\n", fit->vector->spec().default_strength, report.kl_at_default);
  PrintEffect("validation", report.validation);
  PrintEffect("held out", report.held_out);
  absl::PrintF("random directions (%d): mean %+.4f, max %+.4f\n", report.random_directions, report.random_gain_mean,
               report.random_gain_max);
  for (const std::string& warning : report.warnings) absl::PrintF("warning: %s\n", warning);
  absl::PrintF("digest %s\n", fit->vector->digest());
  return 0;
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) { return trimtab::Run(argc, argv); }
