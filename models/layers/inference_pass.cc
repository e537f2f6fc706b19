#include "models/layers/inference_pass.h"

#include <algorithm>
#include <utility>

#include "models/kernels/thread_team.h"

namespace trimtab {
namespace {

// Elements of rows below which a second thread costs more than it saves.
constexpr int64_t kSerialElements = 2048;

// body(row) for every row, in parallel when that pays.
template <typename Body>
void ForRows(int64_t rows, int64_t width, const Body& body) {
  const int64_t per_task = std::max<int64_t>(1, kSerialElements / 2 / std::max<int64_t>(width, 1));
  const auto run = [&](int64_t task) {
    for (int64_t row = task * per_task; row < std::min(rows, (task + 1) * per_task); ++row) body(row);
  };
  const int64_t tasks = (rows + per_task - 1) / per_task;
  if (rows * width <= kSerialElements) {
    for (int64_t task = 0; task < tasks; ++task) run(task);
  } else {
    ParallelTasks(tasks, run);
  }
}

}  // namespace

InferencePass::InferencePass(const ModelSpec& spec, const ForwardContext& context, Workspace& workspace)
    : spec_(spec), context_(context), workspace_(workspace), rows_(context.layout.num_tokens) {}

void InferencePass::Enter(at::Tensor hidden) {
  hidden_ = hidden.contiguous();
  own_ = false;
  delta_ = delta_norm_ = at::Tensor();
  delta_edit_ = edit_ = nullptr;
}

void InferencePass::UpdateRows(const at::Tensor* norm, RowForm form) {
  const int64_t size = spec_.hidden_size;
  const float* from = hidden_.const_data_ptr<float>();
  const float* delta = delta_.defined() ? delta_.const_data_ptr<float>() : nullptr;
  const float* delta_scales = delta_norm_.defined() ? delta_norm_.const_data_ptr<float>() : nullptr;
  float* unfinished = delta_scales != nullptr || delta_edit_ != nullptr ? delta_.mutable_data_ptr<float>() : nullptr;
  const bool changes = delta != nullptr || edit_ != nullptr;
  if (changes && !own_) {
    hidden_ = workspace_.hidden.Get(rows_, size, at::kFloat);
    own_ = true;
  }
  float* to = changes ? hidden_.mutable_data_ptr<float>() : nullptr;
  const float* scales = norm == nullptr ? nullptr : norm->const_data_ptr<float>();
  const auto eps = static_cast<float>(spec_.norm_eps);
  RowBuffer& input = workspace_.input;
  if (scales != nullptr) input.Reset(form, rows_, size);
  if (!changes && scales == nullptr) return;
  ForRows(rows_, size, [&](int64_t row) {
    const float* x = from + row * size;
    if (changes) {
      float* y = to + row * size;
      if (unfinished != nullptr) {
        float* added = unfinished + row * size;
        if (delta_scales != nullptr) NormalizeInPlace(added, delta_scales, size, eps);
        if (delta_edit_ != nullptr) delta_edit_->Edit(row, added);
      }
      if (delta != nullptr) {
        AddRow(x, delta + row * size, size, y);
      } else if (y != x) {
        std::copy(x, x + size, y);
      }
      if (edit_ != nullptr) edit_->Edit(row, y);
      x = y;
    }
    if (scales != nullptr) NormalizeRow(x, scales, size, eps, input, row);
  });
  delta_ = delta_norm_ = at::Tensor();
  delta_edit_ = edit_ = nullptr;
}

void InferencePass::SetDelta(Site site, int64_t layer, at::Tensor value, const at::Tensor& norm) {
  delta_ = std::move(value);
  delta_norm_ = norm;
  if (!context_.tap.Wants(site, layer)) return;
  delta_edit_ = context_.tap.Rows(site, layer);
  if (delta_edit_ != nullptr) return;
  if (norm.defined()) {
    const int64_t size = spec_.hidden_size;
    float* rows = delta_.mutable_data_ptr<float>();
    ForRows(rows_, size, [&](int64_t row) {
      NormalizeInPlace(rows + row * size, norm.const_data_ptr<float>(), size, static_cast<float>(spec_.norm_eps));
    });
    delta_norm_ = at::Tensor();
  }
  // The tap may keep what it gets, and the workspace's memory is used again.
  delta_ = context_.tap.At(site, layer, delta_.clone()).contiguous();
}

void InferencePass::NormalizeHeads(const DecoderLayerWeights& weights, at::Tensor& qkv) const {
  const int64_t heads = spec_.num_heads, both = heads + spec_.num_kv_heads, d = spec_.head_dim;
  const float* query_norm = weights.query_norm.const_data_ptr<float>();
  const float* key_norm = weights.key_norm.const_data_ptr<float>();
  float* values = qkv.mutable_data_ptr<float>();
  ForRows(rows_, both * d, [&](int64_t row) {
    float* x = values + row * (both + spec_.num_kv_heads) * d;
    for (int64_t head = 0; head < both; ++head, x += d) {
      NormalizeInPlace(x, head < heads ? query_norm : key_norm, d, static_cast<float>(spec_.norm_eps));
    }
  });
}

void InferencePass::Block(int64_t layer, const DecoderLayerWeights& weights, const at::Tensor& cos,
                          const at::Tensor& sin) {
  const int64_t heads = spec_.num_heads, kv_heads = spec_.num_kv_heads, d = spec_.head_dim;
  UpdateRows(&weights.attention_norm, weights.qkv.input(context_.arithmetic));
  at::Tensor qkv = workspace_.qkv.Get(rows_, (heads + 2 * kv_heads) * d, at::kFloat);
  weights.qkv.Multiply(workspace_.input.view(), rows_, qkv.mutable_data_ptr<float>());
  if (weights.query_norm.defined()) NormalizeHeads(weights, qkv);

  const RowForm form = weights.attention_output.input(context_.arithmetic);
  const at::ScalarType mixed_type = form == RowForm::kBFloat16 ? at::kBFloat16 : at::kFloat;
  at::Tensor mixed = workspace_.attended.Get(rows_, heads * d, mixed_type);
  at::Tensor by_head = mixed.view({rows_, heads, d});
  const at::Tensor projected = qkv.view({rows_, heads + 2 * kv_heads, d});
  context_.attention.AttendRotated(
      layer, spec_.attention(layer),
      context_.attention.TakesFloat32() ? projected : projected.to(weights.qkv.plain_type()), cos, sin, context_.layout,
      by_head);
  if (context_.tap.Wants(Site::kAttentionHeads, layer)) {
    // The tap may keep what it gets, and the workspace's memory is used again.
    mixed.copy_(context_.tap.At(Site::kAttentionHeads, layer, mixed.to(at::kFloat, false, /*copy=*/true)));
  }
  RowView attended{.form = form, .columns = heads * d, .values = mixed.const_data_ptr()};
  if (form == RowForm::kGroups8) {
    RowBuffer& input = workspace_.input;
    input.Reset(form, rows_, heads * d);
    const float* from = mixed.const_data_ptr<float>();
    ForRows(rows_, heads * d, [&](int64_t row) { input.Set(row, 0, heads * d, from + row * heads * d); });
    attended = input.view();
  }
  const at::Tensor attention = workspace_.delta.Get(rows_, spec_.hidden_size, at::kFloat);
  weights.attention_output.Multiply(attended, rows_, attention.mutable_data_ptr<float>());
  SetDelta(Site::kAttentionOutput, layer, attention, weights.post_attention_norm);

  UpdateRows(&weights.mlp_norm, weights.gate_up.input(context_.arithmetic));
  workspace_.gated.Reset(weights.down.input(context_.arithmetic), rows_, weights.down.columns());
  weights.gate_up.Multiply(workspace_.input.view(), rows_, spec_.layers[static_cast<size_t>(layer)].activation,
                           workspace_.gated);
  const at::Tensor mlp = workspace_.delta.Get(rows_, spec_.hidden_size, at::kFloat);
  weights.down.Multiply(workspace_.gated.view(), rows_, mlp.mutable_data_ptr<float>());
  SetDelta(Site::kMlpOutput, layer, mlp, weights.post_mlp_norm);
}

at::Tensor InferencePass::Leave() {
  UpdateRows(nullptr, RowForm::kFloat32);
  return hidden_;
}

}  // namespace trimtab
