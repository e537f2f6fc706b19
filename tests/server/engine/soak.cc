// Mixed load on one engine for a while: soak [SECONDS] [MODEL]. Prompts long and short with shared prefixes, steered
// and not, greedy and sampled, all priorities, several tenants, scores; cancels, deadlines, readers that stall; and,
// over and over, the same few probes. At the end: every request ended exactly once, probes never changed, no cache
// block and no bank slot is lost, resident memory stayed flat. Exits with 1 and says so if not. Without MODEL a tiny
// one with random weights is used.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <list>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "models/loaded_model.h"
#include "models/testing/tiny_model.h"
#include "server/base/clock.h"
#include "server/base/error.h"
#include "server/engine/engine.h"
#include "tests/server/engine/soak_sink.h"

namespace trimtab {
namespace {

constexpr int64_t kBlocks = 300;  // few, so that sequences are preempted
constexpr int64_t kBlockSize = 16;
constexpr int64_t kInFlight = 34;  // more than run, fewer than are refused, unless of one tenant
constexpr int64_t kVectors = 12;   // more than slots
// Resident memory may grow by so much between the second and the last quarter.
constexpr int64_t kMaxGrowth = int64_t{24} << 20;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsMeasured = false;  // sanitizers keep what was freed
#else
constexpr bool kMemoryIsMeasured = true;
#endif

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

std::shared_ptr<const SteeringVector> RandomVector(const LoadedModel& model, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  SteeringVectorSpec spec;
  spec.model_fingerprint = model.fingerprint;
  spec.method = "random";
  spec.hidden_size = model.model->spec().hidden_size;
  for (int64_t layer = 0; layer < model.model->spec().num_layers(); layer += 2) {
    LayerDirection direction;
    direction.layer = layer;
    double square = 0;
    for (int64_t i = 0; i < spec.hidden_size; ++i) {
      direction.direction.push_back(normal(random));
      square += direction.direction.back() * direction.direction.back();
    }
    for (float& x : direction.direction) x = static_cast<float>(x / std::sqrt(square));
    spec.layers.push_back(std::move(direction));
  }
  return *SteeringVector::Create(std::move(spec));
}

class Soak {
 public:
  Soak(std::shared_ptr<const LoadedModel> model, absl::Duration duration) : model_(model), duration_(duration) {
    EngineConfig config;
    config.block_size = kBlockSize;
    config.kv_cache_bytes =
        kBlocks * kBlockSize * model->model->spec().kv_bytes_per_token(model->model->dtype() == at::kFloat ? 4 : 2);
    config.max_running_requests = 16;
    config.max_waiting_requests = 24;
    config.max_waiting_per_tenant = 12;
    config.max_running_per_tenant = 8;
    config.max_step_tokens = 128;
    config.max_step_time = absl::Milliseconds(5);
    config.max_context = 512;
    config.steering_slots = 8;
    config.stall_timeout = absl::Milliseconds(300);
    auto engine = Engine::Create(model, config, clock_, nullptr);
    if (!engine.ok()) {
      std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
      std::exit(1);
    }
    engine_ = *std::move(engine);
    for (uint32_t i = 0; i < kVectors; ++i) vectors_.push_back(RandomVector(*model, i));
  }

  // True when all went well; prints a summary.
  bool Run() {
    for (size_t probe = 0; probe < kProbes; ++probe) expected_.push_back(ProbeAlone(probe));
    std::atomic<bool> stop{false};
    std::thread scorer([&] { ScoreLoop(stop); });
    std::vector<int64_t> memory;
    const absl::Time start = absl::Now();
    while (absl::Now() - start < duration_) {
      Act();
      if (++actions_ % 50 == 0) memory.push_back(ResidentBytes());
    }
    stop = true;
    scorer.join();
    for (Live& live : live_) live.sink->GoOn();
    engine_->Resume("");
    if (!tally_.AwaitNone(absl::Seconds(60))) tally_.Fail("some requests never ended");
    Sweep();
    if (!live_.empty()) tally_.Fail(absl::StrCat(live_.size(), " requests did not end"));
    engine_->Drain(absl::Now() + absl::Seconds(10));
    const EngineStats stats = engine_->stats();
    if (stats.running != 0 || stats.waiting != 0) tally_.Fail("requests are left in the engine");
    if (stats.free_blocks != stats.total_blocks) {
      tally_.Fail(absl::StrCat(stats.total_blocks - stats.free_blocks, " cache blocks are lost"));
    }
    return Report(memory, stats);
  }

 private:
  static constexpr size_t kProbes = 4;
  struct Live {
    std::string id;
    std::shared_ptr<SoakSink> sink;
    size_t probe = kProbes;  // which one; kProbes: none
  };

  uint32_t Below(uint32_t bound) { return random_() % bound; }

