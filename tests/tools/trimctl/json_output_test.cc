#include "tools/trimctl/json_output.h"

#include <gtest/gtest.h>

#include <string>

#include "google/longrunning/operations.pb.h"
#include "trimtab/methods/v1/grains.pb.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {
namespace {

TEST(JsonOutput, PrintsEnumsByNameAndZeros) {
  v1::RegisterObjectiveMetadata metadata;
  metadata.set_phase(v1::RegisterObjectiveMetadata::PHASE_MASKING);
  const std::string json = ToJson(metadata);
  EXPECT_NE(json.find("\"phase\": \"PHASE_MASKING\""), std::string::npos) << json;
  EXPECT_NE(json.find("\"completedPairs\": 0"), std::string::npos) << json;
  EXPECT_EQ(json.back(), '\n');
}

TEST(JsonOutput, PrintsPackedMessagesAndLeavesUnknownOnesOut) {
  google::longrunning::Operation operation;
  operation.set_name("operations/x");
  v1::Objective objective;
  objective.mutable_method_config()->set_type_url("type.googleapis.com/somebody.else.Config");
  objective.mutable_method_config()->set_value("\x08\x01");
  *objective.mutable_error()->add_details() = objective.method_config();
  objective.mutable_error()->set_message("broken");
  const std::string json = ToJson(objective);
  EXPECT_NE(json.find("\"message\": \"broken\""), std::string::npos) << json;
  EXPECT_EQ(json.find("somebody"), std::string::npos) << json;

  objective.clear_error();
  methods::v1::GrainsConfig config;
  config.set_k(7);
  objective.mutable_method_config()->PackFrom(config);
  operation.mutable_response()->PackFrom(objective);
  const std::string packed = ToJson(operation);
  EXPECT_NE(packed.find("trimtab.methods.v1.GrainsConfig"), std::string::npos) << packed;
  EXPECT_NE(packed.find("\"k\": 7"), std::string::npos) << packed;
}

TEST(JsonOutput, ParsesConfigurationsAndSaysWhereTheyAreWrong) {
  const auto any = ParseConfig("trimtab.methods.v1.GrainsConfig", "k: 3 mask: MASK_TOKEN");
  ASSERT_TRUE(any.ok()) << any.status();
  methods::v1::GrainsConfig config;
  ASSERT_TRUE(any->UnpackTo(&config));
  EXPECT_EQ(config.k(), 3);
  const absl::Status wrong = ParseConfig("trimtab.methods.v1.GrainsConfig", "k: 3\nl: 4").status();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(wrong.message()).find("line 2, column 2"), std::string::npos) << wrong;
  EXPECT_EQ(ParseConfig("somebody.else.Config", "").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace trimtab
