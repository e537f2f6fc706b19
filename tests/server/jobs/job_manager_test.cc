#include "server/jobs/job_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/barrier.h"
#include "absl/synchronization/notification.h"
#include "tests/server/jobs/job_manager_fixture.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using State = JobRecord::State;

TEST_F(JobManagerTest, RunsAJobToItsEnd) {
  Start([](const JobRecord& job, JobContext& context) {
    EXPECT_EQ(job.state, State::kRunning);
    EXPECT_EQ(job.attempts, 1);
    context.Report({.phase = JobPhase::kDrift, .completed = 3, .total = 4, .fraction = 0.75});
    return context.Checkpoint();
  });
  const absl::StatusOr<JobRecord> end = WaitFor(Submit("1").name);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->state, State::kSucceeded);
  EXPECT_EQ(end->result, "result");
  // The last progress is kept however little time passed.
  EXPECT_EQ(end->metadata, "3 of 4");
  EXPECT_EQ(registry_->GetJob(end->name)->metadata, "3 of 4");
  manager_->Shutdown();
  EXPECT_THAT(metrics_.notes(),
              ElementsAre("drift 0 0", "drift 1 0", "drift 0 1", "drift at 0.75", "drift succeeded", "drift 0 0"));
}

TEST_F(JobManagerTest, JobsRunInOrder) {
  std::vector<std::string> order;
  Start([&](const JobRecord& job, JobContext&) {
    order.push_back(job.name);
    return absl::OkStatus();
  });
  for (const char* id : {"b", "a", "c"}) Submit(id);
  WaitFor("operations/c").IgnoreError();
  EXPECT_THAT(order, ElementsAre("operations/b", "operations/a", "operations/c"));
}

TEST_F(JobManagerTest, TwoWorkersRunTwoJobs) {
  config_.workers = 2;
  auto* meet = new absl::Barrier(2);
  Start([&](const JobRecord&, JobContext&) {
    if (meet->Block()) delete meet;  // passes only when both jobs are here
    return absl::OkStatus();
  });
  Submit("1");
  Submit("2");
  EXPECT_EQ(WaitFor("operations/1")->state, State::kSucceeded);
  EXPECT_EQ(WaitFor("operations/2")->state, State::kSucceeded);
}

TEST_F(JobManagerTest, OperatorsDoNotWaitBehindBackgroundWork) {
  config_.max_queued = 1;
  absl::Notification running, go_on;
  Make([&](const JobRecord&, JobContext&) {
    if (!running.HasBeenNotified()) running.Notify();
    go_on.WaitForNotification();
    return absl::OkStatus();
  });
  bool passed_gate = false;
  manager_->set_gate([&] { passed_gate = true; });
  manager_->Register("load",
                     {.run =
                          [this](const JobRecord& job, JobContext& context) {
                            const absl::Status status = context.Checkpoint();
                            return status.ok() ? Succeed(job) : status;
                          },
                      .fail = [this](const JobRecord& job, const absl::Status& error) { return Fail(job, error); },
                      .metadata = [](const JobRecord&, const JobProgressSnapshot&) { return std::string(); },
                      .lane = JobLane::kOperator});
  ASSERT_TRUE(manager_->Start().ok());
  Submit("1");
  running.WaitForNotification();
  Submit("2");
  EXPECT_EQ(Reason(manager_->Reserve()), kJobQueueFull);
  ASSERT_TRUE(manager_->Reserve(JobLane::kOperator).ok());
  JobRecord load = MakeDriftJob("3");
  load.kind = "load";
  manager_->Enqueue(*registry_->CreateJob(load));
  EXPECT_EQ(WaitFor(load.name)->state, State::kSucceeded);
  EXPECT_FALSE(passed_gate);
  go_on.Notify();
  EXPECT_EQ(WaitFor("operations/2")->state, State::kSucceeded);
}

