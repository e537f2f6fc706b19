#include "models/layers/rope.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <numbers>
#include <utility>

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

RopeTable::RopeTable(const std::vector<double>& frequencies) : frequencies_(frequencies.begin(), frequencies.end()) {}

std::pair<at::Tensor, at::Tensor> RopeTable::At(const at::Tensor& positions) const {
  const int64_t rows = positions.size(0), half = static_cast<int64_t>(frequencies_.size());
  at::Tensor cosines = at::empty({rows, half}, at::kFloat), sines = at::empty({rows, half}, at::kFloat);
  const int64_t* position = positions.const_data_ptr<int64_t>();
  float* cos = cosines.mutable_data_ptr<float>();
  float* sin = sines.mutable_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row) {
    for (const float frequency : frequencies_) {
      // Hugging Face multiplies position and frequency in float32; so do we.
      const float angle = static_cast<float>(position[row]) * frequency;
      *cos++ = std::cos(angle);
      *sin++ = std::sin(angle);
    }
  }
  return {std::move(cosines), std::move(sines)};
}

}  // namespace trimtab
