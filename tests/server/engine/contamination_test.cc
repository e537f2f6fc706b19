// Steered and unsteered requests over a shared prefix never influence each other, whatever the cache holds. Published:
// the claim "the prefix cache is safe to use with steering" is this file.
//
// For each way of applying (ALL, FROM_LAST_PROMPT, RESPONSE) and each state that the cache can be in, the same requests
// run on an engine with prefix caching and on fresh engines without it, one engine per request; tokens must be equal
// and log-probabilities the same up to rounding.
#include <gtest/gtest.h>

#include <functional>
#include <tuple>

#include "models/testing/tiny_model.h"
#include "tests/server/engine/engine_testing.h"

namespace trimtab {
namespace {

constexpr int64_t kBlockSize = 4;
constexpr int64_t kPromptLength = 22;  // five full blocks and a half
constexpr int64_t kOutput = 10;

// How weights and cache are kept: every form that serves, and a model whose layers have windows shorter than the
// prompt.
enum class Form { kFloat32, kBFloat16, kIntegers, kGemma3 };

std::shared_ptr<const LoadedModel> ModelIn(Form form) {
  return MakeTinyLoadedModel(
      {.architecture = form == Form::kGemma3 ? TinyArchitecture::kGemma3 : TinyArchitecture::kLlama,
       .num_layers = 3,
       .dtype = form == Form::kBFloat16 ? at::kBFloat16 : at::kFloat,
       .grouped = form == Form::kIntegers});
}

EngineConfig ConfigFor(const CausalModel& model, bool caching, int64_t blocks) {
  EngineConfig config;
  config.block_size = kBlockSize;
  config.kv_cache_bytes =
      blocks * kBlockSize * model.spec().kv_bytes_per_token(static_cast<int64_t>(c10::elementSize(model.dtype())));
  config.max_step_tokens = 16;
  config.steering_slots = 4;
  config.prefix_caching = caching;
  return config;
}

// A request to compare: its prompt is the first `length` tokens of the shared text.
struct Probe {
  SteeringPlan plan;
  int64_t length = kPromptLength;
  std::vector<TokenId> prompt = {};  // instead of the shared text
};

std::unique_ptr<Request> ToRequest(const std::string& id, const Probe& probe) {
  auto request = MakeRequest(id, probe.prompt.empty() ? RandomTokens(probe.length, 1) : probe.prompt, probe.plan);
  request->sampling.max_output_tokens = kOutput;
  request->sampling.logprobs = 0;
  return request;
}

class ContaminationTest : public testing::TestWithParam<std::tuple<ApplyTo, bool, Form>> {
 protected:
  EngineConfig Config(bool caching, int64_t blocks) const { return ConfigFor(*model_->model, caching, blocks); }

  // The cache serves `probe` as a fresh engine without prefix cache does.
  void ExpectClean(Engine& engine, const Probe& probe, const std::string& what) {
    ExpectSame(RunOne(engine, ToRequest("probe " + std::to_string(++probes_), probe)), probe, what);
  }

  void ExpectSame(const Answer& answer, const Probe& probe, const std::string& what) {
    const auto fresh = *Engine::Create(model_, Config(/*caching=*/false, 64), clock_, nullptr);
    const Answer expected = RunOne(*fresh, ToRequest("fresh", probe));
    ASSERT_TRUE(answer.end.status.ok()) << what << answer.end.status;
    EXPECT_EQ(answer.tokens, expected.tokens) << what;
    ASSERT_EQ(answer.logprobs.size(), expected.logprobs.size());
    for (size_t i = 0; i < expected.logprobs.size(); ++i) {
      EXPECT_NEAR(answer.logprobs[i], expected.logprobs[i], 2e-4) << what << ", token " << i;
    }
    ASSERT_EQ(answer.end.doses.size(), expected.end.doses.size());
    for (size_t i = 0; i < expected.end.doses.size(); ++i) {
      EXPECT_EQ(answer.end.doses[i].steered_tokens, expected.end.doses[i].steered_tokens) << what;
    }
  }

