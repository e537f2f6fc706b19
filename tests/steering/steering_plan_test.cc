#include "steering/steering_plan.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "server/base/error.h"
#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

constexpr char kName[] = "models/m/objectives/calm";

std::shared_ptr<ServedObjective> Objective() {
  auto objective = std::make_shared<ServedObjective>();
  objective->name = kName;
  objective->state = ServedObjective::State::kActive;
  objective->active_revision = 2;
  objective->revisions = {{1, RandomVector({1}, 8, 1)}, {2, RandomVector({2}, 8, 2)}};
  objective->default_strength = 0.05f;
  objective->max_strength = 0.2f;
  return objective;
}

SteeringSelection Select() { return {.objective = kName, .revision = {}, .strength = {}, .apply_to = {}}; }

std::string ReasonOf(const absl::Status& status) { return GetErrorDetail(status).reason; }

TEST(ResolvePlanTest, FillsDefaults) {
  VectorStore store;
  store.Put(Objective());
  const auto plan = ResolvePlan(store, "model-1", {Select()});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->entries().size(), 1u);
  const PlannedSteering& entry = plan->entries()[0];
  EXPECT_EQ(entry.revision, 2);
  EXPECT_EQ(entry.vector, store.Find(kName)->revisions.at(2));
  EXPECT_FLOAT_EQ(entry.strength, 0.05f);
  EXPECT_EQ(entry.apply_to, ApplyTo::kFromLastPrompt);
  EXPECT_FALSE(plan->is_identity());
}

TEST(ResolvePlanTest, TakesWhatTheCallerSays) {
  VectorStore store;
  store.Put(Objective());
  SteeringSelection selection = Select();
  selection.revision = 1;
  selection.strength = -0.2f;
  selection.apply_to = ApplyTo::kAll;
  const auto plan = ResolvePlan(store, "model-1", {selection});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->entries()[0].revision, 1);
  EXPECT_EQ(plan->entries()[0].strength, -0.2f);
  EXPECT_EQ(plan->entries()[0].apply_to, ApplyTo::kAll);
}

TEST(ResolvePlanTest, NothingSelectedIsTheIdentity) {
  VectorStore store;
  EXPECT_TRUE(ResolvePlan(store, "model-1", {})->is_identity());
  store.Put(Objective());
  SteeringSelection zero = Select();
  zero.strength = 0;
  const auto plan = ResolvePlan(store, "model-1", {zero});
  EXPECT_TRUE(plan->is_identity());
  EXPECT_EQ(plan->entries().size(), 1u);
}

