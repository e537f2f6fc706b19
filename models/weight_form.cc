#include "models/weight_form.h"

#include "models/kernels/quantized_matrix.h"
#include "models/layers/linear.h"

namespace trimtab {

absl::StatusOr<WeightForm> ChooseWeightForm(Precision precision, bool quantised) {
  WeightForm form{.plain_type = CpuHasNativeBFloat16() ? at::kBFloat16 : at::kFloat};
  switch (precision) {
    case Precision::kFloat32:
      form.plain_type = at::kFloat;
      break;
    case Precision::kBFloat16:
      form.plain_type = at::kBFloat16;
      break;
    case Precision::kFile:
      if (!QuantizedMatrix::Supported()) {
        return absl::UnimplementedError(
            "this processor has no AVX-512 VNNI, which computing with the file's integers needs; choose precision "
            "float32 or bfloat16");
      }
      form.grouped = true;
      break;
    case Precision::kAuto:
      form.grouped = QuantizedMatrix::Supported() && quantised;
      break;
  }
  return form;
}

}  // namespace trimtab
