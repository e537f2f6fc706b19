#include "models/layers/rope.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <cmath>
#include <numbers>

namespace trimtab {

std::vector<double> RopeFrequencies(const RopeSpec& spec, int64_t head_dim, const std::vector<float>& factors) {
  std::vector<double> frequencies;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    double frequency = std::pow(spec.base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (!factors.empty()) {
      frequency /= factors[static_cast<size_t>(i)];
    } else if (spec.scaling == RopeSpec::Scaling::kLinear) {
      frequency /= spec.factor;
    } else if (spec.scaling == RopeSpec::Scaling::kLlama3) {
      const double wavelength = 2 * std::numbers::pi / frequency;
      const double original = static_cast<double>(spec.original_context);
      const double low = original / spec.low_frequency_factor, high = original / spec.high_frequency_factor;
      if (wavelength > low) {
        frequency /= spec.factor;
      } else if (wavelength > high) {
        const double smooth = (original / wavelength - spec.low_frequency_factor) /
                              (spec.high_frequency_factor - spec.low_frequency_factor);
        frequency *= (1 - smooth) / spec.factor + smooth;
      }
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

RopeTable::RopeTable(const std::vector<double>& frequencies, int64_t context_length) {
  const int64_t half = static_cast<int64_t>(frequencies.size());
  cos_ = at::empty({context_length, half}, at::kFloat);
  sin_ = at::empty({context_length, half}, at::kFloat);
  float* cos = cos_.mutable_data_ptr<float>();
  float* sin = sin_.mutable_data_ptr<float>();
  for (int64_t position = 0; position < context_length; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      // Hugging Face multiplies position and frequency in float32; so do we.
      const float angle = static_cast<float>(position) * static_cast<float>(frequencies[static_cast<size_t>(i)]);
      *cos++ = std::cos(angle);
      *sin++ = std::sin(angle);
    }
  }
}

std::pair<at::Tensor, at::Tensor> RopeTable::At(const at::Tensor& positions) const {
  return {at::index_select(cos_, 0, positions), at::index_select(sin_, 0, positions)};
}

}  // namespace trimtab
