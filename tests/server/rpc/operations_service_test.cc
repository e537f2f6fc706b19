#include "server/rpc/operations_service.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/rpc/services_fixture.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;
using Stub = google::longrunning::Operations::Stub;

class OperationsServiceTest : public ServicesTest {
 protected:
  Operation Start(const std::string& id) {
    Operation operation;
    EXPECT_TRUE(Register(Registration(id), &operation).ok());
    return operation;
  }
  grpc::Status GetOperation(const std::string& name, Operation* operation) {
    google::longrunning::GetOperationRequest request;
    request.set_name(name);
    return Call(*operations_, &Stub::GetOperation, request, operation);
  }
  google::protobuf::Empty empty_;
};

TEST_F(OperationsServiceTest, ARunningOperationShowsItsProgress) {
  fit_->Hold();
  const Operation started = Start("calm");
  fit_->WaitForRunning();
  Operation operation;
  ASSERT_TRUE(GetOperation(started.name(), &operation).ok());
  EXPECT_FALSE(operation.done());
  v1::RegisterObjectiveMetadata metadata;
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata));
  EXPECT_EQ(metadata.phase(), v1::RegisterObjectiveMetadata::PHASE_ATTRIBUTING);
  EXPECT_EQ(metadata.completed_percent(), 25);
  fit_->Release();
  EXPECT_FALSE(Await(started.name()).has_error());
  EXPECT_EQ(Reason(GetOperation("operations/none", &operation)), "RESOURCE_NOT_FOUND");
}

TEST_F(OperationsServiceTest, OperationsAreListedInPages) {
  std::vector<std::string> started, listed;
  for (const char* id : {"a", "b", "c"}) started.push_back(Start(id).name());
  for (const std::string& name : started) Await(name);
  google::longrunning::ListOperationsRequest request;
  request.set_page_size(2);
  for (int page = 0; page < 2; ++page) {
    google::longrunning::ListOperationsResponse response;
    ASSERT_TRUE(Call(*operations_, &Stub::ListOperations, request, &response).ok());
    for (const Operation& operation : response.operations()) listed.push_back(operation.name());
    EXPECT_EQ(response.next_page_token().empty(), page == 1);
    request.set_page_token(response.next_page_token());
  }
  std::sort(started.begin(), started.end());
  EXPECT_EQ(listed, started);
}

TEST_F(OperationsServiceTest, CancellingEndsRunningAndQueuedOperations) {
  fit_->Hold();
  const Operation running = Start("calm"), queued = Start("brief");
  fit_->WaitForRunning();
  for (const Operation& operation : {queued, running}) {
    google::longrunning::CancelOperationRequest request;
    request.set_name(operation.name());
    ASSERT_TRUE(Call(*operations_, &Stub::CancelOperation, request, &empty_).ok());
    const Operation ended = Await(operation.name());
    EXPECT_EQ(ended.error().code(), grpc::StatusCode::CANCELLED);
    EXPECT_EQ(GetErrorDetail(FromRpcStatus(ended.error())).reason, "CANCELLED");
    // Cancelling what has ended is fine.
    EXPECT_TRUE(Call(*operations_, &Stub::CancelOperation, request, &empty_).ok());
  }
  v1::Objective objective;
  ASSERT_TRUE(Get("models/fake/objectives/calm", &objective).ok());
  EXPECT_EQ(objective.state(), v1::Objective::STATE_FAILED);
  google::longrunning::CancelOperationRequest none;
  none.set_name("operations/none");
  EXPECT_EQ(Reason(Call(*operations_, &Stub::CancelOperation, none, &empty_)), "RESOURCE_NOT_FOUND");
}

TEST_F(OperationsServiceTest, OnlyEndedOperationsCanBeDeleted) {
  fit_->Hold();
  const Operation operation = Start("calm");
  google::longrunning::DeleteOperationRequest request;
  request.set_name(operation.name());
  const grpc::Status refused = Call(*operations_, &Stub::DeleteOperation, request, &empty_);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reason(refused), "OPERATION_NOT_DONE");
  fit_->Release();
  Await(operation.name());
  EXPECT_TRUE(Call(*operations_, &Stub::DeleteOperation, request, &empty_).ok());
  EXPECT_EQ(Reason(Call(*operations_, &Stub::DeleteOperation, request, &empty_)), "RESOURCE_NOT_FOUND");
  v1::Objective objective;
  EXPECT_TRUE(Get("models/fake/objectives/calm", &objective).ok());
}

TEST_F(OperationsServiceTest, WaitingEndsWithTheTimeoutTheOperationOrTheCall) {
  fit_->Hold();
  const Operation started = Start("calm");
  google::longrunning::WaitOperationRequest request;
  request.set_name(started.name());
  request.mutable_timeout()->set_nanos(50'000'000);
  Operation operation;
  ASSERT_TRUE(Call(*operations_, &Stub::WaitOperation, request, &operation).ok());
  EXPECT_FALSE(operation.done());

  // The caller goes away.
  request.clear_timeout();
  grpc::ClientContext gone;
  gone.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  EXPECT_FALSE(operations_->WaitOperation(&gone, request, &operation).ok() && operation.done());

  // Many wait; none of them holds a thread, so that other calls go on.
  std::vector<std::thread> waiters;
  for (int i = 0; i < 12; ++i) {
    waiters.emplace_back([&] { EXPECT_FALSE(Await(started.name()).has_error()); });
  }
  for (int i = 0; i < 20; ++i) {
    v1::Objective objective;
    ASSERT_TRUE(Get("models/fake/objectives/calm", &objective).ok());
  }
  fit_->Release();
  for (std::thread& waiter : waiters) waiter.join();
  request.set_name("operations/none");
  EXPECT_EQ(Reason(Call(*operations_, &Stub::WaitOperation, request, &operation)), "RESOURCE_NOT_FOUND");
}

TEST_F(OperationsServiceTest, ShutdownEndsWaits) {
  fit_->Hold();
  const Operation started = Start("calm");
  std::thread waiter([&] {
    google::longrunning::WaitOperationRequest request;
    request.set_name(started.name());
    Operation operation;
    EXPECT_FALSE(Call(*operations_, &Stub::WaitOperation, request, &operation).ok());
  });
  fit_->WaitForRunning();
  jobs_->Shutdown();
  server_->server->Shutdown(absl::Now());
  waiter.join();
}

}  // namespace
}  // namespace trimtab
