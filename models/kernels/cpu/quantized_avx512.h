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
void QuantizeGroupsAvx512(const float* x, int64_t groups, int8_t* values, float* scales, float* sums);

}  // namespace trimtab::cpu

#endif  // TRIMTAB_MODELS_KERNELS_CPU_QUANTIZED_AVX512_H_
