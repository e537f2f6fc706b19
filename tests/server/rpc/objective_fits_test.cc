// RefitObjective, DisableObjective, EnableObjective, EvaluateStrength and validate_only over gRPC.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/rpc/services_fixture.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;
using Stub = v1::ObjectiveService::Stub;
using testing::ElementsAre;

class ObjectiveFitsTest : public ServicesTest {
 protected:
  static v1::RefitObjectiveRequest RefitOf(const v1::Objective& objective) {
    v1::RefitObjectiveRequest request;
    request.set_name(objective.name());
    return request;
  }
  grpc::Status Refit(const v1::RefitObjectiveRequest& request, Operation* operation) {
    return Call(*objectives_, &Stub::RefitObjective, request, operation);
  }
  grpc::Status Disable(const std::string& name, v1::Objective* objective, const std::string& etag = "") {
    v1::DisableObjectiveRequest request;
    request.set_name(name);
    request.set_etag(etag);
    return Call(*objectives_, &Stub::DisableObjective, request, objective);
  }
  grpc::Status Enable(const std::string& name, v1::Objective* objective) {
    v1::EnableObjectiveRequest request;
    request.set_name(name);
    return Call(*objectives_, &Stub::EnableObjective, request, objective);
  }
  grpc::Status Promote(const std::string& name, int64_t revision, v1::Objective* objective) {
    v1::PromoteRevisionRequest request;
    request.set_name(name);
    request.set_revision(revision);
    return Call(*objectives_, &Stub::PromoteRevision, request, objective);
  }
  // The reason that a steered request is refused for; empty when it is served.
  std::string Served(const std::string& objective, float strength = 0.05f) {
    v1::GenerateRequest request;
    request.set_model("models/fake");
    request.set_prompt("x");
    request.add_steering()->set_objective(objective);
    request.mutable_steering(0)->set_strength(strength);
    v1::GenerateResponse response;
    return Reason(Call(*generation_, &v1::GenerationService::Stub::Generate, request, &response));
  }
  v1::Objective Stored(const std::string& name) {
    v1::Objective objective;
    EXPECT_TRUE(Get(name, &objective).ok());
    return objective;
  }
};

TEST_F(ObjectiveFitsTest, TheActiveRevisionServesWhileARefitRuns) {
  const v1::Objective before = Fitted("calm");
  fit_->Hold();
  Operation operation;
  ASSERT_TRUE(Refit(RefitOf(before), &operation).ok());
  EXPECT_TRUE(operation.name().starts_with("operations/refit-")) << operation.name();
  v1::RegisterObjectiveMetadata metadata;
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata));
  EXPECT_EQ(metadata.objective(), before.name());
  EXPECT_EQ(metadata.total_pairs(), 4);
  v1::Objective objective = Stored(before.name());
  EXPECT_EQ(objective.state(), v1::Objective::STATE_ACTIVE);
  EXPECT_EQ(objective.operation(), operation.name());
  EXPECT_EQ(objective.etag(), before.etag());
  EXPECT_EQ(Served("calm"), "");

  // Two fits of one objective at once.
  Operation second;
  const grpc::Status refused = Refit(RefitOf(before), &second);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reason(refused), "OBJECTIVE_NOT_READY");
  v1::RefitObjectiveRequest validate = RefitOf(before);
  validate.set_validate_only(true);
  EXPECT_EQ(Reason(Refit(validate, &second)), "OBJECTIVE_NOT_READY");

  fit_->Release();
  operation = Await(operation.name());
  ASSERT_TRUE(operation.response().UnpackTo(&objective)) << operation.ShortDebugString();
  EXPECT_EQ(objective.active().revision(), 2);
  EXPECT_TRUE(objective.operation().empty());
  EXPECT_EQ(vectors_.Find(before.name())->active_revision, 2);
  // Rolling back.
  ASSERT_TRUE(Promote(before.name(), 1, &objective).ok());
  EXPECT_EQ(objective.active().revision(), 1);
  EXPECT_EQ(vectors_.Find(before.name())->active_revision, 1);
  ASSERT_TRUE(Refit(RefitOf(before), &second).ok());
  EXPECT_NE(second.name(), operation.name());
  Await(second.name());
  EXPECT_EQ(Stored(before.name()).active().revision(), 3);
}

