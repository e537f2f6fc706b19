#include "models/layers/linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "models/kernels/ops.h"

namespace trimtab {
namespace {

// Rows of x in the form that a layer takes.
RowBuffer Rows(RowForm form, const at::Tensor& x) {
  RowBuffer rows;
  rows.Reset(form, x.size(0), x.size(1));
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  for (int64_t row = 0; row < x.size(0); ++row) {
    rows.Set(row, 0, x.size(1), wide.const_data_ptr<float>() + row * x.size(1));
  }
  return rows;
}

at::Tensor Multiply(const Linear& linear, const at::Tensor& x) {
  at::Tensor out = at::empty({x.size(0), linear.rows()}, at::kFloat);
  const RowBuffer rows = Rows(linear.input(), x);
  linear.Multiply(rows.view(), x.size(0), out.mutable_data_ptr<float>());
  return out;
}

GroupedWeight RandomWeight(int bits, int64_t rows, int64_t columns) {
  GroupedWeight weight{.bits = bits, .rows = rows, .columns = columns};
  const at::Tensor quants = at::randint(1 << bits, {rows * columns}, at::kInt);
  for (int64_t i = 0; i < quants.numel(); ++i) {
    weight.quants.push_back(static_cast<uint8_t>(quants.const_data_ptr<int32_t>()[i]));
  }
  weight.scales.assign(static_cast<size_t>(rows * columns / kWeightGroup), bits == 4 ? 0.125f : 1.0f / 128);
  weight.minimums.assign(weight.scales.size(), -1.0f);
  return weight;
}

TEST(LinearTest, InferenceAndGradientsSeeTheSameWeight) {
  at::manual_seed(1);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t inner : {33, 64}) {  // an odd inner dimension cannot be packed in bfloat16
      const at::Tensor weight = at::randn({40, inner}).to(type), bias = at::randn({40}).to(type);
      const at::Tensor x = at::randn({7, inner}).to(type);
      const Linear linear(weight, bias);
      const at::Tensor expected = at::linear(x, weight, bias);
      EXPECT_EQ(linear(x).scalar_type(), type);
      const double tolerance = type == at::kFloat ? 1e-5 : 2e-2;
      EXPECT_TRUE(at::allclose(linear(x).to(at::kFloat), expected.to(at::kFloat), tolerance, tolerance));
      EXPECT_TRUE(at::allclose(Multiply(linear, x), expected.to(at::kFloat), 1e-2, 1e-1));
      EXPECT_TRUE(at::equal(linear.weight(), weight));
      const at::Tensor numbers = at::tensor(std::vector<int64_t>{39, 0});
      EXPECT_TRUE(at::equal(linear.Rows(numbers), weight.index_select(0, numbers).to(at::kFloat)));
    }
  }
}

TEST(LinearTest, IntegersAreCloseToTheirPlainWeight) {
  at::manual_seed(2);
  for (const int bits : {4, 8}) {
    const Linear linear(RandomWeight(bits, 70, 96), at::randn({70}), at::kFloat);
    const at::Tensor x = at::randn({9, 96});
    const at::Tensor expected = linear(x), actual = Multiply(linear, x);
    // Rows are rounded to 8 bits per group.
    EXPECT_LT(((actual - expected).norm() / expected.norm()).item<double>(), 0.01);
    EXPECT_EQ(linear.input(), RowForm::kGroups8);
    EXPECT_EQ(linear.weight().scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(linear.weight(), linear.Rows(at::arange(70))));
  }
}

