// A tensor of a model file as its bytes lie in memory: what the readers of formats hand to tensor_source. No torch.
#ifndef TRIMTAB_MODELS_WEIGHTS_RAW_TENSOR_H_
#define TRIMTAB_MODELS_WEIGHTS_RAW_TENSOR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/weights/dequantize.h"

namespace trimtab {

struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;  // row-major, outermost first (GGUF's dimensions reversed)
  std::string dtype;           // the file's own name of the type: "F32", "Q4_1", ...
  uint64_t bytes = 0;          // in the file
};

// Readers have checked that `data` holds `info.bytes` bytes, that these are the shape's elements in whole blocks, and
// that their number fits int64.
struct RawTensor {
  TensorInfo info;
  std::optional<ElementType> type;  // nullopt: a type that Trimtab does not load
  const uint8_t* data = nullptr;    // borrowed from the file's reader
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_RAW_TENSOR_H_
