#include "server/rpc/objective_service.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/rpc/services_fixture.h"

namespace trimtab {
namespace {

using ObjectiveServiceTest = ServicesTest;
using Stub = v1::ObjectiveService::Stub;

TEST_F(ObjectiveServiceTest, AnObjectiveIsRegisteredFittedAndServed) {
  fit_->Hold();
  v1::RegisterObjectiveRequest request = Registration("calm");
  request.mutable_objective()->set_display_name("Calm");
  request.mutable_objective()->set_description("speaks calmly");
  request.mutable_objective()->set_max_strength(0.2f);
  google::longrunning::Operation operation;
  ASSERT_TRUE(Register(request, &operation).ok());
  EXPECT_FALSE(operation.done());
  EXPECT_TRUE(operation.name().starts_with("operations/fit-"));
  v1::RegisterObjectiveMetadata metadata;
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata));
  EXPECT_EQ(metadata.objective(), "models/fake/objectives/calm");
  EXPECT_EQ(metadata.total_pairs(), 4);

  // While it is fitted: there, but not to steer with.
  v1::Objective objective;
  ASSERT_TRUE(Get("models/fake/objectives/calm", &objective).ok());
  EXPECT_EQ(objective.state(), v1::Objective::STATE_CREATING);
  EXPECT_EQ(objective.operation(), operation.name());
  EXPECT_EQ(objective.display_name(), "Calm");
  EXPECT_EQ(objective.pairs_size(), 0);
  EXPECT_EQ(vectors_.Find(objective.name())->state, ServedObjective::State::kCreating);

  fit_->Release();
  operation = Await(operation.name());
  ASSERT_TRUE(operation.response().UnpackTo(&objective));
  EXPECT_EQ(objective.state(), v1::Objective::STATE_ACTIVE);
  EXPECT_EQ(objective.active().revision(), 1);
  EXPECT_EQ(objective.active().name(), "models/fake/objectives/calm/revisions/1");
  EXPECT_EQ(objective.active().digest(), TestVector(model_->fingerprint())->digest());
  EXPECT_GT(objective.active().create_time().seconds(), 0);
  EXPECT_EQ(objective.model_fingerprint(), model_->fingerprint());
  EXPECT_EQ(objective.description(), "speaks calmly");
  EXPECT_TRUE(objective.operation().empty());

  const auto served = vectors_.Find(objective.name());
  ASSERT_NE(served, nullptr);
  EXPECT_EQ(served->state, ServedObjective::State::kActive);
  EXPECT_EQ(served->default_strength, 0.05f);
  EXPECT_EQ(served->max_strength, 0.2f);
  v1::GenerateRequest generate;
  generate.set_model("models/fake");
  generate.set_prompt("x");
  generate.add_steering()->set_objective("calm");
  v1::GenerateResponse response;
  ASSERT_TRUE(Call(*generation_, &v1::GenerationService::Stub::Generate, generate, &response).ok());
  EXPECT_EQ(response.applied(0).revision(), 1);
}

TEST_F(ObjectiveServiceTest, AModelWithoutATemplateTakesPairsOfOneTurn) {
  model_->set_has_chat_template(false);
  v1::RegisterObjectiveRequest request = Registration("calm");
  google::longrunning::Operation operation;
  ASSERT_TRUE(Register(request, &operation).ok());
  Await(operation.name());
  request = Registration("calmer");
  v1::PreferencePair& pair = *request.mutable_objective()->mutable_pairs(2);
  pair.mutable_prompt(0)->set_role(v1::ROLE_SYSTEM);
  *pair.add_prompt() = request.objective().pairs(0).prompt(0);
  const grpc::Status refused = Register(request, &operation);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(refused.error_message().find("objective.pairs[2].prompt"), std::string::npos) << refused.error_message();
  EXPECT_NE(refused.error_message().find("no chat template"), std::string::npos) << refused.error_message();
  model_->set_has_chat_template(true);
  EXPECT_TRUE(Register(request, &operation).ok());
  Await(operation.name());
}

