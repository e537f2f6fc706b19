// The integer kernels for AVX-512 VNNI; called only where the processor has it. Any thread.
#ifndef TRIMTAB_MODELS_KERNELS_CPU_QUANTIZED_AVX512_H_
#define TRIMTAB_MODELS_KERNELS_CPU_QUANTIZED_AVX512_H_

#include <cstdint>

namespace trimtab::cpu {

// One strip of a QuantizedMatrix and rows of a product with it.
struct StripProduct {
  const uint8_t* strip;
  int bits;
  int64_t groups;
  const int8_t* values;  // of the first row; rows are 32 * groups apart
  const float* scales;   // rows are `groups` apart
  const float* sums;
  int64_t count;  // rows
  float* out;
  int64_t stride;
};

bool HasVnni();
void MultiplyStripVnni(const StripProduct& product);
// 16 weight rows of half a strip, whose groups lie as those of a strip do, as bfloat16 in pairs of columns: pair p of
// row r goes to out[128 p + 2 r].
void UnpackHalfAvx512(const uint8_t* half, int bits, int64_t groups, uint16_t* out);
void QuantizeGroupsAvx512(const float* x, int64_t groups, int8_t* values, float* scales, float* sums);

}  // namespace trimtab::cpu

#endif  // TRIMTAB_MODELS_KERNELS_CPU_QUANTIZED_AVX512_H_
