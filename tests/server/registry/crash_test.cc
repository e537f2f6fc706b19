// Kills a process that changes a registry, at random points, and checks what it left: every acknowledged change is
// there, the change under way is there wholly or not at all.
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/clock.h"
#include "server/registry/sqlite_registry.h"
#include "tests/server/registry/child_process.h"
#include "tests/server/registry/records.h"

namespace trimtab {
namespace {

constexpr int kKills = 200;
constexpr char kChild[] = "tests/server/registry/crash_child";

// What the registry must hold of one objective.
struct Expected {
  ObjectiveRecord::State state = ObjectiveRecord::State::kCreating;
  std::string operation, uid, display_name = MakeObjective("").display_name, digest, partial;
  std::string pairs = MakeObjective("").pairs, fitted;  // `fitted`: the digest that its first fit ended with
  std::string refit;                                    // operation of the one under way
  std::string curve;                                    // of the active revision
};
using Model = std::map<std::string, Expected>;  // by id

// The model after `words` (a line of the child without its first character).
Model Apply(Model model, const std::vector<std::string>& words) {
  const std::string &verb = words[0], &id = words[1];
  if (verb == "register") {
    model[id] = {.operation = absl::StrCat("operations/", words[2]), .uid = words.size() > 3 ? words[3] : ""};
  } else if (verb == "partial") {
    model[id].partial = words[2];
  } else if (verb == "commit") {
    model[id].state = ObjectiveRecord::State::kActive;
    model[id].digest = model[id].fitted = words[2];
    model[id].partial.clear();
  } else if (verb == "refit") {
    model[id].refit = absl::StrCat("operations/", words[2]);
  } else if (verb == "refitted") {
    model[id].digest = words[2];
    model[id].curve.clear();
    model[id].pairs = words[3];
    model[id].refit.clear();
  } else if (verb == "curve") {
    model[id].curve = words[2];
  } else if (verb == "fail") {
    model[id].state = ObjectiveRecord::State::kFailed;
    model[id].partial.clear();
  } else if (verb == "update") {
    model[id].display_name = words[2];
  } else if (verb == "delete") {
    model.erase(id);
  }
  return model;
}

// What differs between `registry` and `model`; empty when nothing does.
std::string Difference(SqliteRegistry& registry, const Model& model) {
  std::ostringstream out;
  const std::vector<ObjectiveRecord> objectives = *registry.ListObjectives(kTestModel, {.after = "", .limit = 1000});
  if (objectives.size() != model.size()) {
    out << objectives.size() << " objectives instead of " << model.size() << "; ";
  }
  for (const auto& [id, expected] : model) {
    const absl::StatusOr<ObjectiveRecord> stored = registry.GetObjective(TestObjectiveName(id));
    if (!stored.ok()) {
      out << id << " is lost; ";
      continue;
    }
    if (stored->state != expected.state) out << id << ": state " << static_cast<int>(stored->state) << "; ";
    if (stored->display_name != expected.display_name) out << id << ": name " << stored->display_name << "; ";
    if (!expected.uid.empty() && stored->uid != expected.uid) out << id << ": uid; ";
    if (stored->operation != expected.operation) out << id << ": operation " << stored->operation << "; ";
    if (stored->pairs != expected.pairs) out << id << ": pairs " << stored->pairs << "; ";
    if (stored->refit != expected.refit) out << id << ": refit " << stored->refit << "; ";
    if (!stored->refit.empty() && !registry.LoadPartial(stored->refit, Registry::kRefitPairs)->has_value()) {
      out << id << ": pairs of the refit; ";
    }
    const std::string partial = registry.LoadPartial(expected.operation, "key")->value_or("");
    if (partial != expected.partial) out << id << ": partial " << partial << "; ";
    const absl::StatusOr<JobRecord> job = registry.GetJob(expected.operation);
    if (!job.ok()) {
      out << id << ": job; ";
    } else if (expected.fitted.empty() ? job->state == JobRecord::State::kSucceeded : job->result != expected.fitted) {
      out << id << ": result; ";
    }
    if (expected.digest.empty()) {
      if (!registry.ListRevisions(stored->name, 0, 10)->empty()) out << id << ": a revision too many; ";
      continue;
    }
    const absl::StatusOr<RevisionRecord> revision = registry.GetRevision(stored->name, stored->active_revision);
    if (!revision.ok() || revision->digest != expected.digest || revision->vector != std::string(40000, 'v')) {
      out << id << ": revision; ";
    } else if (revision->curve != expected.curve) {
      out << id << ": curve " << revision->curve << "; ";
    } else if (registry.ListAttributions(stored->name, revision->revision, -1, 1000)->size() !=
               kCrashTestAttributions) {
      out << id << ": attributions; ";
    }
  }
  return out.str();
}

// Rules that hold between the parts of a registry whatever happened.
void CheckInvariants(SqliteRegistry& registry) {
  const std::vector<AuditRecord> audit = *registry.ListAudit(0, 1'000'000);
  ASSERT_EQ(static_cast<int64_t>(audit.size()), registry.revision());
  for (size_t i = 0; i < audit.size(); ++i) ASSERT_EQ(audit[i].id, static_cast<int64_t>(i) + 1);
  const std::vector<JobRecord> unfinished = *registry.UnfinishedJobs();
  for (const JobRecord& job : unfinished) {
    if (job.kind == "curve") continue;
    const absl::StatusOr<ObjectiveRecord> objective = registry.GetObjective(job.target);
    const bool owned = objective.ok() && (objective->operation == job.name || objective->refit == job.name);
    EXPECT_EQ(owned, !job.cancel_requested) << job.name;
  }
}

TEST(CrashTest, NoAcknowledgedChangeIsLostAndNoneIsHalfDone) {
  const std::string path = NewRegistryPath(testing::TempDir(), "crash.db");
  const RealClock clock;
  std::mt19937 random(7);
  Model model;
  int acknowledged = 0, under_way = 0, found_done = 0;
  for (int kill = 0; kill < kKills; ++kill) {
    SCOPED_TRACE(absl::StrCat("kill ", kill));
    ChildProcess victim(kChild, {path, std::to_string(kill)});
    ASSERT_EQ(victim.Line(), "ready");
    std::vector<std::string> pending;  // announced, not acknowledged
    const auto take = [&](const std::string& line) {
      const std::vector<std::string> words = absl::StrSplit(line.substr(2), ' ');
      if (line[0] == '>') {
        pending = words;
        return;
      }
      model = Apply(std::move(model), words);
      pending.clear();
      ++acknowledged;
    };
    for (int lines = 1 + static_cast<int>(random() % 16); lines > 0; --lines) {
      const std::string line = victim.Line();
      ASSERT_FALSE(line.empty()) << "the child ended by itself";
      take(line);
    }
    // Somewhere within a change: they take about this long.
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 4000);
    while (std::chrono::steady_clock::now() < until) {
    }
    ASSERT_TRUE(victim.Kill());
    for (std::string line = victim.Line(); !line.empty(); line = victim.Line()) take(line);

    absl::StatusOr<std::unique_ptr<SqliteRegistry>> registry = SqliteRegistry::Open(path, clock);
    ASSERT_TRUE(registry.ok()) << registry.status();
    const std::string without = Difference(**registry, model);
    if (!pending.empty()) {
      ++under_way;
      const Model with = Apply(model, pending);
      if (const std::string difference = Difference(**registry, with); difference.empty()) {
        model = with;
        ++found_done;
        // What the child could not tell any more.
        for (auto& [id, expected] : model) expected.uid = (*registry)->GetObjective(TestObjectiveName(id))->uid;
      } else {
        ASSERT_EQ(without, "") << "nor does the change under way explain it: " << difference;
      }
    } else {
      ASSERT_EQ(without, "");
    }
    CheckInvariants(**registry);
  }
  RecordProperty("kills", kKills);
  RecordProperty("acknowledged", acknowledged);
  RecordProperty("killed_within_a_change", under_way);
  RecordProperty("of_these_found_done", found_done);
  printf("%d kills, %d acknowledged changes, %d kills within a change, %d of those changes found done\n", kKills,
         acknowledged, under_way, found_done);
  EXPECT_GT(under_way, 0);
}

}  // namespace
}  // namespace trimtab
