// Seeded random numbers that are the same on every platform (the standard library's distributions are not). Not
// thread-safe.
#ifndef TRIMTAB_STEERING_ATTRIBUTION_RANDOM_H_
#define TRIMTAB_STEERING_ATTRIBUTION_RANDOM_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

namespace trimtab {

// SplitMix64 (Steele, Lea, Flood 2014). `stream` gives independent sequences of one seed.
class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : state_(seed * 0x9E3779B97F4A7C15ull ^ (stream + 1) * 0xD1B54A32D192ED03ull) {
    Next();
  }

  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  // In (0, 1).
  double Uniform() { return (static_cast<double>(Next() >> 11) + 0.5) * 0x1.0p-53; }
  // In [0, bound); the bias is below bound / 2^64.
  size_t Index(size_t bound) { return static_cast<size_t>(Next() % bound); }
  // Standard normal (Box and Muller).
  double Normal() {
    const double radius = std::sqrt(-2 * std::log(Uniform()));
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }
  // 0 .. count - 1 in random order.
  std::vector<size_t> Permutation(size_t count) {
    std::vector<size_t> order(count);
    for (size_t i = 0; i < count; ++i) order[i] = i;
    for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[Index(i)]);
    return order;
  }

 private:
  uint64_t state_;
};

// A direction without preference: `size` standard normal numbers scaled to unit norm.
inline std::vector<float> RandomUnitVector(size_t size, uint64_t seed, uint64_t stream) {
  Random numbers(seed, stream);
  std::vector<float> vector(size);
  double squares = 0;
  for (float& x : vector) {
    x = static_cast<float>(numbers.Normal());
    squares += static_cast<double>(x) * x;
  }
  for (float& x : vector) x = static_cast<float>(x / std::sqrt(squares));
  return vector;
}

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_ATTRIBUTION_RANDOM_H_
