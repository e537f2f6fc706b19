// Integrated gradients as a fit computes them, for bench_attribution: attribution_worker --model=MODEL
// --pairs=FILE.jsonl First one line of JSON with the pairs' tokens, then per line "run STEPS" of input one line with
// the seconds that all pairs took and their scores. Gauss-Legendre, from the mask token's embedding, F = pref_sum
// (steering.md A2, A3).
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/time/clock.h"
#include "models/kernels/thread_team.h"
#include "models/loaded_model.h"
#include "server/base/status_macros.h"
#include "steering/attribution/integrated_gradients.h"
#include "steering/model_probe.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"

ABSL_FLAG(std::string, model, "", "GGUF file or Hugging Face folder");
ABSL_FLAG(std::string, precision, "auto", "auto, float32 or bfloat16");
ABSL_FLAG(std::string, pairs, "", "JSON lines with prompt, preferred and dispreferred");
ABSL_FLAG(int64_t, max_pairs, 50, "of the file, from the front");

namespace trimtab {
namespace {

constexpr MarginKind kKind = MarginKind::kPrefSum;

struct Attributed {
  std::vector<double> scores;
  double completeness_error = 0;
};

absl::StatusOr<Attributed> Attribute(const ModelProbe& probe, const EncodedPair& pair, int steps) {
  MemoryJob job;
  const at::Tensor prompt = probe.Embed(pair.prompt);
  at::Tensor baseline = prompt.clone();
  for (int64_t position : pair.candidates) baseline[position].copy_(probe.MaskEmbedding());
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> whole, probe.Margins(pair, kKind, prompt.unsqueeze(0), job));
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<double> start, probe.Margins(pair, kKind, baseline.unsqueeze(0), job));
  TRIMTAB_ASSIGN_OR_RETURN(const IntegratedGradientsResult result,
                           IntegratedGradients(prompt, baseline, pair.candidates, whole[0], start[0],
                                               {.quadrature = QuadratureKind::kGaussLegendre, .steps = steps},
                                               [&](const at::Tensor& embeddings) {
                                                 return probe.PromptGradients(pair, kKind, embeddings, job);
                                               }));
  return Attributed{.scores = result.scores, .completeness_error = result.completeness_error};
}

int Fail(const absl::Status& status) {
  std::cerr << "attribution_worker: " << status << "\n";
  return EXIT_FAILURE;
}

void Print(const nlohmann::json& line) { std::cout << line.dump() << std::endl; }

int Main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  LoadOptions options;
  const std::string precision = absl::GetFlag(FLAGS_precision);
  if (precision == "float32") options.precision = LoadOptions::Precision::kFloat32;
  if (precision == "bfloat16") options.precision = LoadOptions::Precision::kBFloat16;
  ThreadTeam team(ParallelThreads());
  const ScopedTeam scope(&team);
  const auto model = LoadModel("bench", absl::GetFlag(FLAGS_model), options);
  if (!model.ok()) return Fail(model.status());
  const ModelProbe probe(*model, {});
  std::vector<EncodedPair> pairs;
  nlohmann::json tokens = nlohmann::json::array();
  const auto limit = static_cast<size_t>(absl::GetFlag(FLAGS_max_pairs));
  for (const PreferencePair& pair : ReadPairs(absl::GetFlag(FLAGS_pairs), limit)) {
    auto encoded = probe.Encode(pair);
    if (!encoded.ok()) return Fail(encoded.status());
    tokens.push_back({{"prompt", encoded->prompt},
                      {"preferred", encoded->preferred},
                      {"dispreferred", encoded->dispreferred},
                      {"candidates", encoded->candidates}});
    pairs.push_back(*std::move(encoded));
  }
  if (pairs.empty()) return Fail(absl::InvalidArgumentError("no pairs"));
  const ModelSpec& spec = (*model)->model->spec();
  const int64_t queries = spec.num_heads * spec.head_dim, keys = spec.num_kv_heads * spec.head_dim;
  Print({{"pairs", tokens},
         {"mask", (*model)->mask_token},
         {"block_parameters",
          spec.num_layers() * spec.hidden_size * (2 * queries + 2 * keys + 3 * spec.intermediate_size)},
         {"attention_width", queries * spec.num_layers()},
         {"head_parameters", spec.vocab_size * spec.hidden_size}});
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    int steps = 0;
    if (!(words >> command >> steps) || command != "run" || steps < 1) {
      return Fail(absl::InvalidArgumentError("expected: run STEPS"));
    }
    nlohmann::json scores = nlohmann::json::array(), errors = nlohmann::json::array();
    const absl::Time begin = absl::Now();
    for (const EncodedPair& pair : pairs) {
      const auto attributed = Attribute(probe, pair, steps);
      if (!attributed.ok()) return Fail(attributed.status());
      scores.push_back(attributed->scores);
      errors.push_back(attributed->completeness_error);
    }
    Print({{"seconds", absl::ToDoubleSeconds(absl::Now() - begin)}, {"scores", scores}, {"completeness", errors}});
  }
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) { return trimtab::Main(argc, argv); }
