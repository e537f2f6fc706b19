#include "server/rpc/pairs_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "server/rpc/proto_time.h"
#include "tests/server/registry/registry_fixture.h"
#include "tests/server/rpc/fake_model.h"

namespace trimtab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

PreferencePair Pair(const std::string& prompt, const std::string& preferred, const std::string& dispreferred) {
  return {.prompt = {{.role = "user", .text = prompt}}, .preferred = preferred, .dispreferred = dispreferred};
}

// Enough good pairs that nothing is found; tokens are bytes.
PairSet Good() {
  PairSet set;
  for (int i = 0; i < 24; ++i) set.pairs.push_back(Pair("question " + std::to_string(i), "yes", "no!"));
  return set;
}

v1::PairsReport ReportOn(const PairSet& set, int64_t max_pair_tokens = 1024) {
  FakeModel model;
  return ReportPairs(set, model, max_pair_tokens);
}

const v1::PairsFinding& Only(const v1::PairsReport& report) {
  EXPECT_EQ(report.findings_size(), 1) << report.DebugString();
  static const v1::PairsFinding none;
  return report.findings().empty() ? none : report.findings(0);
}

TEST(PairsReportTest, GoodPairsAreCounted) {
  const v1::PairsReport report = ReportOn(Good());
  EXPECT_EQ(report.findings_size(), 0) << report.DebugString();
  EXPECT_EQ(report.pair_count(), 24);
  EXPECT_EQ(report.usable_pair_count(), 24);
  EXPECT_EQ(report.held_out_count(), 0);
  // "user: question 10\n", "yes" and "no!".
  EXPECT_EQ(report.longest_pair_tokens(), 18 + 3 + 3);
  EXPECT_EQ(report.token_count(), 14 * 24 + 10 * 23);
}

TEST(PairsReportTest, RepetitionsAndContradictionsAreNamed) {
  PairSet set = Good();
  for (int i = 0; i < 12; ++i) set.pairs.push_back(set.pairs[1]);
  const v1::PairsReport repeated = ReportOn(set);
  EXPECT_EQ(Only(repeated).kind(), v1::PairsFinding::KIND_DUPLICATE);
  EXPECT_EQ(Only(repeated).count(), 12);
  EXPECT_THAT(Only(repeated).pair_indices(), ElementsAre(24, 25, 26, 27, 28, 29, 30, 31, 32, 33));
  EXPECT_EQ(repeated.usable_pair_count(), 36);
  set = Good();
  set.pairs.push_back(Pair("question 3", "no!", "yes"));
  EXPECT_EQ(Only(ReportOn(set)).kind(), v1::PairsFinding::KIND_CONTRADICTION);
  EXPECT_THAT(Only(ReportOn(set)).pair_indices(), ElementsAre(24));
}

TEST(PairsReportTest, PairsThatAreLeftOutAreNamed) {
  PairSet set = Good();
  set.pairs[4].prompt[0].text = " \n";
  const v1::PairsReport empty = ReportOn(set);
  EXPECT_EQ(Only(empty).kind(), v1::PairsFinding::KIND_EMPTY_PROMPT);
  EXPECT_THAT(Only(empty).pair_indices(), ElementsAre(4));
  EXPECT_EQ(empty.usable_pair_count(), 23);
  set = Good();
  set.pairs[2].dispreferred = set.pairs[2].preferred;
  EXPECT_EQ(Only(ReportOn(set)).kind(), v1::PairsFinding::KIND_EQUAL_ANSWERS);
  set = Good();
  set.pairs[0].preferred = std::string(100, 'y');
  const v1::PairsReport lengthy = ReportOn(set, 60);
  EXPECT_EQ(Only(lengthy).kind(), v1::PairsFinding::KIND_TOO_LONG);
  EXPECT_THAT(Only(lengthy).message(), HasSubstr("more than 60 tokens"));
  EXPECT_EQ(lengthy.usable_pair_count(), 23);
  // The model's context is a limit too.
  set.pairs[0].preferred = std::string(5000, 'y');
  EXPECT_THAT(Only(ReportOn(set, 60000)).message(), HasSubstr("more than 4096 tokens"));
}

