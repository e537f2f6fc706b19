#include "steering/runtime/steering_tap.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

constexpr int64_t kLayers = 3, kHidden = 37;  // not a multiple of any vector width

at::Tensor Activations(int64_t rows) {
  at::Tensor values = at::zeros({rows, kHidden});
  std::mt19937 generator(3);
  std::normal_distribution<float> normal(0, 5);
  for (int64_t i = 0; i < values.numel(); ++i) values.data_ptr<float>()[i] = normal(generator);
  return values;
}

SteeringRows Rows(int64_t count) {
  SteeringRows rows;
  rows.entries.resize(static_cast<size_t>(count * kMaxSelections));
  return rows;
}

class SteeringTapTest : public ::testing::Test {
 protected:
  SteeringTapTest() {
    for (uint32_t seed : {1u, 2u, 3u}) vectors_.push_back(RandomVector({1}, kHidden, seed));
    SteeringVectorSpec spec = RandomSpec({1}, kHidden, 4);
    spec.operation = Operation::kAdd;
    spec.strength_mode = StrengthMode::kAbsolute;
    spec.max_strength = 100;
    vectors_.push_back(*SteeringVector::Create(spec));
    for (const auto& vector : vectors_) slots_.push_back(*bank_.Acquire(vector));
  }
  static void Set(SteeringRows& rows, int64_t row, int place, int32_t slot, float strength) {
    rows.entries[static_cast<size_t>(row * kMaxSelections + place)] = {slot, strength};
  }
  at::Tensor Direction(int v) const {
    return at::from_blob(const_cast<float*>(vectors_[v]->spec().layers[0].direction.data()), {kHidden}).clone();
  }

  SteeringBank bank_{4, kLayers, kHidden};
  std::vector<std::shared_ptr<const SteeringVector>> vectors_;  // 0-2 relative, norm kept; 3 absolute, added
  std::vector<int32_t> slots_;
};

TEST_F(SteeringTapTest, WantsOnlyLayersThatSomeRowSteers) {
  SteeringRows rows = Rows(2);
  EXPECT_FALSE(SteeringTap(bank_, rows).Wants(Site::kBlockOutput, 1));
  Set(rows, 1, 0, slots_[0], 0);
  EXPECT_FALSE(SteeringTap(bank_, rows).Wants(Site::kBlockOutput, 1));
  Set(rows, 1, 0, slots_[0], 0.1f);
  SteeringTap tap(bank_, rows);
  EXPECT_TRUE(tap.Wants(Site::kBlockOutput, 1));
  EXPECT_FALSE(tap.Wants(Site::kBlockOutput, 0));
  EXPECT_FALSE(tap.Wants(Site::kMlpOutput, 1));
  EXPECT_FALSE(SteeringTap(bank_, SteeringRows()).Wants(Site::kBlockOutput, 1));
}

TEST_F(SteeringTapTest, MatchesTheFormulaAndKeepsTheNorm) {
  constexpr double tolerance = 1e-5;
  for (const bool by_row : {false, true}) {  // At, or the edit that inference fuses
    const at::Tensor hidden = Activations(5);
    const at::Tensor before = hidden.clone();
    SteeringRows rows = Rows(5);
    Set(rows, 2, 1, slots_[1], -0.3f);
    SteeringTap tap(bank_, rows);
    at::Tensor out;
    if (by_row) {
      out = hidden.clone();
      RowEdit* edit = tap.Rows(Site::kBlockOutput, 1);
      ASSERT_NE(edit, nullptr);
      for (int64_t row = 0; row < 5; ++row) edit->Edit(row, out.data_ptr<float>() + row * kHidden);
    } else {
      out = tap.At(Site::kBlockOutput, 1, hidden);
    }
    EXPECT_TRUE(at::equal(hidden, before)) << "the input was written to";
    const at::Tensor h = hidden[2].to(at::kDouble);
    at::Tensor expected = h + h.norm() * -0.3 * Direction(1).to(at::kDouble);
    expected = expected * (h.norm() / expected.norm());
    EXPECT_LT((out[2].to(at::kDouble) - expected).norm().item<double>(), tolerance * h.norm().item<double>());
    EXPECT_NEAR(out[2].to(at::kDouble).norm().item<double>() / h.norm().item<double>(), 1, tolerance);
    for (int64_t row : {0, 1, 3, 4}) EXPECT_TRUE(at::equal(out[row], hidden[row]));
    EXPECT_NEAR(tap.row_dose()[2], 0.3f, 1e-5);
    EXPECT_EQ(tap.row_dose()[1], 0);
  }
}

