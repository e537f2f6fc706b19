#include "server/base/resource_name.h"

#include <gtest/gtest.h>

#include <string>

namespace trimtab {
namespace {

TEST(ResourceName, IdsFollowThePattern) {
  for (const char* id : {"a", "a1", "smollm2-135m", "x-y-z", "abcdefghijklmnopqrstuvwxyz"}) {
    EXPECT_TRUE(IsValidId(id)) << id;
  }
  EXPECT_TRUE(IsValidId(std::string(63, 'a')));
  for (const char* id : {"", "A", "1a", "-a", "a-", "a_b", "a.b", "a b", "a/b", "\xC3\xA4"}) {
    EXPECT_FALSE(IsValidId(id)) << id;
  }
  EXPECT_FALSE(IsValidId(std::string(64, 'a')));
}

TEST(ResourceName, AnyTextBecomesAnId) {
  EXPECT_EQ(MakeId("SmolLM2-135M Instruct.gguf"), "smollm2-135m-instruct-gguf");
  EXPECT_EQ(MakeId("7B__Chat"), "b-chat");
  EXPECT_EQ(MakeId("***"), "model");
  for (const char* text : {"", "  x  ", "3.1", "Meta-Llama/3.1-8B", "\xE6\x97\xA5"})
    EXPECT_TRUE(IsValidId(MakeId(text)));
  EXPECT_TRUE(IsValidId(MakeId(std::string(62, 'a') + "-b")));
}

TEST(ResourceName, NamesSurviveTheRoundTrip) {
  EXPECT_EQ(ParseModelName(ModelName("m")), "m");
  const ObjectiveId objective{.model = "m", .objective = "calm"};
  EXPECT_EQ(objective.name(), "models/m/objectives/calm");
  EXPECT_EQ(objective.model_name(), "models/m");
  EXPECT_EQ(ParseObjectiveName(objective.name()), objective);
  const RevisionId revision{.objective = objective, .revision = 12};
  EXPECT_EQ(revision.name(), "models/m/objectives/calm/revisions/12");
  EXPECT_EQ(ParseRevisionName(revision.name()), revision);
  const DriftReportId report{.model = "m", .report = "d1"};
  EXPECT_EQ(report.name(), "models/m/driftReports/d1");
  EXPECT_EQ(ParseDriftReportName(report.name()), report);
  EXPECT_EQ(ParseSteeringMethodName(SteeringMethodName("mean_diff")), "mean_diff");
  EXPECT_EQ(ParseOperationName(OperationName("f-1")), "f-1");
}

TEST(ResourceName, AnythingElseIsRefused) {
  for (const char* name :
       {"", "m", "models", "models/", "models/M", "model/m", "models/m/", "/models/m", "models/m/x"}) {
    EXPECT_FALSE(ParseModelName(name)) << name;
  }
  for (const char* name : {"models/m/objectives/", "models//objectives/x", "models/m/objective/x",
                           "models/m/objectives/x/revisions/1", "models/m/objectives/x@3"}) {
    EXPECT_FALSE(ParseObjectiveName(name)) << name;
  }
  for (const char* number : {"0", "-1", "+1", "01", "1 ", "", "x", "1.0", "9999999999999999999"}) {
    EXPECT_FALSE(ParseRevisionName(std::string("models/m/objectives/x/revisions/") + number)) << number;
  }
  EXPECT_FALSE(ParseDriftReportName("models/m/driftreports/d"));
  EXPECT_FALSE(ParseSteeringMethodName("steeringMethods/"));
  EXPECT_FALSE(ParseSteeringMethodName("steeringMethods/a b"));
  EXPECT_FALSE(ParseOperationName("operations/../x"));
}

TEST(ResourceName, SelectionsHaveShortForms) {
  const ObjectiveId calm{.model = "m", .objective = "calm"};
  EXPECT_EQ(ParseObjectiveReference("m", "calm"), (ObjectiveReference{.objective = calm}));
  EXPECT_EQ(ParseObjectiveReference("m", "calm@3"), (ObjectiveReference{.objective = calm, .revision = 3}));
  EXPECT_EQ(ParseObjectiveReference("other", "models/m/objectives/calm"), (ObjectiveReference{.objective = calm}));
  EXPECT_EQ(ParseObjectiveReference("m", "models/m/objectives/calm@3"),
            (ObjectiveReference{.objective = calm, .revision = 3}));
  EXPECT_EQ(ParseObjectiveReference("m", "models/m/objectives/calm/revisions/3"),
            (ObjectiveReference{.objective = calm, .revision = 3}));
  for (const char* text : {"", "Calm", "calm@", "calm@0", "calm@x", "@3", "calm@3@4", "models/m", "calm/revisions/3",
                           "models/m/objectives/calm/revisions/3@4"}) {
    EXPECT_FALSE(ParseObjectiveReference("m", text)) << text;
  }
}

}  // namespace
}  // namespace trimtab
