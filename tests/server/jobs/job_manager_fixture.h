// A job manager on a fresh registry, and the fixture of its tests.
#ifndef TRIMTAB_TESTS_SERVER_JOBS_JOB_MANAGER_FIXTURE_H_
#define TRIMTAB_TESTS_SERVER_JOBS_JOB_MANAGER_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "server/base/error.h"
#include "server/jobs/job_manager.h"
#include "server/registry/sqlite_registry.h"
#include "tests/server/registry/records.h"

namespace trimtab {

using Body = std::function<absl::Status(const JobRecord&, JobContext&)>;

inline std::string Reason(const absl::Status& status) { return GetErrorDetail(status).reason; }

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
    job.state = JobRecord::State::kSucceeded;
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

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_JOBS_JOB_MANAGER_FIXTURE_H_
