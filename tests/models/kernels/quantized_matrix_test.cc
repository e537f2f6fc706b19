#include "models/kernels/quantized_matrix.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "models/kernels/packed_matrix.h"
#include "models/kernels/thread_team.h"
#include "models/kernels/unpacked_product.h"

namespace trimtab {
namespace {

GroupedWeight RandomWeight(int bits, int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  GroupedWeight weight{.bits = bits, .rows = rows, .columns = columns};
  for (int64_t i = 0; i < rows * columns; ++i)
    weight.quants.push_back(static_cast<uint8_t>(random() & ((1u << bits) - 1)));
  for (int64_t i = 0; i < rows * columns / kWeightGroup; ++i) {
    // Halves, so that packing loses nothing.
    weight.scales.push_back(static_cast<float>(c10::Half(0.01f * uniform(random))));
    weight.minimums.push_back(static_cast<float>(c10::Half(0.1f * uniform(random))));
  }
  return weight;
}

at::Tensor Plain(const GroupedWeight& weight) {  // [rows, columns] double
  at::Tensor plain = at::empty({weight.rows, weight.columns}, at::kDouble);
  double* out = plain.mutable_data_ptr<double>();
  for (int64_t i = 0; i < plain.numel(); ++i) {
    const auto group = static_cast<size_t>(i / kWeightGroup);
    out[i] = static_cast<double>(weight.scales[group]) * weight.quants[static_cast<size_t>(i)] + weight.minimums[group];
  }
  return plain;
}

// Rows of x in the form of the products, with their memory.
struct Quantized {
  explicit Quantized(const at::Tensor& x)
      : values(static_cast<size_t>(x.numel())),
        scales(values.size() / kWeightGroup),
        sums(scales.size()),
        view{values.data(), scales.data(), sums.data(), x.size(1)} {
    QuantizeGroups(x.const_data_ptr<float>(), x.numel() / kWeightGroup, values.data(), scales.data(), sums.data());
  }
  at::Tensor Plain() const {  // double
    at::Tensor plain = at::empty({static_cast<int64_t>(values.size()) / view.columns, view.columns}, at::kDouble);
    double* out = plain.mutable_data_ptr<double>();
    for (size_t i = 0; i < values.size(); ++i) out[i] = static_cast<double>(scales[i / kWeightGroup]) * values[i];
    return plain;
  }
  std::vector<int8_t> values;
  std::vector<float> scales, sums;
  QuantizedRows view;
};

at::Tensor RandomRows(int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  at::Tensor x = at::empty({rows, columns}, at::kFloat);
  for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data_ptr<float>()[i] = normal(random);
  return x;
}

TEST(QuantizeGroupsTest, RoundsToTheNearestOf127Steps) {
  std::vector<float> x(64, 0.0f);
  x[0] = 127, x[1] = -126.6f, x[2] = 2.5f, x[3] = 3.5f, x[31] = 1;  // second group: zeros
  std::vector<int8_t> values(64);
  std::vector<float> scales(2), sums(2);
  QuantizeGroups(x.data(), 2, values.data(), scales.data(), sums.data());
  EXPECT_EQ(scales, (std::vector<float>{1, 0}));
  EXPECT_EQ(std::vector<int>(values.begin(), values.begin() + 4), (std::vector<int>{127, -127, 2, 4}));
  EXPECT_EQ(values[31], 1);
  EXPECT_EQ(sums, (std::vector<float>{127 - 127 + 2 + 4 + 1, 0}));
}

class QuantizedMatrixTest : public testing::TestWithParam<int> {};

TEST_P(QuantizedMatrixTest, MultipliesAsTheNumbersSay) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{32, 32}, {96, 64}, {37, 96}, {576, 576}, {5, 1536}}) {
    const GroupedWeight weight = RandomWeight(GetParam(), rows, columns, 1);
    const QuantizedMatrix matrix(weight);
    for (int64_t count : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 67, 130}) {
      const Quantized x(RandomRows(count, columns, 2));
      std::vector<float> bias(static_cast<size_t>(rows));
      for (size_t i = 0; i < bias.size(); ++i) bias[i] = 0.5f * static_cast<float>(i);
      at::Tensor out = at::empty({count, rows}, at::kFloat);
      matrix.Multiply(x.view, count, bias.data(), out.mutable_data_ptr<float>());
      const at::Tensor expected = at::linear(x.Plain(), Plain(weight), at::tensor(bias).to(at::kDouble));
      EXPECT_LT((out.to(at::kDouble) - expected).abs().max().item<double>(), 2e-4 * std::sqrt(columns))
          << rows << " x " << columns << ", " << count << " rows";
    }
  }
}

