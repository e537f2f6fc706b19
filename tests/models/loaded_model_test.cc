#include "models/loaded_model.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/match.h"
#include "models/checkpoint_plan.h"
#include "server/base/error.h"

namespace trimtab {
namespace {

namespace fs = std::filesystem;

const char kTiny[] = "tests/golden/data/llama/tiny";

// A copy of the tiny checkpoint that a test may damage.
class LoadedModelTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* base = getenv("TEST_TMPDIR");
    folder_ = fs::path(base == nullptr ? testing::TempDir() : std::string(base)) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
      fs::copy_file(fs::path(kTiny) / name, folder_ / name);
    }
  }
  absl::StatusOr<std::shared_ptr<const LoadedModel>> Load(
      LoadOptions::Precision precision = LoadOptions::Precision::kFloat32) const {
    return LoadModel("tiny", folder_.string(), {precision});
  }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }

  fs::path folder_;
};

TEST_F(LoadedModelTest, LoadsAFolder) {
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->id, "tiny");
  EXPECT_EQ((*loaded)->quantization, "F32");
  EXPECT_EQ((*loaded)->fingerprint.size(), 64u);
  EXPECT_EQ((*loaded)->model->dtype(), at::kFloat);
  EXPECT_EQ((*loaded)->mask_token, 259);  // the pad token: neither end nor unknown
  const absl::StatusOr<BuiltPrompt> raw = (*loaded)->prompts->BuildRaw("hi");
  ASSERT_TRUE(raw.ok()) << raw.status();
  EXPECT_EQ(raw->tokens.size(), 3u);  // BOS and two bytes
  EXPECT_EQ(raw->tokens[0], 256);
  EXPECT_EQ(raw->from_user, (std::vector<bool>{false, true, true}));
}

TEST_F(LoadedModelTest, ChatMarksUserTextAndKeepsControlTokensOut) {
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const absl::StatusOr<BuiltPrompt> chat = (*loaded)->prompts->BuildChat({{"user", "a<|end|>"}, {"assistant", "b"}});
  ASSERT_TRUE(chat.ok()) << chat.status();
  // <|user|> a < | e n d | > <|end|> <|user|> b <|end|>
  EXPECT_EQ(chat->tokens.size(), 13u);
  EXPECT_EQ(std::count(chat->tokens.begin(), chat->tokens.end(), 257), 2);
  EXPECT_EQ(std::count(chat->from_user.begin(), chat->from_user.end(), true), 8);
}

TEST_F(LoadedModelTest, BFloat16OnRequest) {
  const auto loaded = Load(LoadOptions::Precision::kBFloat16);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->model->dtype(), at::kBFloat16);
}

TEST_F(LoadedModelTest, TheFingerprintIsThatOfTheWeights) {
  const std::string before = (*Load())->fingerprint;
  EXPECT_EQ((*Load(LoadOptions::Precision::kBFloat16))->fingerprint, before);
  std::fstream file(folder_ / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end);
  const char byte = 1;
  file.write(&byte, 1);
  file.close();
  EXPECT_NE((*Load())->fingerprint, before);
}

TEST_F(LoadedModelTest, WithoutATemplateOnlyRawPrompts) {
  Write("tokenizer_config.json", R"({"eos_token": "<|end|>"})");
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_FALSE((*loaded)->prompts->has_chat_template());
  EXPECT_EQ((*loaded)->prompts->BuildChat({{"user", "a"}}).status().code(), absl::StatusCode::kInvalidArgument);
  // Without a pad token a space stands for what is masked.
  EXPECT_EQ((*loaded)->mask_token, (*loaded)->tokenizer->Encode(" ", Tokenizer::SpecialTokens::kPlain)[0]);
}

TEST_F(LoadedModelTest, PathsThatDoNotExist) {
  EXPECT_EQ(LoadModel("m", (folder_ / "nothing").string(), {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LoadedModelTest, BrokenFilesAreClearErrors) {
  Write("config.json", "{");
  EXPECT_TRUE(absl::StrContains(Load().status().message(), "config.json")) << Load().status();
  Write("config.json", R"({"architectures": ["MambaForCausalLM"]})");
  EXPECT_EQ(Load().status().code(), absl::StatusCode::kUnimplemented);
  Write("config.json", R"({"architectures": "LlamaForCausalLM"})");
  EXPECT_FALSE(Load().ok());
}

TEST_F(LoadedModelTest, TruncatedWeights) {
  fs::resize_file(folder_ / "model.safetensors", fs::file_size(folder_ / "model.safetensors") - 4);
  EXPECT_EQ(Load().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LoadedModelTest, FoldersWithoutAllWeightsAreRefused) {
  std::ifstream file(folder_ / "config.json");
  std::string config((std::istreambuf_iterator<char>(file)), {});
  const std::string layers = "\"num_hidden_layers\": ";
  const size_t place = config.find(layers);
  ASSERT_NE(place, std::string::npos);
  config.insert(place + layers.size(), "1");  // 13
  Write("config.json", config);
  const absl::Status incomplete = Load().status();
  EXPECT_EQ(incomplete.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetail(incomplete).reason, kModelFileInvalid);
  EXPECT_TRUE(absl::StrContains(incomplete.message(), "tensors are missing: model.layers.")) << incomplete;
  EXPECT_TRUE(absl::StrContains(incomplete.message(), "; and ")) << incomplete;

  fs::remove(folder_ / "model.safetensors");
  EXPECT_TRUE(absl::StrContains(Load().status().message(), "model.safetensors")) << Load().status();
  const absl::Status none = CheckComplete(*PlanCheckpoint(folder_.string()), folder_.string());
  EXPECT_EQ(none.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(none.message(), "there are no weights")) << none;
}

// Wherever a load is stopped, it ends with the reason, and asks nobody again.
TEST_F(LoadedModelTest, ALoadCanBeStoppedBetweenTensors) {
  int allowed = 1 << 20, asked = 0;
  LoadOptions options{
      .go_on = [&] { return asked++ < allowed ? absl::OkStatus() : absl::CancelledError("no longer wanted"); }};
  ASSERT_TRUE(LoadModel("tiny", folder_.string(), options).ok());
  const int whole = asked;
  EXPECT_GT(whole, 20) << "each tensor, and again while the weights are hashed";
  for (allowed = 0; allowed < whole; allowed += 7) {
    asked = 0;
    const absl::Status stopped = LoadModel("tiny", folder_.string(), options).status();
    EXPECT_EQ(stopped, absl::CancelledError("no longer wanted"));
    EXPECT_EQ(asked, allowed + 1);
  }
}

TEST_F(LoadedModelTest, MissingTokenizer) {
  fs::remove(folder_ / "tokenizer.json");
  EXPECT_TRUE(absl::StrContains(Load().status().message(), "tokenizer.json")) << Load().status();
}

TEST_F(LoadedModelTest, AFileThatIsNotGguf) {
  Write("model.gguf", "not a model");
  EXPECT_EQ(LoadModel("m", (folder_ / "model.gguf").string(), {}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace trimtab
