// The engine as the benchmarks drive it, one line in, one line of JSON out; a line that is not understood ends it.
//   engine_worker --model=MODEL [--precision=...]
//   info                                             what the model weighs
//   wave BATCH PROMPT OUTPUT                         requests that are not steered
//   wave BATCH PROMPT OUTPUT SETTINGS PER_REQUEST LAYERS OBJECTIVES WAVE
//                                                    LAYERS: all or one; OBJECTIVES: many or one; see WaveSteering
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "models/loaded_model.h"
#include "tests/bench/engine_load.h"

ABSL_FLAG(std::string, model, "", "GGUF file or Hugging Face folder");
ABSL_FLAG(std::string, precision, "auto", "as the server's");
ABSL_FLAG(int64_t, kv_cache_mib, 512, "memory of the key-value cache, MiB");

namespace trimtab {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "engine_worker: %s\n", status.ToString().c_str());
  return EXIT_FAILURE;
}

bool ParsePrecision(const std::string& name, LoadOptions::Precision& precision) {
  if (name == "auto") {
    precision = LoadOptions::Precision::kAuto;
  } else if (name == "float32") {
    precision = LoadOptions::Precision::kFloat32;
  } else if (name == "bfloat16") {
    precision = LoadOptions::Precision::kBFloat16;
  } else if (name == "file") {
    precision = LoadOptions::Precision::kFile;
  } else {
    return false;
  }
  return true;
}

// What the weights weigh, and how many of them each prompt token is multiplied with.
void PrintInfo(const LoadedModel& model) {
  const ModelSpec& spec = model.model->spec();
  const int64_t attention = spec.num_heads * spec.head_dim, cached = spec.num_kv_heads * spec.head_dim;
  const int64_t block =
      spec.hidden_size * (2 * attention + 2 * cached + 3 * spec.intermediate_size);  // q, output, k, v, feed-forward
  std::printf("{\"precision\": \"%s\", \"weight_bytes\": %" PRId64 ", \"block_parameters\": %" PRId64
              ", \"layers\": %" PRId64 ", \"attention_width\": %" PRId64 ", \"kv_bytes_per_token\": %" PRId64 "}\n",
              model.precision.c_str(), model.model->weight_bytes(), block * spec.num_layers(), spec.num_layers(),
              attention, spec.kv_bytes_per_token(static_cast<int64_t>(elementSize(model.model->dtype()))));
}

int Main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  LoadOptions options;
  if (!ParsePrecision(absl::GetFlag(FLAGS_precision), options.precision)) {
    return Fail(absl::InvalidArgumentError("unknown --precision"));
  }
  const auto model = LoadModel("bench", absl::GetFlag(FLAGS_model), options);
  if (!model.ok()) return Fail(model.status());
  EngineConfig config;
  config.kv_cache_bytes = absl::GetFlag(FLAGS_kv_cache_mib) << 20;
  const auto load = EngineLoad::Create(*model, config);
  if (!load.ok()) return Fail(load.status());
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, layers = "all", objectives = "many";
    words >> command;
    if (command == "info") {
      PrintInfo(**model);
      std::fflush(stdout);
      continue;
    }
    int64_t batch = 0, prompt = 0, output = 0;
    WaveSteering steering;
    if (command != "wave" || !(words >> batch >> prompt >> output)) {
      return Fail(absl::InvalidArgumentError("not a command: " + line));
    }
    if (words >> steering.settings) {
      if (!(words >> steering.per_request >> layers >> objectives >> steering.wave)) {
        return Fail(absl::InvalidArgumentError("not a steered wave: " + line));
      }
      steering.all_layers = layers == "all";
      steering.one_objective = objectives == "one";
    }
    const auto wave = (*load)->RunWave(batch, prompt, output, steering);
    if (!wave.ok()) return Fail(wave.status());
    std::printf(
        "{\"seconds\": %.6f, \"prefill_seconds\": %.6f, \"decode_seconds\": %.6f, \"step_seconds\": %.6f, "
        "\"steering_share\": %.6f}\n",
        wave->seconds, wave->prefill_seconds, wave->decode_seconds, wave->step_seconds, wave->steering_share);
    std::fflush(stdout);
  }
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) { return trimtab::Main(argc, argv); }
