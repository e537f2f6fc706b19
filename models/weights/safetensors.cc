#include "models/weights/safetensors.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "models/weights/file_error.h"
#include "models/weights/safetensors_json.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr char kFileName[] = "model.safetensors";

struct DtypeInfo {
  std::string_view name;
  uint64_t bytes;
  std::optional<ElementType> type;
};

constexpr DtypeInfo kDtypes[] = {
    {"F32", 4, ElementType::kF32},
    {"F16", 2, ElementType::kF16},
    {"BF16", 2, ElementType::kBF16},
    {"F64", 8, {}},
    {"I64", 8, {}},
    {"U64", 8, {}},
    {"C64", 8, {}},
    {"I32", 4, {}},
    {"U32", 4, {}},
    {"I16", 2, {}},
    {"U16", 2, {}},
    {"I8", 1, {}},
    {"U8", 1, {}},
    {"BOOL", 1, {}},
    {"F8_E4M3", 1, {}},
    {"F8_E5M2", 1, {}},
    {"F8_E8M0", 1, {}},
};

const DtypeInfo* FindDtype(std::string_view name) {
  for (const DtypeInfo& dtype : kDtypes) {
    if (dtype.name == name) return &dtype;
  }
  return nullptr;
}

// Whether `dtype` times `shape` is `bytes`; for a type that we do not know, whether the shape's product is a number.
bool FitsRange(const DtypeInfo* dtype, const std::vector<int64_t>& shape, uint64_t bytes) {
  int64_t product = 1;
  bool overflow = false;
  for (const int64_t size : shape) overflow |= __builtin_mul_overflow(product, size, &product);
  uint64_t needed = 0;
  overflow =
      overflow || (dtype != nullptr && __builtin_mul_overflow(static_cast<uint64_t>(product), dtype->bytes, &needed));
  return !overflow && (dtype == nullptr || needed == bytes);
}

bool IsPlainFileName(const std::string& name) {
  return absl::EndsWith(name, ".safetensors") && name.front() != '.' && name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
}

bool Exists(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0;
}

