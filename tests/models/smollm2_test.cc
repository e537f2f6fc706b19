// SmolLM2-135M-Instruct from its GGUF file against transformers in float32 (tests/golden/make_llama_golden.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/kernels/quantized_matrix.h"
#include "models/loaded_model.h"
#include "models/testing/paged_run.h"

namespace trimtab {
namespace {

constexpr char kModel[] = "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr char kData[] = "tests/golden/data/llama/";

std::shared_ptr<const LoadedModel> Load(LoadOptions::Precision precision) {
  const auto loaded = LoadModel("smollm2", kModel, {precision});
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return *loaded;
}

std::vector<nlohmann::json> ReadLines(const std::string& name) {
  std::ifstream file(kData + name);
  EXPECT_TRUE(file) << name;
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// The prompts of the logits' goldens, each with its positions' lines.
struct ScoredPrompt {
  std::vector<int64_t> tokens;
  std::vector<nlohmann::json> positions;
};

std::vector<ScoredPrompt> ReadScored() {
  std::vector<ScoredPrompt> prompts;
  for (nlohmann::json& line : ReadLines("smollm2_logits.jsonl")) {
    if (!line["tokens"].empty()) prompts.push_back({line["tokens"].get<std::vector<int64_t>>(), {}});
    prompts.back().positions.push_back(std::move(line));
  }
  return prompts;
}

TEST(SmolLm2Test, LogitsMatchTransformersAndNarrowFormsStayClose) {
  const std::vector<ScoredPrompt> prompts = ReadScored();
  ASSERT_EQ(prompts.size(), 4u);
  std::vector<at::Tensor> exact;  // log-probabilities [positions, vocab]
  double worst = 0;
  {
    const std::shared_ptr<const LoadedModel> loaded = Load(LoadOptions::Precision::kFloat32);
    PagedRun run(*loaded->model, 64, 16);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const at::Tensor logits = run.Logits({{static_cast<int64_t>(i), prompts[i].tokens}});
      ASSERT_EQ(logits.size(0), static_cast<int64_t>(prompts[i].positions.size()));
      const at::Tensor sums = at::logsumexp(logits.to(at::kDouble), {-1});
      for (int64_t row = 0; row < logits.size(0); ++row) {
        const nlohmann::json& golden = prompts[i].positions[row];
        worst = std::max(worst, std::abs(sums[row].item<double>() - golden["logsumexp"].get<double>()));
        for (size_t j = 0; j < golden["ids"].size(); ++j) {
          const double value = logits[row][golden["ids"][j].get<int64_t>()].item<double>();
          worst = std::max(worst, std::abs(value - golden["logits"][j].get<double>()));
        }
      }
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
    const std::shared_ptr<const LoadedModel> loaded = Load(narrow.precision);
    PagedRun run(*loaded->model, 64, 16);
    double sum = 0, largest = 0;
    int64_t positions = 0;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const at::Tensor logits = run.Logits({{static_cast<int64_t>(i), prompts[i].tokens}});
      const at::Tensor log_prob = at::log_softmax(logits.to(at::kDouble), -1);
      const at::Tensor divergence = (exact[i].exp() * (exact[i] - log_prob)).sum(-1);  // [positions]
      sum += divergence.sum().item<double>();
      largest = std::max(largest, divergence.max().item<double>());
      positions += divergence.size(0);
    }
    std::printf("KL(float32 || %s): mean %.2e, largest %.2e over %ld positions\n", narrow.name, sum / positions,
                largest, static_cast<long>(positions));
    EXPECT_LE(sum / positions, narrow.largest_mean);
  }
}

TEST(SmolLm2Test, GreedyTokensMatchTransformers) {
  const std::vector<nlohmann::json> goldens = ReadLines("smollm2_greedy.jsonl");
  ASSERT_EQ(goldens.size(), 50u);
  const std::shared_ptr<const LoadedModel> loaded = Load(LoadOptions::Precision::kFloat32);
  PagedRun run(*loaded->model, 50 * 8, 16);
  std::vector<PagedRun::Chunk> chunks;
  for (const nlohmann::json& golden : goldens) {
    chunks.push_back({static_cast<int64_t>(chunks.size()), golden["prompt"].get<std::vector<int64_t>>()});
  }
  std::vector<std::vector<int64_t>> generated(goldens.size());
  for (int step = 0; step < 64; ++step) {
    const at::Tensor next = run.LastLogits(chunks).argmax(-1);
    for (size_t i = 0; i < goldens.size(); ++i) {
      const int64_t token = next[static_cast<int64_t>(i)].item<int64_t>();
      generated[i].push_back(token);
      chunks[i].tokens = {token};
    }
  }
  int equal = 0;
  for (size_t i = 0; i < goldens.size(); ++i) {
    equal += generated[i] == goldens[i]["tokens"].get<std::vector<int64_t>>();
  }
  std::printf("equal to transformers: %d of 50\n", equal);
  EXPECT_GE(equal, 48);
}

}  // namespace
}  // namespace trimtab
