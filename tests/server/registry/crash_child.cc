// The victim of crash_test: changes a registry in a loop, and says on standard output what it is about to do ("> ...")
// and what was acknowledged ("< ...", with the result), until it is killed.
// Usage: crash_child DATABASE SEED
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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
    if (random_() % 3 == 0) return Delete(*stored, id);
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
    RevisionRecord revision = MakeRevision(id, digest);
    revision.vector = std::string(40000, 'v');
    std::vector<AttributionRecord> attributions;
    for (int pair = 0; pair < kCrashTestAttributions; ++pair) attributions.push_back({pair, std::string(300, 'a')});
    JobRecord job = *registry_.GetJob(stored.operation);
    job.result = digest;
    MustBeOk(registry_.CommitFit(stored.uid, revision, attributions, job).status());
    Say(absl::StrCat("< commit ", id, " ", digest));
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