TEST_F(SteeringTapTest, StrengthZeroIsBitIdentical) {
  const at::Tensor hidden = Activations(3);
  SteeringRows rows = Rows(3);
  Set(rows, 0, 0, slots_[0], 0);
  Set(rows, 1, 0, slots_[0], 0.1f);
  SteeringTap tap(bank_, rows);
  const at::Tensor out = tap.At(Site::kBlockOutput, 1, hidden);
  EXPECT_TRUE(at::equal(out[0], hidden[0]));
  EXPECT_FALSE(at::equal(out[1], hidden[1]));
  EXPECT_TRUE(at::equal(tap.At(Site::kBlockOutput, 2, hidden), hidden));
}

TEST_F(SteeringTapTest, SumsFirstThenRescalesOnce) {
  const at::Tensor hidden = Activations(1);
  SteeringRows rows = Rows(1);
  Set(rows, 0, 0, slots_[0], 0.4f);
  Set(rows, 0, 2, slots_[1], -0.2f);
  Set(rows, 0, 3, slots_[2], 0.3f);
  SteeringTap tap(bank_, rows);
  const at::Tensor out = tap.At(Site::kBlockOutput, 1, hidden)[0];
  const at::Tensor h = hidden[0].to(at::kDouble);
  const at::Tensor u = h.norm() * (0.4 * Direction(0) - 0.2 * Direction(1) + 0.3 * Direction(2)).to(at::kDouble);
  const at::Tensor expected = (h + u) * (h.norm() / (h + u).norm());
  EXPECT_LT((out.to(at::kDouble) - expected).norm().item<double>(), 1e-5 * h.norm().item<double>());
  EXPECT_NEAR(tap.row_dose()[0], (u.norm() / h.norm()).item<double>(), 1e-5);
}

TEST_F(SteeringTapTest, AnEditThatCancelsTheRowIsStillExact) {
  for (const bool two : {false, true}) {
    const at::Tensor noise = Activations(1)[0];
    const at::Tensor hidden = (-5 * Direction(0) + noise * (0.01 / noise.norm().item<float>())).unsqueeze(0);
    SteeringRows rows = Rows(1);
    Set(rows, 0, 0, slots_[0], two ? 0.75f : 1);
    if (two) Set(rows, 0, 1, slots_[0], 0.25f);
    SteeringTap tap(bank_, rows);
    const at::Tensor out = tap.At(Site::kBlockOutput, 1, hidden)[0];
    const at::Tensor h = hidden[0].to(at::kDouble);
    const at::Tensor edited = h + h.norm() * Direction(0).to(at::kDouble);
    ASSERT_LT(edited.norm().item<double>(), 0.02);
    const at::Tensor expected = edited * (h.norm() / edited.norm());
    EXPECT_LT((out.to(at::kDouble) - expected).norm().item<double>(), 2e-3 * h.norm().item<double>());
    EXPECT_NEAR(out.norm().item<float>(), h.norm().item<double>(), 2e-3);
  }
}

TEST_F(SteeringTapTest, ATapThatBeginsAgainForgetsThePassBefore) {
  const at::Tensor hidden = Activations(2);
  SteeringRows first = Rows(3), second = Rows(2);
  for (int64_t row = 0; row < 3; ++row) Set(first, row, 0, slots_[row], 0.3f);
  Set(second, 1, 2, slots_[1], -0.2f);
  SteeringTap again(bank_), once(bank_, second);
  again.Begin(first);
  again.At(Site::kBlockOutput, 1, Activations(3));
  again.Begin(second);
  EXPECT_TRUE(at::equal(again.At(Site::kBlockOutput, 1, hidden), once.At(Site::kBlockOutput, 1, hidden)));
  EXPECT_EQ(again.row_dose(), once.row_dose());
  EXPECT_EQ(again.row_nonfinite(), once.row_nonfinite());
}

TEST_F(SteeringTapTest, AbsoluteAddLeavesTheNormToTheEdit) {
  const at::Tensor hidden = Activations(1);
  SteeringRows rows = Rows(1);
  Set(rows, 0, 0, slots_[3], 7);
  SteeringTap tap(bank_, rows);
  const at::Tensor out = tap.At(Site::kBlockOutput, 1, hidden)[0];
  EXPECT_LT((out - (hidden[0] + 7 * Direction(3))).norm().item<float>(), 1e-4);
  // One vector that keeps the norm is enough to restore it.
  Set(rows, 0, 1, slots_[0], 0.1f);
  SteeringTap mixed(bank_, rows);
  EXPECT_NEAR(mixed.At(Site::kBlockOutput, 1, hidden)[0].norm().item<float>(), hidden[0].norm().item<float>(), 1e-3);
}