  std::vector<TokenId> Prompt(uint32_t family, int64_t length) const {
    std::mt19937 random(family);
    const uint32_t vocab = static_cast<uint32_t>(model_->model->spec().vocab_size);
    std::vector<TokenId> tokens(length);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % vocab);
    return tokens;
  }

  SteeringPlan Plan(size_t vector, float strength, ApplyTo apply_to) const {
    return SteeringPlan(
        {{.vector = vectors_[vector], .objective = "soak", .revision = 1, .strength = strength, .apply_to = apply_to}});
  }

  std::unique_ptr<Request> Probe(size_t probe) const {
    auto request = std::make_unique<Request>();
    request->tokens = Prompt(1, 40 + 8 * static_cast<int64_t>(probe));  // prefixes of each other and of the load
    request->prompt_length = static_cast<int64_t>(request->tokens.size());
    request->sampling.max_output_tokens = 12;
    if (probe == 2) request->sampling.temperature = 1;
    if (probe % 2 == 1) request->plan = Plan(probe, 0.2f, ApplyTo::kAll);
    return request;
  }

  std::vector<TokenId> ProbeAlone(size_t probe) {
    auto request = Probe(probe);
    const auto sink = Submit(std::move(request), /*limit=*/INT64_MAX, probe);
    if (!tally_.AwaitNone(absl::Seconds(60))) tally_.Fail("a probe never ended");
    live_.clear();
    return sink == nullptr ? std::vector<TokenId>() : sink->tokens;
  }

  std::shared_ptr<SoakSink> Submit(std::unique_ptr<Request> request, int64_t limit, size_t probe) {
    request->id = absl::StrCat("r", next_id_++);
    auto sink = std::make_shared<SoakSink>(tally_, request->id, limit);
    sink->keep = probe < kProbes;
    sink->score = request->score;
    request->sink = sink;
    Live live = {.id = request->id, .sink = sink, .probe = probe};
    tally_.Submitted();
    const absl::Status status = engine_->Submit(std::move(request));
    if (!status.ok()) {
      tally_.Refused();
      const std::string reason = GetErrorDetail(status).reason;
      ++refused_;
      // A short deadline may pass before Submit sees it.
      const bool expected = reason == kQueueFull || reason == kQuotaExceeded || reason == kDeadlineExceeded;
      if (!expected) tally_.Fail(status.ToString());
      return nullptr;
    }
    sink->accepted = true;
    live_.push_back(std::move(live));
    return sink;
  }

  // One more request, and perhaps trouble for an old one.
  void Act() {
    const bool room = tally_.AwaitFewer(kInFlight);
    Sweep();
    if (!room) {
      // All wait for readers: some of them go on below.
    } else if (Below(10) == 0) {
      const size_t probe = Below(kProbes);
      auto request = Probe(probe);
      request->priority = static_cast<Priority>(1 + Below(3));
      Submit(std::move(request), INT64_MAX, probe);
    } else {
      SubmitRandom();
    }
    if (live_.empty()) return;
    auto victim = live_.begin();
    std::advance(victim, Below(static_cast<uint32_t>(live_.size())));
    if (Below(6) == 0) engine_->Abort(victim->id, FinishReason::kCancelled);
    if (Below(3) == 0) {
      victim->sink->GoOn();
      engine_->Resume(victim->id);
    }
  }

  void SubmitRandom() {
    auto request = std::make_unique<Request>();
    const int64_t length = Below(4) == 0 ? 200 + Below(150) : 1 + Below(60);
    request->tokens = Prompt(1 + Below(5), length);
    request->prompt_length = length;
    request->sampling.max_output_tokens = 1 + Below(60);
    if (Below(2) == 0) {
      request->sampling.temperature = 0.5f + static_cast<float>(Below(10)) / 10;
      request->sampling.top_p = Below(2) == 0 ? 0.9f : 1;
      request->sampling.top_k = Below(2) == 0 ? 20 : 0;
      request->sampling.repetition_penalty = Below(3) == 0 ? 1.2f : 1;
      request->sampling.seed = random_();
    }
    request->sampling.logprobs = static_cast<int32_t>(Below(4)) - 1;
    request->priority = static_cast<Priority>(1 + Below(3));
    request->tenant = std::array<const char*, 4>{"", "a", "b", "c"}[Below(4)];
    if (Below(2) == 0) {
      request->plan = Plan(Below(kVectors), static_cast<float>(Below(20)) / 100, static_cast<ApplyTo>(1 + Below(3)));
    }
    if (Below(5) == 0) request->deadline = absl::Now() + absl::Milliseconds(1 + Below(300));
    if (length > 1 && Below(8) == 0) {
      request->score = true;
      request->prompt_length = 1 + Below(static_cast<uint32_t>(length - 1));
    }
    const bool stalls = Below(8) == 0;
    Submit(std::move(request), stalls ? 1 + Below(10) : INT64_MAX, kProbes);
  }

