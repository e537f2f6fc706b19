// SmolLM2-135M-Instruct from its GGUF file against transformers in float32 (tests/golden/make_model_golden.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "models/kernels/quantized_matrix.h"
#include "models/loaded_model.h"
#include "tests/models/model_goldens.h"

namespace trimtab {
namespace {

constexpr char kModel[] = "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";
const std::string kData = "tests/golden/data/llama/";

std::shared_ptr<const LoadedModel> Load(LoadOptions::Precision precision) {
  const auto loaded = LoadModel("smollm2", kModel, {precision});
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return *loaded;
}

TEST(SmolLm2Test, LogitsMatchTransformersAndNarrowFormsStayClose) {
  const std::vector<ScoredText> texts = ReadScored(kData + "smollm2_logits.jsonl");
  ASSERT_EQ(texts.size(), 4u);
  std::vector<at::Tensor> exact;  // log-probabilities [positions, vocab]
  double worst = 0;
  {
    const std::shared_ptr<const LoadedModel> loaded = Load(LoadOptions::Precision::kFloat32);
    for (const ScoredText& text : texts) {
      const at::Tensor logits = ScoredLogits(*loaded->model, text);
      worst = std::max(worst, LargestDifference(logits, text));
      exact.push_back(at::log_softmax(logits.to(at::kDouble), -1));
    }
  }
  std::printf("largest difference of a float32 logit: %.2e\n", worst);
  EXPECT_LE(worst, 2e-3);

  struct Narrow {
    LoadOptions::Precision precision;
    const char* name;
    double largest_mean;  // KL, nats
  };
  for (const Narrow& narrow : {Narrow{LoadOptions::Precision::kBFloat16, "bfloat16", 1e-3},
                               Narrow{LoadOptions::Precision::kFile, "file", 1e-2}}) {
    if (narrow.precision == LoadOptions::Precision::kFile && !QuantizedMatrix::Supported()) continue;
    const Divergence divergence = DivergenceOf(*Load(narrow.precision)->model, texts, exact);
    std::printf("KL(float32 || %s): mean %.2e, largest %.2e over %ld positions\n", narrow.name, divergence.mean,
                divergence.largest, static_cast<long>(divergence.positions));
    EXPECT_LE(divergence.mean, narrow.largest_mean);
  }
}

TEST(SmolLm2Test, GreedyTokensMatchTransformers) {
  const std::vector<GreedyText> goldens = ReadGreedy(kData + "smollm2_greedy.jsonl");
  ASSERT_EQ(goldens.size(), 50u);
  const int equal = CountGreedyEqual(*Load(LoadOptions::Precision::kFloat32)->model, goldens);
  std::printf("equal to transformers: %d of 50\n", equal);
  EXPECT_GE(equal, 48);
}

}  // namespace
}  // namespace trimtab
