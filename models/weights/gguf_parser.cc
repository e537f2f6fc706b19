#include "models/weights/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "models/weights/file_error.h"
#include "models/weights/gguf_format.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kMaxTensors = 65'536;
constexpr uint64_t kMaxMetadata = 65'536;
constexpr uint64_t kMaxNameBytes = 65'536;
constexpr uint32_t kMaxDimensions = 4;
constexpr int64_t kMaxAlignment = int64_t{1} << 20;
constexpr int64_t kDefaultAlignment = 32;
constexpr char kAlignmentKey[] = "general.alignment";
// The least that an entry takes in the file: lengths, types and an empty or smallest content.
constexpr uint64_t kMinMetadataBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;

// ggml's numbers of element types; nullopt for those that Trimtab does not read.
std::optional<ElementType> ElementTypeOf(uint32_t ggml_type) {
  switch (ggml_type) {
    case 0:
      return ElementType::kF32;
    case 1:
      return ElementType::kF16;
    case 2:
      return ElementType::kQ4_0;
    case 3:
      return ElementType::kQ4_1;
    case 6:
      return ElementType::kQ5_0;
    case 7:
      return ElementType::kQ5_1;
    case 8:
      return ElementType::kQ8_0;
    case 12:
      return ElementType::kQ4_K;
    case 13:
      return ElementType::kQ5_K;
    case 14:
      return ElementType::kQ6_K;
    case 30:
      return ElementType::kBF16;
    default:
      return std::nullopt;
  }
}

std::string SupportedTypes() {
  std::string names;
  for (const ElementType type : kElementTypes) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(ElementTypeName(type)));
  }
  return names;
}

}  // namespace

template <typename T>
bool GgufParser::Read(T* value) {
  if (remaining() < sizeof(T)) return false;
  std::memcpy(value, bytes_.data() + position_, sizeof(T));
  position_ += sizeof(T);
  return true;
}

bool GgufParser::ReadString(std::string_view* text) {
  uint64_t size;
  if (!Read(&size) || size > remaining()) return false;
  *text = std::string_view(reinterpret_cast<const char*>(bytes_.data()) + position_, size);
  position_ += size;
  return true;
}

bool GgufParser::Skip(uint64_t count, uint64_t size) {
  if (count > remaining() / size) return false;
  position_ += count * size;
  return true;
}

absl::Status GgufParser::Error(std::string_view message) const { return ModelFileError(file_.path_, message); }

absl::Status GgufParser::Parse() {
  TRIMTAB_RETURN_IF_ERROR(ParseHeader());
  TRIMTAB_RETURN_IF_ERROR(ParseMetadata());
  return ParseTensors();
}

absl::Status GgufParser::ParseHeader() {
  uint32_t magic, version;
  if (!Read(&magic) || magic != kMagic) return Error("not a GGUF file: it does not begin with \"GGUF\"");
  if (!Read(&version)) return Error("the file ends within its header");
  if (version != 0 && (version & 0xffff) == 0) return Error("big-endian GGUF files are not supported");
  if (version != 2 && version != 3) {
    return Error(absl::StrCat("GGUF version ", version, " is not supported; versions 2 and 3 are"));
  }
  if (!Read(&tensor_count_) || !Read(&metadata_count_)) return Error("the file ends within its header");
  if (tensor_count_ > kMaxTensors || tensor_count_ > remaining() / kMinTensorBytes) {
    return Error(absl::StrCat("claims ", tensor_count_, " tensors, more than its size or the limit of ", kMaxTensors,
                              " allows"));
  }
  if (metadata_count_ > kMaxMetadata || metadata_count_ > remaining() / kMinMetadataBytes) {
    return Error(absl::StrCat("claims ", metadata_count_, " metadata keys, more than its size or the limit of ",
                              kMaxMetadata, " allows"));
  }
  file_.version_ = version;
  return absl::OkStatus();
}