TEST(PairsReportTest, LengthsThatGiveTheAnswerAwayAreFound) {
  PairSet set = Good();
  for (PreferencePair& pair : set.pairs) pair.preferred = "a much longer answer";
  EXPECT_EQ(Only(ReportOn(set)).kind(), v1::PairsFinding::KIND_UNBALANCED_LENGTH);
  EXPECT_THAT(Only(ReportOn(set)).message(), HasSubstr("the preferred answers are longer in 100 %"));
  for (size_t i = 0; i < 8; ++i) std::swap(set.pairs[i].preferred, set.pairs[i].dispreferred);
  EXPECT_EQ(ReportOn(set).findings_size(), 0);
  // A likelihood objective has nothing to compare.
  for (PreferencePair& pair : set.pairs) pair.dispreferred.clear();
  EXPECT_EQ(ReportOn(set).findings_size(), 0);
}

TEST(PairsReportTest, FewPairsAreFound) {
  PairSet set = Good();
  set.pairs.resize(10);
  EXPECT_EQ(Only(ReportOn(set)).kind(), v1::PairsFinding::KIND_FEW_PAIRS);
  set.pairs.resize(3);
  EXPECT_EQ(Only(ReportOn(set)).kind(), v1::PairsFinding::KIND_TOO_FEW_PAIRS);
}

TEST(PairsReportTest, HeldOutPairsAreLookedAtToo) {
  PairSet set = Good();
  set.held_out = {set.pairs[5], Pair("another", "yes", "no!"), Pair("", "yes", "no!")};
  const v1::PairsReport report = ReportOn(set);
  EXPECT_EQ(report.held_out_count(), 3);
  EXPECT_EQ(report.usable_held_out_count(), 2);
  ASSERT_EQ(report.findings_size(), 2) << report.DebugString();
  EXPECT_EQ(report.findings(0).kind(), v1::PairsFinding::KIND_EMPTY_PROMPT);
  EXPECT_TRUE(report.findings(0).held_out());
  EXPECT_THAT(report.findings(0).pair_indices(), ElementsAre(2));
  EXPECT_EQ(report.findings(1).kind(), v1::PairsFinding::KIND_HELD_OUT_OVERLAP);
  EXPECT_THAT(report.findings(1).pair_indices(), ElementsAre(0));
}

class EstimateTest : public SqliteRegistryTest {
 protected:
  EstimateTest() {
    model_.set_name(std::string(kTestModel));
    model_.set_fingerprint("fingerprint");
    model_.set_parameter_count(1'000'000'000);
  }
  // A fit of so many rows in so many seconds.
  void Fitted(std::string_view id, double rows, int seconds, const std::string& fingerprint = "fingerprint") {
    const ObjectiveRecord objective = Create(id);
    v1::RevisionSummary summary;
    summary.set_fit_rows(rows);
    *summary.mutable_fit_time() = ToProto(absl::Seconds(seconds));
    RevisionRecord revision = MakeRevision(id, "digest");
    revision.model_fingerprint = fingerprint;
    revision.summary = summary.SerializeAsString();
    ASSERT_TRUE(registry_->CommitFit(objective.uid, revision, {}, MakeFitJob(id, id)).ok());
  }
  v1::PairsReport Estimate(double rows) {
    v1::PairsReport report;
    EXPECT_TRUE(EstimateFitTime(*registry_, model_, rows, report).ok());
    return report;
  }

  v1::Model model_;
};

TEST_F(EstimateTest, EarlierFitsSayHowFastTheModelIs) {
  Fitted("other-weights", 1000, 1, "another");
  Fitted("unknown", 0, 1000);
  v1::PairsReport report = Estimate(2000);
  EXPECT_EQ(report.estimate_source(), "model's size");
  EXPECT_GT(report.estimated_fit_time().seconds(), 0);
  Fitted("slow", 100, 100);
  Fitted("fast", 100, 1);
  Fitted("usual", 100, 10);
  report = Estimate(2000);
  EXPECT_EQ(report.estimate_source(), "earlier fits");
  EXPECT_EQ(report.estimated_fit_time().seconds(), 200);
}

}  // namespace
}  // namespace trimtab
