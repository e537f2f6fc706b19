// Plugins: the example registers, fits and steers; what is none is refused with a sentence.
#include "server/method_plugins.h"

#include <gmock/gmock.h>
#include <google/protobuf/any.pb.h>
#include <google/protobuf/wrappers.pb.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "models/testing/tiny_model.h"
#include "server/base/error.h"
#include "steering/model_probe.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"

namespace trimtab {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kExample[] = "deploy/examples/plugin/answer_means.so";

// The registry that all tests share: what a plugin has registered cannot be taken back.
MethodRegistry& Loaded() {
  static MethodRegistry* const registry = [] {
    auto* const made = new MethodRegistry;
    const absl::Status status = LoadMethodPlugins({kExample}, *made);
    EXPECT_TRUE(status.ok()) << status;
    return made;
  }();
  return *registry;
}

// What the server says instead of starting.
std::string Refusal(const std::string& path) {
  MethodRegistry registry;
  EXPECT_TRUE(RegisterBuiltinMethods(registry).ok());
  const absl::Status status = LoadMethodPlugins({path}, registry);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(MethodPluginsTest, TheExampleRegisters) {
  const MethodInfo* const info = Loaded().Find("answer_means");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->config_type, "google.protobuf.Int32Value");
  // Its configuration is checked as those of the tree are.
  google::protobuf::Any config;
  config.PackFrom(google::protobuf::StringValue());
  EXPECT_EQ(GetErrorDetail(Loaded().Create("answer_means", &config).status()).reason, kMethodConfigMismatch);
  google::protobuf::Int32Value block;
  block.set_value(-2);
  config.PackFrom(block);
  EXPECT_EQ(GetErrorDetail(Loaded().Create("answer_means", &config).status()).reason, kFieldInvalid);
}

TEST(MethodPluginsTest, TheExampleFitsAndSteers) {
  const std::shared_ptr<const LoadedModel> model = MakeTinyLoadedModel();
  ModelProbe probe(model, {});
  FitInput input;
  for (const char* topic : {"tea", "rain", "trains", "work"}) {
    input.pairs.push_back(Pair(std::string("What about ") + topic + "?", "wonderful", "awful"));
  }
  google::protobuf::Int32Value block;
  block.set_value(1);
  google::protobuf::Any config;
  config.PackFrom(block);
  const auto method = Loaded().Create("answer_means", &config);
  ASSERT_TRUE(method.ok()) << method.status();
  MemoryJob job;
  const absl::StatusOr<FitResult> fit = (*method)->Fit(input, probe, job);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->vector->spec().method, "answer_means");
  EXPECT_EQ(fit->vector->spec().model_fingerprint, model->fingerprint);
  ASSERT_EQ(fit->vector->spec().layers.size(), 1u);
  EXPECT_EQ(fit->vector->spec().layers[0].layer, 1);
  EXPECT_EQ(fit->report.pair_count, 4);
  EXPECT_EQ(job.checkpoints, 4);
  // Through the bank and the tap that serve: a direction and its reverse do different things.
  const EncodedPair pair = *probe.Encode(input.pairs[0]);
  const auto margins = *probe.SteeredMargins(
      {&pair}, MarginKind::kPrefMean,
      {{.vector = nullptr}, {.vector = fit->vector, .strength = 0.2f}, {.vector = fit->vector, .strength = -0.2f}},
      job);
  EXPECT_NE(margins[0][1], margins[0][0]);
  EXPECT_NE(margins[0][1], margins[0][2]);
  // A cancelled job ends the fit.
  MemoryJob cancelled;
  cancelled.stop_at = 2;
  EXPECT_TRUE(absl::IsCancelled((*method)->Fit(input, probe, cancelled).status()));
}

TEST(MethodPluginsTest, TheSameTwiceIsOneTooMany) {
  Loaded();
  MethodRegistry registry;
  const absl::Status status = LoadMethodPlugins({kExample, std::string("./") + kExample}, registry);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("./deploy"), HasSubstr("\"answer_means\" is registered twice")));
}

TEST(MethodPluginsTest, WhatIsNoPluginIsRefused) {
  EXPECT_THAT(Refusal("tests/plugins/absent.so"), HasSubstr("absent.so: there is no such file"));
  EXPECT_THAT(Refusal("tests/plugins"), HasSubstr("no such file"));
  const std::string text = ::testing::TempDir() + "/text.so";
  std::ofstream(text) << "not a shared object\n";
  EXPECT_THAT(Refusal(text), HasSubstr("cannot be loaded"));
  EXPECT_THAT(Refusal("tests/plugins/no_entry.so"), HasSubstr("is no plugin: it has no function trimtab_plugin_v1"));
  EXPECT_THAT(Refusal("tests/plugins/null.so"), HasSubstr("is no plugin"));
}

TEST(MethodPluginsTest, OtherBuildsAreRefused) {
  EXPECT_THAT(Refusal("tests/plugins/other_version.so"),
              HasSubstr("is for version 2 of the plugin interface, this server has 1"));
  EXPECT_THAT(Refusal("tests/plugins/other_build.so"),
              AllOf(HasSubstr("0123456789abcdef"), HasSubstr("build it again from this server's headers")));
  EXPECT_THAT(Refusal("tests/plugins/missing_symbol.so"),
              AllOf(HasSubstr("RegisterInAnotherVersion"), HasSubstr("build it again")));
}

TEST(MethodPluginsTest, WhatCannotRegisterIsRefused) {
  EXPECT_THAT(Refusal("tests/plugins/twice.so"), HasSubstr("\"grains\" is registered twice"));
  EXPECT_THAT(Refusal("tests/plugins/bad_id.so"), HasSubstr("\"a/b\", which no request can give"));
  EXPECT_THAT(Refusal("tests/plugins/nothing.so"), HasSubstr("registers no method"));
  EXPECT_THAT(Refusal("tests/plugins/throws.so"), HasSubstr("it threw: no luck"));
}

}  // namespace
}  // namespace trimtab
