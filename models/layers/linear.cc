#include "models/layers/linear.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "models/kernels/ops.h"
#include "models/kernels/thread_team.h"
#include "models/kernels/unpacked_product.h"

namespace trimtab {
namespace {

constexpr int64_t kHalfBlock = 32;  // rows of gate, then of up
constexpr int64_t kTaskRows = 64;
// Multiplications below which a second thread costs more than it saves.
constexpr int64_t kSerialWork = int64_t{1} << 15;

std::optional<at::Tensor> Optional(const at::Tensor& bias) {
  return bias.defined() ? std::optional(bias) : std::nullopt;
}

// [F, ...] and [F, ...] -> [2 F', ...], alternating by 32 rows, F rounded up with zeros.
at::Tensor Interleave(const at::Tensor& gate, const at::Tensor& up) {
  const auto whole = [](at::Tensor part) {
    const int64_t missing = (kHalfBlock - part.size(0) % kHalfBlock) % kHalfBlock;
    if (missing > 0) {
      std::vector<int64_t> shape(part.sizes().begin(), part.sizes().end());
      shape[0] = missing;
      part = at::cat({part, at::zeros(shape, part.options())});
    }
    return part.unflatten(0, {-1, kHalfBlock});
  };
  return at::cat({whole(gate), whole(up)}, 1).flatten(0, 1);
}

}  // namespace

bool CpuHasNativeBFloat16() {
  return __builtin_cpu_supports("avx512bf16") != 0 && PackedMatrix::Supports(at::kBFloat16);
}

Linear::Linear(const at::Tensor& weight, at::Tensor bias)
    : rows_(weight.size(0)),
      columns_(weight.size(1)),
      plain_type_(weight.scalar_type()),
      bias_(bias.defined() ? bias.to(at::kFloat).contiguous() : at::Tensor()) {
  const bool in_pairs = plain_type_ == at::kFloat || columns_ % 2 == 0;
  if (in_pairs && PackedMatrix::Supports(plain_type_)) {
    packed_ = std::make_shared<const PackedMatrix>(weight);
  } else {
    plain_ = std::make_shared<const at::Tensor>(weight.contiguous());
  }
}

Linear::Linear(const GroupedWeight& weight, at::Tensor bias, at::ScalarType plain_type)
    : rows_(weight.rows),
      columns_(weight.columns),
      plain_type_(plain_type),
      bias_(bias.defined() ? bias.to(at::kFloat).contiguous() : at::Tensor()),
      quantized_(std::make_shared<const QuantizedMatrix>(weight)) {}

int64_t Linear::bytes() const {
  return packed_      ? packed_->bytes()
         : quantized_ ? quantized_->bytes()
         : plain_     ? static_cast<int64_t>(plain_->nbytes())
                      : 0;
}

RowForm Linear::input(Arithmetic arithmetic) const {
  if (quantized_ != nullptr && arithmetic == Arithmetic::kIntegers) return RowForm::kGroups8;
  return plain_type_ == at::kFloat ? RowForm::kFloat32 : RowForm::kBFloat16;
}

void Linear::Multiply(const RowView& x, int64_t count, float* out) const {
  const float* bias = bias_.defined() ? bias_.const_data_ptr<float>() : nullptr;
  if (quantized_ != nullptr && x.form == RowForm::kGroups8) {
    quantized_->Multiply(x.groups(), count, bias, out);
  } else if (packed_ != nullptr) {
    packed_->Multiply(x.values, count, bias, out);
  } else if (quantized_ != nullptr && PackedMatrix::Supports(plain_type_)) {
    MultiplyUnpacked(*quantized_, plain_type_, x.values, count, bias, out);
  } else {
    const at::NoGradGuard no_grad;
    const at::Tensor plain = weight();
    const at::Tensor input = at::from_blob(const_cast<void*>(x.values), {count, columns_}, plain.options());
    at::from_blob(out, {count, rows_}, at::TensorOptions().dtype(at::kFloat))
        .copy_(at::linear(input, plain, bias == nullptr ? std::nullopt : std::optional(bias_.to(plain_type_))));
  }
}

void Linear::MultiplyBlock(int64_t block, const RowView& x, int64_t first, int64_t count, float* out,
                           int64_t stride) const {
  if (quantized_ != nullptr) {
    constexpr int64_t kStrips = PackedMatrix::kBlock / QuantizedMatrix::kStrip;
    for (int64_t i = 0; i < kStrips; ++i) {
      const int64_t strip = block * kStrips + i;
      float* to = out + i * QuantizedMatrix::kStrip;
      if (strip < quantized_->strips()) {
        quantized_->MultiplyStrip(strip, x.groups(), first, count, to, stride);
      } else {
        for (int64_t r = 0; r < count; ++r) std::fill_n(to + r * stride, QuantizedMatrix::kStrip, 0.0f);
      }
    }
  } else {
    const int64_t row_bytes = columns_ * static_cast<int64_t>(c10::elementSize(plain_type_));
    packed_->MultiplyBlock(block, static_cast<const char*>(x.values) + first * row_bytes, count, out, stride);
    packed_->Release();
  }
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  return at::linear(x, weight(), Optional(bias_.defined() ? bias_.to(plain_type_) : bias_));
}

at::Tensor Linear::weight() const {
  if (plain_ != nullptr) return *plain_;
  if (packed_ != nullptr) return packed_->Unpack();
  return quantized_->Unpack(plain_type_);
}

at::Tensor Linear::Rows(const at::Tensor& numbers) const {
  if (plain_ != nullptr) return plain_->index_select(0, numbers).to(at::kFloat);
  if (packed_ != nullptr) return packed_->Rows(numbers).to(at::kFloat);
  const at::Tensor order = numbers.contiguous();
  return quantized_->Rows(order.const_data_ptr<int64_t>(), order.numel());
}

GatedLinear::GatedLinear(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& gate_bias,
                         const at::Tensor& up_bias)
    : width_(gate.size(0)),
      both_(Interleave(gate, up), gate_bias.defined() ? Interleave(gate_bias, up_bias) : at::Tensor()) {}

GatedLinear::GatedLinear(const GroupedWeight& gate, const GroupedWeight& up, at::ScalarType plain_type)
    : width_(gate.rows) {
  std::vector<int64_t> order;
  for (int64_t first = 0; first < width_; first += kHalfBlock) {
    for (int64_t part : {int64_t{0}, width_}) {
      for (int64_t i = 0; i < kHalfBlock; ++i) order.push_back(part + std::min(first + i, width_ - 1));
    }
  }
  both_ = Linear(PermuteRows(StackRows({gate, up}), order), {}, plain_type);
}

void GatedLinear::Multiply(const RowView& x, int64_t count, Activation activation, RowBuffer& out) const {
  const float* bias = both_.bias().defined() ? both_.bias().const_data_ptr<float>() : nullptr;
  const int64_t blocks = both_.rows() / PackedMatrix::kBlock, row_blocks = (count + kTaskRows - 1) / kTaskRows;
  std::vector<float> whole;  // [count, 2 F'], where there are no blocks for rows in this form
  if (!both_.has_blocks() || x.form != both_.input()) {
    whole.resize(static_cast<size_t>(count * both_.rows()));
    both_.Multiply(x, count, whole.data());
  }
  const auto run = [&](int64_t task) {
    const int64_t block = task / row_blocks, first = task % row_blocks * kTaskRows;
    const int64_t height = std::min(kTaskRows, count - first), begin = block * kHalfBlock;
    const int64_t width = std::min(kHalfBlock, width_ - begin);
    alignas(64) std::array<float, kTaskRows * PackedMatrix::kBlock> memory;
    float* tile = memory.data();
    int64_t stride = PackedMatrix::kBlock;
    if (whole.empty()) {
      both_.MultiplyBlock(block, x, first, height, tile, stride);
    } else {
      tile = whole.data() + first * both_.rows() + block * PackedMatrix::kBlock;
      stride = both_.rows();
    }
    for (int64_t r = 0; r < height; ++r) {
      float* row = tile + r * stride;
      if (bias != nullptr && whole.empty()) {
        for (int64_t c = 0; c < PackedMatrix::kBlock; ++c) row[c] += bias[block * PackedMatrix::kBlock + c];
      }
      GateRow(row, row + kHalfBlock, kHalfBlock, activation, row);
      out.Set(first + r, begin, width, row);
    }
  };
  if (count * both_.rows() * both_.columns() < kSerialWork) {
    for (int64_t task = 0; task < blocks * row_blocks; ++task) run(task);
  } else {
    ParallelTasks(blocks * row_blocks, run);
  }
}

at::Tensor GatedLinear::Differentiable(const at::Tensor& x, Activation activation) const {
  const at::Tensor both = both_(x).unflatten(1, {-1, 2, kHalfBlock});  // [T, F' / 32, 2, 32]
  const auto half = [&](int64_t index) { return both.select(2, index).flatten(1).narrow(1, 0, width_); };
  return ref::GatedProduct(half(0), half(1), activation);
}

}  // namespace trimtab
