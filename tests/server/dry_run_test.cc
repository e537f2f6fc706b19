// The dry run against models whose sizes are known, and against what loading really keeps.
#include "server/dry_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "models/checkpoint_plan.h"
#include "models/loaded_model.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int64_t kMiB = int64_t{1} << 20, kGiB = int64_t{1} << 30;
const char kSmolLm[] = "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";
const char kGemma[] = "../gemma3_270m/gemma-3-270m-q4_k_m.gguf";
const char kTiny[] = "tests/golden/data/llama/tiny";

CheckpointPlan Plan(const std::string& path) {
  absl::StatusOr<CheckpointPlan> plan = PlanCheckpoint(path);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *std::move(plan) : CheckpointPlan{};
}

const PlannedTensor* Find(const CheckpointPlan& plan, const std::string& name) {
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.expected.name == name) return &tensor;
  }
  return nullptr;
}

ServerConfig Config(const std::string& model, int64_t max_context = 0) {
  ServerConfig config;
  config.models = {model};
  config.max_context = max_context;
  return config;
}

// Published counts.
TEST(CheckpointPlan, CountsTheParametersOfKnownModels) {
  const CheckpointPlan llama = Plan("tests/server/data/llama-3.1-8b.json");
  EXPECT_EQ(llama.parameters(), 8'030'261'248);
  EXPECT_EQ(llama.tensors.size(), 291u);
  EXPECT_FALSE(llama.has_weights);
  const PlannedTensor* key = Find(llama, "model.layers.31.self_attn.k_proj.weight");
  ASSERT_NE(key, nullptr);
  EXPECT_THAT(key->expected.shape, ElementsAre(1024, 4096));
  EXPECT_EQ(key->type, "BF16");
  EXPECT_NE(Find(llama, "lm_head.weight"), nullptr);

  const CheckpointPlan qwen = Plan("tests/server/data/qwen2.5-7b.json");
  EXPECT_EQ(qwen.parameters(), 7'615'616'512);
  EXPECT_EQ(qwen.tensors.size(), 339u);
  EXPECT_NE(Find(qwen, "model.layers.0.self_attn.q_proj.bias"), nullptr);

  // 10,759,155,456 without the 1,006,878,720 of the embeddings, which are tied.
  const CheckpointPlan gemma = Plan("tests/server/data/gemma-3-12b-text.json");
  EXPECT_EQ(gemma.parameters(), 11'766'034'176);
  EXPECT_EQ(gemma.tensors.size(), 626u);
  EXPECT_EQ(Find(gemma, "lm_head.weight"), nullptr);
}

TEST(CheckpointPlan, WeighsThem) {
  const CheckpointPlan llama = Plan("tests/server/data/llama-3.1-8b.json");
  const int64_t norms = 65 * 4096;
  EXPECT_EQ(WeightBytes(llama, {.plain_type = at::kFloat}), 4 * 8'030'261'248);
  EXPECT_EQ(WeightBytes(llama, {.plain_type = at::kBFloat16}), 2 * 8'030'261'248 + 2 * norms);
  EXPECT_FALSE(llama.quantised());
}

// What loading keeps of matrices; norms are float32 beside it.
void ExpectAsLoaded(const std::string& path, const CheckpointPlan& plan, Precision precision) {
  const auto loaded = LoadModel("m", path, {.precision = precision});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  int64_t norms = 0;
  for (const PlannedTensor& tensor : plan.tensors) norms += tensor.matrix() ? 0 : 4 * tensor.elements();
  const int64_t bytes = WeightBytes(plan, *ChooseWeightForm(precision, plan.quantised()));
  EXPECT_NEAR(static_cast<double>(bytes - norms), static_cast<double>((*loaded)->model->weight_bytes()), 0.002 * bytes);
}

TEST(CheckpointPlan, ReadsAGgufFileAndKeepsWhatLoadingKeeps) {
  const CheckpointPlan plan = Plan(kSmolLm);
  EXPECT_TRUE(plan.has_weights);
  EXPECT_THAT(plan.missing, IsEmpty());
  EXPECT_THAT(plan.mismatched, IsEmpty());
  EXPECT_THAT(plan.unread, IsEmpty());
  EXPECT_EQ(plan.parameters(), 134'515'008);
  EXPECT_EQ(Find(plan, "blk.0.attn_q.weight")->type, "Q4_1");
  EXPECT_EQ(Find(plan, "token_embd.weight")->kept_bits, 8);
  EXPECT_EQ(Find(plan, "rope_freqs.weight"), nullptr) << "an optional tensor that is absent";
  ExpectAsLoaded(kSmolLm, plan, Precision::kFloat32);
  ExpectAsLoaded(kSmolLm, plan, Precision::kBFloat16);
  ExpectAsLoaded(kSmolLm, plan, Precision::kAuto);
}

TEST(CheckpointPlan, ReadsGemma) {
  if (!std::filesystem::exists(kGemma)) GTEST_SKIP() << "./bazelw setup gemma3-270m fetches it";
  const CheckpointPlan plan = Plan(kGemma);
  EXPECT_THAT(plan.missing, IsEmpty());
  EXPECT_THAT(plan.mismatched, IsEmpty());
  EXPECT_THAT(plan.unread, IsEmpty());
  EXPECT_EQ(plan.parameters(), 268'098'176);
  ExpectAsLoaded(kGemma, plan, Precision::kAuto);
}

TEST(DryRun, TellsWhatAFolderLacksAndDoesNotNeed) {
  const absl::StatusOr<DryRun> whole = RunDry(Config(kTiny), 0);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_TRUE(whole->complete);
  EXPECT_THAT(whole->text, HasSubstr("exactly these tensors"));

  // The same weights under another configuration.
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "dry_run_other";
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(std::filesystem::path(kTiny) / "model.safetensors", folder / "model.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  nlohmann::json config = nlohmann::json::parse(std::ifstream(std::filesystem::path(kTiny) / "config.json"));
  config["num_hidden_layers"] = 4;
  config["vocab_size"] = 261;
  config["tie_word_embeddings"] = true;
  std::ofstream(folder / "config.json") << config;
  const absl::StatusOr<DryRun> other = RunDry(Config(folder.string()), 0);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_FALSE(other->complete);
  EXPECT_THAT(other->text, HasSubstr("Missing, 9:\n  model.layers.3.input_layernorm.weight\n"));
  EXPECT_THAT(other->text,
              HasSubstr("Not as expected, 1:\n  model.embed_tokens.weight has the shape [260, 32], must have "
                        "[261, 32]\n"));
  EXPECT_THAT(other->text, HasSubstr("In the checkpoint but not read, 1:\n  lm_head.weight\n"));
}

TEST(DryRun, WorksTheLargestBatchOut) {
  // KV: 2 * 32 layers * 8 heads * 128 * 2 bytes = 128 KiB a token, 1 GiB for 8,192.
  const auto run = RunDry(Config("tests/server/data/llama-3.1-8b.json", 8192), 24 * kGiB);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_THAT(run->text, HasSubstr("8,030,261,248 parameters"));
  EXPECT_THAT(run->text, HasSubstr("128.0 KiB"));
  EXPECT_THAT(run->text, HasSubstr("Largest batch within 24.00 GiB, 8,192 tokens each:"));
  // 24 - 14.96 of weights - 0.03 of the bank - 0.4 of buffers and program: 8 whole GiB.
  EXPECT_THAT(run->text, HasSubstr("bfloat16     8 sequences, with --kv_cache_mib=8192"));
  EXPECT_THAT(run->text, HasSubstr("float32      does not fit: "));
  EXPECT_THAT(run->text, Not(HasSubstr("window")));
  const auto whole = RunDry(Config("tests/server/data/llama-3.1-8b.json"), 24 * kGiB);
  ASSERT_TRUE(whole.ok());
  EXPECT_THAT(whole->text, HasSubstr("none of this length; all memory holds "));
  EXPECT_THAT(RunDry(Config("tests/server/data/llama-3.1-8b.json"), 0)->text, HasSubstr("--device_memory"));
}

TEST(DryRun, SaysWhatWindowsDo) {
  const auto run = RunDry(Config("tests/server/data/gemma-3-12b-text.json"), 0);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_THAT(run->text, HasSubstr("40 of 48 layers see the last 1,024 positions only"));
  EXPECT_THAT(run->text, HasSubstr("40 layers with a window of 1,024: 320.0 KiB in bfloat16"));
  EXPECT_THAT(run->text, HasSubstr("8 layers that see all positions: 64.0 KiB in bfloat16"));
}

TEST(DryRun, NamesTheModelOfAnError) {
  const auto run = RunDry(Config("x=/nowhere/config.json"), 0);
  EXPECT_EQ(run.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(run.status().message()), HasSubstr("/nowhere/config.json"));
}

TEST(ParseMemory, ReadsAmounts) {
  EXPECT_EQ(*ParseMemory("24GiB"), 24 * kGiB);
  EXPECT_EQ(*ParseMemory(" 512 mib "), 512 * kMiB);
  EXPECT_EQ(*ParseMemory("80 GB"), 80'000'000'000);
  EXPECT_EQ(*ParseMemory("1e9"), 1'000'000'000);
  for (const char* wrong : {"", "GiB", "-1GiB", "lots", "24 parsecs", "1e30", "nan"}) {
    EXPECT_FALSE(ParseMemory(wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace trimtab
