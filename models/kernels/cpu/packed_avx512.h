// Products of few rows with packed bfloat16 weights by AVX512_BF16: they read the weights as fast as memory gives them.
// Only packed_matrix.cc includes this.
#ifndef TRIMTAB_MODELS_KERNELS_CPU_PACKED_AVX512_H_
#define TRIMTAB_MODELS_KERNELS_CPU_PACKED_AVX512_H_

#include <cstdint>

namespace trimtab::cpu {

// Rows of bfloat16 bits against one block of 64 weight rows.
struct BlockProduct {
  const uint16_t* block;  // [pairs, 64, 2]
  int64_t pairs;          // pairs of columns
  const uint16_t* x;      // [count, 2 pairs]
  int64_t count;
  float* out;  // [count, 64], rows `stride` floats apart
  int64_t stride;
};

// Whether this processor has the instructions and no matrix tiles (AMX): oneDNN uses those, and they sum in another
// order.
bool HasBFloat16();
// Sums run over the pairs in order, each into one float32, as in oneDNN's kernel: the same bits, whatever `count` is.
void MultiplyBlockBFloat16(const BlockProduct& product);

}  // namespace trimtab::cpu

#endif  // TRIMTAB_MODELS_KERNELS_CPU_PACKED_AVX512_H_