bool IsFolder(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace

absl::StatusOr<std::vector<RawTensor>> ParseSafetensors(absl::Span<const uint8_t> bytes, const std::string& path) {
  uint64_t header_bytes;
  if (bytes.size() < sizeof(header_bytes)) return ModelFileError(path, "too short for a safetensors file");
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - sizeof(header_bytes)) {
    return ModelFileError(path, absl::StrCat("claims a header of ", header_bytes, " bytes, more than its size or the ",
                                             "limit of ", kMaxHeaderBytes, " allows: not a safetensors file?"));
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + sizeof(header_bytes), header_bytes);
  if (header.empty() || header.front() != '{') return ModelFileError(path, "the header does not begin with {");
  absl::StatusOr<std::vector<SafetensorsEntry>> entries = ReadSafetensorsHeader(header);
  if (!entries.ok()) return ModelFileError(path, std::string(entries.status().message()));

  // By end after begin, so that an empty tensor comes before the one that begins where it lies.
  std::sort(entries->begin(), entries->end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  const absl::Span<const uint8_t> data = bytes.subspan(sizeof(header_bytes) + header_bytes);
  std::vector<RawTensor> tensors;
  tensors.reserve(entries->size());
  uint64_t position = 0;
  for (SafetensorsEntry& entry : *entries) {
    const std::string what = absl::StrCat("tensor ", QuoteName(entry.name));
    if (entry.end > data.size()) {
      return ModelFileError(path, absl::StrCat(what, " reaches to byte ", entry.end, " of ", data.size()));
    }
    if (entry.begin != position) {
      return ModelFileError(path, absl::StrCat(what, " begins at byte ", entry.begin,
                                               entry.begin < position ? " and overlaps the one before, which ends at "
                                                                      : " and leaves a hole after ",
                                               position));
    }
    const DtypeInfo* dtype = FindDtype(entry.dtype);
    if (!FitsRange(dtype, entry.shape, entry.end - entry.begin)) {
      return ModelFileError(path, absl::StrCat(what, " of type ", QuoteName(entry.dtype), " has a shape that does not ",
                                               "give the ", entry.end - entry.begin, " bytes of its range"));
    }
    tensors.push_back(RawTensor{.info = {.name = std::move(entry.name),
                                         .shape = std::move(entry.shape),
                                         .dtype = std::move(entry.dtype),
                                         .bytes = entry.end - entry.begin},
                                .type = dtype == nullptr ? std::nullopt : dtype->type,
                                .data = data.data() + entry.begin});
    position = entry.end;
  }
  if (position != data.size()) {
    return ModelFileError(path, absl::StrCat("the tensors end at byte ", position, " of ", data.size()));
  }
  return tensors;
}

absl::StatusOr<std::map<std::string, std::string>> ParseSafetensorsIndex(std::string_view json,
                                                                         const std::string& path) {
  if (json.size() > kMaxHeaderBytes) return ModelFileError(path, "the index is too large");
  absl::StatusOr<std::map<std::string, std::string>> weight_map = ReadSafetensorsIndex(json);
  if (!weight_map.ok()) return ModelFileError(path, std::string(weight_map.status().message()));
  for (const auto& [tensor, file] : *weight_map) {
    if (!IsPlainFileName(file)) {
      return ModelFileError(path, absl::StrCat("tensor ", QuoteName(tensor), " is said to be in ", QuoteName(file),
                                               "; the name of a .safetensors file in the same folder is needed"));
    }
  }
  return weight_map;
}

SafetensorsCheckpoint::SafetensorsCheckpoint(std::string path) : path_(std::move(path)) {}

absl::StatusOr<std::shared_ptr<const SafetensorsCheckpoint>> SafetensorsCheckpoint::Open(const std::string& path) {
  std::string file = path;
  if (IsFolder(path)) {
    file = absl::StrCat(path, "/", kIndexName);
    if (!Exists(file)) file = absl::StrCat(path, "/", kFileName);
  }
  const std::shared_ptr<SafetensorsCheckpoint> checkpoint(new SafetensorsCheckpoint(path));
  TRIMTAB_RETURN_IF_ERROR(absl::EndsWith(file, ".json") ? checkpoint->AddShards(file) : checkpoint->AddFile(file));
  return checkpoint;
}

absl::Status SafetensorsCheckpoint::AddFile(const std::string& path) {
  TRIMTAB_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  TRIMTAB_ASSIGN_OR_RETURN(tensors_, ParseSafetensors(file->bytes(), path));
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status SafetensorsCheckpoint::AddShards(const std::string& index_path) {
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> index, MappedFile::Open(index_path));
  const std::string_view json(reinterpret_cast<const char*>(index->bytes().data()), index->bytes().size());
  using WeightMap = std::map<std::string, std::string>;
  TRIMTAB_ASSIGN_OR_RETURN(const WeightMap weight_map, ParseSafetensorsIndex(json, index_path));
  std::map<std::string, std::vector<std::string>> tensors_of_file;
  for (const auto& [tensor, file] : weight_map) tensors_of_file[file].push_back(tensor);

  const std::string folder = index_path.substr(0, index_path.rfind('/') + 1);  // empty for a bare name
  for (const auto& [file_name, tensor_names] : tensors_of_file) {
    const std::string shard_path = folder + file_name;
    absl::StatusOr<std::shared_ptr<const MappedFile>> shard = MappedFile::Open(shard_path);
    if (absl::IsNotFound(shard.status())) {
      return ModelFileError(index_path, absl::StrCat("the shard ", QuoteName(file_name), " does not exist"));
    }
    if (!shard.ok()) return shard.status();
    TRIMTAB_ASSIGN_OR_RETURN(std::vector<RawTensor> tensors, ParseSafetensors((*shard)->bytes(), shard_path));
    absl::flat_hash_map<std::string, RawTensor*> by_name;
    for (RawTensor& tensor : tensors) by_name.emplace(tensor.info.name, &tensor);
    for (const std::string& name : tensor_names) {
      const auto found = by_name.find(name);
      if (found == by_name.end()) {
        return ModelFileError(index_path,
                              absl::StrCat("tensor ", QuoteName(name), " is not in its shard ", QuoteName(file_name)));
      }
      tensors_.push_back(*found->second);
    }
    files_.push_back(*std::move(shard));
  }
  return absl::OkStatus();
}

}  // namespace trimtab