  // Forgets what has ended and looks at the probes among it.
  void Sweep() {
    for (auto it = live_.begin(); it != live_.end();) {
      if (!it->sink->ended()) {
        ++it;
        continue;
      }
      if (it->probe < kProbes && it->sink->complete) {
        ++probes_;
        if (it->sink->tokens != expected_[it->probe]) tally_.Fail(absl::StrCat("probe ", it->probe, " changed"));
      }
      it = live_.erase(it);
    }
  }

  // As a drift job does, beside everything else.
  void ScoreLoop(const std::atomic<bool>& stop) {
    std::vector<float> first;
    while (!stop) {
      std::vector<ScoreItem> items(12);
      for (size_t i = 0; i < items.size(); ++i) {
        items[i].tokens = Prompt(7, 30 + static_cast<int64_t>(i));
        items[i].prompt_length = 28;
        if (i % 3 == 0) items[i].plan = Plan(i, 0.1f, ApplyTo::kFromLastPrompt);
      }
      const auto outcomes = engine_->Score(std::move(items));
      if (!outcomes.ok()) {
        tally_.Fail(outcomes.status().ToString());
        return;
      }
      std::vector<float> scores;
      for (const ScoreOutcome& outcome : *outcomes) {
        for (const ScoredToken& token : outcome.tokens) scores.push_back(token.logprob);
      }
      if (first.empty()) first = scores;
      if (scores != first) tally_.Fail("scores changed");
      ++score_rounds_;
    }
  }

  bool Report(const std::vector<int64_t>& memory, const EngineStats& stats) {
    const auto median = [&](size_t begin, size_t end) {
      std::vector<int64_t> part(memory.begin() + begin, memory.begin() + end);
      std::nth_element(part.begin(), part.begin() + part.size() / 2, part.end());
      return part.empty() ? int64_t{0} : part[part.size() / 2];
    };
    const size_t quarter = memory.size() / 4;
    const int64_t before = median(quarter, 2 * quarter), after = median(memory.size() - quarter, memory.size());
    if (kMemoryIsMeasured && after - before > kMaxGrowth) tally_.Fail("resident memory grows");
    const std::array<int64_t, 7> ends = tally_.ends();
    std::printf(
        "%lld requests, %lld refused; ended: stop %lld, length %lld, cancelled %lld, deadline %lld, error %lld\n"
        "%lld tokens, %lld preemptions, %lld prefix hit tokens, %lld probes equal, %lld rounds of scores\n"
        "resident memory %.1f MiB, then %.1f MiB; %lld of %lld cache blocks free\n",
        static_cast<long long>(next_id_), static_cast<long long>(refused_), static_cast<long long>(ends[1]),
        static_cast<long long>(ends[3]), static_cast<long long>(ends[4]), static_cast<long long>(ends[5]),
        static_cast<long long>(ends[6]), static_cast<long long>(tally_.tokens()),
        static_cast<long long>(stats.preemptions), static_cast<long long>(stats.prefix_cache_hit_tokens),
        static_cast<long long>(probes_), static_cast<long long>(score_rounds_.load()),
        static_cast<double>(before) / (1 << 20), static_cast<double>(after) / (1 << 20),
        static_cast<long long>(stats.free_blocks), static_cast<long long>(stats.total_blocks));
    // The load was what it is meant to be.
    for (const FinishReason reason : {FinishReason::kLength, FinishReason::kCancelled, FinishReason::kDeadline}) {
      if (ends[static_cast<size_t>(reason)] == 0) tally_.Fail("some way to end never happened");
    }
    if (stats.preemptions == 0 || stats.prefix_cache_hit_tokens == 0 || probes_ == 0 || score_rounds_ == 0) {
      tally_.Fail("the load was too light");
    }
    for (const std::string& failure : tally_.failures()) std::printf("FAILED: %s\n", failure.c_str());
    return tally_.failures().empty();
  }

  const std::shared_ptr<const LoadedModel> model_;
  const absl::Duration duration_;
  const RealClock clock_;
  Tally tally_;
  std::vector<std::shared_ptr<const SteeringVector>> vectors_;
  std::vector<std::vector<TokenId>> expected_;  // by probe
  std::mt19937 random_{1};
  std::list<Live> live_;
  int64_t next_id_ = 0, refused_ = 0, probes_ = 0, actions_ = 0;
  std::atomic<int64_t> score_rounds_{0};
  std::unique_ptr<Engine> engine_;  // last: its thread reports to the tally
};

int Main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 12;
  std::shared_ptr<const LoadedModel> model;
  if (argc > 2) {
    auto loaded = LoadModel("soak", argv[2], {});
    if (!loaded.ok()) {
      std::fprintf(stderr, "%s\n", loaded.status().ToString().c_str());
      return 1;
    }
    model = *loaded;
  } else {
    model = MakeTinyLoadedModel({.num_layers = 3});
  }
  return Soak(model, absl::Seconds(seconds)).Run() ? 0 : 1;
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) { return trimtab::Main(argc, argv); }
