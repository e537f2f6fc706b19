// The requests of ObjectiveService, lists and operations.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "server/base/error.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

using Strings = std::multiset<std::string>;

Strings Fields(const absl::Status& status) {
  const ErrorDetail detail = GetErrorDetail(status);
  EXPECT_EQ(detail.reason, "FIELD_INVALID") << status;
  Strings fields;
  for (const FieldViolation& violation : detail.violations) fields.insert(violation.field);
  return fields;
}

void AddPair(v1::Objective& objective, const std::string& prompt, const std::string& preferred,
             const std::string& dispreferred) {
  v1::PreferencePair& pair = *objective.add_pairs();
  v1::Content& content = *pair.add_prompt();
  content.set_role(v1::ROLE_USER);
  content.add_parts()->set_text(prompt);
  pair.set_preferred(preferred);
  pair.set_dispreferred(dispreferred);
}

v1::RegisterObjectiveRequest Good() {
  v1::RegisterObjectiveRequest request;
  request.set_parent("models/m");
  request.set_objective_id("calm");
  request.mutable_objective()->set_method("grains");
  for (int i = 0; i < 4; ++i) AddPair(*request.mutable_objective(), "p" + std::to_string(i), "good", "bad");
  return request;
}

TEST(ValidateRegister, TakesEverythingOver) {
  v1::RegisterObjectiveRequest request = Good();
  v1::Objective& objective = *request.mutable_objective();
  objective.set_display_name("Calm");
  objective.set_description("speaks calmly");
  objective.set_default_strength(0.05f);
  objective.set_max_strength(0.2f);
  objective.mutable_pairs(1)->set_weight(2);
  *objective.add_held_out_pairs() = objective.pairs(0);
  request.set_request_id("id-1");
  request.set_validate_only(true);
  request.set_evaluate_drift(true);
  const auto call = ParseRegisterObjectiveRequest(request);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->id.name(), "models/m/objectives/calm");
  EXPECT_EQ(call->method, "grains");
  EXPECT_EQ(call->display_name, "Calm");
  EXPECT_EQ(call->description, "speaks calmly");
  EXPECT_EQ(call->default_strength, 0.05f);
  EXPECT_EQ(call->max_strength, 0.2f);
  ASSERT_EQ(call->pairs.pairs.size(), 4u);
  EXPECT_EQ(call->pairs.held_out.size(), 1u);
  EXPECT_EQ(call->pairs.pairs[0].weight, 1);
  EXPECT_EQ(call->pairs.pairs[1].weight, 2);
  EXPECT_EQ(call->pairs.pairs[2].prompt[0].text, "p2");
  EXPECT_EQ(call->request_id, "id-1");
  EXPECT_TRUE(call->validate_only);
  EXPECT_TRUE(call->evaluate_drift);
}

TEST(ValidateRegister, AllViolationsComeAtOnce) {
  EXPECT_EQ(Fields(ParseRegisterObjectiveRequest({}).status()), (Strings{"parent", "objective_id", "objective"}));
  v1::RegisterObjectiveRequest request = Good();
  request.set_parent("models/M");
  request.set_objective_id("Calm!");
  v1::Objective& objective = *request.mutable_objective();
  objective.set_name("models/m/objectives/other");
  objective.set_display_name(std::string(200, 'x'));
  objective.set_description(std::string(5000, 'x'));
  objective.clear_method();
  objective.set_default_strength(2000);
  objective.set_max_strength(0);
  objective.mutable_pairs(0)->clear_prompt();
  objective.mutable_pairs(1)->set_preferred("");
  objective.mutable_pairs(2)->set_dispreferred("");
  objective.mutable_pairs(3)->set_weight(-1);
  objective.mutable_pairs(3)->mutable_prompt(0)->set_role(v1::ROLE_ASSISTANT);
  EXPECT_EQ(Fields(ParseRegisterObjectiveRequest(request).status()),
            (Strings{"parent", "objective_id", "objective.name", "objective.display_name", "objective.description",
                     "objective.method", "objective.default_strength", "objective.max_strength",
                     "objective.pairs[0].prompt", "objective.pairs[1].preferred", "objective.pairs[2].dispreferred",
                     "objective.pairs[3].weight", "objective.pairs[3].prompt"}));
}