  std::vector<Probe> Probes() const {
    return {{.plan = {}},
            {.plan = steered_},
            {.plan = other_},
            {.plan = weaker_},
            {.plan = zero_},
            {.plan = mixed_},
            {.plan = OneVector(attention_, 0.6f, apply_to_)},
            {.plan = {}, .length = kPromptLength + 5},
            {.plan = steered_, .length = kPromptLength + 5},
            {.plan = steered_, .length = 5 * kBlockSize}};
  }

  const ApplyTo apply_to_ = std::get<0>(GetParam());
  // The requests before the probes go one by one, or all together in the same steps.
  const bool together_ = std::get<1>(GetParam());
  const SteeringPlan steered_ = OneVector(TinyVector(1), 0.5f, apply_to_);
  const SteeringPlan weaker_ = OneVector(TinyVector(1), 0.4f, apply_to_);
  const SteeringPlan other_ = OneVector(TinyVector(2), 0.5f, apply_to_);
  const SteeringPlan zero_ = OneVector(TinyVector(1), 0, apply_to_);
  // Three objectives of three sites in one request.
  const std::shared_ptr<const SteeringVector> attention_ =
      TinyVector(3, StrengthMode::kRelative, Site::kAttentionOutput);
  const std::shared_ptr<const SteeringVector> mlp_ = TinyVector(4, StrengthMode::kRelative, Site::kMlpOutput);
  const SteeringPlan mixed_{{{.vector = TinyVector(1), .objective = "a", .strength = 0.3f, .apply_to = apply_to_},
                             {.vector = attention_, .objective = "b", .strength = 0.6f, .apply_to = apply_to_},
                             {.vector = mlp_, .objective = "c", .strength = -0.6f, .apply_to = apply_to_}}};
  const std::shared_ptr<const LoadedModel> model_ = ModelIn(std::get<2>(GetParam()));
  const RealClock clock_;
  int probes_ = 0;

