#include "server/jobs/job_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/barrier.h"
#include "absl/synchronization/notification.h"
#include "server/base/error.h"
#include "server/registry/sqlite_registry.h"
#include "tests/server/registry/records.h"

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using State = JobRecord::State;
using Body = std::function<absl::Status(const JobRecord&, JobContext&)>;

std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }

// Keeps what it is told.
class RecordingMetrics final : public JobMetrics {
 public:
  void OnJobCounts(std::string_view kind, int64_t queued, int64_t running) override {
    Note(absl::StrCat(std::string(kind), " ", queued, " ", running));
  }
  void OnJobEnd(std::string_view kind, std::string_view result, absl::Duration, absl::Duration) override {
    Note(absl::StrCat(std::string(kind), " ", std::string(result)));
  }
  void OnJobProgress(std::string_view kind, double fraction, absl::Duration) override {
    Note(absl::StrCat(std::string(kind), " at ", fraction));
  }
  std::vector<std::string> notes() {
    absl::MutexLock lock(&mutex_);
    return notes_;
  }

 private:
  void Note(std::string note) {
    absl::MutexLock lock(&mutex_);
    if (notes_.empty() || notes_.back() != note) notes_.push_back(std::move(note));
  }
  absl::Mutex mutex_;
  std::vector<std::string> notes_ ABSL_GUARDED_BY(mutex_);
};

class JobManagerTest : public testing::Test {
 protected:
  JobManagerTest()
      : path_(NewRegistryPath(testing::TempDir(),
                              testing::UnitTest::GetInstance()->current_test_info()->name() + std::string(".db"))) {
    registry_ = *SqliteRegistry::Open(path_, clock_);
    config_.retry_delay = absl::ZeroDuration();
    config_.progress_interval = absl::ZeroDuration();
  }
  ~JobManagerTest() override { manager_.reset(); }

  // A manager whose jobs of kind "drift" do `body` and then succeed.
  void Make(Body body) {
    manager_ = std::make_unique<JobManager>(*registry_, config_, clock_, &metrics_);
    manager_->Register("drift",
                       {.run =
                            [this, body](const JobRecord& job, JobContext& context) {
                              const absl::Status status = body(job, context);
                              return status.ok() ? Succeed(job) : status;
                            },
                        .fail = [this](const JobRecord& job, const absl::Status& error) { return Fail(job, error); },
                        .metadata =
                            [](const JobRecord&, const JobProgressSnapshot& snapshot) {
                              return absl::StrCat(snapshot.progress.completed, " of ", snapshot.progress.total);
                            }});
  }
  void Start(Body body) {
    Make(std::move(body));
    ASSERT_TRUE(manager_->Start().ok());
  }

  absl::Status Succeed(JobRecord job) {
    if (forget_to_commit_) return absl::OkStatus();
    job.state = State::kSucceeded;
    job.result = "result";
    return registry_->UpdateJob(job);
  }
  absl::Status Fail(JobRecord job, const absl::Status& error) {
    if (failing_fails_-- > 0) return absl::UnavailableError("the disk is full");
    job.error = error.ToString();
    return registry_->UpdateJob(job);
  }

  JobRecord Submit(std::string_view id) {
    EXPECT_TRUE(manager_->Reserve().ok());
    const JobRecord job = *registry_->CreateJob(MakeDriftJob(id));
    manager_->Enqueue(job);
    return job;
  }
  absl::StatusOr<JobRecord> WaitFor(const std::string& name, absl::Time deadline = absl::InfiniteFuture()) {
    absl::StatusOr<JobRecord> result;
    absl::Notification done;
    manager_->Wait(name, deadline, [&](absl::StatusOr<JobRecord> record) {
      result = std::move(record);
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }
  // Calls Checkpoint until it fails.
  static absl::Status UntilStopped(const JobRecord&, JobContext& context) {
    for (;;) {
      if (const absl::Status status = context.Checkpoint(); !status.ok()) return status;
    }
  }

  const std::string path_;
  const RealClock clock_;
  std::unique_ptr<SqliteRegistry> registry_;
  RecordingMetrics metrics_;
  JobManagerConfig config_;
  std::atomic<int> failing_fails_ = 0;
  std::atomic<bool> forget_to_commit_ = false;
  std::unique_ptr<JobManager> manager_;
};

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

TEST_F(JobManagerTest, AJobInWhichServersDieIsGivenUp) {
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

TEST_F(JobManagerTest, FailuresAreCommitted) {
  Start([](const JobRecord&, JobContext&) { return absl::InvalidArgumentError("no signal"); });
  const JobRecord end = *WaitFor(Submit("1").name);
  EXPECT_EQ(end.state, State::kFailed);
  EXPECT_THAT(end.error, HasSubstr("no signal"));
  EXPECT_EQ(end.attempts, 1);
}

TEST_F(JobManagerTest, ExceptionsBecomeErrors) {
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

TEST_F(JobManagerTest, AJobThatCommitsNothingFails) {
  forget_to_commit_ = true;
  Start([](const JobRecord&, JobContext&) { return absl::OkStatus(); });
  const JobRecord end = *WaitFor(Submit("1").name);
  EXPECT_EQ(end.state, State::kFailed);
  EXPECT_THAT(end.error, HasSubstr("without a result"));
}

TEST_F(JobManagerTest, AnErrorAfterTheCommitDoesNotUndoIt) {
  Start([this](const JobRecord& job, JobContext&) {
    EXPECT_TRUE(Succeed(job).ok());
    return absl::InternalError("too late");
  });
  EXPECT_EQ(WaitFor(Submit("1").name)->state, State::kSucceeded);
}

TEST_F(JobManagerTest, UnavailableIsTriedAgain) {
  std::vector<int64_t> attempts;
  Start([&](const JobRecord& job, JobContext&) {
    attempts.push_back(job.attempts);
    return job.attempts < 3 ? absl::UnavailableError("the disk is full") : absl::OkStatus();
  });
  EXPECT_EQ(WaitFor(Submit("1").name)->state, State::kSucceeded);
  EXPECT_THAT(attempts, ElementsAre(1, 2, 3));
}

TEST_F(JobManagerTest, UnavailableForEverFails) {
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

TEST_F(JobManagerTest, AFailureIsCommittedWhenTheStorageTakesItAgain) {
  failing_fails_ = 3;
  Start([](const JobRecord&, JobContext&) { return absl::InvalidArgumentError("no signal"); });
  EXPECT_EQ(WaitFor(Submit("1").name)->state, State::kFailed);
}

TEST_F(JobManagerTest, ACancellationThatTheStorageRefusedIsMadeGood) {
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

TEST_F(JobManagerTest, JobsOfUnknownKindsStay) {
  JobRecord unknown = MakeDriftJob("1");
  unknown.kind = "import";
  registry_->CreateJob(unknown).IgnoreError();
  Start([](const JobRecord&, JobContext&) { return absl::OkStatus(); });
  Submit("2");
  EXPECT_EQ(WaitFor("operations/2")->state, State::kSucceeded);
  EXPECT_EQ(registry_->GetJob("operations/1")->state, State::kQueued);
}

TEST_F(JobManagerTest, WorkersRunAtIdlePriorityAndCommitAtNormalPriority) {
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

TEST_F(JobManagerTest, CheckpointsPassTheGate) {
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
