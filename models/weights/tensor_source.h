// The weights of one checkpoint by name, as torch tensors: what model loaders read. Const after opening, any thread.
//
// Names and layouts are the file's own. Llama-architecture GGUF files hold the rows of attn_q and attn_k permuted for
// interleaved rotary embedding; the model loader, which knows the head count, un-permutes them for rotate-half.
#ifndef TRIMTAB_MODELS_WEIGHTS_TENSOR_SOURCE_H_
#define TRIMTAB_MODELS_WEIGHTS_TENSOR_SOURCE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/weights/grouped_weight.h"
#include "models/weights/raw_tensor.h"

namespace trimtab {

class GgufFile;
class SafetensorsCheckpoint;

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // Null when the checkpoint has no such tensor. Lives as long as this object.
  virtual const TensorInfo* Find(std::string_view name) const = 0;
  virtual std::vector<std::string> names() const = 0;  // sorted

  // The tensor de-quantised to `dtype` (kFloat, kBFloat16 or kHalf; rounded to nearest even), contiguous, on the CPU,
  // without gradient, an owned copy of shape `shape`. Errors: NOT_FOUND; INVALID_ARGUMENT (MODEL_FILE_INVALID) when the
  // file's shape differs from `shape` or its type cannot be loaded; INTERNAL for another `dtype`.
  virtual absl::StatusOr<at::Tensor> Load(std::string_view name, absl::Span<const int64_t> shape,
                                          at::ScalarType dtype) const = 0;

  // The tensor, a matrix, as integers in groups where its type has such a form; nullopt where not. Errors as of Load.
  virtual absl::StatusOr<std::optional<GroupedWeight>> LoadGrouped(std::string_view name,
                                                                   absl::Span<const int64_t> shape) const = 0;

  // SHA-256 in hexadecimal over the names, shapes, types and bytes of all tensors in the order of their names: equal
  // for equal weights however they are split into files. Reads the whole file.
  virtual absl::StatusOr<std::string> ContentHash() const = 0;
};

// `go_on` is asked before each tensor that is loaded and several times a second of hashing, on the caller's thread; its
// error is returned. Empty: nobody is asked.
std::shared_ptr<const TensorSource> MakeTensorSource(std::shared_ptr<const GgufFile> file,
                                                     std::function<absl::Status()> go_on = {});
std::shared_ptr<const TensorSource> MakeTensorSource(std::shared_ptr<const SafetensorsCheckpoint> checkpoint,
                                                     std::function<absl::Status()> go_on = {});

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_WEIGHTS_TENSOR_SOURCE_H_
