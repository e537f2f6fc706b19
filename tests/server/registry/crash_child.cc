// The victim of crash_test: changes a registry in a loop, and says on standard output what it is about to do ("> ...")
// and what was acknowledged ("< ...", with the result), until it is killed.
// Usage: crash_child DATABASE SEED
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "server/registry/sqlite_registry.h"
#include "tests/server/registry/records.h"

namespace trimtab {
namespace {

void Say(const std::string& line) {
  const std::string text = line + "\n";
  // One write per line: a line is whole or absent.
  if (write(STDOUT_FILENO, text.data(), text.size()) != static_cast<ssize_t>(text.size())) _exit(3);
}

void MustBeOk(const absl::Status& status) {
  if (status.ok()) return;
  fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  _exit(2);
}

class Victim {
 public:
  Victim(Registry& registry, uint32_t seed) : registry_(registry), random_(seed), seed_(seed) {}

  void Step(int step) {
    const std::string id = absl::StrCat("o", random_() % 4);
    const absl::StatusOr<ObjectiveRecord> stored = registry_.GetObjective(TestObjectiveName(id));
    if (!stored.ok()) return Register(id, step);
    if (stored->state == ObjectiveRecord::State::kCreating) {
      switch (random_() % 4) {
        case 0:
          return SavePartial(*stored, id, step);
        case 1:
          return Fail(*stored, id);
        default:
          return Commit(*stored, id);
      }
    }
    switch (random_() % 6) {
      case 0:
        return Delete(*stored, id);
      case 1:
      case 2:
        if (stored->state != ObjectiveRecord::State::kActive) break;
        return stored->refit.empty() ? Refit(*stored, id, step) : CommitRefit(*stored, id);
      case 3:
        if (stored->state == ObjectiveRecord::State::kActive && stored->refit.empty()) return Curve(*stored, id, step);
        break;
      default:
        break;
    }
    Update(*stored, id, step);
  }

 private:
  void Register(const std::string& id, int step) {
    const std::string job = absl::StrCat("j", seed_, "-", step);
    Say(absl::StrCat("> register ", id, " ", job));
    const absl::StatusOr<Registry::Creation> creation =
        registry_.CreateObjective(MakeObjective(id, job, "hash"), MakeFitJob(job, id));
    MustBeOk(creation.status());
    Say(absl::StrCat("< register ", id, " ", job, " ", creation->objective.uid));
  }
  void SavePartial(const ObjectiveRecord& stored, const std::string& id, int step) {
    const std::string value = absl::StrCat("v", seed_, "-", step);
    Say(absl::StrCat("> partial ", id, " ", value));
    MustBeOk(registry_.SavePartial(stored.operation, "key", value));
    Say(absl::StrCat("< partial ", id, " ", value));
  }
  void Commit(const ObjectiveRecord& stored, const std::string& id) {
    const std::string digest = absl::StrCat("d", stored.uid);
    Say(absl::StrCat("> commit ", id, " ", digest));
    CommitRevision(stored, id, digest, stored.operation, std::nullopt);
    Say(absl::StrCat("< commit ", id, " ", digest));
  }
  void CommitRevision(const ObjectiveRecord& stored, const std::string& id, const std::string& digest,
                      const std::string& operation, const std::optional<RefitRecord>& refit) {
    RevisionRecord revision = MakeRevision(id, digest);
    revision.vector = std::string(40000, 'v');
    std::vector<AttributionRecord> attributions;
    for (int pair = 0; pair < kCrashTestAttributions; ++pair) attributions.push_back({pair, std::string(300, 'a')});
    JobRecord job = *registry_.GetJob(operation);
    job.result = digest;
    MustBeOk(registry_.CommitFit(stored.uid, revision, attributions, job, std::nullopt, refit).status());
  }
  void Refit(const ObjectiveRecord& stored, const std::string& id, int step) {
    JobRecord job = MakeFitJob(absl::StrCat("r", seed_, "-", step), id);
    job.kind = "refit";
    const std::string number = absl::StrCat("r", seed_, "-", step);
    Say(absl::StrCat("> refit ", id, " ", number));
    MustBeOk(registry_.BeginRefit(stored.name, job, absl::StrCat("p", number), stored.etag).status());
    Say(absl::StrCat("< refit ", id, " ", number));
  }
  void CommitRefit(const ObjectiveRecord& stored, const std::string& id) {
    const std::string pairs = *registry_.LoadPartial(stored.refit, Registry::kRefitPairs).value();
    const std::string digest = absl::StrCat("d", pairs);
    Say(absl::StrCat("> refitted ", id, " ", digest, " ", pairs));
    CommitRevision(stored, id, digest, stored.refit, RefitRecord{.pairs = pairs});
    Say(absl::StrCat("< refitted ", id, " ", digest, " ", pairs));
  }
  void Curve(const ObjectiveRecord& stored, const std::string& id, int step) {
    const std::string curve = absl::StrCat("c", seed_, "-", step);
    const RevisionRecord revision = *registry_.GetRevision(stored.name, stored.active_revision);
    JobRecord job = MakeFitJob(curve, id);
    job.kind = "curve";
    job.target = absl::StrCat(job.target, "/revisions/", stored.active_revision);
    MustBeOk(registry_.CreateJob(job).status());
    Say(absl::StrCat("> curve ", id, " ", curve));
    MustBeOk(registry_.CommitCurve(stored.name, stored.active_revision, revision.digest, curve, job));
    Say(absl::StrCat("< curve ", id, " ", curve));
  }
  void Fail(const ObjectiveRecord& stored, const std::string& id) {
    Say(absl::StrCat("> fail ", id));
    JobRecord job = *registry_.GetJob(stored.operation);
    job.state = JobRecord::State::kFailed;
    job.error = "why";
    MustBeOk(registry_.CommitFitFailure(stored.uid, job));
    Say(absl::StrCat("< fail ", id));
  }
  void Update(ObjectiveRecord stored, const std::string& id, int step) {
    stored.display_name = absl::StrCat("n", seed_, "-", step);
    Say(absl::StrCat("> update ", id, " ", stored.display_name));
    MustBeOk(registry_.UpdateObjective(stored, stored.etag).status());
    Say(absl::StrCat("< update ", id, " ", stored.display_name));
  }
  void Delete(const ObjectiveRecord& stored, const std::string& id) {
    Say(absl::StrCat("> delete ", id));
    MustBeOk(registry_.DeleteObjective(stored.name, stored.etag));
    Say(absl::StrCat("< delete ", id));
  }

  Registry& registry_;
  std::mt19937 random_;
  const uint32_t seed_;
};

int Main(const char* path, uint32_t seed) {
  const RealClock clock;
  const absl::StatusOr<std::unique_ptr<SqliteRegistry>> registry = SqliteRegistry::Open(path, clock);
  MustBeOk(registry.status());
  Say("ready");
  Victim victim(**registry, seed);
  for (int step = 0;; ++step) victim.Step(step);
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) {
  if (argc != 3) return 1;
  return trimtab::Main(argv[1], static_cast<uint32_t>(atoi(argv[2])));
}