TEST_F(ObjectiveFitsTest, ARefitTakesItsOwnMethodConfigurationAndPairs) {
  v1::RegisterObjectiveRequest registration = Registration("calm");
  methods::v1::GrainsConfig config;
  config.set_k(3);
  registration.mutable_objective()->mutable_method_config()->PackFrom(config);
  Operation operation;
  ASSERT_TRUE(Register(registration, &operation).ok());
  Await(operation.name());
  const v1::Objective before = Stored("models/fake/objectives/calm");

  // With nothing of its own: the objective's configuration.
  ASSERT_TRUE(Refit(RefitOf(before), &operation).ok());
  Await(operation.name());
  v1::Objective objective = Stored(before.name());
  ASSERT_TRUE(objective.method_config().UnpackTo(&config));
  EXPECT_EQ(config.k(), 3);
  // A method alone takes its defaults; the pairs are those of the last fit from then on.
  v1::RefitObjectiveRequest request = RefitOf(before);
  request.set_method("scripted");
  for (int i = 0; i < 5; ++i) *request.add_pairs() = registration.objective().pairs(i % 4);
  *request.add_held_out_pairs() = registration.objective().pairs(1);
  request.set_keep_active(true);
  ASSERT_TRUE(Refit(request, &operation).ok());
  Await(operation.name());
  objective = Stored(before.name());
  EXPECT_FALSE(objective.has_method_config());
  EXPECT_EQ(objective.active().revision(), 2) << "the active revision was to stay";
  const ObjectiveRecord record = *registry_->GetObjective(before.name());
  EXPECT_EQ(record.pair_count, 5);
  EXPECT_EQ(record.held_out_count, 1);
  v1::Objective kept;
  ASSERT_TRUE(kept.ParseFromString(record.pairs));
  EXPECT_EQ(kept.pairs_size(), 5);
  EXPECT_EQ(registry_->ListRevisions(before.name(), 0, 10)->size(), 3u);
  ASSERT_TRUE(Promote(before.name(), 3, &objective).ok());
  EXPECT_EQ(objective.active().revision(), 3);
}

TEST_F(ObjectiveFitsTest, AFailedOrCancelledRefitChangesNothing) {
  const v1::Objective before = Fitted("calm");
  fit_->Release(ReasonError(absl::StatusCode::kInvalidArgument, kPairsDegenerate, "no signal"));
  Operation operation;
  ASSERT_TRUE(Refit(RefitOf(before), &operation).ok());
  EXPECT_TRUE(Await(operation.name()).has_error());
  EXPECT_EQ(Stored(before.name()).etag(), before.etag());
  fit_->Hold();
  ASSERT_TRUE(Refit(RefitOf(before), &operation).ok());
  google::longrunning::CancelOperationRequest cancel;
  cancel.set_name(operation.name());
  google::protobuf::Empty empty;
  ASSERT_TRUE(Call(*operations_, &google::longrunning::Operations::Stub::CancelOperation, cancel, &empty).ok());
  EXPECT_EQ(Await(operation.name()).error().code(), grpc::StatusCode::CANCELLED);
  const v1::Objective after = Stored(before.name());
  EXPECT_EQ(after.state(), v1::Objective::STATE_ACTIVE);
  EXPECT_EQ(after.active().revision(), 1);
  EXPECT_FALSE(after.has_error());
  EXPECT_EQ(Served("calm"), "");
}

TEST_F(ObjectiveFitsTest, AFailedRegistrationCanBeFittedAgain) {
  fit_->Release(ReasonError(absl::StatusCode::kInvalidArgument, kPairsDegenerate, "no signal"));
  Operation operation;
  ASSERT_TRUE(Register(Registration("calm"), &operation).ok());
  Await(operation.name());
  fit_->Release();
  v1::RefitObjectiveRequest request;
  request.set_name("models/fake/objectives/calm");
  request.set_keep_active(true);  // there is none to keep
  ASSERT_TRUE(Refit(request, &operation).ok());
  Await(operation.name());
  const v1::Objective objective = Stored(request.name());
  EXPECT_EQ(objective.state(), v1::Objective::STATE_ACTIVE);
  EXPECT_EQ(objective.active().revision(), 1);
  EXPECT_FALSE(objective.has_error());
}