TEST(ResolvePlanTest, NamesTheReasonOfEveryRefusal) {
  VectorStore store;
  EXPECT_EQ(ReasonOf(ResolvePlan(store, "model-1", {Select()}).status()), kObjectiveNotFound);
  EXPECT_EQ(ResolvePlan(store, "model-1", {Select()}).status().code(), absl::StatusCode::kNotFound);

  using State = ServedObjective::State;
  for (const auto& [state, name] : std::map<State, std::string>{
           {State::kCreating, "CREATING"}, {State::kFailed, "FAILED"}, {State::kDisabled, "DISABLED"}}) {
    auto objective = Objective();
    objective->state = state;
    store.Put(objective);
    const absl::Status status = ResolvePlan(store, "model-1", {Select()}).status();
    EXPECT_EQ(ReasonOf(status), kObjectiveNotReady);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(GetErrorDetail(status).metadata["state"], name);
  }
  store.Put(Objective());

  SteeringSelection selection = Select();
  selection.revision = 3;
  EXPECT_EQ(ReasonOf(ResolvePlan(store, "model-1", {selection}).status()), kRevisionNotFound);

  EXPECT_EQ(ReasonOf(ResolvePlan(store, "other", {Select()}).status()), kFingerprintMismatch);

  selection = Select();
  for (float strength :
       {0.21f, -0.21f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    selection.strength = strength;
    const absl::Status status = ResolvePlan(store, "model-1", {selection}).status();
    EXPECT_EQ(ReasonOf(status), kStrengthOutOfRange) << strength;
    EXPECT_EQ(GetErrorDetail(status).metadata["limit"], "0.2");
  }
  EXPECT_EQ(ReasonOf(ResolvePlan(store, "model-1", std::vector<SteeringSelection>(5, Select())).status()),
            kFieldInvalid);
}

TEST(ResolvePlanTest, AnUpdateLeavesEarlierPlansAlone) {
  VectorStore store;
  store.Put(Objective());
  const auto plan = ResolvePlan(store, "model-1", {Select()});
  const std::string digest = plan->entries()[0].vector->digest();
  store.Remove(kName);
  EXPECT_EQ(store.Find(kName), nullptr);
  EXPECT_EQ(plan->entries()[0].vector->digest(), digest);
}

PlannedSteering Entry(uint32_t seed, float strength, ApplyTo apply_to) {
  return {.vector = RandomVector({1}, 8, seed),
          .objective = kName,
          .revision = 1,
          .strength = strength,
          .apply_to = apply_to};
}

TEST(SteeringPlanTest, SteersFromThePositionThatApplyToSays) {
  EXPECT_EQ(Entry(1, 1, ApplyTo::kAll).steer_from(10), 0);
  EXPECT_EQ(Entry(1, 1, ApplyTo::kFromLastPrompt).steer_from(10), 9);
  EXPECT_EQ(Entry(1, 1, ApplyTo::kResponse).steer_from(10), 10);
}

TEST(SteeringPlanTest, BlocksBeforeTheFirstSteeredPositionAreSharedWithAll) {
  const Digest128 none{};
  const SteeringPlan plan({Entry(1, 0.1f, ApplyTo::kFromLastPrompt)});
  EXPECT_EQ(plan.BlockKey(33, 0, 16), none);
  EXPECT_EQ(plan.BlockKey(33, 16, 32), none);  // position 32 is the first steered one
  EXPECT_NE(plan.BlockKey(33, 32, 48), none);
  EXPECT_NE(plan.BlockKey(32, 16, 32), none);
  EXPECT_EQ(SteeringPlan({Entry(1, 0.1f, ApplyTo::kResponse)}).BlockKey(32, 16, 32), none);
  EXPECT_NE(SteeringPlan({Entry(1, 0.1f, ApplyTo::kAll)}).BlockKey(33, 0, 16), none);
  EXPECT_EQ(SteeringPlan().BlockKey(33, 32, 48), none);
  EXPECT_EQ(SteeringPlan({Entry(1, 0, ApplyTo::kAll)}).BlockKey(33, 32, 48), none);
}

TEST(SteeringPlanTest, SteeredBlocksAreKeyedByAllThatChangesThem) {
  const auto key = [](std::vector<PlannedSteering> entries, int64_t prompt) {
    return SteeringPlan(std::move(entries)).BlockKey(prompt, 32, 48);
  };
  const auto base = key({Entry(1, 0.1f, ApplyTo::kFromLastPrompt)}, 33);
  EXPECT_EQ(base, key({Entry(1, 0.1f, ApplyTo::kFromLastPrompt)}, 33));
  // An entry without strength changes nothing.
  EXPECT_EQ(base, key({Entry(2, 0, ApplyTo::kAll), Entry(1, 0.1f, ApplyTo::kFromLastPrompt)}, 33));
  const std::vector<Digest128> others = {
      key({Entry(2, 0.1f, ApplyTo::kFromLastPrompt)}, 33),
      key({Entry(1, 0.2f, ApplyTo::kFromLastPrompt)}, 33),
      key({Entry(1, -0.1f, ApplyTo::kFromLastPrompt)}, 33),
      key({Entry(1, 0.1f, ApplyTo::kFromLastPrompt)}, 34),
      key({Entry(1, 0.1f, ApplyTo::kResponse)}, 34),
      key({Entry(1, 0.1f, ApplyTo::kAll)}, 33),
      key({Entry(1, 0.1f, ApplyTo::kFromLastPrompt), Entry(2, 0.1f, ApplyTo::kFromLastPrompt)}, 33),
  };
  // Both steer from position 33 on: the same thing said in two ways is the same block.
  EXPECT_EQ(key({Entry(1, 0.1f, ApplyTo::kResponse)}, 33), key({Entry(1, 0.1f, ApplyTo::kFromLastPrompt)}, 34));
  std::set<Digest128> distinct(others.begin(), others.end());
  EXPECT_EQ(distinct.size(), others.size());
  EXPECT_EQ(distinct.count(base), 0u);
}

}  // namespace
}  // namespace trimtab
