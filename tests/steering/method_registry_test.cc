#include "steering/method_registry.h"

#include <google/protobuf/any.pb.h>
#include <gtest/gtest.h>

#include "server/base/error.h"
#include "trimtab/methods/v1/grains.pb.h"
#include "trimtab/v1/common.pb.h"

namespace trimtab {
namespace {

using methods::v1::GrainsConfig;

TEST(MethodRegistryTest, KnowsTheBuiltinMethods) {
  MethodRegistry registry;
  ASSERT_TRUE(RegisterBuiltinMethods(registry).ok());
  EXPECT_GE(registry.List().size(), 6u);
  const MethodInfo* info = registry.Find("grains");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->config_type, "trimtab.methods.v1.GrainsConfig");
  GrainsConfig defaults;
  ASSERT_TRUE(defaults.ParseFromString(info->default_config));
  EXPECT_EQ(defaults.k(), 10);
  EXPECT_EQ(defaults.combine(), GrainsConfig::COMBINE_SUBSPACE_GRADIENT);
  EXPECT_EQ(registry.Find("other"), nullptr);
}

TEST(MethodRegistryTest, MethodsSayWhichSitesTheySteer) {
  MethodRegistry registry;
  ASSERT_TRUE(RegisterBuiltinMethods(registry).ok());
  const auto sites = [&](const char* method) { return registry.Find(method)->sites; };
  EXPECT_EQ(sites("caa"), std::vector<std::string>{"block_output"});
  EXPECT_EQ(sites("icv"), std::vector<std::string>{"mlp_output"});
  EXPECT_EQ(sites("iti"), std::vector<std::string>{"attention_output"});
  EXPECT_EQ(sites("nl_iti"), std::vector<std::string>{"attention_output"});
}

TEST(MethodRegistryTest, ASecondMethodOfTheSameNameIsAnError) {
  MethodRegistry registry;
  ASSERT_TRUE(RegisterBuiltinMethods(registry).ok());
  EXPECT_EQ(RegisterBuiltinMethods(registry).code(), absl::StatusCode::kAlreadyExists);
}

TEST(MethodRegistryTest, CreateNamesTheReason) {
  MethodRegistry registry;
  ASSERT_TRUE(RegisterBuiltinMethods(registry).ok());
  const ErrorDetail unknown = GetErrorDetail(registry.Create("other", nullptr).status());
  EXPECT_EQ(unknown.reason, kMethodUnknown);
  EXPECT_NE(unknown.metadata.at("known").find("grains"), std::string::npos);

  google::protobuf::Any any;
  any.PackFrom(v1::Usage());
  EXPECT_EQ(GetErrorDetail(registry.Create("grains", &any).status()).reason, kMethodConfigMismatch);

  GrainsConfig config;
  config.set_k(0);
  config.set_rho(2);
  config.set_max_points(16);
  config.mutable_fit()->add_layers(3);
  config.mutable_fit()->add_layers(3);
  any.PackFrom(config);
  const ErrorDetail invalid = GetErrorDetail(registry.Create("grains", &any).status());
  EXPECT_EQ(invalid.reason, kFieldInvalid);
  std::vector<std::string> fields;
  for (const FieldViolation& violation : invalid.violations) fields.push_back(violation.field);
  EXPECT_EQ(fields, (std::vector<std::string>{"method_config.max_points", "method_config.k", "method_config.rho",
                                              "method_config.fit.layers"}));

  EXPECT_TRUE(registry.Create("grains", nullptr).ok());
  any.PackFrom(GrainsConfig());
  EXPECT_TRUE(registry.Create("grains", &any).ok());
}

}  // namespace
}  // namespace trimtab
