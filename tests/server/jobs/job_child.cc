// The victim of job_crash_test: a process that takes up the jobs of a registry and says on standard output what it
// does. Usage: job_child DATABASE. Jobs whose request is "die" end the process; others do 40 steps, each saved, and
// succeed.
#include <stdio.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/base/clock.h"
#include "server/base/status_macros.h"
#include "server/jobs/job_manager.h"
#include "server/registry/sqlite_registry.h"

namespace trimtab {
namespace {

constexpr int kSteps = 40;

void Say(const std::string& line) {
  const std::string text = line + "\n";
  // One write per line: a line is whole or absent.
  if (write(STDOUT_FILENO, text.data(), text.size()) != static_cast<ssize_t>(text.size())) _exit(3);
}

absl::Status Run(Registry& registry, const JobRecord& job, JobContext& context) {
  Say(absl::StrCat("start ", job.attempts));
  if (job.request == "die") _exit(9);
  for (int step = 0; step < kSteps; ++step) {
    const std::string key = absl::StrCat("step/", step);
    TRIMTAB_ASSIGN_OR_RETURN(const std::optional<std::string> earlier, context.LoadPartial(key));
    if (!earlier) {
      TRIMTAB_RETURN_IF_ERROR(context.Checkpoint());
      TRIMTAB_RETURN_IF_ERROR(context.SavePartial(key, "done"));
      Say(absl::StrCat("saved ", step));
    }
    context.Report({.phase = JobPhase::kDrift,
                    .completed = step + 1,
                    .total = kSteps,
                    .fraction = static_cast<double>(step + 1) / kSteps});
  }
  JobRecord succeeded = job;
  succeeded.state = JobRecord::State::kSucceeded;
  return registry.UpdateJob(succeeded);
}

int Main(const char* path) {
  const RealClock clock;
  const absl::StatusOr<std::unique_ptr<SqliteRegistry>> registry = SqliteRegistry::Open(path, clock);
  if (!registry.ok()) return 2;
  JobManager manager(**registry, {}, clock, nullptr);
  manager.Register(
      "drift",
      {.run = [&](const JobRecord& job, JobContext& context) { return Run(**registry, job, context); },
       .fail =
           [&](JobRecord job, const absl::Status& error) {
             job.error = error.ToString();
             return (*registry)->UpdateJob(job);
           },
       .metadata = [](const JobRecord&,
                      const JobProgressSnapshot& snapshot) { return absl::StrCat(snapshot.progress.completed); }});
  if (!manager.Start().ok()) return 2;
  absl::Notification ended;
  manager.Wait("operations/1", absl::InfiniteFuture(), [&](const absl::StatusOr<JobRecord>&) { ended.Notify(); });
  ended.WaitForNotification();
  manager.Shutdown();
  Say("ended");
  return 0;
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) { return argc == 2 ? trimtab::Main(argv[1]) : 1; }
