// Counts allocations: a step of the shape of the one before must make none.
#include <ATen/core/grad_mode.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "models/attention/kv_cache.h"
#include "models/attention/paged_attention.h"
#include "models/layers/workspace.h"
#include "server/engine/model_runner.h"
#include "server/engine/scheduler.h"
#include "tests/server/engine/engine_testing.h"

namespace {

std::atomic<int64_t> allocations{0};  // by operator new, of any thread

}  // namespace

void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(size_t size, std::align_val_t alignment) {
  ++allocations;
  void* memory = nullptr;
  if (posix_memalign(&memory, static_cast<size_t>(alignment), size) == 0) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace trimtab {
namespace {

// Tensors' memory comes from here; counts how often and how much.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    ++count_;
    bytes_ += static_cast<int64_t>(bytes);
    return c10::GetDefaultCPUAllocator()->allocate(bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override { return c10::GetDefaultCPUAllocator()->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
  int64_t count() const { return count_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::atomic<int64_t> count_{0}, bytes_{0};
};

CountingAllocator& Tensors() {
  static CountingAllocator& allocator = *[] {
    auto* made = new CountingAllocator;
    c10::SetCPUAllocator(made, /*priority=*/1);
    return made;
  }();
  return allocator;
}

// A model that allocates nothing itself: every row is its token's number, the best next token is a fixed one.
class StillModel final : public CausalModel {
 public:
  explicit StillModel(const ModelSpec& spec) : spec_(spec) {}
  const ModelSpec& spec() const override { return spec_; }
  at::ScalarType dtype() const override { return at::kFloat; }
  int64_t weight_bytes() const override { return 0; }
  at::Tensor Embed(const at::Tensor& token_ids) const override {
    at::Tensor hidden = hidden_.Get(token_ids.size(0), spec_.hidden_size, at::kFloat);
    std::fill_n(hidden.mutable_data_ptr<float>(), hidden.numel(), 1.0f);
    return hidden;
  }
  at::Tensor Forward(at::Tensor hidden, const ForwardContext& context) const override {
    for (int64_t layer = 0; layer < spec_.num_layers(); ++layer) {
      if (!context.tap.Wants(Site::kBlockOutput, layer)) continue;
      RowEdit* edit = context.tap.Rows(Site::kBlockOutput, layer);
      for (int64_t row = 0; row < hidden.size(0); ++row) {
        edit->Edit(row, hidden.mutable_data_ptr<float>() + row * spec_.hidden_size);
      }
    }
    return hidden;
  }
  at::Tensor Logits(const at::Tensor& hidden, Workspace*, Arithmetic) const override {
    at::Tensor logits = logits_.Get(hidden.size(0), spec_.vocab_size, at::kFloat);
    std::fill_n(logits.mutable_data_ptr<float>(), logits.numel(), 0.0f);
    for (int64_t row = 0; row < hidden.size(0); ++row) {
      logits.mutable_data_ptr<float>()[row * spec_.vocab_size + 3] = 1;
    }
    return logits;
  }

 private:
  const ModelSpec& spec_;
  mutable GrowingTensor hidden_, logits_;
};

class QuietSink final : public RequestSink {
 public:
  void OnToken(OutputToken) override { ++tokens; }
  void OnEnd(RequestEnd) override {}
  int64_t tokens = 0;
};

class BankSlots final : public SteeringSlots {
 public:
  explicit BankSlots(SteeringBank& bank) : bank_(bank) {}
  std::optional<int32_t> Acquire(const std::shared_ptr<const SteeringVector>& vector) override {
    return bank_.Acquire(vector);
  }
  void Release(int32_t slot) override { bank_.Release(slot); }

 private:
  SteeringBank& bank_;
};

// A scheduler and a runner, driven step by step, with eight requests: plain, steered by one vector and by two.
class StepMemoryTest : public testing::Test {
 protected:
  static constexpr int64_t kBlockSize = 64, kPrompt = 66;

  void Make(const CausalModel& model) {
    Tensors();
    const ModelSpec& spec = model.spec();
    cache_.emplace(spec, 64, kBlockSize, at::kFloat);
    attention_.emplace(*cache_);
    bank_.emplace(16, spec.num_layers(), spec.hidden_size);
    slots_.emplace(*bank_);
    runner_.emplace(model, *attention_, *bank_, kBlockSize, /*num_threads=*/1);
    SchedulerConfig config;
    config.num_blocks = 64;
    config.block_size = kBlockSize;
    config.max_context = spec.context_length;
    config.max_step_time = absl::Milliseconds(50);
    scheduler_.emplace(config, *slots_, nullptr, nullptr);
    for (uint32_t i = 0; i < 8; ++i) {
      SteeringPlan plan;
      if (i % 4 == 1) plan = OneVector(TinyVector(i), 0.1f, ApplyTo::kAll);
      if (i % 4 == 2) {
        plan = SteeringPlan({{.vector = TinyVector(i), .strength = 0.1f, .apply_to = ApplyTo::kAll},
                             {.vector = TinyVector(i + 1), .strength = 0.2f, .apply_to = ApplyTo::kAll}});
      }
      auto request = MakeRequest(std::to_string(i), RandomTokens(kPrompt, i), std::move(plan));
      request->sampling.max_output_tokens = 1000;
      request->deadline = now_ + absl::Hours(1);
      request->sink = std::make_shared<QuietSink>();
      scheduler_->Submit(std::move(request), now_);
    }
    // Past all prompts, and past where a sequence's list of tokens grows.
    for (int i = 0; i < 40; ++i) Step();
    ASSERT_EQ(scheduler_->running(), 8);
  }
  void Step() {
    at::NoGradGuard no_grad;
    const StepPlan& plan = scheduler_->Plan(now_);
    StepResult& result = runner_->Execute(plan);
    ASSERT_FALSE(result.failed);
    now_ += absl::Milliseconds(10);
    scheduler_->Commit(plan, std::move(result), now_);
  }

  absl::Time now_ = absl::FromUnixSeconds(1'000'000'000);
  std::optional<KvCache> cache_;
  std::optional<PagedAttention> attention_;
  std::optional<SteeringBank> bank_;
  std::optional<BankSlots> slots_;
  std::optional<ModelRunner> runner_;
  std::optional<Scheduler> scheduler_;
};

TEST_F(StepMemoryTest, PlanningBatchingSteeringSamplingAndCommittingAllocateNothing) {
  const StillModel model(TinyLoadedModel()->model->spec());
  Make(model);
  const int64_t before = allocations, tensors = Tensors().count();
  for (int i = 0; i < 10; ++i) Step();
  EXPECT_EQ(allocations - before, 0);
  EXPECT_EQ(Tensors().count() - tensors, 0);
}

TEST_F(StepMemoryTest, AModelsStepTakesMemoryForItsInputsOnly) {
  const auto model = TinyLoadedModel();
  const ModelSpec& spec = model->model->spec();
  Make(*model->model);
  const int64_t tensors = Tensors().count(), bytes = Tensors().bytes(), before = allocations;
  constexpr int64_t kSteps = 10;
  for (int64_t i = 0; i < kSteps; ++i) Step();
  RecordProperty("operator_new_per_step", std::to_string((allocations - before) / kSteps));
  // The embedded tokens, and the cosines and sines of their positions.
  EXPECT_EQ(Tensors().count() - tensors, 3 * kSteps);
  EXPECT_EQ(Tensors().bytes() - bytes, 8 * (spec.hidden_size + spec.head_dim) * 4 * kSteps);
}

}  // namespace
}  // namespace trimtab