TEST_F(JobManagerTest, ACancellationSaysWhy) {
  absl::Notification running;
  Start([&](const JobRecord& job, JobContext& context) {
    running.Notify();
    return UntilStopped(job, context);
  });
  Submit("1");
  running.WaitForNotification();
  Submit("2");
  ASSERT_TRUE(manager_->Cancel("operations/2", "its model is gone").ok());
  ASSERT_TRUE(manager_->Cancel("operations/1", "its model goes").ok());
  EXPECT_THAT(WaitFor("operations/1")->error, HasSubstr("its model goes"));
  EXPECT_THAT(WaitFor("operations/2")->error, HasSubstr("its model is gone"));
}

TEST_F(JobManagerTest, TheQueueIsBounded) {
  config_.max_queued = 2;
  absl::Notification running, go_on;
  Start([&](const JobRecord&, JobContext&) {
    if (!running.HasBeenNotified()) running.Notify();
    go_on.WaitForNotification();
    return absl::OkStatus();
  });
  Submit("1");
  running.WaitForNotification();
  Submit("2");
  ASSERT_TRUE(manager_->Reserve().ok());
  const absl::Status full = manager_->Reserve();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Reason(full), kJobQueueFull);
  ASSERT_TRUE(GetErrorDetail(full).retry_after.has_value());
  EXPECT_GE(*GetErrorDetail(full).retry_after, absl::Seconds(1));
  manager_->Unreserve();
  EXPECT_TRUE(manager_->Reserve().ok());
  manager_->Unreserve();
  go_on.Notify();
  EXPECT_EQ(WaitFor("operations/2")->state, State::kSucceeded);
}

TEST_F(JobManagerTest, AQueuedJobIsCancelledAtOnce) {
  absl::Notification running, go_on;
  std::atomic<int> runs = 0;
  Start([&](const JobRecord&, JobContext&) {
    ++runs;
    running.Notify();
    go_on.WaitForNotification();
    return absl::OkStatus();
  });
  Submit("1");
  running.WaitForNotification();
  Submit("2");
  absl::Notification told;
  manager_->Wait("operations/2", absl::InfiniteFuture(), [&](const absl::StatusOr<JobRecord>& record) {
    EXPECT_EQ(record->state, State::kCancelled);
    told.Notify();
  });
  ASSERT_TRUE(manager_->Cancel("operations/2").ok());
  EXPECT_EQ(manager_->Get("operations/2")->state, State::kCancelled);
  EXPECT_THAT(manager_->Get("operations/2")->error, HasSubstr("CANCELLED"));
  told.WaitForNotification();
  go_on.Notify();
  EXPECT_EQ(WaitFor("operations/1")->state, State::kSucceeded);
  EXPECT_EQ(runs, 1);
}

TEST_F(JobManagerTest, ARunningJobIsCancelledAtItsNextCheckpoint) {
  absl::Notification running;
  Start([&](const JobRecord& job, JobContext& context) {
    running.Notify();
    return UntilStopped(job, context);
  });
  Submit("1");
  running.WaitForNotification();
  ASSERT_TRUE(manager_->Cancel("operations/1").ok());
  EXPECT_EQ(WaitFor("operations/1")->state, State::kCancelled);
  // Done: nothing to cancel any more.
  EXPECT_TRUE(manager_->Cancel("operations/1").ok());
  EXPECT_EQ(manager_->Cancel("operations/none").code(), absl::StatusCode::kNotFound);
}

TEST_F(JobManagerTest, ACancellationInTheRegistryAloneIsSeen) {
  Start([&](const JobRecord& job, JobContext& context) {
    // As when the objective is deleted.
    EXPECT_TRUE(registry_->RequestJobCancel(job.name).ok());
    for (int64_t i = 1;; ++i) {
      context.Report({.phase = JobPhase::kDrift, .completed = i, .total = 0, .fraction = 0.5});
      if (const absl::Status status = context.Checkpoint(); !status.ok()) return status;
    }
  });
  EXPECT_EQ(WaitFor(Submit("1").name)->state, State::kCancelled);
}

