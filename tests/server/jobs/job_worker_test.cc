// How a run of a job ends: errors, exceptions, attempts, what the storage refuses.
#include "server/jobs/job_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/server/jobs/job_manager_fixture.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using State = JobRecord::State;

class JobWorkerTest : public JobManagerTest {};

TEST_F(JobWorkerTest, AJobInWhichServersDieIsGivenUp) {
  JobRecord job = *registry_->CreateJob(MakeDriftJob("1"));
  job.state = State::kRunning;
  job.attempts = 5;
  ASSERT_TRUE(registry_->UpdateJob(job).ok());
  Start([](const JobRecord&, JobContext&) -> absl::Status {
    ADD_FAILURE() << "it was tried often enough";
    return absl::OkStatus();
  });
  const JobRecord end = *WaitFor(job.name);
  EXPECT_EQ(end.state, State::kFailed);
  EXPECT_THAT(end.error, HasSubstr("started 5 times"));
}

TEST_F(JobWorkerTest, FailuresAreCommitted) {
  Start([](const JobRecord&, JobContext&) { return absl::InvalidArgumentError("no signal"); });
  const JobRecord end = *WaitFor(Submit("1").name);
  EXPECT_EQ(end.state, State::kFailed);
  EXPECT_THAT(end.error, HasSubstr("no signal"));
  EXPECT_EQ(end.attempts, 1);
}

TEST_F(JobWorkerTest, ExceptionsBecomeErrors) {
  Start([](const JobRecord& job, JobContext&) -> absl::Status {
    if (job.name == "operations/memory") throw std::bad_alloc();
    if (job.name == "operations/tensor") {
      throw std::runtime_error("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nbacktrace");
    }
    throw std::runtime_error("sizes differ\nframe 1\nframe 2");
  });
  EXPECT_THAT(WaitFor(Submit("memory").name)->error, HasSubstr("RESOURCE_EXHAUSTED"));
  EXPECT_THAT(WaitFor(Submit("tensor").name)->error, HasSubstr("RESOURCE_EXHAUSTED"));
  const std::string other = WaitFor(Submit("other").name)->error;
  EXPECT_THAT(other, HasSubstr("INTERNAL: the job failed: sizes differ"));
  EXPECT_EQ(other.find("frame"), std::string::npos);
}

TEST_F(JobWorkerTest, AJobThatCommitsNothingFails) {
  forget_to_commit_ = true;
  Start([](const JobRecord&, JobContext&) { return absl::OkStatus(); });
  const JobRecord end = *WaitFor(Submit("1").name);
  EXPECT_EQ(end.state, State::kFailed);
  EXPECT_THAT(end.error, HasSubstr("without a result"));
}

TEST_F(JobWorkerTest, AnErrorAfterTheCommitDoesNotUndoIt) {
  Start([this](const JobRecord& job, JobContext&) {
    EXPECT_TRUE(Succeed(job).ok());
    return absl::InternalError("too late");
  });
  EXPECT_EQ(WaitFor(Submit("1").name)->state, State::kSucceeded);
}

TEST_F(JobWorkerTest, UnavailableIsTriedAgain) {
  std::vector<int64_t> attempts;
  Start([&](const JobRecord& job, JobContext&) {
    attempts.push_back(job.attempts);
    return job.attempts < 3 ? absl::UnavailableError("the disk is full") : absl::OkStatus();
  });
  EXPECT_EQ(WaitFor(Submit("1").name)->state, State::kSucceeded);
  EXPECT_THAT(attempts, ElementsAre(1, 2, 3));
}

TEST_F(JobWorkerTest, UnavailableForEverFails) {
  std::atomic<int> runs = 0;
  Start([&](const JobRecord&, JobContext&) {
    ++runs;
    return absl::UnavailableError("the engine is unhealthy");
  });
  const JobRecord end = *WaitFor(Submit("1").name);
  EXPECT_EQ(end.state, State::kFailed);
  EXPECT_THAT(end.error, HasSubstr("the engine is unhealthy"));
  EXPECT_EQ(runs, 5);
}

TEST_F(JobWorkerTest, AFailureIsCommittedWhenTheStorageTakesItAgain) {
  failing_fails_ = 3;
  Start([](const JobRecord&, JobContext&) { return absl::InvalidArgumentError("no signal"); });
  EXPECT_EQ(WaitFor(Submit("1").name)->state, State::kFailed);
}

TEST_F(JobWorkerTest, ACancellationThatTheStorageRefusedIsMadeGood) {
  absl::Notification running, go_on;
  Start([&](const JobRecord&, JobContext&) {
    running.Notify();
    go_on.WaitForNotification();
    return absl::OkStatus();
  });
  Submit("1");
  running.WaitForNotification();
  Submit("2");
  failing_fails_ = 1;
  ASSERT_TRUE(manager_->Cancel("operations/2").ok());
  EXPECT_EQ(manager_->Get("operations/2")->state, State::kQueued);
  go_on.Notify();
  EXPECT_EQ(WaitFor("operations/2")->state, State::kCancelled);
}

TEST_F(JobWorkerTest, JobsOfUnknownKindsStay) {
  JobRecord unknown = MakeDriftJob("1");
  unknown.kind = "import";
  registry_->CreateJob(unknown).IgnoreError();
  Start([](const JobRecord&, JobContext&) { return absl::OkStatus(); });
  Submit("2");
  EXPECT_EQ(WaitFor("operations/2")->state, State::kSucceeded);
  EXPECT_EQ(registry_->GetJob("operations/1")->state, State::kQueued);
}

TEST_F(JobWorkerTest, WorkersRunAtIdlePriorityAndCommitAtNormalPriority) {
  int started = 0;
  config_.on_worker_start = [&] { ++started; };
  int worker = -1, child = -1, service = -1;
  Start([&](const JobRecord&, JobContext&) {
    worker = sched_getscheduler(0);
    std::thread([&] { child = sched_getscheduler(0); }).join();
    return manager_->RunAtNormalPriority([&] {
      service = sched_getscheduler(0);
      return absl::OkStatus();
    });
  });
  EXPECT_EQ(WaitFor(Submit("1").name)->state, State::kSucceeded);
  EXPECT_EQ(started, 1);
  EXPECT_EQ(worker, SCHED_IDLE);
  EXPECT_EQ(child, SCHED_IDLE);
  EXPECT_EQ(service, SCHED_OTHER);
}

TEST_F(JobWorkerTest, CheckpointsPassTheGate) {
  std::atomic<int> passes = 0;
  Make([](const JobRecord&, JobContext& context) {
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(context.Checkpoint().ok());
    return absl::OkStatus();
  });
  manager_->set_gate([&] { ++passes; });
  ASSERT_TRUE(manager_->Start().ok());
  EXPECT_EQ(WaitFor(Submit("1").name)->state, State::kSucceeded);
  EXPECT_EQ(passes, 3);
}

}  // namespace
}  // namespace trimtab
