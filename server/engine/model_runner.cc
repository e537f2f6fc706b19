#include "server/engine/model_runner.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/base/error.h"
#include "server/base/log.h"

namespace trimtab {
namespace {

// Rows of logits held at a time: a score request of a long text needs one per token.
constexpr int64_t kLogitsRows = 64;

absl::Status OutOfMemory() {
  return ReasonError(absl::StatusCode::kResourceExhausted, kDeviceOutOfMemory,
                     "the device ran out of memory during the step: retry later or with a shorter prompt");
}

absl::Status NonFinite() {
  return ReasonError(absl::StatusCode::kInternal, kNonFinite,
                     "the model's activations for this request are not finite: lower the steering strength");
}

bool IsOutOfMemory(std::string_view message) {
  return message.find("allocate memory") != std::string_view::npos ||
         message.find("not enough memory") != std::string_view::npos ||
         message.find("out of memory") != std::string_view::npos;
}

}  // namespace

ModelRunner::ModelRunner(const CausalModel& model, AttentionBackend& attention, const SteeringBank& bank,
                         int64_t block_size, int num_threads)
    : model_(model),
      attention_(attention),
      bank_(bank),
      builder_(block_size),
      tap_(bank),
      sampler_(model.spec().vocab_size),
      team_(num_threads > 0 ? num_threads : at::get_num_threads()) {}

StepResult& ModelRunner::Execute(const StepPlan& plan) {
  std::string message;
  sampled_.clear();  // a failed step may have left some
  outcomes_.clear();
  result_.Reset(plan.items.size());
  try {
    Run(plan);
    return result_;
  } catch (const std::bad_alloc&) {
    Fail(OutOfMemory());
    return result_;
  } catch (const c10::Error& error) {
    message = error.what_without_backtrace();
  } catch (const std::exception& error) {
    message = error.what();
  }
  LogError("a step failed", {{"error", message}, {"sequences", absl::StrCat(plan.items.size())}});
  Fail(IsOutOfMemory(message)
           ? OutOfMemory()
           : ReasonError(absl::StatusCode::kInternal, kInternal, "the model failed in this step: see the log"));
  return result_;
}

void ModelRunner::Fail(const absl::Status& status) {
  result_.Reset(result_.items.size());
  result_.failed = true;
  for (StepItemResult& item : result_.items) item.status = status;
}

void ModelRunner::Run(const StepPlan& plan) {
  at::NoGradGuard no_grad;
  const ScopedTeam team(&team_);
  const StepBatch& batch = builder_.Build(plan);
  at::Tensor hidden = model_.Embed(batch.token_ids);  // [num_tokens, hidden]
  IdentityTap identity;
  const bool steered = !batch.steering.empty();
  if (steered) tap_.Begin(batch.steering);
  hidden = model_.Forward(std::move(hidden), {.layout = batch.layout,
                                              .attention = attention_,
                                              .tap = steered ? static_cast<LayerTap&>(tap_) : identity,
                                              .workspace = &workspace_});
  if (steered) ReadTap(plan, batch);
  if (!batch.logits_rows.empty()) Sample(plan, batch, hidden.contiguous());
}

void ModelRunner::ReadTap(const StepPlan& plan, const StepBatch& batch) {
  result_.steering_duration = tap_.duration();
  result_.row_dose.assign(static_cast<size_t>(batch.layout.num_tokens), 0.0f);
  int64_t row = 0;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const StepItem& item = plan.items[i];
    const int64_t begin = row;
    row += item.length;
    if (!item.sequence->steered()) continue;
    // Sites and layers that a row's entries steer, by the set of its entries.
    std::array<int64_t, 1 << kMaxSelections> places;
    places.fill(-1);
    for (int64_t r = begin; r < row; ++r) {
      if (tap_.row_nonfinite()[r]) {
        result_.items[i].status = NonFinite();
        ++result_.nonfinite_rows;
      }
      const SteeringRows::Entry* entries = &batch.steering.entries[r * kMaxSelections];
      size_t mask = 0;
      for (int j = 0; j < kMaxSelections; ++j) mask |= static_cast<size_t>(entries[j].slot >= 0) << j;
      int64_t& count = places[mask];
      if (count < 0) {
        count = 0;
        for (int64_t layer = 0; layer < bank_.num_layers(); ++layer) {
          for (const Site site : {Site::kBlockOutput, Site::kAttentionOutput, Site::kMlpOutput}) {
            count += std::any_of(entries, entries + kMaxSelections, [&](const SteeringRows::Entry& entry) {
              return entry.slot >= 0 && bank_.rule(entry.slot).site == site && bank_.steers(entry.slot, layer);
            });
          }
        }
      }
      if (count > 0) result_.row_dose[r] = tap_.row_dose()[r] / static_cast<float>(count);
    }
  }
}

at::Tensor ModelRunner::Pick(const StepBatch& batch, const at::Tensor& hidden, int64_t end, int64_t count) {
  if (count == hidden.size(0)) return hidden;  // every row needs its logits, as in a step that only decodes
  const int64_t size = hidden.size(1);
  const at::Tensor picked = picked_.Get(count, size, at::kFloat);
  const float* from = hidden.const_data_ptr<float>();
  float* to = picked.mutable_data_ptr<float>();
  for (int64_t i = end - count; i < end; ++i) to = std::copy_n(from + batch.logits_rows[i] * size, size, to);
  return picked;
}

void ModelRunner::Sample(const StepPlan& plan, const StepBatch& batch, const at::Tensor& hidden) {
  const int64_t num_rows = static_cast<int64_t>(batch.logits_rows.size());
  const int64_t vocab = model_.spec().vocab_size;
  int64_t next = 0;  // of logits_rows
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const StepItem& item = plan.items[i];
    const Sequence& sequence = *item.sequence;
    const Request& request = *sequence.request;
    for (int64_t position = item.end() - item.logits_rows(); position < item.end(); ++position, ++next) {
      LogitsRow& row = sampled_.emplace_back();
      row.request = &request;
      row.position = request.score ? position + 1 - request.prompt_length : sequence.output_tokens();
      row.seen = sequence.tokens;
      outcomes_.push_back(&result_.items[i]);
      if (static_cast<int64_t>(sampled_.size()) < kLogitsRows && next + 1 < num_rows) continue;
      const int64_t count = static_cast<int64_t>(sampled_.size());
      const at::Tensor logits = model_.Logits(Pick(batch, hidden, next + 1, count), &workspace_);  // [count, vocab]
      for (int64_t j = 0; j < count; ++j) {
        sampled_[j].logits = absl::MakeConstSpan(logits.const_data_ptr<float>() + j * vocab, vocab);
      }
      sampler_.Run(absl::MakeSpan(sampled_));
      for (int64_t j = 0; j < count; ++j) TakeRow(sampled_[j], *outcomes_[j]);
      sampled_.clear();
      outcomes_.clear();
    }
  }
}

void ModelRunner::TakeRow(LogitsRow& row, StepItemResult& outcome) {
  if (!outcome.status.ok()) return;  // its activations, or an earlier row, were not finite
  outcome.status = row.status;
  if (!row.status.ok()) {
    ++result_.nonfinite_rows;
  } else if (row.request->score) {
    outcome.scored.push_back(std::move(row.scored));
  } else {
    outcome.token = std::move(row.token);
  }
}

}  // namespace trimtab
