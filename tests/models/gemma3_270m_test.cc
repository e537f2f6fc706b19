// Gemma-3-270M from its GGUF file. Skipped unless `./bazelw setup gemma3-270m` has fetched it.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "models/checkpoint_loader.h"
#include "models/model_registry.h"
#include "tests/models/model_goldens.h"

namespace trimtab {
namespace {

constexpr char kModel[] = "../gemma3_270m/gemma-3-270m-q4_k_m.gguf";

class Gemma3Test : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kModel)) GTEST_SKIP() << "run ./bazelw setup gemma3-270m";
  }
  static std::shared_ptr<const CausalModel> Load(WeightForm form) {
    const auto file = GgufFile::Open(kModel);
    EXPECT_TRUE(file.ok()) << file.status();
    const absl::StatusOr<ModelSpec> spec = kGemma3.spec_from_gguf(**file);
    EXPECT_TRUE(spec.ok()) << spec.status();
    const auto model = LoadCheckpoint(*spec, kGemma3.layout, *MakeTensorSource(*file), CheckpointFormat::kGguf, form);
    EXPECT_TRUE(model.ok()) << model.status();
    return *model;
  }
};

// "The capital of France is", as transformers in float32 and llama.cpp continue it.
TEST_F(Gemma3Test, GreedyTokensAreThoseOfTransformersAndLlamaCpp) {
  const GreedyText golden{
      .prompt = {2, 818, 5279, 529, 7001, 563},
      .tokens = {506, 5279, 529, 506, 2891, 529, 7001, 236761, 1030, 563, 506, 7488, 3207, 528, 7001, 532}};
  const std::shared_ptr<const CausalModel> model = Load({});
  EXPECT_EQ(model->spec().layers[0].window, 512);
  EXPECT_EQ(CountGreedyEqual(*model, {golden}), 1);
}

}  // namespace
}  // namespace trimtab