TEST(ValidateRegister, LikelihoodPairsHaveNoDispreferredAnswerAtAll) {
  v1::RegisterObjectiveRequest request = Good();
  for (auto& pair : *request.mutable_objective()->mutable_pairs()) pair.clear_dispreferred();
  EXPECT_TRUE(ParseRegisterObjectiveRequest(request).ok());
  *request.mutable_objective()->add_held_out_pairs() = Good().objective().pairs(0);
  EXPECT_EQ(Fields(ParseRegisterObjectiveRequest(request).status()), Strings{"objective.held_out_pairs"});
}

TEST(ValidateRegister, PairsWithoutSignalAreDegenerate) {
  v1::RegisterObjectiveRequest few = Good();
  few.mutable_objective()->mutable_pairs()->RemoveLast();
  const absl::Status too_few = ParseRegisterObjectiveRequest(few).status();
  EXPECT_EQ(too_few.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetail(too_few).reason, "PAIRS_DEGENERATE");
  EXPECT_EQ(GetErrorDetail(too_few).metadata.at("minimum"), "4");

  v1::RegisterObjectiveRequest same = Good();
  same.mutable_objective()->mutable_pairs(2)->set_dispreferred("good");
  const ErrorDetail equal = GetErrorDetail(ParseRegisterObjectiveRequest(same).status());
  EXPECT_EQ(equal.reason, "PAIRS_DEGENERATE");
  EXPECT_EQ(equal.metadata.at("pair_indices"), "2");
}

TEST(ValidateUpdate, OnlyMaskedFieldsChange) {
  v1::UpdateObjectiveRequest request;
  request.mutable_objective()->set_name("models/m/objectives/calm");
  request.mutable_objective()->set_display_name("New");
  request.mutable_objective()->set_etag("e1");
  request.mutable_objective()->set_default_strength(0.1f);
  request.mutable_update_mask()->add_paths("display_name");
  request.mutable_update_mask()->add_paths("max_strength");
  const auto call = ParseUpdateObjectiveRequest(request);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->id.objective, "calm");
  EXPECT_EQ(call->etag, "e1");
  EXPECT_EQ(call->display_name, "New");
  EXPECT_FALSE(call->description.has_value());
  EXPECT_FALSE(call->default_strength.has_value());
  // Masked but unset: cleared.
  ASSERT_TRUE(call->max_strength.has_value());
  EXPECT_FALSE(call->max_strength->has_value());
}

TEST(ValidateUpdate, RefusesBadMasks) {
  v1::UpdateObjectiveRequest request;
  request.mutable_objective()->set_name("models/m/objectives/calm");
  EXPECT_EQ(Fields(ParseUpdateObjectiveRequest(request).status()), Strings{"update_mask.paths"});
  request.mutable_update_mask()->add_paths("state");
  request.mutable_update_mask()->add_paths("description");
  request.mutable_update_mask()->add_paths("*");
  request.mutable_objective()->set_name("calm");
  EXPECT_EQ(Fields(ParseUpdateObjectiveRequest(request).status()),
            (Strings{"objective.name", "update_mask.paths[0]", "update_mask.paths[2]"}));
}

