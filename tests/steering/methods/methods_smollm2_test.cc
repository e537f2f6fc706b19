// Small fits on the real model: 12 pairs of the shipped behaviour "cheerful"; on pairs that they have not seen, learned
// directions gain more than a random one.
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
    config.mutable_fit()->set_random_directions(0);
    google::protobuf::Any any;
    any.PackFrom(config);
    return (*methods_.Create(method, &any))->Fit(input_, probe, job);
  }
  MethodsSmolLm2Test() { EXPECT_TRUE(RegisterBuiltinMethods(methods_).ok()); }

  const std::string examples_ = "deploy/examples/";
  const FitInput input_{ReadPairs(examples_ + "pairs/cheerful.train.jsonl", 12),
                        ReadPairs(examples_ + "pairs/cheerful.held_out.jsonl", 8)};
  MethodRegistry methods_;
};

TEST_F(MethodsSmolLm2Test, LearnedDirectionsGainMoreThanARandomOne) {
  const auto model = LoadModel("smollm2", kModel, {});
  ASSERT_TRUE(model.ok()) << model.status();
  ModelProbe probe(*model, {.neutral_text = ChunkText(*(*model)->tokenizer, ReadFile(examples_ + "drift/neutral.txt"),
                                                      /*chunk_tokens=*/64, /*max_tokens=*/256)});
  MemoryJob job;
  const auto caa = FitMethod<methods::v1::CaaConfig>("caa", probe, job);
  const auto gradient = FitMethod<methods::v1::MarginGradientConfig>("margin_gradient", probe, job);
  const auto random = FitMethod<methods::v1::RandomConfig>("random", probe, job);
  ASSERT_TRUE(caa.ok() && gradient.ok() && random.ok()) << caa.status() << gradient.status() << random.status();
  const float control = random->report.held_out.margin_gain;
  EXPECT_GT(caa->report.held_out.margin_gain, control);
  EXPECT_GT(gradient->report.held_out.margin_gain, control);
  EXPECT_GT(gradient->report.held_out.ci_low, 0);
  EXPECT_GT(caa->vector->spec().layers[0].cosine_to_margin_gradient, 0);
  RecordProperty("caa", std::to_string(caa->report.held_out.margin_gain));
  RecordProperty("margin_gradient", std::to_string(gradient->report.held_out.margin_gain));
  RecordProperty("random", std::to_string(control));
}

}  // namespace
}  // namespace trimtab
