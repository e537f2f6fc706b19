#include "models/attention/tile_kernel.h"

namespace trimtab {

InstructionSet BestInstructionSet() {
  static const bool kHasAvx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                                 __builtin_cpu_supports("avx512bf16");
  return kHasAvx512 ? InstructionSet::kAvx512 : InstructionSet::kAvx2;
}

}  // namespace trimtab
