#include "tools/study/study.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

#include "models/testing/tiny_model.h"
#include "tests/steering/testing/memory_job.h"
#include "tests/steering/testing/pairs.h"
#include "tools/plot/render.h"
#include "tools/study/disk_job.h"
#include "tools/study/report.h"

namespace trimtab {
namespace {

class StudyTest : public ::testing::Test {
 protected:
  StudyTest() {
    EXPECT_TRUE(RegisterBuiltinMethods(methods_).ok());
    const char* subjects[] = {"cats", "rain", "tea", "maps", "boats", "music", "bread", "snow", "trees", "chess"};
    data_.name = "words";
    for (const char* subject : subjects) {
      data_.pairs.push_back(Pair(std::string("Tell me of ") + subject, std::string("Oh, ") + subject + "!", "No."));
      data_.test.push_back(Pair(std::string("What are ") + subject + "?", "Oh!", "No, no."));
    }
    options_ = {.budgets = {0.05, 0.2},
                .random_directions = 2,
                .split = {.training = 8, .validation = 2, .test = 10},
                .continuations = 2,
                .continuation_tokens = 8,
                .masking_pairs = 5};
    std::string text;
    for (int i = 0; i < 20; ++i) text += "The ship left the harbour at noon, and nobody waved. ";
    texts_ = *SplitNeutralText(*model_->tokenizer, text, 32, 96);
  }
  absl::StatusOr<DataSetResult> Run(JobContext& job) {
    log_.clear();
    return RunStudy(options_, list_, data_, model_, texts_, methods_, job,
                    [this](std::string_view line) { log_.emplace_back(line); });
  }
  StudyResult Whole(DataSetResult data) const {
    return {.model = "tiny", .seed = 1, .budgets = options_.budgets, .random_directions = 2, .data_sets = {data}};
  }

  const std::shared_ptr<const LoadedModel> model_ = MakeTinyLoadedModel();
  MethodRegistry methods_;
  DataSet data_;
  StudyOptions options_;
  NeutralTexts texts_;
  std::vector<std::string> log_;
  ArmList list_ = *ParseArms(R"({
    "groups": [{"id": "methods", "title": "Methods"}, {"id": "k", "title": "Tokens", "x_title": "k"}],
    "masking": [{"name": "occlusion", "config": {"attribution": "ATTRIBUTION_KIND_OCCLUSION"}}],
    "arms": [
      {"name": "one", "method": "grains", "config": {"k": 1}, "groups": ["methods", "k"], "depths": [0.5], "x": 1,
       "curve": true},
      {"name": "three", "method": "grains", "config": {"k": 3}, "groups": ["methods", "k"], "depths": [0.5], "x": 3},
      {"name": "gradient", "method": "margin_gradient", "groups": ["methods"], "depths": [0.5]}]})");
};

TEST_F(StudyTest, ComparesArmsAtEqualCost) {
  MemoryJob job;
  const absl::StatusOr<DataSetResult> result = Run(job);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->test_pairs, 10);
  ASSERT_EQ(result->arms.size(), 3u);
  for (const ArmResult& arm : result->arms) {
    EXPECT_EQ(arm.error, "");
    EXPECT_EQ(arm.layers, (std::vector<int64_t>{2}));
    ASSERT_EQ(arm.budgets.size(), 2u);
    for (const AtBudget& at : arm.budgets) {
      EXPECT_TRUE(at.reached);
      EXPECT_NEAR(at.kl_set / at.budget, 1, 0.031);
      EXPECT_GT(at.kl, 0);
      EXPECT_EQ(at.gain.count, 10);
      EXPECT_EQ(at.ce_change.count, static_cast<int64_t>(texts_.measuring.size()));
      EXPECT_NEAR(at.against_random.mean, at.gain.mean - at.random_gain.mean, 1e-9);
      EXPECT_GE(at.random_gain_max, at.random_gain.mean);
      EXPECT_NEAR(at.efficiency, at.gain.mean / at.kl, 1e-9);
    }
    EXPECT_GT(arm.budgets[1].strength, arm.budgets[0].strength);
  }
  const ArmResult& gradient = result->arms[2];
  EXPECT_GT(gradient.cosine, 0.95);  // of the training pairs, with that of all pairs to fit on
  EXPECT_GT(gradient.budgets[0].gain.mean, gradient.budgets[0].random_gain.mean);
  // One curve, through the origin, its own strength in it.
  EXPECT_EQ(result->arms[1].curve.size(), 0u);
  ASSERT_EQ(result->arms[0].curve.size(), 8u);
  EXPECT_EQ(result->arms[0].curve[2].strength, 0);
  EXPECT_EQ(result->arms[0].curve[2].gain.mean, 0);
  EXPECT_NEAR(result->arms[0].curve[5].gain.mean, result->arms[0].budgets[0].gain.mean, 1e-5);
  ASSERT_EQ(result->masking.size(), 1u);
  EXPECT_GT(result->masking[0].pairs, 2);
  EXPECT_LT(result->masking[0].positive.mean, result->masking[0].negative.mean);
  EXPECT_EQ(log_.size(), 4u);
}

