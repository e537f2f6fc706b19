// Gemma-3-270M from its GGUF file against transformers in float32 (tests/golden/make_model_golden.py). Skipped unless
// `./bazelw setup gemma3-270m` has fetched the file.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "models/checkpoint_loader.h"
#include "models/kernels/quantized_matrix.h"
#include "models/model_registry.h"
#include "tests/models/model_goldens.h"

namespace trimtab {
namespace {

constexpr char kModel[] = "../gemma3_270m/gemma-3-270m-q4_k_m.gguf";
const std::string kData = "tests/golden/data/gemma3/";

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

// One of the texts is longer than the window.
TEST_F(Gemma3Test, LogitsMatchTransformersAndNarrowFormsStayClose) {
  const std::vector<ScoredText> texts = ReadScored(kData + "gemma3_270m_logits.jsonl");
  ASSERT_EQ(texts.size(), 3u);
  ASSERT_GT(texts.back().tokens.size(), 640u);
  std::vector<at::Tensor> exact;  // log-probabilities [positions, vocab]
  double worst = 0;
  {
    const std::shared_ptr<const CausalModel> model = Load({});
    EXPECT_EQ(model->spec().layers[0].window, 512);
    for (const ScoredText& text : texts) {
      const at::Tensor logits = ScoredLogits(*model, text);
      worst = std::max(worst, LargestDifference(logits, text));
      exact.push_back(at::log_softmax(logits.to(at::kDouble), -1));
    }
  }
  std::printf("largest difference of a float32 logit: %.2e\n", worst);
  EXPECT_LE(worst, 2e-3);

  struct Narrow {
    WeightForm form;
    const char* name;
    double largest_mean;  // KL, nats
  };
  for (const Narrow& narrow : {Narrow{{.plain_type = at::kBFloat16}, "bfloat16", 1e-2},
                               Narrow{{.plain_type = at::kBFloat16, .grouped = true}, "file", 3e-2}}) {
    if (narrow.form.grouped && !QuantizedMatrix::Supported()) continue;
    const std::shared_ptr<const CausalModel> model = Load(narrow.form);
    const Divergence divergence = DivergenceOf(*model, texts, exact);
    std::printf("KL(float32 || %s): mean %.2e, largest %.2e over %ld positions; %ld MB of weights\n", narrow.name,
                divergence.mean, divergence.largest, static_cast<long>(divergence.positions),
                static_cast<long>(model->weight_bytes() >> 20));
    EXPECT_LE(divergence.mean, narrow.largest_mean);
  }
}

TEST_F(Gemma3Test, GreedyTokensMatchTransformers) {
  const std::vector<GreedyText> goldens = ReadGreedy(kData + "gemma3_270m_greedy.jsonl");
  ASSERT_EQ(goldens.size(), 21u);
  // "The capital of France is", as llama.cpp continues it too.
  const std::vector<int64_t> expected = {506,  5279, 529, 506,  2891, 529, 7001, 236761,
                                         1030, 563,  506, 7488, 3207, 528, 7001, 532};
  std::vector<int64_t> first = goldens[0].tokens;
  first.resize(expected.size());
  EXPECT_EQ(first, expected);
  const int equal = CountGreedyEqual(*Load({}), goldens);
  std::printf("equal to transformers: %d of 21\n", equal);
  EXPECT_GE(equal, 20);
}

}  // namespace
}  // namespace trimtab