TEST_F(ObjectiveServiceTest, TheSameRequestIsAnsweredTheSame) {
  v1::RegisterObjectiveRequest request = Registration("calm");
  request.set_request_id("id-1");
  google::longrunning::Operation first, second;
  ASSERT_TRUE(Register(request, &first).ok());
  ASSERT_TRUE(Register(request, &second).ok());
  EXPECT_EQ(first.name(), second.name());
  Await(first.name());
  ASSERT_TRUE(Register(request, &second).ok());
  EXPECT_EQ(first.name(), second.name());
  EXPECT_TRUE(second.done());
  // The same id for another request, and another id for the same objective.
  request.mutable_objective()->set_description("changed");
  EXPECT_EQ(Register(request, &second).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_request_id("id-2");
  const grpc::Status exists = Register(request, &second);
  EXPECT_EQ(exists.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(Reason(exists), "OBJECTIVE_EXISTS");
}

TEST_F(ObjectiveServiceTest, ValidateOnlyChangesNothing) {
  v1::RegisterObjectiveRequest request = Registration("calm");
  request.set_validate_only(true);
  google::longrunning::Operation operation;
  ASSERT_TRUE(Register(request, &operation).ok());
  EXPECT_TRUE(operation.done());
  v1::Objective objective;
  EXPECT_TRUE(operation.response().UnpackTo(&objective));
  EXPECT_EQ(objective.name(), "models/fake/objectives/calm");
  EXPECT_EQ(Get("models/fake/objectives/calm", &objective).error_code(), grpc::StatusCode::NOT_FOUND);
  Fitted("calm");
  EXPECT_EQ(Reason(Register(request, &operation)), "OBJECTIVE_EXISTS");
}

TEST_F(ObjectiveServiceTest, AFailedFitSaysWhy) {
  fit_->Release(ReasonError(absl::StatusCode::kInvalidArgument, kPairsDegenerate, "no signal in the pairs"));
  google::longrunning::Operation operation;
  ASSERT_TRUE(Register(Registration("calm"), &operation).ok());
  operation = Await(operation.name());
  ASSERT_TRUE(operation.has_error());
  EXPECT_EQ(operation.error().code(), 3);
  EXPECT_EQ(GetErrorDetail(FromRpcStatus(operation.error())).reason, "PAIRS_DEGENERATE");
  v1::Objective objective;
  ASSERT_TRUE(Get("models/fake/objectives/calm", &objective).ok());
  EXPECT_EQ(objective.state(), v1::Objective::STATE_FAILED);
  EXPECT_EQ(objective.error().message(), "no signal in the pairs");
  EXPECT_EQ(vectors_.Find(objective.name())->state, ServedObjective::State::kFailed);
  // What failed can be deleted and registered again.
  v1::DeleteObjectiveRequest remove;
  remove.set_name(objective.name());
  google::protobuf::Empty empty;
  ASSERT_TRUE(Call(*objectives_, &Stub::DeleteObjective, remove, &empty).ok());
  fit_->Release();
  EXPECT_EQ(Fitted("calm").state(), v1::Objective::STATE_ACTIVE);
}

TEST_F(ObjectiveServiceTest, ObjectivesAreListedInPages) {
  for (const char* id : {"b", "c", "a"}) Fitted(id);
  std::vector<std::string> names;
  v1::ListObjectivesRequest request;
  request.set_parent("models/fake");
  request.set_page_size(2);
  for (int page = 0; page < 2; ++page) {
    v1::ListObjectivesResponse response;
    ASSERT_TRUE(Call(*objectives_, &Stub::ListObjectives, request, &response).ok());
    for (const v1::Objective& objective : response.objectives()) {
      names.push_back(objective.name());
      EXPECT_EQ(objective.active().revision(), 1);
    }
    EXPECT_EQ(response.next_page_token().empty(), page == 1);
    request.set_page_token(response.next_page_token());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"models/fake/objectives/a", "models/fake/objectives/b",
                                             "models/fake/objectives/c"}));
  request.clear_page_token();
  request.set_parent("models/none");
  v1::ListObjectivesResponse response;
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::ListObjectives, request, &response)), "MODEL_NOT_FOUND");
}