absl::Status GgufParser::ParseMetadata() {
  file_.metadata_.reserve(metadata_count_);
  for (uint64_t i = 0; i < metadata_count_; ++i) {
    std::string_view key;
    if (!ReadString(&key)) {
      return Error(absl::StrCat("the file ends within the name of metadata key ", i + 1, " of ", metadata_count_));
    }
    const std::string what = absl::StrCat("metadata key ", QuoteName(key));
    if (key.empty() || key.size() > kMaxNameBytes) {
      return Error(absl::StrCat(what, " has ", key.size(), " bytes; 1 to ", kMaxNameBytes, " are allowed"));
    }
    Value value;
    TRIMTAB_RETURN_IF_ERROR(ParseValue(what, &value));
    if (!file_.metadata_.emplace(key, value).second) return Error(absl::StrCat(what, " occurs twice"));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseValue(const std::string& what, Value* value) {
  if (!Read(&value->type)) return Error(absl::StrCat("the file ends within ", what));
  if (value->type >= kGgufValueTypeCount) return Error(absl::StrCat(what, " has unknown type ", value->type));
  if (value->type == kGgufArray) return ParseArray(what, value);
  value->data = bytes_.data() + position_;
  std::string_view text;
  if (value->type == kGgufString ? !ReadString(&text) : !Skip(1, kGgufValueTypes[value->type].bytes)) {
    return Error(absl::StrCat("the file ends within ", what));
  }
  if (value->type == kGgufBool && *value->data > 1) {
    return Error(absl::StrCat(what, " is a boolean of value ", *value->data, "; 0 and 1 are allowed"));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseArray(const std::string& what, Value* value) {
  if (!Read(&value->element_type) || !Read(&value->count)) return Error(absl::StrCat("the file ends within ", what));
  if (value->element_type == kGgufArray) return Error(absl::StrCat(what, " is an array of arrays, not supported"));
  if (value->element_type >= kGgufValueTypeCount) {
    return Error(absl::StrCat(what, " is an array of unknown type ", value->element_type));
  }
  value->data = bytes_.data() + position_;
  const std::string too_short =
      absl::StrCat("the file ends within ", what, ", an array of ", value->count, " elements");
  if (value->element_type == kGgufString) {
    if (value->count > remaining() / sizeof(uint64_t)) return Error(too_short);
    for (uint64_t i = 0; i < value->count; ++i) {
      std::string_view text;
      if (!ReadString(&text)) return Error(too_short);
    }
    return absl::OkStatus();
  }
  if (!Skip(value->count, kGgufValueTypes[value->element_type].bytes)) return Error(too_short);
  if (value->element_type == kGgufBool) {
    for (uint64_t i = 0; i < value->count; ++i) {
      if (value->data[i] > 1) return Error(absl::StrCat(what, " holds a boolean other than 0 and 1"));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseTensors() {
  file_.tensors_.reserve(tensor_count_);
  std::vector<uint64_t> offsets;  // relative to the data section, by tensor
  offsets.reserve(tensor_count_);
  absl::flat_hash_set<std::string_view> names;
  names.reserve(tensor_count_);
  for (uint64_t i = 0; i < tensor_count_; ++i) {
    std::string_view name;
    if (!ReadString(&name)) {
      return Error(absl::StrCat("the file ends within the name of tensor ", i + 1, " of ", tensor_count_));
    }
    const std::string what = absl::StrCat("tensor ", QuoteName(name));
    if (name.empty() || name.size() > kMaxNameBytes) {
      return Error(absl::StrCat(what, " has a name of ", name.size(), " bytes; 1 to ", kMaxNameBytes, " are allowed"));
    }
    if (!names.insert(name).second) return Error(absl::StrCat(what, " occurs twice"));
    RawTensor tensor;
    tensor.info.name = std::string(name);
    TRIMTAB_RETURN_IF_ERROR(ParseShape(what, &tensor.info.shape));
    uint32_t type;
    uint64_t offset;
    if (!Read(&type) || !Read(&offset)) return Error(absl::StrCat("the file ends within the entry of ", what));
    TRIMTAB_RETURN_IF_ERROR(MeasureTensor(what, type, &tensor));
    file_.tensors_.push_back(std::move(tensor));
    offsets.push_back(offset);
  }
  return PlaceTensors(offsets);
}

absl::Status GgufParser::ParseShape(const std::string& what, std::vector<int64_t>* shape) {
  uint32_t dimensions;
  if (!Read(&dimensions)) return Error(absl::StrCat("the file ends within the entry of ", what));
  if (dimensions > kMaxDimensions) {
    return Error(absl::StrCat(what, " has ", dimensions, " dimensions; at most ", kMaxDimensions, " are allowed"));
  }
  shape->resize(dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    uint64_t size;
    if (!Read(&size)) return Error(absl::StrCat("the file ends within the entry of ", what));
    if (size == 0 || size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Error(absl::StrCat(what, " has a dimension of size ", size));
    }
    (*shape)[dimensions - 1 - i] = static_cast<int64_t>(size);  // the file gives the innermost first
  }
  return absl::OkStatus();
}

// Sets the type and the bytes of `tensor`, whose shape is known.
absl::Status GgufParser::MeasureTensor(const std::string& what, uint32_t type, RawTensor* tensor) const {
  tensor->type = ElementTypeOf(type);
  if (!tensor->type) {
    return Error(
        absl::StrCat(what, " has ggml type ", type, ", which is not supported; supported are ", SupportedTypes()));
  }
  tensor->info.dtype = std::string(ElementTypeName(*tensor->type));
  const BlockLayout block = BlockLayoutOf(*tensor->type);
  const int64_t row = tensor->info.shape.empty() ? 1 : tensor->info.shape.back();
  if (row % block.elements != 0) {
    return Error(absl::StrCat(what, " has rows of ", row, " elements, not a multiple of the ", block.elements, " of a ",
                              tensor->info.dtype, " block"));
  }
  int64_t elements = 1;
  int64_t bytes;
  bool overflow = false;
  for (const int64_t size : tensor->info.shape) overflow |= __builtin_mul_overflow(elements, size, &elements);
  overflow = overflow || __builtin_mul_overflow(elements / block.elements, block.bytes, &bytes);
  if (overflow || static_cast<uint64_t>(bytes) > bytes_.size()) {
    return Error(absl::StrCat(what, " is larger than the file"));
  }
  tensor->info.bytes = static_cast<uint64_t>(bytes);
  return absl::OkStatus();
}

absl::Status GgufParser::PlaceTensors(const std::vector<uint64_t>& offsets) {
  TRIMTAB_ASSIGN_OR_RETURN(const int64_t alignment, file_.GetIntOr(kAlignmentKey, kDefaultAlignment));
  if (alignment < 1 || alignment > kMaxAlignment || !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    return Error(absl::StrCat("metadata key ", QuoteName(kAlignmentKey), " is ", alignment, "; a power of two up to ",
                              kMaxAlignment, " is needed"));
  }
  const uint64_t mask = static_cast<uint64_t>(alignment) - 1;
  const uint64_t data_start = (position_ + mask) & ~mask;  // no overflow: a position in memory plus 1 MiB
  std::vector<size_t> by_offset(offsets.size());
  for (size_t i = 0; i < offsets.size(); ++i) {
    RawTensor& tensor = file_.tensors_[i];
    if ((offsets[i] & mask) != 0) {
      return Error(absl::StrCat("tensor ", QuoteName(tensor.info.name), " is at offset ", offsets[i],
                                ", not a multiple of the alignment ", alignment));
    }
    uint64_t end;
    if (__builtin_add_overflow(data_start, offsets[i], &end) || __builtin_add_overflow(end, tensor.info.bytes, &end) ||
        end > bytes_.size()) {
      return Error(absl::StrCat("tensor ", QuoteName(tensor.info.name), " of ", tensor.info.bytes, " bytes at offset ",
                                offsets[i], " reaches beyond the end of the file"));
    }
    tensor.data = bytes_.data() + data_start + offsets[i];
    by_offset[i] = i;
  }
  std::sort(by_offset.begin(), by_offset.end(), [&](size_t a, size_t b) { return offsets[a] < offsets[b]; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const RawTensor& before = file_.tensors_[by_offset[i - 1]];
    const RawTensor& after = file_.tensors_[by_offset[i]];
    if (before.data + before.info.bytes > after.data) {
      return Error(
          absl::StrCat("tensors ", QuoteName(before.info.name), " and ", QuoteName(after.info.name), " overlap"));
    }
  }
  return absl::OkStatus();
}

}  // namespace trimtab
