#include "models/kernels/row_buffer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "models/kernels/ops.h"

namespace trimtab {
namespace {

// What a buffer holds, as float32.
at::Tensor Read(const RowBuffer& buffer, int64_t rows) {
  const RowView view = buffer.view();
  at::Tensor out = at::empty({rows, view.columns}, at::kFloat);
  float* to = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    switch (view.form) {
      case RowForm::kFloat32:
        to[i] = static_cast<const float*>(view.values)[i];
        break;
      case RowForm::kBFloat16:
        to[i] = static_cast<const c10::BFloat16*>(view.values)[i];
        break;
      case RowForm::kGroups8:
        to[i] = view.scales[i / kWeightGroup] * static_cast<const int8_t*>(view.values)[i];
    }
  }
  return out;
}

TEST(RowBufferTest, HoldsRowsInEveryForm) {
  at::manual_seed(1);
  for (const auto& [form, tolerance] :
       {std::pair{RowForm::kFloat32, 0.0}, {RowForm::kBFloat16, 1.0 / 256}, {RowForm::kGroups8, 1.0 / 90}}) {
    RowBuffer buffer;
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{3, 64}, {1, 32}, {20, 576}}) {
      const at::Tensor x = at::randn({rows, columns});
      buffer.Reset(form, rows, columns);
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t first = 0; first < columns; first += 32) {
          buffer.Set(row, first, 32, x.const_data_ptr<float>() + row * columns + first);
        }
      }
      EXPECT_LE((Read(buffer, rows) - x).abs().max().item<double>(), tolerance * x.abs().max().item<double>());
    }
  }
}

TEST(RowBufferTest, KeepsItsMemoryWhenItShrinks) {
  RowBuffer buffer;
  buffer.Reset(RowForm::kFloat32, 100, 64);
  const void* memory = buffer.view().values;
  buffer.Reset(RowForm::kGroups8, 10, 64);
  EXPECT_EQ(buffer.view().values, memory);
}

TEST(NormalizeRowTest, MatchesReference) {
  at::manual_seed(2);
  for (const int64_t size : {3, 37, 64, 576, 1000}) {
    const at::Tensor x = at::randn({5, size}) * 3, weight = at::randn({size});
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      RowBuffer buffer;
      buffer.Reset(type == at::kFloat ? RowForm::kFloat32 : RowForm::kBFloat16, 5, size);
      for (int64_t row = 0; row < 5; ++row) {
        NormalizeRow(x.const_data_ptr<float>() + row * size, weight.const_data_ptr<float>(), size, 1e-5f, buffer, row);
      }
      const at::Tensor expected = ref::RmsNorm(x, weight, 1e-5, type).to(at::kFloat);
      const double tolerance = type == at::kFloat ? 1e-5 : 1.0 / 128;
      EXPECT_TRUE(at::allclose(Read(buffer, 5), expected, tolerance, tolerance / 4)) << size;
    }
  }
}

TEST(NormalizeInPlaceTest, IsTheSameNorm) {
  at::manual_seed(4);
  for (const int64_t size : {3, 37, 256}) {
    at::Tensor x = at::randn({1, size}) * 3;
    const at::Tensor weight = at::randn({size});
    RowBuffer buffer;
    buffer.Reset(RowForm::kFloat32, 1, size);
    NormalizeRow(x.const_data_ptr<float>(), weight.const_data_ptr<float>(), size, 1e-5f, buffer, 0);
    NormalizeInPlace(x.mutable_data_ptr<float>(), weight.const_data_ptr<float>(), size, 1e-5f);
    EXPECT_TRUE(at::equal(x, Read(buffer, 1))) << size;
  }
}

TEST(GateRowTest, MatchesReferenceAndStaysFinite) {
  at::manual_seed(3);
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    for (const int64_t size : {1, 8, 16, 37, 192}) {
      const at::Tensor gate = at::randn({size}) * 8, up = at::randn({size});
      at::Tensor out = at::empty({size}, at::kFloat);
      GateRow(gate.const_data_ptr<float>(), up.const_data_ptr<float>(), size, activation,
              out.mutable_data_ptr<float>());
      EXPECT_TRUE(at::allclose(out, ref::GatedProduct(gate, up, activation), 1e-5, 1e-5)) << size;
    }
    // Sixteen for wide vectors, eight for others.
    const at::Tensor extreme = at::tensor({-1e4f, -100.f, -88.f, 0.f, 88.f, 100.f, 1e4f, 1.f}).repeat({3});
    at::Tensor out = at::empty({24}, at::kFloat);
    GateRow(extreme.const_data_ptr<float>(), extreme.const_data_ptr<float>(), 24, activation,
            out.mutable_data_ptr<float>());
    EXPECT_TRUE(at::isfinite(out).all().item<bool>()) << out;
    EXPECT_TRUE(at::allclose(out.narrow(0, 0, 8), out.narrow(0, 16, 8), 1e-5, 1e-30)) << out;
    const at::Tensor nan = at::full({24}, NAN);
    GateRow(nan.const_data_ptr<float>(), nan.const_data_ptr<float>(), 24, activation, out.mutable_data_ptr<float>());
    EXPECT_TRUE(at::isnan(out).all().item<bool>());
  }
}

TEST(AddRowTest, AddsEveryElement) {
  std::vector<float> a(37), b(37), to(37);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i), b[i] = 0.5f;
  AddRow(a.data(), b.data(), 37, to.data());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(to[i], static_cast<float>(i) + 0.5f);
}

}  // namespace
}  // namespace trimtab