TEST_F(ObjectiveServiceTest, UpdatesChangeWhatTheMaskNames) {
  const v1::Objective before = Fitted("calm");
  v1::UpdateObjectiveRequest request;
  request.mutable_objective()->set_name(before.name());
  request.mutable_objective()->set_display_name("New");
  request.mutable_objective()->set_description("not in the mask");
  request.mutable_objective()->set_default_strength(0.1f);
  request.mutable_objective()->set_etag(before.etag());
  request.mutable_update_mask()->add_paths("display_name");
  request.mutable_update_mask()->add_paths("default_strength");
  v1::Objective after;
  ASSERT_TRUE(Call(*objectives_, &Stub::UpdateObjective, request, &after).ok());
  EXPECT_EQ(after.display_name(), "New");
  EXPECT_EQ(after.description(), "");
  EXPECT_EQ(after.default_strength(), 0.1f);
  EXPECT_NE(after.etag(), before.etag());
  EXPECT_EQ(after.active().revision(), 1);
  EXPECT_EQ(vectors_.Find(before.name())->default_strength, 0.1f);

  // The etag is stale now.
  const grpc::Status stale = Call(*objectives_, &Stub::UpdateObjective, request, &after);
  EXPECT_EQ(stale.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(Reason(stale), "ETAG_MISMATCH");
  // Without an etag; an unset field in the mask is cleared.
  request.mutable_objective()->clear_etag();
  request.mutable_objective()->clear_default_strength();
  ASSERT_TRUE(Call(*objectives_, &Stub::UpdateObjective, request, &after).ok());
  EXPECT_FALSE(after.has_default_strength());
  EXPECT_EQ(vectors_.Find(before.name())->default_strength, 0.05f);
  // A default that every request would be refused for.
  request.mutable_objective()->set_default_strength(0.5f);
  request.mutable_objective()->set_max_strength(0.2f);
  request.mutable_update_mask()->add_paths("max_strength");
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::UpdateObjective, request, &after)), "FIELD_INVALID");
  request.mutable_objective()->set_name("models/fake/objectives/none");
  request.mutable_objective()->clear_max_strength();
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::UpdateObjective, request, &after)), "OBJECTIVE_NOT_FOUND");
}

TEST_F(ObjectiveServiceTest, ConcurrentUpdatesAllHappen) {
  const v1::Objective objective = Fitted("calm");
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&, i] {
      for (int round = 0; round < 5; ++round) {
        v1::UpdateObjectiveRequest request;
        request.mutable_objective()->set_name(objective.name());
        request.mutable_objective()->set_display_name(absl::StrCat(i));
        request.mutable_update_mask()->add_paths("display_name");
        v1::Objective after;
        const grpc::Status status = Call(*objectives_, &Stub::UpdateObjective, request, &after);
        EXPECT_TRUE(status.ok()) << status.error_message();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  v1::Objective stored;
  ASSERT_TRUE(Get(objective.name(), &stored).ok());
  EXPECT_EQ(stored.state(), v1::Objective::STATE_ACTIVE);
}

TEST_F(ObjectiveServiceTest, DeletingEndsServingAndFitting) {
  const v1::Objective objective = Fitted("calm");
  v1::DeleteObjectiveRequest request;
  request.set_name(objective.name());
  request.set_etag("stale");
  google::protobuf::Empty empty;
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::DeleteObjective, request, &empty)), "ETAG_MISMATCH");
  request.set_etag(objective.etag());
  ASSERT_TRUE(Call(*objectives_, &Stub::DeleteObjective, request, &empty).ok());
  EXPECT_EQ(vectors_.Find(objective.name()), nullptr);
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::DeleteObjective, request, &empty)), "OBJECTIVE_NOT_FOUND");

  // While it is being fitted: the operation ends as cancelled.
  fit_->Hold();
  google::longrunning::Operation operation;
  ASSERT_TRUE(Register(Registration("brief"), &operation).ok());
  fit_->WaitForRunning();
  request.set_name("models/fake/objectives/brief");
  request.clear_etag();
  ASSERT_TRUE(Call(*objectives_, &Stub::DeleteObjective, request, &empty).ok());
  operation = Await(operation.name());
  EXPECT_EQ(operation.error().code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(vectors_.Find(request.name()), nullptr);
}

