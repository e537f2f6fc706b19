// The paper's figure 3 on a pairs file, for occlusion and for integrated gradients: what masking the attributed tokens
// does to the margin. bench_figure3 MODEL PAIRS.jsonl [MAX_PAIRS] [CONFIG_TEXTPROTO]
#include <google/protobuf/text_format.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "models/kernels/thread_team.h"
#include "models/loaded_model.h"
#include "steering/methods/grains_config.h"
#include "steering/methods/masking_effect.h"
#include "steering/model_probe.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

void Print(const char* name, const MeanInterval& change) {
  absl::PrintF("  %-28s %+.4f  [%+.4f, %+.4f]\n", name, change.mean, change.low, change.high);
}

int Run(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: bench_figure3 MODEL PAIRS.jsonl [MAX_PAIRS] [CONFIG_TEXTPROTO]\n";
    return 2;
  }
  GrainsConfig base;
  if (argc > 4 && !google::protobuf::TextFormat::ParseFromString(argv[4], &base)) return 2;
  ThreadTeam team(ParallelThreads());
  const ScopedTeam scope(&team);
  const auto model = LoadModel("bench", argv[1], {});
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  const ModelProbe probe(*model, {});
  std::vector<EncodedPair> pairs;
  for (const PreferencePair& pair : ReadPairs(argv[2], argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 100000)) {
    if (auto encoded = probe.Encode(pair); encoded.ok()) pairs.push_back(*std::move(encoded));
  }
  absl::PrintF("change of the margin (nats per token) by what is masked, mean and 95%% interval\n");
  for (const auto kind :
       {GrainsConfig::ATTRIBUTION_KIND_OCCLUSION, GrainsConfig::ATTRIBUTION_KIND_INTEGRATED_GRADIENTS}) {
    base.set_attribution(kind);
    const auto config = ResolveGrainsConfig(base);
    if (!config.ok()) {
      std::cerr << config.status() << "\n";
      return 1;
    }
    MemoryJob job;
    const absl::Time start = absl::Now();
    const auto effect = MeasureMaskingEffect(*config, probe, pairs, MarginKind::kPrefMean, job);
    if (!effect.ok()) {
      std::cerr << effect.status() << "\n";
      return 1;
    }
    absl::PrintF("%s: %d pairs, %.1f s, median completeness error %.3f, low confidence %d\n",
                 GrainsConfig::AttributionKind_Name(kind), effect->pairs, absl::ToDoubleSeconds(absl::Now() - start),
                 effect->median_completeness_error, effect->low_confidence);
    Print("S+ masked", effect->positive);
    Print("as many random (S+)", effect->random_positive);
    Print("S+ against random", effect->positive_against_random);
    Print("S- masked", effect->negative);
    Print("as many random (S-)", effect->random_negative);
    Print("S- against random", effect->negative_against_random);
  }
  return 0;
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) { return trimtab::Run(argc, argv); }
