#include "models/weights/gguf.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/weights/file_error.h"
#include "models/weights/gguf_format.h"
#include "models/weights/gguf_parser.h"
#include "models/weights/mapped_file.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

template <typename T>
T ReadAt(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// The parser has checked that the string is whole.
std::string_view StringAt(const uint8_t* bytes) {
  return std::string_view(reinterpret_cast<const char*>(bytes) + sizeof(uint64_t), ReadAt<uint64_t>(bytes));
}

// An integer of any width; nullopt for another type and for values of 2^63 and more.
std::optional<int64_t> AsInt(uint32_t type, const uint8_t* bytes) {
  switch (type) {
    case kGgufUint8:
      return ReadAt<uint8_t>(bytes);
    case kGgufInt8:
      return ReadAt<int8_t>(bytes);
    case kGgufUint16:
      return ReadAt<uint16_t>(bytes);
    case kGgufInt16:
      return ReadAt<int16_t>(bytes);
    case kGgufUint32:
      return ReadAt<uint32_t>(bytes);
    case kGgufInt32:
      return ReadAt<int32_t>(bytes);
    case kGgufInt64:
      return ReadAt<int64_t>(bytes);
    case kGgufUint64: {
      const uint64_t value = ReadAt<uint64_t>(bytes);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> AsFloat(uint32_t type, const uint8_t* bytes) {
  if (type == kGgufFloat32) return ReadAt<float>(bytes);
  if (type == kGgufFloat64) return ReadAt<double>(bytes);
  if (const std::optional<int64_t> integer = AsInt(type, bytes)) return static_cast<double>(*integer);
  return std::nullopt;
}

}  // namespace

GgufFile::GgufFile(std::shared_ptr<const void> owner, std::string path)
    : owner_(std::move(owner)), path_(std::move(path)) {}

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Open(const std::string& path) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  return Parse(file->bytes(), file, path);
}

absl::StatusOr<std::shared_ptr<const GgufFile>> GgufFile::Parse(absl::Span<const uint8_t> bytes,
                                                                std::shared_ptr<const void> owner, std::string path) {
  const std::shared_ptr<GgufFile> file(new GgufFile(std::move(owner), std::move(path)));
  TRIMTAB_RETURN_IF_ERROR(GgufParser(bytes, file.get()).Parse());
  return file;
}

bool GgufFile::Has(std::string_view key) const { return metadata_.contains(key); }

std::vector<std::string_view> GgufFile::keys() const {
  std::vector<std::string_view> keys;
  keys.reserve(metadata_.size());
  for (const auto& [key, value] : metadata_) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  return keys;
}

absl::StatusOr<const GgufFile::Value*> GgufFile::Lookup(std::string_view key) const {
  const auto found = metadata_.find(key);
  if (found != metadata_.end()) return &found->second;
  return ReasonError(absl::StatusCode::kNotFound, kModelFileInvalid,
                     absl::StrCat(path_, ": has no metadata key ", QuoteName(key)), {{"file", path_}});
}

absl::StatusOr<const GgufFile::Value*> GgufFile::LookupArray(std::string_view key) const {
  TRIMTAB_ASSIGN_OR_RETURN(const Value* value, Lookup(key));
  if (value->type != kGgufArray) return TypeError(key, "an array", *value);
  return value;
}

absl::Status GgufFile::TypeError(std::string_view key, std::string_view expected, const Value& value) const {
  const bool is_array = value.type == kGgufArray;
  const std::string_view found = kGgufValueTypes[is_array ? value.element_type : value.type].name;
  return ModelFileError(path_, absl::StrCat("metadata key ", QuoteName(key), ": expected ", std::string(expected),
                                            ", found ", is_array ? "an array of " : "", std::string(found)));
}

absl::StatusOr<std::string_view> GgufFile::GetString(std::string_view key) const {
  TRIMTAB_ASSIGN_OR_RETURN(const Value* value, Lookup(key));
  if (value->type != kGgufString) return TypeError(key, "a string", *value);
  return StringAt(value->data);
}

absl::StatusOr<int64_t> GgufFile::GetInt(std::string_view key) const {
  TRIMTAB_ASSIGN_OR_RETURN(const Value* value, Lookup(key));
  if (const std::optional<int64_t> integer = AsInt(value->type, value->data)) return *integer;
  return TypeError(key, "an integer below 2^63", *value);
}

absl::StatusOr<double> GgufFile::GetFloat(std::string_view key) const {
  TRIMTAB_ASSIGN_OR_RETURN(const Value* value, Lookup(key));
  if (const std::optional<double> number = AsFloat(value->type, value->data)) return *number;
  return TypeError(key, "a number", *value);
}

absl::StatusOr<bool> GgufFile::GetBool(std::string_view key) const {
  TRIMTAB_ASSIGN_OR_RETURN(const Value* value, Lookup(key));
  if (value->type != kGgufBool) return TypeError(key, "a boolean", *value);
  return *value->data != 0;
}

absl::StatusOr<std::string_view> GgufFile::GetStringOr(std::string_view key, std::string_view fallback) const {
  if (!Has(key)) return fallback;
  return GetString(key);
}

absl::StatusOr<int64_t> GgufFile::GetIntOr(std::string_view key, int64_t fallback) const {
  if (!Has(key)) return fallback;
  return GetInt(key);
}

absl::StatusOr<double> GgufFile::GetFloatOr(std::string_view key, double fallback) const {
  if (!Has(key)) return fallback;
  return GetFloat(key);
}

absl::StatusOr<bool> GgufFile::GetBoolOr(std::string_view key, bool fallback) const {
  if (!Has(key)) return fallback;
  return GetBool(key);
}

absl::StatusOr<std::vector<std::string_view>> GgufFile::GetStrings(std::string_view key) const {
  TRIMTAB_ASSIGN_OR_RETURN(const Value* value, LookupArray(key));
  if (value->element_type != kGgufString) return TypeError(key, "an array of strings", *value);
  std::vector<std::string_view> strings;
  strings.reserve(value->count);
  const uint8_t* next = value->data;
  for (uint64_t i = 0; i < value->count; ++i) {
    strings.push_back(StringAt(next));
    next += sizeof(uint64_t) + strings.back().size();
  }
  return strings;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::GetInts(std::string_view key) const {
  TRIMTAB_ASSIGN_OR_RETURN(const Value* value, LookupArray(key));
  // A boolean is read as the byte that it is.
  const uint32_t type = value->element_type == kGgufBool ? uint32_t{kGgufUint8} : value->element_type;
  std::vector<int64_t> integers;
  integers.reserve(kGgufValueTypes[type].bytes == 0 ? 0 : value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<int64_t> integer = AsInt(type, value->data + i * kGgufValueTypes[type].bytes);
    if (!integer) return TypeError(key, "an array of integers below 2^63", *value);
    integers.push_back(*integer);
  }
  return integers;
}

absl::StatusOr<std::vector<float>> GgufFile::GetFloats(std::string_view key) const {
  TRIMTAB_ASSIGN_OR_RETURN(const Value* value, LookupArray(key));
  if (value->element_type != kGgufFloat32 && value->element_type != kGgufFloat64) {
    return TypeError(key, "an array of floats", *value);
  }
  std::vector<float> floats;
  floats.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const uint8_t* bytes = value->data + i * kGgufValueTypes[value->element_type].bytes;
    floats.push_back(static_cast<float>(*AsFloat(value->element_type, bytes)));
  }
  return floats;
}

}  // namespace trimtab
