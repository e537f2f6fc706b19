#include "tests/models/model_goldens.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/layer_tap.h"
#include "models/testing/paged_run.h"

namespace trimtab {
namespace {

constexpr int64_t kBlockSize = 16;

std::vector<nlohmann::json> ReadJsonLines(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

}  // namespace

std::vector<ScoredText> ReadScored(const std::string& path) {
  std::vector<ScoredText> texts;
  for (const nlohmann::json& line : ReadJsonLines(path)) {
    if (!line["tokens"].empty()) texts.push_back({line["tokens"].get<std::vector<int64_t>>(), {}});
    texts.back().positions.push_back({line["ids"].get<std::vector<int64_t>>(),
                                      line["logits"].get<std::vector<double>>(), line["logsumexp"].get<double>()});
  }
  return texts;
}

std::vector<GreedyText> ReadGreedy(const std::string& path) {
  std::vector<GreedyText> texts;
  for (const nlohmann::json& line : ReadJsonLines(path)) {
    texts.push_back({line["prompt"].get<std::vector<int64_t>>(), line["tokens"].get<std::vector<int64_t>>()});
  }
  return texts;
}

at::Tensor ScoredLogits(const CausalModel& model, const ScoredText& text) {
  const auto scored = static_cast<int64_t>(text.positions.size());
  const auto first = text.tokens.end() - scored;
  PagedRun run(model, static_cast<int64_t>(text.tokens.size()) / kBlockSize + 1, kBlockSize);
  IdentityTap tap;
  if (first != text.tokens.begin()) run.Forward({{0, {text.tokens.begin(), first}}}, tap);
  return run.Logits({{0, {first, text.tokens.end()}}});
}

double LargestDifference(const at::Tensor& logits, const ScoredText& text) {
  double worst = 0;
  const at::Tensor sums = at::logsumexp(logits.to(at::kDouble), {-1});
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const ScoredText::Position& golden = text.positions[static_cast<size_t>(row)];
    worst = std::max(worst, std::abs(sums[row].item<double>() - golden.logsumexp));
    for (size_t j = 0; j < golden.ids.size(); ++j) {
      worst = std::max(worst, std::abs(logits[row][golden.ids[j]].item<double>() - golden.logits[j]));
    }
  }
  return worst;
}

Divergence DivergenceOf(const CausalModel& model, const std::vector<ScoredText>& texts,
                        const std::vector<at::Tensor>& exact) {
  Divergence all{0, 0, 0};
  for (size_t i = 0; i < texts.size(); ++i) {
    const at::Tensor log_prob = at::log_softmax(ScoredLogits(model, texts[i]).to(at::kDouble), -1);
    const at::Tensor divergence = (exact[i].exp() * (exact[i] - log_prob)).sum(-1);  // [positions]
    all.mean += divergence.sum().item<double>();
    all.largest = std::max(all.largest, divergence.max().item<double>());
    all.positions += divergence.size(0);
  }
  all.mean /= static_cast<double>(all.positions);
  return all;
}

int CountGreedyEqual(const CausalModel& model, const std::vector<GreedyText>& goldens) {
  int64_t blocks = 0;
  std::vector<PagedRun::Chunk> chunks;
  for (const GreedyText& golden : goldens) {
    chunks.push_back({static_cast<int64_t>(chunks.size()), golden.prompt});
    blocks += static_cast<int64_t>(golden.prompt.size() + golden.tokens.size()) / kBlockSize + 1;
  }
  PagedRun run(model, blocks, kBlockSize);
  std::vector<std::vector<int64_t>> generated(goldens.size());
  for (size_t step = 0; step < goldens[0].tokens.size(); ++step) {
    const at::Tensor next = run.LastLogits(chunks).argmax(-1);
    for (size_t i = 0; i < goldens.size(); ++i) {
      generated[i].push_back(next[static_cast<int64_t>(i)].item<int64_t>());
      chunks[i].tokens = {generated[i].back()};
    }
  }
  int equal = 0;
  for (size_t i = 0; i < goldens.size(); ++i) equal += generated[i] == goldens[i].tokens;
  return equal;
}

}  // namespace trimtab
