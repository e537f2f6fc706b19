#include "server/rpc/common_fit_options.h"

#include <gtest/gtest.h>

#include "trimtab/methods/v1/grains.pb.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {
namespace {

MethodInfo Grains() {
  methods::v1::GrainsConfig defaults;
  defaults.mutable_fit()->set_max_kl(0.2f);
  defaults.mutable_fit()->set_seed(7);
  defaults.mutable_fit()->add_candidate_layers(3);
  return {
      .id = "grains", .config_type = "trimtab.methods.v1.GrainsConfig", .default_config = defaults.SerializeAsString()};
}

TEST(CommonFitOptionsTest, AConfigurationGoesOverTheMethodsDefaults) {
  const MethodInfo method = Grains();
  EXPECT_EQ(CommonFitOptions(&method, nullptr).seed(), 7u);
  methods::v1::GrainsConfig config;
  config.mutable_fit()->set_max_kl(0.1f);
  config.mutable_fit()->add_candidate_layers(5);
  google::protobuf::Any any;
  any.PackFrom(config);
  const methods::v1::FitOptions options = CommonFitOptions(&method, &any);
  EXPECT_EQ(options.max_kl(), 0.1f);
  EXPECT_EQ(options.seed(), 7u);
  ASSERT_EQ(options.candidate_layers_size(), 1);
  EXPECT_EQ(options.candidate_layers(0), 5);
  EXPECT_FALSE(CommonFitOptions(nullptr, &any).has_seed());
}

TEST(CommonFitOptionsTest, WhatHasNoOptionsSetsNone) {
  const MethodInfo method = Grains();
  google::protobuf::Any any;
  any.PackFrom(v1::Objective());
  EXPECT_EQ(CommonFitOptions(&method, &any).max_kl(), 0.2f);
  any.set_type_url("type.googleapis.com/plugin.Config");
  EXPECT_EQ(CommonFitOptions(&method, &any).max_kl(), 0.2f);
  any.PackFrom(methods::v1::GrainsConfig());
  any.set_value("\xff\xff");
  EXPECT_EQ(CommonFitOptions(&method, &any).max_kl(), 0.2f);
  const MethodInfo plugin{.id = "plugin", .config_type = "plugin.Config"};
  EXPECT_EQ(CommonFitOptions(&plugin, nullptr).ByteSizeLong(), 0u);
}

}  // namespace
}  // namespace trimtab
