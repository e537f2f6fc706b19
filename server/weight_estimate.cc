#include "server/weight_estimate.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/kernels/quantized_matrix.h"
#include "models/layers/linear.h"
#include "models/weights/gguf.h"
#include "models/weights/grouped_weight.h"
#include "models/weights/safetensors.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

int64_t Elements(const TensorInfo& info) {
  int64_t elements = 1;
  for (const int64_t size : info.shape) elements *= size;
  return elements;
}

// Of a quant with its share of scale and minimum, per group of weights: QuantizedMatrix.
int64_t GroupedBytes(int64_t elements, int bits) { return elements / kWeightGroup * (bits == 4 ? 20 : 36); }

int64_t Sum(const std::vector<RawTensor>& tensors, LoadOptions::Precision precision) {
  using Precision = LoadOptions::Precision;
  const bool narrow = precision == Precision::kBFloat16 || (precision != Precision::kFloat32 && CpuHasNativeBFloat16());
  const bool grouped = precision == Precision::kFile || (precision == Precision::kAuto && QuantizedMatrix::Supported());
  int64_t bytes = 0;
  for (const RawTensor& tensor : tensors) {
    const int bits = grouped && tensor.type && tensor.info.shape.size() == 2 ? GroupedBits(*tensor.type) : 0;
    const int64_t elements = Elements(tensor.info);
    bytes += bits > 0 ? GroupedBytes(elements, bits) : elements * (narrow ? 2 : 4);
  }
  return bytes;
}

}  // namespace

absl::StatusOr<int64_t> EstimateWeightBytes(const std::string& path, LoadOptions::Precision precision) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const SafetensorsCheckpoint> checkpoint,
                             SafetensorsCheckpoint::Open(path));
    return Sum(checkpoint->tensors(), precision);
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const GgufFile> file, GgufFile::Open(path));
  return Sum(file->tensors(), precision);
}

}  // namespace trimtab