TEST(ValidateNames, RefusesWhatIsNoName) {
  v1::DeleteObjectiveRequest remove;
  remove.set_name("x");
  remove.set_etag("not printable \x01");
  EXPECT_EQ(Fields(ParseDeleteObjectiveRequest(remove).status()), (Strings{"name", "etag"}));
  EXPECT_EQ(Fields(ParsePromoteRevisionRequest({}).status()), (Strings{"name", "revision"}));
  EXPECT_EQ(Fields(ParseGetModelRequest({}).status()), Strings{"name"});
  EXPECT_EQ(Fields(ParseGetObjectiveRequest({}).status()), Strings{"name"});
  EXPECT_EQ(Fields(ParseGetRevisionRequest({}).status()), Strings{"name"});
  EXPECT_EQ(Fields(ParseDriftReportRequest("models/m/driftReports/").status()), Strings{"name"});
  EXPECT_EQ(Fields(ParseGetSteeringMethodRequest({}).status()), Strings{"name"});
  EXPECT_EQ(Fields(ParseOperationRequest("operations/a/b").status()), Strings{"name"});
}

TEST(ValidateLists, PagesHaveSizesAndTokens) {
  const PageTokenCodec codec("key");
  v1::ListObjectivesRequest request;
  request.set_parent("models/m");
  const auto first = ParseListObjectivesRequest(request, codec);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->parent, "models/m");
  EXPECT_EQ(first->page.size, 50);
  EXPECT_EQ(first->page.after, "");
  request.set_page_size(3);
  request.set_page_token(codec.Encode(first->scope, "models/m/objectives/c"));
  const auto next = ParseListObjectivesRequest(request, codec);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->page.size, 3);
  EXPECT_EQ(next->page.after, "models/m/objectives/c");
  request.set_parent("models/n");
  EXPECT_EQ(Fields(ParseListObjectivesRequest(request, codec).status()), Strings{"page_token"});
  request.set_parent("n");
  request.set_page_size(-1);
  EXPECT_EQ(Fields(ParseListObjectivesRequest(request, codec).status()),
            (Strings{"parent", "page_size", "page_token"}));
  request.set_page_size(1001);
  request.clear_page_token();
  EXPECT_EQ(Fields(ParseListObjectivesRequest(request, codec).status()), (Strings{"parent", "page_size"}));
}

TEST(ValidateLists, AttributionsTakeObjectivesAndRevisions) {
  const PageTokenCodec codec("key");
  v1::GetAttributionsRequest request;
  request.set_name("models/m/objectives/calm/revisions/2");
  auto call = ParseGetAttributionsRequest(request, codec);
  ASSERT_TRUE(call.ok());
  EXPECT_EQ(call->revision, 2);
  EXPECT_EQ(call->page.size, 20);
  request.set_name("models/m/objectives/calm");
  call = ParseGetAttributionsRequest(request, codec);
  ASSERT_TRUE(call.ok());
  EXPECT_FALSE(call->revision.has_value());
  request.set_name("models/m");
  request.set_page_size(201);
  EXPECT_EQ(Fields(ParseGetAttributionsRequest(request, codec).status()), (Strings{"name", "page_size"}));
}

TEST(ValidateOperations, WaitsAreBounded) {
  google::longrunning::WaitOperationRequest request;
  request.set_name("operations/fit-1");
  EXPECT_EQ(ParseWaitOperationRequest(request)->timeout, kMaxOperationWait);
  request.mutable_timeout()->set_seconds(2);
  request.mutable_timeout()->set_nanos(500'000'000);
  EXPECT_EQ(ParseWaitOperationRequest(request)->timeout, absl::Milliseconds(2500));
  request.mutable_timeout()->set_seconds(1'000'000);
  EXPECT_EQ(ParseWaitOperationRequest(request)->timeout, kMaxOperationWait);
  request.mutable_timeout()->set_seconds(-1);
  request.set_name("fit-1");
  EXPECT_EQ(Fields(ParseWaitOperationRequest(request).status()), (Strings{"name", "timeout"}));
  google::longrunning::ListOperationsRequest list;
  list.set_filter("done=true");
  list.set_name("operations/x");
  EXPECT_EQ(Fields(ParseListOperationsRequest(list, PageTokenCodec("key")).status()), (Strings{"name", "filter"}));
}

}  // namespace
}  // namespace trimtab