TEST_F(StudyTest, AnInterruptedStudyGoesOnAndGivesTheSameTable) {
  MemoryJob whole;
  const absl::StatusOr<DataSetResult> expected = Run(whole);
  ASSERT_TRUE(expected.ok()) << expected.status();

  MemoryJob job;
  job.stop_with = absl::UnavailableError("interrupted");
  for (int64_t share = 1; share <= 3; ++share) {  // interrupted three times
    job.stop_at = job.checkpoints + whole.checkpoints / 3;
    EXPECT_TRUE(absl::IsUnavailable(Run(job).status()));
  }
  job.stop_at = 0;
  const int64_t before = job.checkpoints;
  const absl::StatusOr<DataSetResult> resumed = Run(job);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_LT(job.checkpoints - before, whole.checkpoints) << "what was finished is not done again";
  EXPECT_EQ(StudyTable(Whole(*resumed)), StudyTable(Whole(*expected)));

  const int64_t saves = job.saves;
  ASSERT_TRUE(Run(job).ok());
  EXPECT_EQ(job.saves, saves) << "nothing is left to do";
}

TEST_F(StudyTest, OtherSeedsGiveOtherControls) {
  MemoryJob job;
  list_.arms.resize(1);
  list_.masking.clear();
  const double first = Run(job)->arms[0].budgets[0].random_gain.mean;
  options_.seed = 2;
  EXPECT_NE(Run(job)->arms[0].budgets[0].random_gain.mean, first);
}

TEST_F(StudyTest, AnArmThatCannotBeFittedSaysWhyAndTheOthersGoOn) {
  MemoryJob job;
  list_.arms.resize(2);
  list_.arms[0].config["fit"] = {{"max_pair_tokens", 8}};  // no pair is that short
  list_.masking.clear();
  const absl::StatusOr<DataSetResult> result = Run(job);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NE(result->arms[0].error, "");
  EXPECT_EQ(result->arms[1].error, "");
  EXPECT_NE(StudyTable(Whole(*result)).find("| one | no vector: "), std::string::npos);
}

TEST_F(StudyTest, TheReportHasATableAndPictures) {
  MemoryJob job;
  const absl::StatusOr<DataSetResult> data = Run(job);
  ASSERT_TRUE(data.ok()) << data.status();
  StudyResult result = Whole(*data);
  const std::string table = StudyTable(result);
  for (const char* part : {"## Gain at KL 0.05", "## words", "### At KL 0.2", "| gradient | 2 |", "### Masking"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part;
  }
  const auto names = [&] {
    std::set<std::string> found;
    for (const auto& [name, picture] : StudyPictures(result, list_)) {
      found.insert(name);
      const absl::StatusOr<std::string> png = RenderPng(picture);
      EXPECT_TRUE(png.ok()) << name << ": " << png.status();
      EXPECT_LT(png->size(), 100'000u) << name;
    }
    return found;
  };
  EXPECT_EQ(names(),
            (std::set<std::string>{"words-methods.png", "words-k.png", "words-curves.png", "words-masking.png"}));
  result.data_sets.push_back(result.data_sets[0]);
  EXPECT_EQ(names().count("overview.png"), 1u);
  // What is written can be read again.
  const auto read = nlohmann::json::parse(nlohmann::json(result).dump()).get<StudyResult>();
  EXPECT_EQ(StudyTable(read), StudyTable(result));
}

TEST_F(StudyTest, NeutralTextsShareNoChunk) {
  EXPECT_EQ(texts_.setting.size(), 3u);
  EXPECT_EQ(texts_.measuring.size(), 3u);
  EXPECT_FALSE(SplitNeutralText(*model_->tokenizer, "Too short.", 32, 96).ok());
}

TEST(DiskJobTest, KeepsPartialsAndStopsWhenInterrupted) {
  const std::string folder = ::testing::TempDir() + "/disk_job";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  std::atomic<bool> interrupted{false};
  {
    DiskJob job(folder, interrupted);
    EXPECT_FALSE(job.LoadPartial("a/b")->has_value());
    ASSERT_TRUE(job.SavePartial("a/b", std::string("\0x", 2)).ok());
    ASSERT_TRUE(job.SavePartial("a/b", std::string("\0y", 2)).ok());
    EXPECT_TRUE(job.Checkpoint().ok());
  }
  DiskJob job(folder, interrupted);
  EXPECT_EQ(**job.LoadPartial("a/b"), std::string("\0y", 2));
  interrupted = true;
  EXPECT_TRUE(absl::IsUnavailable(job.Checkpoint()));
  DiskJob nowhere(folder + "/none", interrupted);
  EXPECT_FALSE(nowhere.SavePartial("a", "b").ok());
}

}  // namespace
}  // namespace trimtab
