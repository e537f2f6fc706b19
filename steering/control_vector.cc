// GGUF control vectors. See vector_files.h.
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/weights/file_error.h"
#include "models/weights/gguf.h"
#include "server/base/status_macros.h"
#include "steering/byte_io.h"
#include "steering/vector_files.h"

namespace trimtab {
namespace {

constexpr char kArchitecture[] = "controlvector";
constexpr char kArchitectureKey[] = "general.architecture";
constexpr char kModelHintKey[] = "controlvector.model_hint";
constexpr char kLayerCountKey[] = "controlvector.layer_count";
constexpr char kFingerprintKey[] = "trimtab.model_fingerprint";
constexpr char kRevisionKey[] = "trimtab.revision";
constexpr char kScaleKey[] = "trimtab.scale";
constexpr char kDigestKey[] = "trimtab.digest";
constexpr std::string_view kPrefix = "direction.";
constexpr size_t kAlignment = 32;
// Numbers of the format: GGUF 3, metadata types, ggml's float32.
constexpr uint32_t kVersion = 3, kUint32 = 4, kFloat32 = 6, kString = 8, kGgmlF32 = 0;
constexpr size_t kMaxProblems = 10;

absl::Status Bad(const std::string& what) { return absl::InvalidArgumentError(what); }

// GGUF's strings have 64-bit lengths.
void WriteString(ByteWriter& writer, std::string_view text) {
  writer.Number(static_cast<uint64_t>(text.size()));
  writer.Raw(text.data(), text.size());
}

void WriteStringEntry(ByteWriter& writer, std::string_view key, std::string_view value) {
  WriteString(writer, key);
  writer.Number(kString);
  WriteString(writer, value);
}

size_t Padding(size_t size) { return (kAlignment - size % kAlignment) % kAlignment; }

void Pad(ByteWriter& writer) {
  static constexpr char kZeros[kAlignment] = {};
  writer.Raw(kZeros, Padding(writer.bytes().size()));
}

// N of "direction.N", written without a sign or leading zeros.
bool ParseLayer(std::string_view name, int64_t& layer) {
  if (!name.starts_with(kPrefix)) return false;
  const std::string digits(name.substr(kPrefix.size()));
  return digits.find_first_not_of("0123456789") == std::string::npos && absl::SimpleAtoi(digits, &layer) &&
         absl::StrCat(layer) == digits;
}

absl::StatusOr<std::vector<float>> ReadDirection(const RawTensor& tensor) {
  const std::string what = absl::StrCat("tensor ", QuoteName(tensor.info.name));
  if (tensor.type != ElementType::kF32) {
    return Bad(absl::StrCat(what, " is of type ", tensor.info.dtype, ", must be F32"));
  }
  if (tensor.info.shape.size() != 1) {
    return Bad(absl::StrCat(what, " has ", tensor.info.shape.size(), " dimensions, must have 1"));
  }
  std::vector<float> values(static_cast<size_t>(tensor.info.shape[0]));
  std::memcpy(values.data(), tensor.data, values.size() * sizeof(float));
  for (const float value : values) {
    if (!std::isfinite(value)) return Bad(absl::StrCat(what, " holds a number that is not finite"));
  }
  return values;
}

double Norm(const std::vector<float>& values) {
  double squares = 0;
  for (const float x : values) squares += static_cast<double>(x) * x;
  return std::sqrt(squares);
}

}  // namespace

absl::StatusOr<std::string> WriteControlVector(const SteeringVector& vector, double scale, std::string_view model_hint,
                                               std::string_view revision) {
  const SteeringVectorSpec& spec = vector.spec();
  if (spec.site != Site::kBlockOutput) {
    return absl::FailedPreconditionError("a control vector is added after whole blocks; this one steers another site");
  }
  if (spec.layers.front().layer == 0) {
    return absl::FailedPreconditionError("llama.cpp cannot steer block 0, which this vector does");
  }
  if (!std::isfinite(scale) || scale == 0) return Bad("the scale must be a number other than 0");
  ByteWriter writer;
  writer.Raw("GGUF", 4);
  writer.Number(kVersion);
  writer.Number(static_cast<uint64_t>(spec.layers.size()));
  writer.Number(uint64_t{7});  // metadata keys
  WriteStringEntry(writer, kArchitectureKey, kArchitecture);
  WriteStringEntry(writer, kModelHintKey, model_hint);
  WriteString(writer, kLayerCountKey);
  writer.Number(kUint32);
  writer.Number(static_cast<uint32_t>(spec.layers.size()));
  WriteStringEntry(writer, kFingerprintKey, spec.model_fingerprint);
  WriteStringEntry(writer, kRevisionKey, revision);
  WriteStringEntry(writer, kDigestKey, vector.digest());
  WriteString(writer, kScaleKey);
  writer.Number(kFloat32);
  writer.Number(static_cast<float>(scale));
  const size_t bytes = static_cast<size_t>(spec.hidden_size) * sizeof(float);
  uint64_t offset = 0;
  for (const LayerDirection& layer : spec.layers) {
    WriteString(writer, absl::StrCat(std::string(kPrefix), layer.layer));
    writer.Number(uint32_t{1});  // dimensions
    writer.Number(static_cast<uint64_t>(spec.hidden_size));
    writer.Number(kGgmlF32);
    writer.Number(offset);
    offset += bytes + Padding(bytes);
  }
  Pad(writer);
  for (const LayerDirection& layer : spec.layers) {
    for (const float x : layer.direction) {
      const auto value = static_cast<float>(scale * layer.weight * x);
      if (!std::isfinite(value)) return Bad("the scaled directions are beyond the numbers of float32");
      writer.Number(value);
    }
    Pad(writer);
  }
  return writer.Take();
}

absl::StatusOr<ControlVector> ReadControlVector(std::string_view bytes) {
  const absl::Span<const uint8_t> span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  // The file does not outlive this function, nor does what it borrows.
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const GgufFile> file, GgufFile::Parse(span, nullptr, "the file"));
  TRIMTAB_ASSIGN_OR_RETURN(const std::string_view architecture, file->GetStringOr(kArchitectureKey, ""));
  if (architecture != kArchitecture) {
    return Bad(absl::StrCat("general.architecture is ", QuoteName(architecture), ", must be \"", kArchitecture, "\""));
  }
  ControlVector control;
  for (const auto& [key, text] :
       {std::pair(kModelHintKey, &control.model_hint), std::pair(kFingerprintKey, &control.model_fingerprint),
        std::pair(kRevisionKey, &control.revision)}) {
    TRIMTAB_ASSIGN_OR_RETURN(const std::string_view value, file->GetStringOr(key, ""));
    *text = std::string(value);
  }
  std::vector<std::string> problems;
  size_t hidden_size = 0;
  for (const RawTensor& tensor : file->tensors()) {
    if (problems.size() == kMaxProblems) break;
    int64_t layer = 0;
    if (!ParseLayer(tensor.info.name, layer)) {
      problems.push_back(absl::StrCat("tensor ", QuoteName(tensor.info.name), " must be named direction.N"));
      continue;
    }
    absl::StatusOr<std::vector<float>> direction = ReadDirection(tensor);
    if (!direction.ok()) {
      problems.emplace_back(direction.status().message());
      continue;
    }
    if (hidden_size == 0) hidden_size = direction->size();
    if (direction->size() != hidden_size) {
      problems.push_back(absl::StrCat("tensor ", QuoteName(tensor.info.name), " has ", direction->size(),
                                      " numbers, others have ", hidden_size));
      continue;
    }
    control.directions[layer] = *std::move(direction);
  }
  if (problems.empty() && control.directions.empty()) problems.emplace_back("there is no tensor direction.N");
  if (!problems.empty()) return Bad(absl::StrJoin(problems, "; "));
  return control;
}

