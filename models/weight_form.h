// The form in which a model's weights are kept, and how --precision chooses it: for the loader, and for whoever wants
// to know before loading how much memory that takes. Any thread.
#ifndef TRIMTAB_MODELS_WEIGHT_FORM_H_
#define TRIMTAB_MODELS_WEIGHT_FORM_H_

#include <c10/core/ScalarType.h>

#include "absl/status/statusor.h"

namespace trimtab {

enum class Precision {
  kAuto,  // kFile where the processor has the kernels and the file is quantised, else bf16 where the CPU has
          // AVX512-BF16 or AMX, else fp32
  kFloat32,
  kBFloat16,
  kFile,  // quantised matrices stay in the file's 4 or 8 bits, others as with kAuto
};

struct WeightForm {
  at::ScalarType plain_type = at::kFloat;  // kFloat or kBFloat16
  bool grouped = false;                    // keep quantised matrices in their file's 4 or 8 bits (QuantizedMatrix)
};

// What this machine does with a checkpoint; `quantised`: some matrix of it has a form in 4 or 8 bits. UNIMPLEMENTED
// when it cannot compute with the file's integers (kFile).
absl::StatusOr<WeightForm> ChooseWeightForm(Precision precision, bool quantised);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHT_FORM_H_
