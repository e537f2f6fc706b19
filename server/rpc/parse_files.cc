#include "server/rpc/parse_files.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/rpc/parse_common.h"

namespace trimtab {
namespace {

constexpr size_t kMaxFileNameBytes = 255;
constexpr size_t kMaxEtagBytes = 128;
constexpr int32_t kMaxLayerOffset = 1000;
// A recommendation for strengths that are multiples of the activation's norm, see ImportRevisionRequest.
constexpr float kRelativeDefault = 0.05f;
constexpr float kAbsoluteDefault = 1;
constexpr float kMaxPerDefault = 10;

// Which of the three kinds of file a name is of.
std::string_view* Slot(ImportCall& call, std::string_view name) {
  if (name.ends_with(".safetensors")) return &call.vectors;
  if (name.ends_with(".json")) return &call.document;
  return name.ends_with(".gguf") ? &call.control_vector : nullptr;
}

void ParseFiles(FieldChecker& checker, const v1::ImportRevisionRequest& request, ImportCall& call) {
  if (!checker.Count("files", request.files_size(), 1, 2)) return;
  bool known = true;
  for (int i = 0; i < request.files_size(); ++i) {
    const v1::RevisionFile& file = request.files(i);
    const std::string path = absl::StrCat("files[", i, "]");
    known &= checker.Text(path + ".name", file.name(), 1, kMaxFileNameBytes);
    std::string_view* const slot = Slot(call, file.name());
    if (file.data().empty()) {
      checker.Fail(path + ".data", "must not be empty");
      known = false;
    }
    if (slot == nullptr || !slot->empty()) {
      checker.Fail(path + ".name", slot == nullptr ? "must end in .safetensors, .json or .gguf"
                                                   : "ends like another file's: give one of each");
      known = false;
    } else {
      *slot = file.data();
      if (slot != &call.document) call.file_name = file.name();
    }
  }
  if (!known) return;
  const bool both = !call.vectors.empty() && !call.document.empty();
  if (call.control_vector.empty() ? !both : request.files_size() != 1) {
    checker.Fail("files", "must be a .safetensors and a .json file, or a .gguf file alone");
  }
}

void ParseUse(FieldChecker& checker, const v1::ImportRevisionRequest& request, ImportCall& call) {
  const v1::GgufApplication& gguf = request.gguf();
  if (gguf.site() == v1::SITE_UNSPECIFIED || !v1::Site_IsValid(gguf.site())) {
    checker.Fail("gguf.site", "must be set: the file does not say; SITE_BLOCK_OUTPUT is llama.cpp's and repeng's");
  }
  checker.Integer("gguf.layer_offset", gguf.layer_offset(), -kMaxLayerOffset, kMaxLayerOffset);
  call.use.site = static_cast<Site>(gguf.site());
  call.use.preserve_norm = gguf.preserve_norm();
  call.use.relative = gguf.relative();
  call.use.layer_offset = gguf.layer_offset();
  const float usual = gguf.relative() ? kRelativeDefault : kAbsoluteDefault;
  call.use.default_strength = call.default_strength.value_or(usual);
  const float reference = call.use.default_strength == 0 ? usual : std::abs(call.use.default_strength);
  call.use.max_strength = call.max_strength.value_or(std::min(kMaxPerDefault * reference, kMaxStrength));
  if (checker.ok() && std::abs(call.use.default_strength) > call.use.max_strength) {
    checker.Fail("default_strength", absl::StrCat("must be within max_strength, ", call.use.max_strength));
  }
}

}  // namespace

absl::StatusOr<ExportCall> ParseExportRevisionRequest(const v1::ExportRevisionRequest& request) {
  FieldChecker checker;
  ExportCall call;
  if (const auto revision = ParseRevisionName(request.name())) {
    call.objective = revision->objective;
    call.revision = revision->revision;
  } else if (const auto objective = ParseObjectiveName(request.name())) {
    call.objective = *objective;
  } else {
    checker.Fail("name", "must be the name of an objective or of a revision");
  }
  if (!v1::ExportFormat_IsValid(request.format())) checker.Fail("format", "is not a known value");
  call.gguf = request.format() == v1::EXPORT_FORMAT_GGUF;
  if (request.has_gguf_scale()) {
    checker.Number("gguf_scale", request.gguf_scale(), -kMaxStrength, kMaxStrength);
    if (request.gguf_scale() == 0) checker.Fail("gguf_scale", "must not be 0");
    if (!call.gguf) checker.Fail("gguf_scale", "must be unset unless the format is EXPORT_FORMAT_GGUF");
    call.gguf_scale = request.gguf_scale();
  }
  if (!checker.ok()) return checker.status();
  return call;
}

absl::StatusOr<ImportCall> ParseImportRevisionRequest(const v1::ImportRevisionRequest& request) {
  FieldChecker checker;
  ImportCall call;
  call.id.model = ParseModel(checker, "parent", request.parent());
  if (!IsValidId(request.objective_id())) {
    checker.Fail("objective_id", absl::StrCat("must be of the form ", std::string(kIdPattern)));
  }
  call.id.objective = request.objective_id();
  checker.Token("request_id", request.request_id(), kMaxRequestIdBytes);
  checker.Token("etag", request.etag(), kMaxEtagBytes);
  if (request.has_default_strength()) {
    checker.Number("default_strength", request.default_strength(), -kMaxStrength, kMaxStrength);
    call.default_strength = request.default_strength();
  }
  if (request.has_max_strength()) {
    checker.NumberAbove("max_strength", request.max_strength(), 0, kMaxStrength);
    call.max_strength = request.max_strength();
  }
  ParseFiles(checker, request, call);
  if (!call.control_vector.empty() && request.has_gguf()) ParseUse(checker, request, call);
  if (!call.control_vector.empty() && !request.has_gguf()) {
    checker.Fail("gguf", "must be set: the file does not say how its vectors are applied");
  }
  if (call.control_vector.empty() && request.has_gguf()) checker.Fail("gguf", "must be unset without a .gguf file");
  if (!checker.ok()) return checker.status();
  call.allow_other_fingerprint = request.allow_other_fingerprint();
  return call;
}

}  // namespace trimtab