TEST_F(SteeringTapTest, AMixedBatchGivesEachRowWhatItGetsAlone) {
  constexpr int64_t kRows = 300;  // more than one thread's share
  const at::Tensor hidden = Activations(kRows);
  SteeringRows rows = Rows(kRows);
  std::mt19937 random(9);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int place = 0; place < kMaxSelections; ++place) {
      if (random() % 3 != 0) continue;
      Set(rows, row, place, slots_[random() % slots_.size()], static_cast<float>(random() % 5) * 0.1f - 0.2f);
    }
  }
  SteeringTap together(bank_, rows);
  const at::Tensor out = together.At(Site::kBlockOutput, 1, hidden);
  for (int64_t row = 0; row < kRows; ++row) {
    SteeringRows one = Rows(1);
    std::copy_n(rows.entries.begin() + row * kMaxSelections, kMaxSelections, one.entries.begin());
    SteeringTap alone(bank_, one);
    ASSERT_TRUE(at::equal(alone.At(Site::kBlockOutput, 1, hidden.narrow(0, row, 1))[0], out[row])) << row;
    ASSERT_EQ(alone.row_dose()[0], together.row_dose()[row]);
  }
}

TEST_F(SteeringTapTest, EachSiteGetsItsOwnVectorsOnly) {
  SteeringBank bank(3, kLayers, kHidden);
  std::vector<int32_t> slots;
  for (const Site site : {Site::kBlockOutput, Site::kAttentionOutput, Site::kMlpOutput}) {
    SteeringVectorSpec spec = RandomSpec({1}, kHidden, 10 + static_cast<uint32_t>(site));
    spec.site = site;
    slots.push_back(*bank.Acquire(*SteeringVector::Create(spec)));
  }
  const at::Tensor hidden = Activations(3);
  SteeringRows rows = Rows(3);
  Set(rows, 0, 0, slots[2], 0.4f);  // the MLP alone
  for (int place : {0, 1, 2})
    Set(rows, 2, place, slots[static_cast<size_t>(place)], 0.1f * static_cast<float>(place + 1));
  SteeringTap tap(bank, rows);
  for (const Site site : {Site::kBlockOutput, Site::kAttentionOutput, Site::kMlpOutput}) {
    EXPECT_TRUE(tap.Wants(site, 1));
    EXPECT_FALSE(tap.Wants(site, 0));
    const at::Tensor out = tap.At(site, 1, hidden);
    EXPECT_EQ(at::equal(out[0], hidden[0]), site != Site::kMlpOutput);
    EXPECT_TRUE(at::equal(out[1], hidden[1]));
    // As if its vector were alone.
    const auto place = static_cast<size_t>(site) - 1;
    SteeringRows one = Rows(3);
    Set(one, 2, 0, slots[place], 0.1f * static_cast<float>(place + 1));
    SteeringTap alone(bank, one);
    EXPECT_TRUE(at::equal(out[2], alone.At(site, 1, hidden)[2]));
    at::Tensor by_row = hidden.clone();
    tap.Rows(site, 1)->Edit(2, by_row.data_ptr<float>() + 2 * kHidden);
    EXPECT_TRUE(at::equal(out[2], by_row[2]));
  }
  EXPECT_FALSE(tap.Wants(Site::kAttentionHeads, 1));
  EXPECT_NEAR(tap.row_dose()[0], 0.4f, 1e-5);
  EXPECT_NEAR(tap.row_dose()[2], 2 * (0.1f + 0.2f + 0.3f), 1e-5) << "the sum over the sites, each edited twice here";
}

