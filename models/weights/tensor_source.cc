#include "models/weights/tensor_source.h"

#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/weights/file_error.h"
#include "models/weights/gguf.h"
#include "models/weights/safetensors.h"
#include "server/base/error.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

// Elements converted at a time when the target is not float: a multiple of every block, small enough for the L2 cache.
constexpr int64_t kChunk = 16384;
// Bytes that are hashed at a time: some 10 ms.
constexpr uint64_t kHashChunk = uint64_t{16} << 20;

template <typename T>
void DequantizeTo(const RawTensor& tensor, int64_t count, T* out) {
  const BlockLayout layout = BlockLayoutOf(*tensor.type);
  std::vector<float> chunk(std::min(count, kChunk));
  for (int64_t start = 0; start < count; start += kChunk) {
    const int64_t size = std::min(kChunk, count - start);
    Dequantize(*tensor.type, tensor.data + start / layout.elements * layout.bytes, size, chunk.data());
    for (int64_t i = 0; i < size; ++i) out[start + i] = static_cast<T>(chunk[i]);
  }
}

// Serves tensors that lie in memory owned by `owner`.
class RawTensorSource final : public TensorSource {
 public:
  // `tensors` and `path` live in `owner`.
  RawTensorSource(std::shared_ptr<const void> owner, const std::vector<RawTensor>& tensors, const std::string& path,
                  std::function<absl::Status()> go_on)
      : owner_(std::move(owner)), path_(path), go_on_(std::move(go_on)) {
    sorted_.reserve(tensors.size());
    for (const RawTensor& tensor : tensors) sorted_.push_back(&tensor);
    std::sort(sorted_.begin(), sorted_.end(),
              [](const RawTensor* a, const RawTensor* b) { return a->info.name < b->info.name; });
  }

  const TensorInfo* Find(std::string_view name) const override {
    const RawTensor* tensor = FindRaw(name);
    return tensor == nullptr ? nullptr : &tensor->info;
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    names.reserve(sorted_.size());
    for (const RawTensor* tensor : sorted_) names.push_back(tensor->info.name);
    return names;
  }

  absl::StatusOr<at::Tensor> Load(std::string_view name, absl::Span<const int64_t> shape,
                                  at::ScalarType dtype) const override {
    TRIMTAB_RETURN_IF_ERROR(GoOn());
    TRIMTAB_ASSIGN_OR_RETURN(const RawTensor* tensor, Find(name, shape));
    if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf) {
      return ReasonError(absl::StatusCode::kInternal, kInternal,
                         absl::StrCat("weights cannot be loaded as ", c10::toString(dtype)));
    }
    at::Tensor out = at::empty(at::IntArrayRef(shape.data(), shape.size()), at::TensorOptions().dtype(dtype));
    const int64_t count = out.numel();
    if (dtype == at::kFloat) {
      Dequantize(*tensor->type, tensor->data, count, out.data_ptr<float>());
    } else if (dtype == at::kBFloat16) {
      DequantizeTo(*tensor, count, out.data_ptr<c10::BFloat16>());
    } else {
      DequantizeTo(*tensor, count, out.data_ptr<c10::Half>());
    }
    return out;
  }

  absl::StatusOr<std::optional<GroupedWeight>> LoadGrouped(std::string_view name,
                                                           absl::Span<const int64_t> shape) const override {
    TRIMTAB_RETURN_IF_ERROR(GoOn());
    TRIMTAB_ASSIGN_OR_RETURN(const RawTensor* tensor, Find(name, shape));
    if (shape.size() != 2) return std::optional<GroupedWeight>();
    return GroupBlocks(*tensor->type, tensor->data, shape[0], shape[1]);
  }

  absl::StatusOr<std::string> ContentHash() const override {
    Sha256 hash;
    const auto update_number = [&hash](uint64_t number) { hash.Update(&number, sizeof(number)); };
    update_number(sorted_.size());
    for (const RawTensor* tensor : sorted_) {
      hash.UpdateField(tensor->info.name).UpdateField(tensor->info.dtype);
      update_number(tensor->info.shape.size());
      for (const int64_t dimension : tensor->info.shape) update_number(static_cast<uint64_t>(dimension));
      const uint64_t bytes = tensor->info.bytes;
      update_number(bytes);
      for (uint64_t start = 0; start < bytes; start += kHashChunk) {
        TRIMTAB_RETURN_IF_ERROR(GoOn());
        hash.Update(tensor->data + start, std::min(kHashChunk, bytes - start));
      }
    }
    return hash.FinishHex();
  }

 private:
  absl::Status GoOn() const { return go_on_ ? go_on_() : absl::OkStatus(); }

  // The tensor of this name, if it has this shape and a type that can be loaded.
  absl::StatusOr<const RawTensor*> Find(std::string_view name, absl::Span<const int64_t> shape) const {
    const RawTensor* tensor = FindRaw(name);
    if (tensor == nullptr) {
      return ReasonError(absl::StatusCode::kNotFound, kModelFileInvalid,
                         absl::StrCat(path_, ": has no tensor ", QuoteName(name)), {{"file", path_}});
    }
    if (absl::MakeConstSpan(tensor->info.shape) != shape) {
      return ModelFileError(
          path_, absl::StrCat("tensor ", QuoteName(name), " has shape [", absl::StrJoin(tensor->info.shape, ", "),
                              "], the model needs [", absl::StrJoin(shape, ", "), "]"));
    }
    if (!tensor->type) {
      return ModelFileError(path_, absl::StrCat("tensor ", QuoteName(name), " has type ", QuoteName(tensor->info.dtype),
                                                ", which cannot be loaded; convert it to F32, F16 or BF16"));
    }
    return tensor;
  }

  const RawTensor* FindRaw(std::string_view name) const {
    const auto found =
        std::lower_bound(sorted_.begin(), sorted_.end(), name,
                         [](const RawTensor* tensor, std::string_view wanted) { return tensor->info.name < wanted; });
    return found != sorted_.end() && (*found)->info.name == name ? *found : nullptr;
  }

  const std::shared_ptr<const void> owner_;
  const std::string& path_;
  const std::function<absl::Status()> go_on_;
  std::vector<const RawTensor*> sorted_;  // by name
};

}  // namespace

std::shared_ptr<const TensorSource> MakeTensorSource(std::shared_ptr<const GgufFile> file,
                                                     std::function<absl::Status()> go_on) {
  return std::make_shared<RawTensorSource>(file, file->tensors(), file->path(), std::move(go_on));
}

std::shared_ptr<const TensorSource> MakeTensorSource(std::shared_ptr<const SafetensorsCheckpoint> checkpoint,
                                                     std::function<absl::Status()> go_on) {
  return std::make_shared<RawTensorSource>(checkpoint, checkpoint->tensors(), checkpoint->path(), std::move(go_on));
}

}  // namespace trimtab