TEST_F(ObjectiveFitsTest, TheSameRefitIsAnsweredTheSame) {
  const v1::Objective before = Fitted("calm");
  fit_->Hold();
  v1::RefitObjectiveRequest request = RefitOf(before);
  request.set_request_id("again");
  request.set_etag(before.etag());
  Operation first, second;
  ASSERT_TRUE(Refit(request, &first).ok());
  ASSERT_TRUE(Refit(request, &second).ok());
  EXPECT_EQ(first.name(), second.name());
  fit_->Release();
  Await(first.name());
  ASSERT_TRUE(Refit(request, &second).ok());
  EXPECT_EQ(first.name(), second.name());
  EXPECT_TRUE(second.done());
  request.set_keep_active(true);
  EXPECT_EQ(Reason(Refit(request, &second)), "FIELD_INVALID");
  request.clear_request_id();
  EXPECT_EQ(Reason(Refit(request, &second)), "ETAG_MISMATCH");
}

TEST_F(ObjectiveFitsTest, ARefitSaysAllThatIsWrong) {
  Operation operation;
  v1::RefitObjectiveRequest request;
  request.set_name("calm");
  request.set_request_id("\n");
  *request.add_held_out_pairs() = Registration("x").objective().pairs(0);
  request.mutable_held_out_pairs(0)->clear_preferred();
  const grpc::Status invalid = Refit(request, &operation);
  EXPECT_EQ(invalid.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  for (const char* field : {"name:", "request_id:", "held_out_pairs:", "held_out_pairs[0].preferred:"}) {
    EXPECT_THAT(invalid.error_message(), testing::HasSubstr(field));
  }
  request = v1::RefitObjectiveRequest();
  request.set_name("models/fake/objectives/none");
  EXPECT_EQ(Reason(Refit(request, &operation)), "OBJECTIVE_NOT_FOUND");
  request.set_name(Fitted("calm").name());
  request.set_method("none");
  EXPECT_EQ(Reason(Refit(request, &operation)), "METHOD_UNKNOWN");
  request.clear_method();
  request.mutable_method_config()->PackFrom(v1::Objective());
  EXPECT_EQ(Reason(Refit(request, &operation)), "METHOD_CONFIG_MISMATCH");
  request.clear_method_config();
  *request.add_pairs() = Registration("x").objective().pairs(0);
  EXPECT_EQ(Reason(Refit(request, &operation)), "PAIRS_DEGENERATE");
}

TEST_F(ObjectiveFitsTest, ADisabledObjectiveServesNobodyUntilItIsEnabled) {
  const v1::Objective before = Fitted("calm");
  v1::Objective objective;
  EXPECT_EQ(Reason(Disable(before.name(), &objective, "stale")), "ETAG_MISMATCH");
  ASSERT_TRUE(Disable(before.name(), &objective, before.etag()).ok());
  EXPECT_EQ(objective.state(), v1::Objective::STATE_DISABLED);
  EXPECT_EQ(Served("calm"), "OBJECTIVE_NOT_READY");
  ASSERT_TRUE(Disable(before.name(), &objective).ok());
  // Fits and promotions leave it out of service.
  Operation operation;
  ASSERT_TRUE(Refit(RefitOf(before), &operation).ok());
  Await(operation.name());
  ASSERT_TRUE(Promote(before.name(), 1, &objective).ok());
  EXPECT_EQ(objective.state(), v1::Objective::STATE_DISABLED);
  EXPECT_EQ(objective.active().revision(), 1);
  ASSERT_TRUE(Enable(before.name(), &objective).ok());
  EXPECT_EQ(objective.state(), v1::Objective::STATE_ACTIVE);
  EXPECT_EQ(Served("calm"), "");
  std::vector<std::string> actions;
  const std::vector<AuditRecord> audit = registry_->ListAudit(0, 100).value();
  for (const AuditRecord& entry : audit) actions.push_back(entry.action);
  EXPECT_THAT(actions, testing::IsSupersetOf({"disable_objective", "refit_objective", "enable_objective"}));

  EXPECT_EQ(Reason(Enable("models/fake/objectives/none", &objective)), "OBJECTIVE_NOT_FOUND");
  EXPECT_EQ(Reason(Enable("calm", &objective)), "FIELD_INVALID");
  fit_->Hold();
  ASSERT_TRUE(Register(Registration("new"), &operation).ok());
  EXPECT_EQ(Reason(Disable("models/fake/objectives/new", &objective)), "OBJECTIVE_NOT_READY");
}

TEST_F(ObjectiveFitsTest, DeletingEndsARefit) {
  const v1::Objective before = Fitted("calm");
  fit_->Hold();
  Operation operation;
  ASSERT_TRUE(Refit(RefitOf(before), &operation).ok());
  fit_->WaitForRunning();
  v1::DeleteObjectiveRequest remove;
  remove.set_name(before.name());
  google::protobuf::Empty empty;
  ASSERT_TRUE(Call(*objectives_, &Stub::DeleteObjective, remove, &empty).ok());
  operation = Await(operation.name());
  EXPECT_EQ(operation.error().code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(vectors_.Find(before.name()), nullptr);
}

TEST_F(ObjectiveFitsTest, StrengthsBeyondTheLimitAreRefused) {
  Fitted("calm");
  EXPECT_EQ(Served("calm", 0.3f), "");
  EXPECT_EQ(Served("calm", -0.3f), "");
  EXPECT_EQ(Served("calm", 0.31f), "STRENGTH_OUT_OF_RANGE");
  EXPECT_EQ(Served("calm", -0.31f), "STRENGTH_OUT_OF_RANGE");
}

TEST_F(ObjectiveFitsTest, ACurveIsQueuedWithAllThatItNeeds) {
  v1::RegisterObjectiveRequest registration = Registration("calm");
  for (int i = 0; i < 3; ++i)
    *registration.mutable_objective()->add_held_out_pairs() = registration.objective().pairs(i);
  Operation operation;
  ASSERT_TRUE(Register(registration, &operation).ok());
  Await(operation.name());
  v1::EvaluateStrengthRequest request;
  request.set_name("models/fake/objectives/calm");
  const auto evaluate = [&] { return Call(*objectives_, &Stub::EvaluateStrength, request, &operation); };
  const auto queued = [&] {
    v1::EvaluateStrengthRequest stored;
    EXPECT_TRUE(stored.ParseFromString(registry_->GetJob(operation.name())->request));
    return stored;
  };
  const auto source = [&] {
    v1::EvaluateStrengthMetadata metadata;
    EXPECT_TRUE(operation.metadata().UnpackTo(&metadata)) << operation.ShortDebugString();
    return metadata.pairs_source();
  };
  ASSERT_TRUE(evaluate().ok());
  EXPECT_TRUE(operation.name().starts_with("operations/curve-"));
  EXPECT_EQ(queued().name(), request.name() + "/revisions/1");
  EXPECT_EQ(queued().strengths_size(), 11);
  EXPECT_EQ(queued().pairs_size(), 3);
  EXPECT_EQ(queued().max_pairs(), 200);
  EXPECT_EQ(source(), "held_out");
  // Around the recommended 0.05, both signs, 0 among them.
  EXPECT_FLOAT_EQ(queued().strengths(0), -0.1f);
  EXPECT_EQ(queued().strengths(3), 0);
  EXPECT_FLOAT_EQ(queued().strengths(10), 0.1f);

  request.set_request_id("id");
  request.add_strengths(0.2f);
  request.add_strengths(-0.1f);
  request.add_strengths(0.2f);
  *request.mutable_pairs() = registration.objective().pairs();
  ASSERT_TRUE(evaluate().ok());
  const std::string first = operation.name();
  EXPECT_THAT(queued().strengths(), ElementsAre(-0.1f, 0, 0.2f));
  EXPECT_EQ(source(), "request");
  ASSERT_TRUE(evaluate().ok());
  EXPECT_EQ(operation.name(), first);
  request.set_max_pairs(4);
  EXPECT_EQ(Reason(evaluate()), "FIELD_INVALID");
}

TEST_F(ObjectiveFitsTest, ACurveSaysAllThatIsWrong) {
  const v1::Objective objective = Fitted("calm");
  Operation operation;
  v1::EvaluateStrengthRequest request;
  const auto evaluate = [&] { return Call(*objectives_, &Stub::EvaluateStrength, request, &operation); };
  request.set_name("calm");
  request.add_strengths(2000);
  request.set_max_pairs(1);
  request.set_request_id("\n");
  const grpc::Status invalid = evaluate();
  for (const char* field : {"name:", "strengths[0]:", "max_pairs:", "request_id:"}) {
    EXPECT_THAT(invalid.error_message(), testing::HasSubstr(field));
  }
  request = v1::EvaluateStrengthRequest();
  request.set_name(objective.name());
  request.add_strengths(0.1f);
  request.add_strengths(0.31f);
  request.add_strengths(-0.4f);
  const grpc::Status beyond = evaluate();
  EXPECT_EQ(Reason(beyond), "FIELD_INVALID");
  for (const char* field : {"strengths[1]:", "strengths[2]:"}) {
    EXPECT_THAT(beyond.error_message(), testing::HasSubstr(field));
  }
  request.clear_strengths();
  request.set_name(objective.name() + "/revisions/7");
  EXPECT_EQ(Reason(evaluate()), "REVISION_NOT_FOUND");
  request.set_name("models/fake/objectives/none");
  EXPECT_EQ(Reason(evaluate()), "OBJECTIVE_NOT_FOUND");
  request.set_name(objective.name());
  *request.add_pairs() = Registration("x").objective().pairs(0);
  EXPECT_EQ(Reason(evaluate()), "PAIRS_DEGENERATE");
  request.clear_pairs();
  ASSERT_TRUE(fit_->AddRevision(objective.name(), "operations/fit-2", "other-weights", 0.8f).ok());
  EXPECT_EQ(Reason(evaluate()), "FINGERPRINT_MISMATCH");
  // A revision that was fitted on other pairs than the objective has now.
  v1::RefitObjectiveRequest refit = RefitOf(objective);
  *refit.mutable_pairs() = Registration("x").objective().pairs();
  ASSERT_TRUE(Refit(refit, &operation).ok());
  Await(operation.name());
  request.set_name(objective.name() + "/revisions/1");
  const grpc::Status other = evaluate();
  EXPECT_EQ(Reason(other), "FIELD_INVALID");
  EXPECT_THAT(other.error_message(), testing::HasSubstr("pairs: must be given"));
  fit_->Hold();
  ASSERT_TRUE(Register(Registration("new"), &operation).ok());
  request.set_name("models/fake/objectives/new");
  EXPECT_EQ(Reason(evaluate()), "OBJECTIVE_NOT_READY");
}

TEST_F(ObjectiveFitsTest, AValidationReportsOnThePairs) {
  v1::RegisterObjectiveRequest request = Registration("calm");
  *request.mutable_objective()->add_pairs() = request.objective().pairs(0);
  *request.mutable_objective()->add_held_out_pairs() = request.objective().pairs(1);
  request.set_validate_only(true);
  Operation operation;
  ASSERT_TRUE(Register(request, &operation).ok());
  EXPECT_TRUE(operation.done());
  v1::RegisterObjectiveMetadata metadata;
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata));
  const v1::PairsReport& report = metadata.pairs_report();
  EXPECT_EQ(report.pair_count(), 5);
  EXPECT_EQ(report.usable_pair_count(), 5);
  EXPECT_EQ(report.held_out_count(), 1);
  EXPECT_GT(report.token_count(), 0);
  EXPECT_FALSE(report.has_estimated_fit_time()) << "this method cannot tell";
  ASSERT_EQ(report.findings_size(), 3) << report.DebugString();
  EXPECT_EQ(report.findings(0).kind(), v1::PairsFinding::KIND_DUPLICATE);
  EXPECT_THAT(report.findings(0).pair_indices(), ElementsAre(4));
  EXPECT_EQ(report.findings(1).kind(), v1::PairsFinding::KIND_FEW_PAIRS);
  EXPECT_EQ(report.findings(2).kind(), v1::PairsFinding::KIND_HELD_OUT_OVERLAP);
  EXPECT_TRUE(report.findings(2).held_out());
  // A refit reports on the objective's own pairs.
  const v1::Objective objective = Fitted("calm");
  v1::RefitObjectiveRequest refit = RefitOf(objective);
  refit.set_validate_only(true);
  ASSERT_TRUE(Refit(refit, &operation).ok());
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata));
  EXPECT_EQ(metadata.pairs_report().pair_count(), 4);
  EXPECT_EQ(Stored(objective.name()).etag(), objective.etag());
}

}  // namespace
}  // namespace trimtab