  void Warm(Engine& engine, const std::vector<Probe>& probes) {
    std::vector<std::unique_ptr<Request>> requests;
    for (const Probe& probe : probes) {
      requests.push_back(ToRequest("warm " + std::to_string(requests.size()), probe));
      if (together_) continue;
      RunOne(engine, std::move(requests.back()));
    }
    if (together_) RunAll(engine, std::move(requests));
  }
};

TEST_P(ContaminationTest, TheVectorsChangeTheOutput) {
  // Else the other tests would prove nothing.
  const auto engine = *Engine::Create(model_, Config(true, 64), clock_, nullptr);
  const std::vector<TokenId> plain = RunOne(*engine, ToRequest("a", {})).tokens;
  const std::vector<TokenId> steered = RunOne(*engine, ToRequest("b", {.plan = steered_})).tokens;
  const std::vector<TokenId> other = RunOne(*engine, ToRequest("c", {.plan = other_})).tokens;
  EXPECT_NE(plain, steered);
  EXPECT_NE(plain, other);
  EXPECT_NE(steered, other);
  const std::vector<TokenId> mixed = RunOne(*engine, ToRequest("d", {.plan = mixed_})).tokens;
  const std::vector<TokenId> attention =
      RunOne(*engine, ToRequest("e", {.plan = OneVector(attention_, 0.6f, apply_to_)})).tokens;
  EXPECT_NE(mixed, plain);
  EXPECT_NE(mixed, steered);
  EXPECT_NE(attention, plain);
}

TEST_P(ContaminationTest, ColdCache) {
  for (const Probe& probe : Probes()) {
    const auto engine = *Engine::Create(model_, Config(true, 64), clock_, nullptr);
    ExpectClean(*engine, probe, "cold");
  }
}

TEST_P(ContaminationTest, WarmedBySteered) {
  for (const Probe& probe : Probes()) {
    const auto engine = *Engine::Create(model_, Config(true, 64), clock_, nullptr);
    Warm(*engine, {{.plan = steered_}, {.plan = other_}, {.plan = mixed_}});
    ExpectClean(*engine, probe, "warmed by steered");
  }
}

TEST_P(ContaminationTest, WarmedByUnsteered) {
  for (const Probe& probe : Probes()) {
    const auto engine = *Engine::Create(model_, Config(true, 64), clock_, nullptr);
    Warm(*engine, {{.plan = {}}, {.plan = {}, .length = kPromptLength + 5}});
    ExpectClean(*engine, probe, "warmed by unsteered");
  }
}

TEST_P(ContaminationTest, WarmedByEverythingInTurnAndAtOnce) {
  const auto engine = *Engine::Create(model_, Config(true, 128), clock_, nullptr);
  Warm(*engine, Probes());
  for (const Probe& probe : Probes()) ExpectClean(*engine, probe, "warmed by all");
  EXPECT_GT(engine->stats().prefix_cache_hit_tokens, 0);
  std::vector<std::unique_ptr<Request>> requests;
  for (const Probe& probe : Probes()) requests.push_back(ToRequest(std::to_string(requests.size()), probe));
  const std::vector<Answer> answers = RunAll(*engine, std::move(requests));
  for (size_t i = 0; i < answers.size(); ++i) ExpectSame(answers[i], Probes()[i], "all at once");
}

TEST_P(ContaminationTest, PartlyEvicted) {
  // The cache holds one sequence and a little more, so each request evicts part of what the ones before it left.
  const auto engine = *Engine::Create(model_, Config(true, 12), clock_, nullptr);
  for (int round = 0; round < 2; ++round) {
    for (const Probe& probe : Probes()) ExpectClean(*engine, probe, "partly evicted");
  }
}

TEST_P(ContaminationTest, Preempted) {
  // All probes at once in memory for two: most are preempted and computed again, on top of what others left.
  const auto engine = *Engine::Create(model_, Config(true, 16), clock_, nullptr);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::unique_ptr<Request>> requests;
    for (const Probe& probe : Probes()) requests.push_back(ToRequest(std::to_string(requests.size()), probe));
    const std::vector<Answer> answers = RunAll(*engine, std::move(requests));
    for (size_t i = 0; i < answers.size(); ++i) ExpectSame(answers[i], Probes()[i], "preempted");
  }
  EXPECT_GT(engine->stats().preemptions, 0);
}

TEST_P(ContaminationTest, TheAnswerBecomesTheNextPrompt) {
  // Blocks that decoding steered are in the cache; the next turn has another prompt length, steered or not.
  for (const bool next_steered : {false, true}) {
    const auto engine = *Engine::Create(model_, Config(true, 64), clock_, nullptr);
    std::vector<TokenId> turn = RandomTokens(kPromptLength, 1);
    const Answer first = RunOne(*engine, ToRequest("first", {.plan = steered_}));
    turn.insert(turn.end(), first.tokens.begin(), first.tokens.end());
    const int64_t hits = engine->stats().prefix_cache_hit_tokens;
    ExpectClean(*engine, {.plan = next_steered ? steered_ : SteeringPlan(), .prompt = turn}, "next turn");
    if (apply_to_ == ApplyTo::kAll && next_steered) {
      EXPECT_GT(engine->stats().prefix_cache_hit_tokens, hits + kPromptLength) << "the answer's blocks serve";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ContaminationTest,
    testing::Combine(testing::Values(ApplyTo::kAll, ApplyTo::kFromLastPrompt, ApplyTo::kResponse), testing::Bool(),
                     testing::Values(Form::kFloat32, Form::kBFloat16, Form::kIntegers, Form::kGemma3)),
    [](const auto& info) {
      const ApplyTo apply_to = std::get<0>(info.param);
      const Form form = std::get<2>(info.param);
      const std::string name = apply_to == ApplyTo::kAll              ? "All"
                               : apply_to == ApplyTo::kFromLastPrompt ? "FromLastPrompt"
                                                                      : "Response";
      return name + (std::get<1>(info.param) ? "Together" : "InTurn") +
             (form == Form::kFloat32    ? "Float32"
              : form == Form::kBFloat16 ? "BFloat16"
              : form == Form::kIntegers ? "Integers"
                                        : "Gemma3");
    });

}  // namespace
}  // namespace trimtab
