// Random numbers as a function of (seed, position): nothing to carry along, so preemption and the company in a batch
// cannot change a draw. No torch. Any thread.
#ifndef TRIMTAB_SERVER_ENGINE_RANDOM_H_
#define TRIMTAB_SERVER_ENGINE_RANDOM_H_

#include <array>
#include <cstdint>

namespace trimtab {

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
inline std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// Uniform in [0, 1), 53 bits.
inline double UniformAt(uint64_t seed, uint64_t position) {
  const std::array<uint32_t, 4> bits =
      Philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t word = (uint64_t{bits[1]} << 32 | bits[0]) >> 11;
  return static_cast<double>(word) * 0x1p-53;
}

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_ENGINE_RANDOM_H_
