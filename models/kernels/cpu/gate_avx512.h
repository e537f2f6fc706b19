// The gate of a gated MLP by AVX-512, twice as wide as the portable form. Only row_buffer.cc includes this.
#ifndef TRIMTAB_MODELS_KERNELS_CPU_GATE_AVX512_H_
#define TRIMTAB_MODELS_KERNELS_CPU_GATE_AVX512_H_

#include <cstdint>

#include "models/model_spec.h"

namespace trimtab::cpu {

// Whether this processor has the instructions.
bool HasWideGate();
// to[i] = activation(gate[i]) * up[i] for the largest multiple of 16 elements that fits into `size`; returns it. `to`
// may be `gate`. An element's result does not depend on its place.
int64_t GateAvx512(const float* gate, const float* up, int64_t size, Activation activation, float* to);

}  // namespace trimtab::cpu

#endif  // TRIMTAB_MODELS_KERNELS_CPU_GATE_AVX512_H_
