#include "server/rpc/drift_service.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/rpc/services_fixture.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;
using Stub = v1::DriftService::Stub;

class DriftServiceTest : public ServicesTest {
 protected:
  static v1::EvaluateDriftRequest Evaluation() {
    v1::EvaluateDriftRequest request;
    request.set_parent("models/fake");
    request.add_steering()->set_objective("calm");
    return request;
  }
  grpc::Status Evaluate(const v1::EvaluateDriftRequest& request, Operation* operation) {
    return Call(*drifts_, &Stub::EvaluateDrift, request, operation);
  }
};

TEST_F(DriftServiceTest, MeasuresAndStoresAReport) {
  Fitted("calm");
  Operation operation;
  ASSERT_TRUE(Evaluate(Evaluation(), &operation).ok());
  v1::EvaluateDriftMetadata metadata;
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata));
  operation = Await(operation.name());
  v1::DriftReport report;
  ASSERT_TRUE(operation.response().UnpackTo(&report)) << operation.error().message();
  EXPECT_EQ(report.name(), metadata.drift_report());
  EXPECT_EQ(report.suite(), "probe");
  EXPECT_EQ(report.items(), 2);
  ASSERT_EQ(report.steering_size(), 1);
  EXPECT_EQ(report.steering(0).objective(), "models/fake/objectives/calm/revisions/1");
  EXPECT_EQ(report.steering(0).strength(), 0.05f);
  // The model answers the same with and without steering.
  EXPECT_EQ(report.accuracy_delta(), 0);
  EXPECT_NEAR(report.mean_kl_choice(), 0, 1e-9);
  EXPECT_EQ(report.subjects_size(), 2);
  EXPECT_GT(report.text_tokens(), 0);
  EXPECT_EQ(report.model_fingerprint(), model_->fingerprint());
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata));
  EXPECT_EQ(metadata.completed_percent(), 100);

  v1::GetDriftReportRequest get;
  get.set_name(report.name());
  v1::DriftReport stored;
  ASSERT_TRUE(Call(*drifts_, &Stub::GetDriftReport, get, &stored).ok());
  EXPECT_EQ(stored.SerializeAsString(), report.SerializeAsString());
  v1::DeleteDriftReportRequest remove;
  remove.set_name(report.name());
  google::protobuf::Empty empty;
  ASSERT_TRUE(Call(*drifts_, &Stub::DeleteDriftReport, remove, &empty).ok());
  EXPECT_EQ(Reason(Call(*drifts_, &Stub::DeleteDriftReport, remove, &empty)), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(Reason(Call(*drifts_, &Stub::GetDriftReport, get, &stored)), "RESOURCE_NOT_FOUND");
}

TEST_F(DriftServiceTest, MeasuresTheRevisionThatServedWhenItWasAskedFor) {
  const v1::Objective objective = Fitted("calm");
  fit_->Hold();
  Operation blocker, operation;
  ASSERT_TRUE(Register(Registration("blocker"), &blocker).ok());
  ASSERT_TRUE(Evaluate(Evaluation(), &operation).ok());
  ASSERT_TRUE(fit_->AddRevision(objective.name(), "operations/fit-2", model_->fingerprint(), 0.28f).ok());
  fit_->Release();
  v1::DriftReport report;
  ASSERT_TRUE(Await(operation.name()).response().UnpackTo(&report));
  EXPECT_EQ(report.steering(0).objective(), objective.name() + "/revisions/1");
}

TEST_F(DriftServiceTest, TheSameRequestIsMeasuredOnce) {
  Fitted("calm");
  v1::EvaluateDriftRequest request = Evaluation();
  request.set_request_id("id-1");
  Operation first, second;
  ASSERT_TRUE(Evaluate(request, &first).ok());
  Await(first.name());
  ASSERT_TRUE(Evaluate(request, &second).ok());
  EXPECT_EQ(first.name(), second.name());
  EXPECT_TRUE(second.done());
  request.set_seed(7);
  EXPECT_EQ(Evaluate(request, &second).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(DriftServiceTest, ReportsAreListedInPages) {
  Fitted("calm");
  std::vector<std::string> made, listed;
  for (int i = 0; i < 3; ++i) {
    Operation operation;
    ASSERT_TRUE(Evaluate(Evaluation(), &operation).ok());
    v1::DriftReport report;
    ASSERT_TRUE(Await(operation.name()).response().UnpackTo(&report));
    made.push_back(report.name());
  }
  v1::ListDriftReportsRequest request;
  request.set_parent("models/fake");
  request.set_page_size(2);
  for (int page = 0; page < 2; ++page) {
    v1::ListDriftReportsResponse response;
    ASSERT_TRUE(Call(*drifts_, &Stub::ListDriftReports, request, &response).ok());
    for (const v1::DriftReport& report : response.drift_reports()) listed.push_back(report.name());
    EXPECT_EQ(response.next_page_token().empty(), page == 1);
    request.set_page_token(response.next_page_token());
  }
  std::sort(made.begin(), made.end());
  EXPECT_EQ(listed, made);
}

TEST_F(DriftServiceTest, RefusesWhatCannotBeMeasured) {
  Operation operation;
  EXPECT_EQ(Reason(Evaluate(Evaluation(), &operation)), "OBJECTIVE_NOT_FOUND");
  Fitted("calm");
  v1::EvaluateDriftRequest request = Evaluation();
  request.set_suite("none");
  const grpc::Status suite = Evaluate(request, &operation);
  EXPECT_EQ(Reason(suite), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(GetErrorDetail(FromGrpcStatus(suite)).resource_type, "suite");
  request = Evaluation();
  request.mutable_steering(0)->set_strength(0.9f);
  EXPECT_EQ(Reason(Evaluate(request, &operation)), "STRENGTH_OUT_OF_RANGE");
  request.set_parent("models/none");
  EXPECT_EQ(Reason(Evaluate(request, &operation)), "MODEL_NOT_FOUND");
}

}  // namespace
}  // namespace trimtab