TEST_F(ObjectiveServiceTest, RevisionsAreListedReadAndPromoted) {
  const v1::Objective objective = Fitted("calm");
  ASSERT_TRUE(fit_->AddRevision(objective.name(), "operations/fit-2", model_->fingerprint(), 0.28f).ok());
  ASSERT_TRUE(fit_->AddRevision(objective.name(), "operations/fit-3", "other-weights", 0.8f).ok());
  std::vector<int64_t> numbers;
  v1::ListRevisionsRequest list;
  list.set_parent(objective.name());
  list.set_page_size(2);
  for (int page = 0; page < 2; ++page) {
    v1::ListRevisionsResponse response;
    ASSERT_TRUE(Call(*objectives_, &Stub::ListRevisions, list, &response).ok());
    for (const v1::RevisionSummary& revision : response.revisions()) numbers.push_back(revision.revision());
    EXPECT_EQ(response.next_page_token().empty(), page == 1);
    list.set_page_token(response.next_page_token());
  }
  EXPECT_EQ(numbers, (std::vector<int64_t>{1, 2, 3}));

  v1::GetRevisionRequest get;
  get.set_name(objective.name() + "/revisions/2");
  v1::RevisionSummary revision;
  ASSERT_TRUE(Call(*objectives_, &Stub::GetRevision, get, &revision).ok());
  EXPECT_EQ(revision.digest(), TestVector(model_->fingerprint(), 0.28f)->digest());
  get.set_name(objective.name() + "/revisions/9");
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::GetRevision, get, &revision)), "REVISION_NOT_FOUND");

  v1::PromoteRevisionRequest promote;
  promote.set_name(objective.name());
  promote.set_revision(1);
  v1::Objective promoted;
  ASSERT_TRUE(Call(*objectives_, &Stub::PromoteRevision, promote, &promoted).ok());
  EXPECT_EQ(promoted.active().revision(), 1);
  EXPECT_EQ(vectors_.Find(objective.name())->active_revision, 1);
  promote.set_revision(2);
  promote.set_etag(objective.etag());
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::PromoteRevision, promote, &promoted)), "ETAG_MISMATCH");
  promote.set_etag(promoted.etag());
  ASSERT_TRUE(Call(*objectives_, &Stub::PromoteRevision, promote, &promoted).ok());
  EXPECT_EQ(vectors_.Find(objective.name())->active_revision, 2);
  promote.clear_etag();
  promote.set_revision(3);
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::PromoteRevision, promote, &promoted)), "FINGERPRINT_MISMATCH");
  promote.set_revision(4);
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::PromoteRevision, promote, &promoted)), "REVISION_NOT_FOUND");
}

TEST_F(ObjectiveServiceTest, TheAuditIsReadInPagesOfOneRevision) {
  const v1::Objective objective = Fitted("calm");
  v1::GetAttributionsRequest request;
  request.set_name(objective.name());
  request.set_page_size(2);
  std::vector<int> pairs;
  for (int page = 0; page < 3; ++page) {
    v1::GetAttributionsResponse response;
    ASSERT_TRUE(Call(*objectives_, &Stub::GetAttributions, request, &response).ok());
    EXPECT_EQ(response.revision(), objective.name() + "/revisions/1");
    for (const v1::Attribution& attribution : response.attributions()) pairs.push_back(attribution.pair_index());
    EXPECT_EQ(response.next_page_token().empty(), page == 2);
    request.set_page_token(response.next_page_token());
    // Another revision becomes active between the pages.
    if (page == 0) {
      ASSERT_TRUE(fit_->AddRevision(objective.name(), "operations/fit-2", model_->fingerprint(), 0.28f).ok());
    }
  }
  EXPECT_EQ(pairs, (std::vector<int>{0, 1, 2, 3, 4}));
  v1::GetAttributionsResponse response;
  request.clear_page_token();
  request.set_name(objective.name() + "/revisions/7");
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::GetAttributions, request, &response)), "REVISION_NOT_FOUND");
  request.set_name("models/fake/objectives/none");
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::GetAttributions, request, &response)), "OBJECTIVE_NOT_FOUND");
}

TEST_F(ObjectiveServiceTest, MethodsAreListed) {
  v1::ListSteeringMethodsResponse list;
  ASSERT_TRUE(Call(*objectives_, &Stub::ListSteeringMethods, v1::ListSteeringMethodsRequest(), &list).ok());
  ASSERT_EQ(list.steering_methods_size(), 1);
  EXPECT_EQ(list.steering_methods(0).name(), "steeringMethods/scripted");
  EXPECT_EQ(list.steering_methods(0).config_type(), "trimtab.methods.v1.GrainsConfig");
  EXPECT_EQ(list.steering_methods(0).sites(0), v1::SITE_BLOCK_OUTPUT);
  methods::v1::GrainsConfig config;
  EXPECT_TRUE(list.steering_methods(0).default_config().UnpackTo(&config));
  v1::GetSteeringMethodRequest get;
  get.set_name("steeringMethods/scripted");
  v1::SteeringMethod method;
  ASSERT_TRUE(Call(*objectives_, &Stub::GetSteeringMethod, get, &method).ok());
  EXPECT_EQ(method.display_name(), "Scripted");
  get.set_name("steeringMethods/none");
  EXPECT_EQ(Reason(Call(*objectives_, &Stub::GetSteeringMethod, get, &method)), "RESOURCE_NOT_FOUND");
}

}  // namespace
}  // namespace trimtab