TEST(LinearTest, PlainArithmeticWithIntegersIsWhatGradientsSee) {
  at::manual_seed(5);
  const Linear linear(RandomWeight(4, 70, 96), at::randn({70}), at::kFloat);
  const at::Tensor x = at::randn({9, 96});
  EXPECT_EQ(linear.input(Arithmetic::kPlain), RowForm::kFloat32);
  at::Tensor out = at::empty({9, 70}, at::kFloat);
  const RowBuffer rows = Rows(linear.input(Arithmetic::kPlain), x);
  linear.Multiply(rows.view(), 9, out.mutable_data_ptr<float>());
  EXPECT_TRUE(at::allclose(out, linear(x), 1e-5, 1e-5));

  const GroupedWeight gate = RandomWeight(4, 96, 64), up = RandomWeight(4, 96, 64);
  const GatedLinear gated(gate, up, at::kFloat);
  const at::Tensor y = at::randn({11, 64});
  RowBuffer result;
  result.Reset(RowForm::kFloat32, 11, 96);
  gated.Multiply(Rows(gated.input(Arithmetic::kPlain), y).view(), 11, Activation::kSilu, result);
  const at::Tensor actual = at::from_blob(const_cast<void*>(result.view().values), {11, 96}, at::kFloat);
  EXPECT_TRUE(at::allclose(actual, gated.Differentiable(y, Activation::kSilu), 1e-4, 1e-4));
}

TEST(LinearTest, GradientReachesTheInput) {
  const at::Tensor weight = at::randn({8, 6});
  const at::Tensor x = at::randn({2, 6}).requires_grad_(true);
  const at::Tensor sum = Linear(weight)(x).sum();
  EXPECT_TRUE(at::allclose(torch::autograd::grad({sum}, {x})[0], weight.sum(0).expand({2, 6}), 1e-5, 1e-5));
}

TEST(GatedLinearTest, MatchesItsParts) {
  at::manual_seed(3);
  for (const int64_t width : {32, 50, 192}) {  // not all a multiple of what is computed together
    for (const bool has_bias : {false, true}) {
      const at::Tensor gate = at::randn({width, 64}), up = at::randn({width, 64});
      const at::Tensor gate_bias = has_bias ? at::randn({width}) : at::Tensor();
      const at::Tensor up_bias = has_bias ? at::randn({width}) : at::Tensor();
      const GatedLinear gated(gate, up, gate_bias, up_bias);
      const Linear plain_gate(gate, gate_bias), plain_up(up, up_bias);
      for (const int64_t count : {1, 5, 130}) {
        const at::Tensor x = at::randn({count, 64});
        for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
          const at::Tensor expected = ref::GatedProduct(plain_gate(x), plain_up(x), activation);
          EXPECT_TRUE(at::allclose(gated.Differentiable(x, activation), expected, 1e-4, 1e-4));
          RowBuffer out;
          out.Reset(RowForm::kFloat32, count, width);
          gated.Multiply(Rows(gated.input(), x).view(), count, activation, out);
          const at::Tensor actual = at::from_blob(const_cast<void*>(out.view().values), {count, width}, at::kFloat);
          EXPECT_TRUE(at::allclose(actual, expected, 1e-4, 1e-4)) << width << " " << count;
        }
      }
    }
  }
}

TEST(GatedLinearTest, IntegersInAndOut) {
  at::manual_seed(4);
  const GroupedWeight gate = RandomWeight(4, 96, 64), up = RandomWeight(4, 96, 64);
  const GatedLinear gated(gate, up, at::kFloat);
  const at::Tensor x = at::randn({11, 64});
  RowBuffer out;
  out.Reset(RowForm::kGroups8, 11, 96);
  gated.Multiply(Rows(gated.input(), x).view(), 11, Activation::kSilu, out);
  const QuantizedRows rows = out.view().groups();
  at::Tensor actual = at::empty({11, 96}, at::kFloat);
  for (int64_t i = 0; i < actual.numel(); ++i) {
    actual.mutable_data_ptr<float>()[i] = rows.scales[i / kWeightGroup] * rows.values[i];
  }
  const Linear plain_gate(gate, {}, at::kFloat), plain_up(up, {}, at::kFloat);
  const at::Tensor expected = ref::GatedProduct(plain_gate(x), plain_up(x), Activation::kSilu);
  EXPECT_LT(((actual - expected).norm() / expected.norm()).item<double>(), 0.02);
}

}  // namespace
}  // namespace trimtab
