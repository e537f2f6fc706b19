// A small fit on the real model: 12 pairs of the shipped behaviour "cheerful", judged on pairs that it has not seen.
#include <gtest/gtest.h>

#include "models/loaded_model.h"
#include "steering/methods/fit_pipeline.h"
#include "steering/methods/grains.h"
#include "steering/model_probe.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"

namespace trimtab {
namespace {

constexpr char kModel[] = "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr char kExamples[] = "deploy/examples/";

TEST(GrainsSmolLm2Test, AFewPairsRaiseTheMarginOfUnseenOnes) {
  const auto model = LoadModel("smollm2", kModel, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const std::string examples = kExamples;
  ModelProbe probe(*model, {.neutral_text = ChunkText(*(*model)->tokenizer, ReadFile(examples + "drift/neutral.txt"),
                                                      /*chunk_tokens=*/64, /*max_tokens=*/256)});
  const FitInput input{ReadPairs(examples + "pairs/cheerful.train.jsonl", 12),
                       ReadPairs(examples + "pairs/cheerful.held_out.jsonl", 8)};
  ASSERT_EQ(input.pairs.size(), 12u);
  methods::v1::GrainsConfig config;
  config.mutable_fit()->add_candidate_layers(21);
  config.mutable_fit()->set_random_directions(3);
  MemoryJob job;
  const auto fit = RunFit(*GrainsRecipe(config), input, probe, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->vector->spec().layers[0].layer, 21);
  EXPECT_EQ(fit->report.held_out.pairs, 8);
  EXPECT_GT(fit->report.held_out.ci_low, 0) << "gain " << fit->report.held_out.margin_gain;
  EXPECT_GT(fit->report.kl_at_default, 0);
  EXPECT_LE(fit->report.kl_at_default, 0.21);
  EXPECT_GT(fit->vector->spec().default_strength, 0.02f);
  EXPECT_LT(fit->vector->spec().default_strength, 0.3f);
}

}  // namespace
}  // namespace trimtab
