// Small fits on the real model: 16 pairs of the shipped behaviour "cheerful"; on pairs that they have not seen, learned
// directions gain more than random ones.
#include "models/loaded_model.h"
#include "steering/method_registry.h"
#include "tests/steering/methods/fit_fixture.h"
#include "trimtab/methods/v1/caa.pb.h"
#include "trimtab/methods/v1/margin_gradient.pb.h"
#include "trimtab/methods/v1/random.pb.h"

namespace trimtab {
namespace {

constexpr char kModel[] = "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";

class MethodsSmolLm2Test : public ::testing::Test {
 protected:
  template <typename Config>
  absl::StatusOr<FitResult> FitMethod(const std::string& method, ModelProbe& probe, MemoryJob& job) const {
    Config config;
    config.mutable_fit()->add_layers(18);
    config.mutable_fit()->set_random_directions(5);
    google::protobuf::Any any;
    any.PackFrom(config);
    return (*methods_.Create(method, &any))->Fit(input_, probe, job);
  }
  MethodsSmolLm2Test() { EXPECT_TRUE(RegisterBuiltinMethods(methods_).ok()); }

  const std::string examples_ = "deploy/examples/";
  const FitInput input_{ReadPairs(examples_ + "pairs/cheerful.train.jsonl", 16),
                        ReadPairs(examples_ + "pairs/cheerful.held_out.jsonl", 8)};
  MethodRegistry methods_;
};

TEST_F(MethodsSmolLm2Test, LearnedDirectionsGainMoreThanRandomOnes) {
  const auto model = LoadModel("smollm2", kModel, {});
  ASSERT_TRUE(model.ok()) << model.status();
  ModelProbe probe(*model, {.neutral_text = ChunkText(*(*model)->tokenizer, ReadFile(examples_ + "drift/neutral.txt"),
                                                      /*chunk_tokens=*/64, /*max_tokens=*/256)});
  MemoryJob job;
  const auto caa = FitMethod<methods::v1::CaaConfig>("caa", probe, job);
  const auto gradient = FitMethod<methods::v1::MarginGradientConfig>("margin_gradient", probe, job);
  const auto random = FitMethod<methods::v1::RandomConfig>("random", probe, job);
  ASSERT_TRUE(caa.ok() && gradient.ok() && random.ok()) << caa.status() << gradient.status() << random.status();
  for (const auto* learned : {&caa, &gradient}) {
    const FitReport& report = (*learned)->report;
    const std::string& method = (*learned)->vector->spec().method;
    RecordProperty(method, std::to_string(report.held_out.margin_gain));
    RecordProperty(method + "_random_mean", std::to_string(report.random_gain_mean));
    EXPECT_GT(report.held_out.ci_low, 0) << method;
    EXPECT_GT(report.held_out.margin_gain, report.random_gain_mean) << method;
    EXPECT_GT((*learned)->vector->spec().layers[0].cosine_to_margin_gradient, 0) << method;
  }
  RecordProperty("random", std::to_string(random->report.held_out.margin_gain));
  EXPECT_GT(gradient->report.held_out.margin_gain, random->report.held_out.margin_gain);
}

}  // namespace
}  // namespace trimtab
