// A tiny model with neutral text and ten pairs, and fits on them by a method's name.
#ifndef TRIMTAB_TESTS_STEERING_METHODS_FIT_FIXTURE_H_
#define TRIMTAB_TESTS_STEERING_METHODS_FIT_FIXTURE_H_

#include <google/protobuf/any.pb.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "models/testing/tiny_model.h"
#include "steering/method_registry.h"
#include "steering/model_probe.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"

namespace trimtab {

class FitFixture : public ::testing::Test {
 protected:
  FitFixture() {
    EXPECT_TRUE(RegisterBuiltinMethods(methods_).ok());
    const char* subjects[] = {"cats", "rain", "tea", "maps", "boats", "music", "bread", "snow", "trees", "chess"};
    for (const char* subject : subjects) {
      input_.pairs.push_back(Pair(std::string("Tell me of ") + subject, std::string("Oh, ") + subject + "!", "No."));
      input_.held_out_pairs.push_back(Pair(std::string("What are ") + subject + "?", "Oh!", "No, no."));
    }
  }
  ModelProbe Probe() const {
    return ModelProbe(loaded_, {.batch_tokens = 512, .neutral_text = {{10, 20, 30, 40, 50, 60, 70, 80, 90, 100}}});
  }
  template <typename Config>
  absl::StatusOr<std::unique_ptr<SteeringMethod>> Make(const std::string& method, const Config& config) const {
    google::protobuf::Any any;
    any.PackFrom(config);
    return methods_.Create(method, &any);
  }
  template <typename Config>
  absl::StatusOr<FitResult> Fit(const std::string& method, const Config& config, const FitInput& input,
                                MemoryJob& job) const {
    const auto made = Make(method, config);
    if (!made.ok()) return made.status();
    ModelProbe probe = Probe();
    return (*made)->Fit(input, probe, job);
  }

  const std::shared_ptr<const LoadedModel> loaded_ = MakeTinyLoadedModel();
  MethodRegistry methods_;
  FitInput input_;
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_STEERING_METHODS_FIT_FIXTURE_H_
