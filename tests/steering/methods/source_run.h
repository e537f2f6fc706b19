// A direction source on its own, before the pipeline chooses among its candidates.
#ifndef TRIMTAB_TESTS_STEERING_METHODS_SOURCE_RUN_H_
#define TRIMTAB_TESTS_STEERING_METHODS_SOURCE_RUN_H_

#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "models/testing/tiny_model.h"
#include "steering/methods/direction_source.h"
#include "steering/methods/fit_pairs.h"
#include "steering/methods/progress.h"
#include "steering/model_probe.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"

namespace trimtab {

// Ten pairs about ten things, with answers of several tokens.
inline FitInput TenPairs() {
  FitInput input;
  for (const char* subject : {"cats", "rain", "tea", "maps", "boats", "music", "bread", "snow", "trees", "chess"}) {
    input.pairs.push_back(Pair(std::string("Tell me of ") + subject, std::string("Oh, ") + subject + "!", "No, no."));
  }
  return input;
}

inline ModelProbe TinyProbe(const std::shared_ptr<const LoadedModel>& model) {
  return ModelProbe(model, {.batch_tokens = 512, .neutral_text = {{10, 20, 30, 40, 50, 60, 70, 80, 90, 100}}});
}

// All layers together.
struct SourceRun {
  SourceRun(FitRecipe fit_recipe, const FitInput& input, const ModelProbe& model_probe)
      : recipe(std::move(fit_recipe)),
        pairs(*PreparePairs(recipe.options, input, model_probe)),
        layers(static_cast<size_t>(model_probe.num_layers())),
        progress(job, static_cast<int64_t>(input.pairs.size())),
        context{.options = recipe.options,
                .site = recipe.site,
                .pairs = pairs,
                .layers = layers,
                .together = true,
                .probe = model_probe,
                .progress = progress,
                .job = job},
        source(recipe.source()) {
    std::iota(layers.begin(), layers.end(), 0);
  }

  const FitRecipe recipe;
  const FitPairs pairs;
  std::vector<int64_t> layers;
  MemoryJob job;
  ProgressMeter progress;
  const FitContext context;
  const std::unique_ptr<DirectionSource> source;
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_STEERING_METHODS_SOURCE_RUN_H_