// Edits at two sites of a block are pending at the same time when inference fuses them.
TEST_F(SteeringTapTest, EditsOfTwoSitesDoNotDisturbEachOther) {
  SteeringBank bank(2, kLayers, kHidden);
  SteeringVectorSpec spec = RandomSpec({1}, kHidden, 21);
  const int32_t block = *bank.Acquire(*SteeringVector::Create(spec));
  spec.site = Site::kMlpOutput;
  spec.layers = RandomSpec({0, 1}, kHidden, 22).layers;
  const int32_t mlp = *bank.Acquire(*SteeringVector::Create(spec));
  SteeringRows rows = Rows(1);
  Set(rows, 0, 0, block, 0.2f);
  Set(rows, 0, 1, mlp, 0.3f);
  SteeringTap tap(bank, rows);
  const at::Tensor hidden = Activations(1);
  RowEdit* first = tap.Rows(Site::kMlpOutput, 1);
  RowEdit* second = tap.Rows(Site::kBlockOutput, 1);
  at::Tensor added = hidden.clone(), stream = hidden.clone();
  first->Edit(0, added.data_ptr<float>());
  second->Edit(0, stream.data_ptr<float>());
  EXPECT_TRUE(at::equal(added, tap.At(Site::kMlpOutput, 1, hidden)));
  EXPECT_TRUE(at::equal(stream, tap.At(Site::kBlockOutput, 1, hidden)));
}

// ICV's rule: m' = |m| n(n(m) + strength (1 + max(0, cos(m, -v))) n(v)).
TEST_F(SteeringTapTest, AnOpposingVectorIsStrongerWhereTheRowPointsAway) {
  SteeringBank bank(2, kLayers, kHidden);
  std::vector<at::Tensor> directions;
  std::vector<int32_t> slots;
  for (uint32_t seed : {31u, 32u}) {
    SteeringVectorSpec spec = RandomSpec({1}, kHidden, seed);
    spec.operation = Operation::kAddOpposingPreserveNorm;
    const auto vector = *SteeringVector::Create(spec);
    directions.push_back(at::from_blob(spec.layers[0].direction.data(), {kHidden}).to(at::kDouble));
    slots.push_back(*bank.Acquire(vector));
  }
  const at::Tensor noise = Activations(1)[0];
  const at::Tensor v = directions[0].to(at::kFloat);
  const at::Tensor hidden = at::stack({noise - 20 * v, noise + 20 * v, noise});
  for (const bool two : {false, true}) {
    for (const float strength : {0.3f, -0.3f}) {
      SteeringRows rows = Rows(3);
      for (int64_t row = 0; row < 3; ++row) {
        Set(rows, row, 0, slots[0], strength);
        if (two) Set(rows, row, 1, slots[1], 0.2f);
      }
      SteeringTap tap(bank, rows);
      const at::Tensor out = tap.At(Site::kBlockOutput, 1, hidden);
      for (int64_t row = 0; row < 3; ++row) {
        const at::Tensor h = hidden[row].to(at::kDouble);
        const at::Tensor unit = h / h.norm();
        const auto part = [&](double lambda, const at::Tensor& direction) {
          const double cosine = (unit * direction).sum().item<double>();
          return lambda * (1 + std::max(0.0, lambda > 0 ? -cosine : cosine)) * direction;
        };
        at::Tensor sum = unit + part(strength, directions[0]);
        if (two) sum = sum + part(0.2, directions[1]);
        EXPECT_LT((out[row].to(at::kDouble) - h.norm() * sum / sum.norm()).norm().item<double>(),
                  1e-5 * h.norm().item<double>())
            << row << " " << strength << " " << two;
      }
    }
  }
}

TEST_F(SteeringTapTest, MarksRowsThatAreNotFinite) {
  at::Tensor hidden = Activations(4);
  hidden[1][3].fill_(std::numeric_limits<float>::quiet_NaN());
  hidden[2][3].fill_(std::numeric_limits<float>::infinity());
  SteeringRows rows = Rows(4);
  for (int64_t row : {0, 1, 2}) Set(rows, row, 0, slots_[0], 0.1f);
  SteeringTap tap(bank_, rows);
  tap.At(Site::kBlockOutput, 1, hidden);
  EXPECT_EQ(tap.row_nonfinite(), (std::vector<uint8_t>{0, 1, 1, 0}));
}

TEST_F(SteeringTapTest, AZeroRowStaysZero) {
  SteeringRows rows = Rows(1);
  Set(rows, 0, 0, slots_[0], 0.5f);
  SteeringTap tap(bank_, rows);
  const at::Tensor out = tap.At(Site::kBlockOutput, 1, at::zeros({1, kHidden}));
  EXPECT_EQ(out.abs().sum().item<float>(), 0);
  EXPECT_FALSE(tap.row_nonfinite()[0]);
}

}  // namespace
}  // namespace trimtab
