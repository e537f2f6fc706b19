// Time of one product by form of the weight and number of rows: bench_matrices [ROWS COLUMNS]. Forms run in turn; the
// medians' ratio to bfloat16 is what counts.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "absl/time/clock.h"
#include "models/kernels/packed_matrix.h"
#include "models/kernels/quantized_matrix.h"
#include "models/kernels/thread_team.h"
#include "models/kernels/unpacked_product.h"

namespace trimtab {
namespace {

constexpr int64_t kElements = int64_t{1} << 27;  // at most, of the copies of a form
constexpr int kMostCopies = 24;                  // of each weight, so that they come from memory as in a model
constexpr int kRounds = 15;

GroupedWeight RandomWeight(int bits, int64_t rows, int64_t columns) {
  std::mt19937 random(1);
  GroupedWeight weight{.bits = bits, .rows = rows, .columns = columns};
  for (int64_t i = 0; i < rows * columns; ++i) weight.quants.push_back(static_cast<uint8_t>(random() & 15));
  weight.scales.assign(static_cast<size_t>(rows * columns / kWeightGroup), 0.01f);
  weight.minimums.assign(weight.scales.size(), -0.08f);
  return weight;
}

void Run(int64_t rows, int64_t columns) {
  const at::NoGradGuard no_grad;
  const int copies = static_cast<int>(std::clamp<int64_t>(kElements / (rows * columns), 1, kMostCopies));
  std::vector<QuantizedMatrix> four, eight;
  std::vector<PackedMatrix> brain;
  for (int i = 0; i < copies; ++i) {
    four.emplace_back(RandomWeight(4, rows, columns));
    eight.emplace_back(RandomWeight(8, rows, columns));
    brain.emplace_back(at::randn({rows, columns}, at::kFloat).to(at::kBFloat16));
  }
  std::printf("%lld x %lld: microseconds per product (GFLOP/s)\n%6s %20s %20s %20s %20s\n",
              static_cast<long long>(rows), static_cast<long long>(columns), "rows", "4 bits", "8 bits", "bfloat16",
              "8 bits unpacked");
  for (int64_t count : {1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 256}) {
    const at::Tensor x = at::randn({count, columns}, at::kFloat), narrow = x.to(at::kBFloat16);
    at::Tensor out = at::empty({count, rows}, at::kFloat);
    std::vector<int8_t> values(static_cast<size_t>(count * columns));
    std::vector<float> scales(values.size() / kWeightGroup), sums(scales.size());
    const QuantizedRows view{values.data(), scales.data(), sums.data(), columns};
    QuantizeGroups(x.const_data_ptr<float>(), static_cast<int64_t>(scales.size()), values.data(), scales.data(),
                   sums.data());
    const std::vector<std::function<void(int)>> forms = {
        [&](int i) { four[i].Multiply(view, count, nullptr, out.mutable_data_ptr<float>()); },
        [&](int i) { eight[i].Multiply(view, count, nullptr, out.mutable_data_ptr<float>()); },
        [&](int i) { brain[i].Multiply(narrow.const_data_ptr(), count, nullptr, out.mutable_data_ptr<float>()); },
        [&](int i) {
          MultiplyUnpacked(eight[i], at::kBFloat16, narrow.const_data_ptr(), count, nullptr,
                           out.mutable_data_ptr<float>());
        },
    };
    std::vector<std::vector<double>> times(forms.size());
    for (int round = 0; round < kRounds; ++round) {
      for (size_t form = 0; form < forms.size(); ++form) {
        const absl::Time start = absl::Now();
        for (int i = 0; i < copies; ++i) forms[form](i);
        times[form].push_back(absl::ToDoubleMicroseconds(absl::Now() - start) / copies);
      }
    }
    std::printf("%6lld", static_cast<long long>(count));
    for (std::vector<double>& time : times) {
      std::sort(time.begin(), time.end());
      const double median = time[kRounds / 2];
      std::printf(" %11.1f (%6.0f)", median, 2e-3 * static_cast<double>(count * rows * columns) / median);
    }
    std::printf("\n");
  }
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) {
  trimtab::ThreadTeam team(trimtab::ParallelThreads());
  const trimtab::ScopedTeam scope(&team);
  if (argc > 2) {
    trimtab::Run(std::atoll(argv[1]), std::atoll(argv[2]));
  } else {
    trimtab::Run(3072, 576);
    trimtab::Run(576, 1536);
  }
}