TEST_F(JobManagerTest, CancelledBeforeTheRestartIsNotRun) {
  registry_->CreateJob(MakeDriftJob("1")).IgnoreError();
  ASSERT_TRUE(registry_->RequestJobCancel("operations/1").ok());
  Start([](const JobRecord&, JobContext&) -> absl::Status {
    ADD_FAILURE() << "it was cancelled";
    return absl::OkStatus();
  });
  EXPECT_EQ(WaitFor("operations/1")->state, State::kCancelled);
}

TEST_F(JobManagerTest, WaitAnswersForEveryKindOfJob) {
  Start([](const JobRecord&, JobContext&) { return absl::OkStatus(); });
  EXPECT_EQ(WaitFor("operations/none").status().code(), absl::StatusCode::kNotFound);
  Submit("1");
  EXPECT_EQ(WaitFor("operations/1")->state, State::kSucceeded);
  EXPECT_EQ(WaitFor("operations/1")->state, State::kSucceeded);  // ended before
  // Durable, but not enqueued yet: until the deadline nothing is known.
  registry_->CreateJob(MakeDriftJob("2")).IgnoreError();
  EXPECT_EQ(WaitFor("operations/2", clock_.Now() + absl::Milliseconds(1))->state, State::kQueued);
}

TEST_F(JobManagerTest, WaitEndsAtItsDeadlineWithLiveProgress) {
  absl::Notification reported, go_on;
  config_.progress_interval = absl::InfiniteDuration();
  Start([&](const JobRecord&, JobContext& context) {
    context.Report({.phase = JobPhase::kQueued, .completed = 5, .total = 9, .fraction = 0.5});
    reported.Notify();
    go_on.WaitForNotification();
    return absl::OkStatus();
  });
  Submit("1");
  reported.WaitForNotification();
  const absl::StatusOr<JobRecord> unfinished = WaitFor("operations/1", clock_.Now());
  ASSERT_TRUE(unfinished.ok()) << unfinished.status();
  EXPECT_EQ(unfinished->state, State::kRunning);
  EXPECT_EQ(unfinished->metadata, "5 of 9");
  EXPECT_EQ(manager_->Get("operations/1")->metadata, "5 of 9");
  go_on.Notify();
  EXPECT_EQ(WaitFor("operations/1")->state, State::kSucceeded);
}

TEST_F(JobManagerTest, ShutdownKeepsJobsResumable) {
  absl::Notification running;
  Start([&](const JobRecord& job, JobContext& context) {
    EXPECT_TRUE(context.SavePartial("half", "work").ok());
    context.Report({.phase = JobPhase::kDrift, .completed = 1, .total = 2, .fraction = 0.5});
    running.Notify();
    return UntilStopped(job, context);
  });
  Submit("1");
  running.WaitForNotification();
  Submit("2");
  absl::StatusOr<JobRecord> waited = JobRecord{};
  manager_->Wait("operations/2", absl::InfiniteFuture(), [&](absl::StatusOr<JobRecord> record) { waited = record; });
  manager_->Shutdown();
  manager_->Shutdown();
  EXPECT_EQ(Reason(waited.status()), kShuttingDown);
  EXPECT_EQ(Reason(manager_->Reserve()), kShuttingDown);
  EXPECT_EQ(Reason(WaitFor("operations/1").status()), kShuttingDown);
  const JobRecord stopped = *registry_->GetJob("operations/1");
  EXPECT_EQ(stopped.state, State::kQueued);
  EXPECT_EQ(stopped.attempts, 0);
  EXPECT_EQ(stopped.metadata, "1 of 2");

  std::vector<std::string> found;
  Start([&](const JobRecord& job, JobContext& context) {
    found.push_back(absl::StrCat(job.name, " ", context.LoadPartial("half")->value_or("nothing")));
    return absl::OkStatus();
  });
  EXPECT_EQ(WaitFor("operations/2")->state, State::kSucceeded);
  EXPECT_THAT(found, ElementsAre("operations/1 work", "operations/2 nothing"));
}

}  // namespace
}  // namespace trimtab