TEST_P(QuantizedMatrixTest, FastAndReferenceKernelsAgreeBitForBit) {
  const QuantizedMatrix matrix(RandomWeight(GetParam(), 70, 192, 3));
  for (int64_t count : {1, 2, 3, 4, 5, 6, 7, 8, 13, 64}) {
    const Quantized x(RandomRows(count, 192, static_cast<uint32_t>(count)));
    for (int64_t strip = 0; strip < matrix.strips(); ++strip) {
      std::vector<float> fast(static_cast<size_t>(count * 40), -1), slow(fast);
      matrix.MultiplyStrip(strip, x.view, 0, count, fast.data(), 40);
      MultiplyStripReference(matrix, strip, x.view, 0, count, slow.data(), 40);
      EXPECT_EQ(std::memcmp(fast.data(), slow.data(), fast.size() * sizeof(float)), 0) << count << " rows";
    }
  }
}

TEST_P(QuantizedMatrixTest, ARowDoesNotDependOnItsCompanyOrOnThreads) {
  const QuantizedMatrix matrix(RandomWeight(GetParam(), 100, 576, 4));
  const at::Tensor rows = RandomRows(75, 576, 5);
  const Quantized all(rows);
  at::Tensor together = at::empty({75, 100}, at::kFloat);
  matrix.Multiply(all.view, 75, nullptr, together.mutable_data_ptr<float>());
  ThreadTeam team(3);
  const ScopedTeam scope(&team);
  for (int64_t begin = 0; begin < 75;) {
    const int64_t count = std::min<int64_t>(75 - begin, begin % 9 + 1);
    const Quantized some(rows.narrow(0, begin, count).contiguous());
    at::Tensor alone = at::empty({count, 100}, at::kFloat);
    matrix.Multiply(some.view, count, nullptr, alone.mutable_data_ptr<float>());
    EXPECT_TRUE(alone.equal(together.narrow(0, begin, count))) << "rows from " << begin;
    begin += count;
  }
}

TEST_P(QuantizedMatrixTest, GivesItsRowsBack) {
  const GroupedWeight weight = RandomWeight(GetParam(), 50, 64, 6);
  const QuantizedMatrix matrix(weight);
  const std::vector<int64_t> numbers = {49, 0, 17, 17};
  const at::Tensor rows = matrix.Rows(numbers.data(), 4);
  const at::Tensor expected = Plain(weight).index_select(0, at::tensor(numbers)).to(at::kFloat);
  EXPECT_LT((rows - expected).abs().max().item<float>(), 1e-6f);
  const at::Tensor all = matrix.Unpack(at::kFloat);
  EXPECT_TRUE(all.index_select(0, at::tensor(numbers)).equal(rows));
  EXPECT_TRUE(matrix.Unpack(at::kBFloat16).equal(all.to(at::kBFloat16)));
}

// 64 rows of a weight [N, K], zeros beyond N, in the order of PackedMatrix.
at::Tensor PackRows(const at::Tensor& weight, int64_t first) {
  const int64_t count = std::min<int64_t>(64, weight.size(0) - first);
  at::Tensor rows = at::zeros({64, weight.size(1)}, weight.options());
  rows.narrow(0, 0, count).copy_(weight.narrow(0, first, count));
  return weight.scalar_type() == at::kFloat ? rows.t().contiguous()
                                            : rows.view({64, -1, 2}).transpose(0, 1).contiguous();
}

TEST_P(QuantizedMatrixTest, UnpacksBlocksInTheOrderOfPackedMatrices) {
  for (const int64_t rows : {64, 100, 128, 20}) {
    const QuantizedMatrix matrix(RandomWeight(GetParam(), rows, 96, 7));
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      for (int64_t block = 0; block * 64 < rows; ++block) {
        const at::Tensor expected = PackRows(matrix.Unpack(type), 64 * block);
        at::Tensor actual = at::ones_like(expected);
        matrix.UnpackBlock(block, type, actual.mutable_data_ptr());
        EXPECT_TRUE(actual.equal(expected)) << rows << " rows, block " << block;
      }
    }
  }
}

// Jobs see in integers what they would see in the plain weight, and no row depends on its company.
TEST_P(QuantizedMatrixTest, PlainArithmeticIsThatOfThePlainMatrixBitForBit) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    if (!PackedMatrix::Supports(type)) continue;
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{32, 32}, {100, 64}, {576, 576}}) {
      const QuantizedMatrix matrix(RandomWeight(GetParam(), rows, columns, 8));
      const PackedMatrix plain(matrix.Unpack(type));
      const at::Tensor bias = RandomRows(1, rows, 9)[0];
      const at::Tensor all = RandomRows(130, columns, 10).to(type);
      at::Tensor together = at::empty({130, rows}, at::kFloat);
      plain.Multiply(all.const_data_ptr(), 130, bias.const_data_ptr<float>(), together.mutable_data_ptr<float>());
      for (const int64_t count : {1, 7, 64, 130}) {
        at::Tensor out = at::empty({count, rows}, at::kFloat);
        MultiplyUnpacked(matrix, type, all.const_data_ptr(), count, bias.const_data_ptr<float>(),
                         out.mutable_data_ptr<float>());
        EXPECT_TRUE(out.equal(together.narrow(0, 0, count))) << rows << " x " << columns << ", " << count << " rows";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Bits, QuantizedMatrixTest, testing::Values(4, 8));

}  // namespace
}  // namespace trimtab
