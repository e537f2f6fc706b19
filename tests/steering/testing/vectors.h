// Steering vectors for tests.
#ifndef TRIMTAB_TESTS_STEERING_TESTING_VECTORS_H_
#define TRIMTAB_TESTS_STEERING_TESTING_VECTORS_H_

#include <cmath>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "steering/steering_vector.h"

namespace trimtab {

inline std::vector<float> RandomUnit(int64_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> v(static_cast<size_t>(size));
  double squares = 0;
  for (float& x : v) {
    x = normal(generator);
    squares += static_cast<double>(x) * x;
  }
  for (float& x : v) x = static_cast<float>(x / std::sqrt(squares));
  return v;
}

inline SteeringVectorSpec RandomSpec(std::vector<int64_t> layers, int64_t hidden, uint32_t seed) {
  SteeringVectorSpec spec{.model_fingerprint = "model-1", .method = "test", .hidden_size = hidden};
  for (int64_t layer : layers) {
    spec.layers.push_back(
        {.layer = layer, .direction = RandomUnit(hidden, seed * 1000 + static_cast<uint32_t>(layer))});
  }
  return spec;
}

inline std::shared_ptr<const SteeringVector> RandomVector(std::vector<int64_t> layers, int64_t hidden, uint32_t seed) {
  return *SteeringVector::Create(RandomSpec(std::move(layers), hidden, seed));
}

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_STEERING_TESTING_VECTORS_H_
