// Every reason of the API: which call meets it, with which code, and with the details that docs/errors.md promises.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/server/rpc/services_fixture.h"

namespace trimtab {
namespace {

class ErrorsTest : public ServicesTest {
 protected:
  // What a failed call told its caller.
  struct Told {
    grpc::StatusCode code = grpc::StatusCode::OK;
    ErrorDetail detail;
  };
  static Told Tell(const grpc::Status& status) {
    google::rpc::Status rpc;
    EXPECT_TRUE(rpc.ParseFromString(status.error_details()));
    EXPECT_EQ(rpc.code(), status.error_code());
    EXPECT_FALSE(status.error_message().empty());
    return {.code = status.error_code(), .detail = GetErrorDetail(FromGrpcStatus(status))};
  }
  Told Generate(const std::function<void(v1::GenerateRequest&)>& change) {
    v1::GenerateRequest request;
    request.set_model("models/fake");
    request.set_prompt("x");
    change(request);
    v1::GenerateResponse response;
    return Tell(Call(*generation_, &v1::GenerationService::Stub::Generate, request, &response));
  }
  Told Refuse(absl::Status refusal) {
    model_->set_script({.refusal = std::move(refusal)});
    return Generate([](v1::GenerateRequest&) {});
  }
  Told Register(const std::function<void(v1::RegisterObjectiveRequest&)>& change) {
    v1::RegisterObjectiveRequest request = Registration("calm");
    change(request);
    google::longrunning::Operation operation;
    return Tell(ServicesTest::Register(request, &operation));
  }
};

TEST_F(ErrorsTest, FieldInvalidNamesEveryField) {
  const Told told = Generate([](v1::GenerateRequest& request) {
    request.set_model("nothing");
    request.mutable_config()->set_top_p(7);
  });
  EXPECT_EQ(told.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(told.detail.reason, "FIELD_INVALID");
  ASSERT_EQ(told.detail.violations.size(), 2u);
  EXPECT_EQ(told.detail.violations[0].field, "model");
  EXPECT_EQ(told.detail.violations[1].field, "config.top_p");
}

TEST_F(ErrorsTest, PromptTooLongGivesTokensAndLimit) {
  const Told told = Refuse(ReasonError(absl::StatusCode::kInvalidArgument, kPromptTooLong, "too long",
                                       {{"tokens", "9000"}, {"limit", "8192"}}));
  EXPECT_EQ(told.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(told.detail.reason, "PROMPT_TOO_LONG");
  EXPECT_EQ(told.detail.metadata.at("limit"), "8192");
}

TEST_F(ErrorsTest, ImageUnsupported) {
  const Told told = Generate([](v1::GenerateRequest& request) {
    v1::Content& content = *request.mutable_conversation()->add_contents();
    content.set_role(v1::ROLE_USER);
    content.add_parts()->mutable_image()->set_data("png");
  });
  EXPECT_EQ(told.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(told.detail.reason, "IMAGE_UNSUPPORTED");
}

TEST_F(ErrorsTest, PairsDegenerate) {
  const Told told = Register([](v1::RegisterObjectiveRequest& request) {
    request.mutable_objective()->mutable_pairs(1)->set_dispreferred("good");
  });
  EXPECT_EQ(told.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(told.detail.reason, "PAIRS_DEGENERATE");
}

TEST_F(ErrorsTest, MissingNamesSayWhatIsMissing) {
  Fitted("calm");
  const auto missing = [&](const std::string& model, const std::string& objective) {
    const Told told = Generate([&](v1::GenerateRequest& request) {
      request.set_model(model);
      request.add_steering()->set_objective(objective);
    });
    EXPECT_EQ(told.code, grpc::StatusCode::NOT_FOUND);
    return told.detail;
  };
  ErrorDetail detail = missing("models/none", "calm");
  EXPECT_EQ(detail.reason, "MODEL_NOT_FOUND");
  EXPECT_EQ(detail.resource_name, "models/none");
  detail = missing("models/fake", "none");
  EXPECT_EQ(detail.reason, "OBJECTIVE_NOT_FOUND");
  EXPECT_EQ(detail.resource_name, "models/fake/objectives/none");
  detail = missing("models/fake", "calm@9");
  EXPECT_EQ(detail.reason, "REVISION_NOT_FOUND");
  EXPECT_EQ(detail.resource_name, "models/fake/objectives/calm/revisions/9");
  google::longrunning::GetOperationRequest get;
  get.set_name("operations/none");
  google::longrunning::Operation operation;
  const Told told = Tell(Call(*operations_, &google::longrunning::Operations::Stub::GetOperation, get, &operation));
  EXPECT_EQ(told.code, grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(told.detail.reason, "RESOURCE_NOT_FOUND");
  EXPECT_EQ(told.detail.resource_name, "operations/none");
}

TEST_F(ErrorsTest, FailedPreconditions) {
  const v1::Objective objective = Fitted("calm");
  ASSERT_TRUE(fit_->AddRevision(objective.name(), "operations/fit-2", "other-weights", 0.28f).ok());
  const auto refused = [&](const std::string& name, float strength) {
    const Told told = Generate([&](v1::GenerateRequest& request) {
      request.add_steering()->set_objective(name);
      request.mutable_steering(0)->set_strength(strength);
    });
    EXPECT_EQ(told.code, grpc::StatusCode::FAILED_PRECONDITION);
    return told.detail;
  };
  EXPECT_EQ(refused("calm@2", 0.1f).reason, "FINGERPRINT_MISMATCH");
  const ErrorDetail strength = refused("calm@1", 0.9f);
  EXPECT_EQ(strength.reason, "STRENGTH_OUT_OF_RANGE");
  EXPECT_EQ(strength.metadata.at("limit"), "0.3");
  fit_->Hold();
  google::longrunning::Operation operation;
  ASSERT_TRUE(ServicesTest::Register(Registration("brief"), &operation).ok());
  const ErrorDetail not_ready = refused("brief", 0.1f);
  EXPECT_EQ(not_ready.reason, "OBJECTIVE_NOT_READY");
  EXPECT_EQ(not_ready.metadata.at("state"), "CREATING");
  google::longrunning::DeleteOperationRequest remove;
  remove.set_name(operation.name());
  google::protobuf::Empty empty;
  const Told told = Tell(Call(*operations_, &google::longrunning::Operations::Stub::DeleteOperation, remove, &empty));
  EXPECT_EQ(told.code, grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(told.detail.reason, "OPERATION_NOT_DONE");
}

TEST_F(ErrorsTest, ObjectiveExistsAndEtagMismatch) {
  const v1::Objective objective = Fitted("calm");
  Told told = Register([](v1::RegisterObjectiveRequest&) {});
  EXPECT_EQ(told.code, grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(told.detail.reason, "OBJECTIVE_EXISTS");
  v1::DeleteObjectiveRequest remove;
  remove.set_name(objective.name());
  remove.set_etag("stale");
  google::protobuf::Empty empty;
  told = Tell(Call(*objectives_, &v1::ObjectiveService::Stub::DeleteObjective, remove, &empty));
  EXPECT_EQ(told.code, grpc::StatusCode::ABORTED);
  EXPECT_EQ(told.detail.reason, "ETAG_MISMATCH");
}

TEST_F(ErrorsTest, MethodsAndTheirConfigurations) {
  Told told =
      Register([](v1::RegisterObjectiveRequest& request) { request.mutable_objective()->set_method("unheard-of"); });
  EXPECT_EQ(told.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(told.detail.reason, "METHOD_UNKNOWN");
  told = Register([](v1::RegisterObjectiveRequest& request) {
    request.mutable_objective()->mutable_method_config()->PackFrom(v1::Model());
  });
  EXPECT_EQ(told.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(told.detail.reason, "METHOD_CONFIG_MISMATCH");
  told = Register([](v1::RegisterObjectiveRequest& request) {
    methods::v1::GrainsConfig config;
    config.set_k(-1);
    request.mutable_objective()->mutable_method_config()->PackFrom(config);
  });
  EXPECT_EQ(told.detail.reason, "FIELD_INVALID");
  EXPECT_EQ(told.detail.violations[0].field, "method_config.k");
}

TEST_F(ErrorsTest, OverloadSaysWhenToRetry) {
  Told told = Refuse(OverloadError(kQueueFull, "the engine's queue is full", absl::Milliseconds(1500)));
  EXPECT_EQ(told.code, grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(told.detail.reason, "QUEUE_FULL");
  EXPECT_EQ(told.detail.retry_after, absl::Milliseconds(1500));
  told = Refuse(OverloadError(kQuotaExceeded, "too many of this tenant wait", absl::Seconds(1)));
  EXPECT_EQ(told.code, grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(told.detail.reason, "QUOTA_EXCEEDED");
  EXPECT_EQ(told.detail.retry_after, absl::Seconds(1));
  // One runs, three wait: the job manager's queue is full.
  fit_->Hold();
  for (const char* id : {"a", "b", "c", "d"}) {
    google::longrunning::Operation operation;
    ASSERT_TRUE(ServicesTest::Register(Registration(id), &operation).ok());
    if (std::string(id) == "a") fit_->WaitForRunning();
  }
  told = Register([](v1::RegisterObjectiveRequest&) {});
  EXPECT_EQ(told.code, grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(told.detail.reason, "JOB_QUEUE_FULL");
  EXPECT_TRUE(told.detail.retry_after.has_value());
  // Nothing of the refused registration was stored.
  v1::Objective objective;
  EXPECT_EQ(Reason(Get("models/fake/objectives/calm", &objective)), "OBJECTIVE_NOT_FOUND");
}

TEST_F(ErrorsTest, TheEnginesOwnErrorsPassThrough) {
  const std::vector<std::pair<absl::StatusCode, std::string_view>> errors = {
      {absl::StatusCode::kResourceExhausted, kKvCacheTooSmall},
      {absl::StatusCode::kResourceExhausted, kDeviceOutOfMemory},
      {absl::StatusCode::kUnavailable, kEngineUnhealthy},
      {absl::StatusCode::kUnavailable, kShuttingDown}};
  for (const auto& [code, reason] : errors) {
    const Told told = Refuse(ReasonError(code, reason, "why"));
    EXPECT_EQ(static_cast<int>(told.code), static_cast<int>(code));
    EXPECT_EQ(told.detail.reason, reason);
  }
  model_->set_script({.failure = ReasonError(absl::StatusCode::kInternal, kNonFinite, "not finite")});
  const Told told = Generate([](v1::GenerateRequest&) {});
  EXPECT_EQ(told.code, grpc::StatusCode::INTERNAL);
  EXPECT_EQ(told.detail.reason, "NON_FINITE");
}

TEST_F(ErrorsTest, AFullDiskIsUnavailableStorage) {
  const v1::Objective objective = Fitted("calm");
  // No file may grow any more.
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit none{.rlim_cur = 1, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
  v1::UpdateObjectiveRequest request;
  request.mutable_objective()->set_name(objective.name());
  request.mutable_objective()->set_description("changed");
  request.mutable_update_mask()->add_paths("description");
  v1::Objective after;
  const grpc::Status status = Call(*objectives_, &v1::ObjectiveService::Stub::UpdateObjective, request, &after);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Reason(status), "STORAGE_UNAVAILABLE");
  ASSERT_TRUE(Get(objective.name(), &after).ok());
  EXPECT_EQ(after.description(), "");
  EXPECT_TRUE(Call(*objectives_, &v1::ObjectiveService::Stub::UpdateObjective, request, &after).ok());
}

TEST_F(ErrorsTest, ShuttingDownRefusesJobs) {
  jobs_->Shutdown();
  const Told told = Register([](v1::RegisterObjectiveRequest&) {});
  EXPECT_EQ(told.code, grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(told.detail.reason, "SHUTTING_DOWN");
}

TEST_F(ErrorsTest, CancelledOperationsSaySo) {
  fit_->Hold();
  google::longrunning::Operation operation;
  ASSERT_TRUE(ServicesTest::Register(Registration("calm"), &operation).ok());
  google::longrunning::CancelOperationRequest cancel;
  cancel.set_name(operation.name());
  google::protobuf::Empty empty;
  ASSERT_TRUE(Call(*operations_, &google::longrunning::Operations::Stub::CancelOperation, cancel, &empty).ok());
  operation = Await(operation.name());
  EXPECT_EQ(GetErrorDetail(FromRpcStatus(operation.error())).reason, "CANCELLED");
}

}  // namespace
}  // namespace trimtab
