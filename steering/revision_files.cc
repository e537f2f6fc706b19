// safetensors with a JSON document. See vector_files.h.
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/weights/file_error.h"
#include "models/weights/safetensors.h"
#include "server/base/status_macros.h"
#include "steering/vector_files.h"

namespace trimtab {
namespace {

using Json = nlohmann::json;  // its objects are trees: a hostile document cannot make it slow
using OrderedJson = nlohmann::ordered_json;

constexpr char kFormat[] = "trimtab.revision";
constexpr int kVersion = 1;
constexpr size_t kMaxDocumentBytes = size_t{8} << 20;
constexpr size_t kMaxProblems = 20;
constexpr size_t kMaxNameBytes = 512;

struct Name {
  int value;
  const char* text;
};
constexpr Name kSites[] = {{static_cast<int>(Site::kBlockOutput), "block_output"},
                           {static_cast<int>(Site::kAttentionOutput), "attention_output"},
                           {static_cast<int>(Site::kMlpOutput), "mlp_output"}};
constexpr Name kOperations[] = {{static_cast<int>(Operation::kAdd), "add"},
                                {static_cast<int>(Operation::kAddPreserveNorm), "add_preserve_norm"},
                                {static_cast<int>(Operation::kAddOpposingPreserveNorm), "add_opposing_preserve_norm"}};
constexpr Name kStrengthModes[] = {{static_cast<int>(StrengthMode::kRelative), "relative"},
                                   {static_cast<int>(StrengthMode::kAbsolute), "absolute"}};
constexpr Name kApplyTos[] = {{static_cast<int>(ApplyTo::kAll), "all"},
                              {static_cast<int>(ApplyTo::kFromLastPrompt), "from_last_prompt"},
                              {static_cast<int>(ApplyTo::kResponse), "response"}};

template <typename Enum, size_t kCount>
std::string TextOf(Enum value, const Name (&names)[kCount]) {
  for (const Name& name : names) {
    if (name.value == static_cast<int>(value)) return name.text;
  }
  return "";
}

std::string TensorName(int64_t layer) { return absl::StrCat("layers.", layer, ".direction"); }

OrderedJson LayerDocument(const LayerDirection& layer) {
  // A double prints as the shortest text that reads back to it: floats come back as they were.
  return {{"layer", layer.layer},
          {"weight", static_cast<double>(layer.weight)},
          {"explained_variance", static_cast<double>(layer.explained_variance)},
          {"cosine_to_mean", static_cast<double>(layer.cosine_to_mean)},
          {"cosine_to_margin_gradient", static_cast<double>(layer.cosine_to_margin_gradient)},
          {"bootstrap_stability", static_cast<double>(layer.bootstrap_stability)}};
}

std::string WriteVectors(const SteeringVectorSpec& spec) {
  const size_t bytes = static_cast<size_t>(spec.hidden_size) * sizeof(float);
  OrderedJson header = {{"__metadata__", {{"format", kFormat}}}};
  size_t offset = 0;
  for (const LayerDirection& layer : spec.layers) {
    header[TensorName(layer.layer)] = {
        {"dtype", "F32"}, {"shape", {spec.hidden_size}}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors at a multiple of 8
  const auto size = static_cast<uint64_t>(text.size());
  std::string out(reinterpret_cast<const char*>(&size), sizeof(size));  // little-endian, as all of Trimtab
  out += text;
  for (const LayerDirection& layer : spec.layers) {
    out.append(reinterpret_cast<const char*>(layer.direction.data()), bytes);
  }
  return out;
}

// Reads the fields of a JSON object and remembers what is wrong; a value is meaningless when something was.
class Fields {
 public:
  Fields(const Json& object, std::string where, std::vector<std::string>& problems)
      : object_(object), where_(std::move(where)), problems_(problems) {
    if (!object.is_object()) Fail("", "must be an object");
  }

  // Null when the field is missing, which is a problem unless it is `optional`.
  const Json* Find(const char* name, bool optional = false) {
    known_.insert(name);
    if (!object_.is_object()) return nullptr;
    const auto found = object_.find(name);
    if (found != object_.end()) return &*found;
    if (!optional) Fail(name, "is missing");
    return nullptr;
  }
  std::string Text(const char* name, bool optional = false) {
    const Json* const value = Find(name, optional);
    if (value == nullptr) return "";
    if (value->is_string() && value->get_ref<const std::string&>().size() <= kMaxNameBytes) return *value;
    Fail(name, absl::StrCat("must be a string of at most ", kMaxNameBytes, " bytes"));
    return "";
  }
  float Number(const char* name) {
    const Json* const value = Find(name);
    if (value == nullptr) return 0;
    const double number = value->is_number() ? value->get<double>() : std::numeric_limits<double>::infinity();
    if (std::abs(number) <= std::numeric_limits<float>::max()) return static_cast<float>(number);
    Fail(name, "must be a number");
    return 0;
  }
  int64_t Integer(const char* name) {
    const Json* const value = Find(name);
    if (value == nullptr) return 0;
    constexpr int64_t kMax = int64_t{1} << 40;
    if (value->is_number_integer() && *value >= 0 && *value <= kMax) return *value;
    Fail(name, "must be a whole number");
    return 0;
  }
  template <typename Enum, size_t kCount>
  void Choice(const char* name, const Name (&names)[kCount], Enum& out) {
    const Json* const value = Find(name);
    if (value == nullptr) return;
    std::string known;
    for (const Name& candidate : names) {
      if (*value == candidate.text) {
        out = static_cast<Enum>(candidate.value);
        return;
      }
      absl::StrAppend(&known, known.empty() ? "" : ", ", candidate.text);
    }
    Fail(name, absl::StrCat("must be one of ", known));
  }
  // A field that means something to a newer server must not be overlooked.
  void RefuseOthers() {
    if (!object_.is_object()) return;
    for (const auto& [name, value] : object_.items()) {
      if (!known_.contains(name)) Fail(QuoteName(name), "is not known");
    }
  }
  void Fail(std::string_view name, std::string_view what) {
    if (problems_.size() >= kMaxProblems) return;
    problems_.push_back(
        absl::StrCat(where_, name.empty() || where_.empty() ? "" : ".", std::string(name), " ", std::string(what)));
  }

 private:
  const Json& object_;
  const std::string where_;
  std::vector<std::string>& problems_;
  std::set<std::string, std::less<>> known_;
};

using Tensors = absl::flat_hash_map<std::string, const RawTensor*>;

void ReadDirection(Tensors& tensors, int64_t hidden_size, LayerDirection& layer, std::vector<std::string>& problems) {
  const std::string name = TensorName(layer.layer);
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    if (problems.size() < kMaxProblems) {
      problems.push_back(absl::StrCat("tensor ", name, " is missing, or the layer is there twice"));
    }
    return;
  }
  const RawTensor& tensor = *found->second;
  tensors.erase(found);
  if (tensor.type != ElementType::kF32 || tensor.info.shape != std::vector<int64_t>{hidden_size}) {
    if (problems.size() < kMaxProblems) {
      problems.push_back(absl::StrCat("tensor ", name, " is ", tensor.info.dtype, " [",
                                      absl::StrJoin(tensor.info.shape, ", "), "], must be F32 [", hidden_size, "]"));
    }
    return;
  }
  layer.direction.resize(static_cast<size_t>(hidden_size));
  std::memcpy(layer.direction.data(), tensor.data, layer.direction.size() * sizeof(float));
}

SteeringVectorSpec ReadSpec(const Json& document, Tensors& tensors, std::string& digest,
                            std::vector<std::string>& problems) {
  SteeringVectorSpec spec;
  Fields fields(document, "vector", problems);
  spec.model_fingerprint = fields.Text("model_fingerprint");
  spec.method = fields.Text("method");
  fields.Choice("site", kSites, spec.site);
  fields.Choice("operation", kOperations, spec.operation);
  fields.Choice("strength_mode", kStrengthModes, spec.strength_mode);
  fields.Choice("apply_to", kApplyTos, spec.apply_to);
  spec.default_strength = fields.Number("default_strength");
  spec.max_strength = fields.Number("max_strength");
  spec.hidden_size = fields.Integer("hidden_size");
  digest = fields.Text("digest", /*optional=*/true);
  const Json* const layers = fields.Find("layers");
  fields.RefuseOthers();
  if (layers != nullptr && !layers->is_array()) fields.Fail("layers", "must be a list");
  if (layers == nullptr || !layers->is_array()) return spec;
  for (size_t i = 0; i < layers->size() && problems.size() < kMaxProblems; ++i) {
    Fields entry((*layers)[i], absl::StrCat("vector.layers[", i, "]"), problems);
    LayerDirection& layer = spec.layers.emplace_back();
    layer.layer = entry.Integer("layer");
    layer.weight = entry.Number("weight");
    layer.explained_variance = entry.Number("explained_variance");
    layer.cosine_to_mean = entry.Number("cosine_to_mean");
    layer.cosine_to_margin_gradient = entry.Number("cosine_to_margin_gradient");
    layer.bootstrap_stability = entry.Number("bootstrap_stability");
    entry.RefuseOthers();
    ReadDirection(tensors, spec.hidden_size, layer, problems);
  }
  for (const auto& [name, tensor] : tensors) {
    if (problems.size() < kMaxProblems) {
      problems.push_back(absl::StrCat("tensor ", QuoteName(name), " belongs to no layer of the document"));
    }
  }
  return spec;
}

}  // namespace

RevisionFiles WriteRevisionFiles(const SteeringVector& vector, const VectorOrigin& origin) {
  const SteeringVectorSpec& spec = vector.spec();
  OrderedJson layers = OrderedJson::array();
  for (const LayerDirection& layer : spec.layers) layers.push_back(LayerDocument(layer));
  OrderedJson document = {{"format", kFormat},
                          {"version", kVersion},
                          {"exported_from", origin.revision},
                          {"vector",
                           {{"model_fingerprint", spec.model_fingerprint},
                            {"method", spec.method},
                            {"site", TextOf(spec.site, kSites)},
                            {"operation", TextOf(spec.operation, kOperations)},
                            {"strength_mode", TextOf(spec.strength_mode, kStrengthModes)},
                            {"apply_to", TextOf(spec.apply_to, kApplyTos)},
                            {"default_strength", static_cast<double>(spec.default_strength)},
                            {"max_strength", static_cast<double>(spec.max_strength)},
                            {"hidden_size", spec.hidden_size},
                            {"digest", vector.digest()},
                            {"layers", std::move(layers)}}}};
  const OrderedJson summary = OrderedJson::parse(origin.summary, nullptr, /*allow_exceptions=*/false);
  if (summary.is_object()) document["summary"] = summary;
  return {.vectors = WriteVectors(spec),
          .document = document.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n"};
}

absl::StatusOr<ImportedRevision> ReadRevisionFiles(std::string_view vectors, std::string_view document) {
  if (document.size() > kMaxDocumentBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the document is larger than ", kMaxDocumentBytes >> 20, " MiB"));
  }
  const Json json = Json::parse(document, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("the document is not a JSON object");
  std::vector<std::string> problems;
  Fields fields(json, "", problems);
  if (fields.Text("format") != kFormat) fields.Fail("format", absl::StrCat("must be \"", kFormat, "\""));
  if (fields.Integer("version") != kVersion) fields.Fail("version", absl::StrCat("must be ", kVersion));
  if (!problems.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems, "; "));
  const absl::Span<const uint8_t> span(reinterpret_cast<const uint8_t*>(vectors.data()), vectors.size());
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<RawTensor> tensors, ParseSafetensors(span, std::string(kVectorsFileName)));
  Tensors by_name;
  for (const RawTensor& tensor : tensors) by_name.emplace(tensor.info.name, &tensor);

  ImportedRevision imported;
  imported.origin.revision = fields.Text("exported_from", /*optional=*/true);
  if (const Json* const summary = fields.Find("summary", /*optional=*/true)) {
    if (!summary->is_object()) fields.Fail("summary", "must be an object");
    imported.origin.summary = summary->dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  std::string digest;
  SteeringVectorSpec spec;
  if (const Json* const vector = fields.Find("vector")) spec = ReadSpec(*vector, by_name, digest, problems);
  fields.RefuseOthers();
  if (!problems.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems, "; "));
  TRIMTAB_ASSIGN_OR_RETURN(imported.vector, SteeringVector::Create(std::move(spec)));
  if (!digest.empty() && digest != imported.vector->digest()) {
    return absl::InvalidArgumentError(absl::StrCat("the vectors have the digest ", imported.vector->digest(),
                                                   ", the document says ", QuoteName(digest),
                                                   ": the files are damaged or do not belong together"));
  }
  return imported;
}

}  // namespace trimtab