absl::StatusOr<std::shared_ptr<const SteeringVector>> ToSteeringVector(const ControlVector& control,
                                                                       const ControlVectorUse& use) {
  SteeringVectorSpec spec;
  spec.model_fingerprint = use.model_fingerprint;
  spec.method = "control_vector";
  spec.site = use.site;
  spec.operation = use.preserve_norm ? Operation::kAddPreserveNorm : Operation::kAdd;
  spec.strength_mode = use.relative ? StrengthMode::kRelative : StrengthMode::kAbsolute;
  spec.apply_to = ApplyTo::kAll;
  spec.default_strength = use.default_strength;
  spec.max_strength = use.max_strength;
  for (const auto& [layer, direction] : control.directions) {
    const double norm = Norm(direction);
    if (norm == 0) continue;
    if (norm > std::numeric_limits<float>::max()) {
      return Bad(absl::StrCat("tensor direction.", layer, " is longer than the numbers of float32 go"));
    }
    spec.hidden_size = static_cast<int64_t>(direction.size());
    LayerDirection& entry = spec.layers.emplace_back();
    if (__builtin_add_overflow(layer, use.layer_offset, &entry.layer) || entry.layer < 0) {
      return Bad(absl::StrCat("tensor direction.", layer, " with layer_offset ", use.layer_offset,
                              " is for no block of a model"));
    }
    entry.weight = use.relative ? 1.0f : static_cast<float>(norm);
    entry.direction.reserve(direction.size());
    for (const float x : direction) entry.direction.push_back(static_cast<float>(x / norm));
  }
  if (spec.layers.empty()) return Bad("all tensors are zeros");
  return SteeringVector::Create(std::move(spec));
}

}  // namespace trimtab
