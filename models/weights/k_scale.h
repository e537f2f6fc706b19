// The packed scales of ggml's Q4_K and Q5_K blocks. No torch. Any thread.
#ifndef TRIMTAB_MODELS_WEIGHTS_K_SCALE_H_
#define TRIMTAB_MODELS_WEIGHTS_K_SCALE_H_

#include <cstdint>

namespace trimtab {

// 6 bits each; the block's half scale and half minimum multiply them.
struct KScale {
  int scale, minimum;
};

// Of sub-block `index` (0..7) in the 12 packed bytes.
inline KScale UnpackKScale(const uint8_t* packed, int index) {
  if (index < 4) return {packed[index] & 63, packed[index + 4] & 63};
  return {(packed[index + 4] & 15) | ((packed[index - 4] >> 6) << 4),
          (packed[index + 4] >> 4) | ((packed[index] >> 6) << 4)};
}

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_K_SCALE_H_
