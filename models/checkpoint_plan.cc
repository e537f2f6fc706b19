#include "models/checkpoint_plan.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/weights/file_error.h"
#include "models/weights/grouped_weight.h"
#include "models/weights/safetensors.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

namespace fs = std::filesystem;

constexpr size_t kShownFaults = 4;  // of each kind, in an error

// Of 512 weights (16 rows of 32): 4 or 8 bits each, and a scale and a minimum of 2 bytes a row (QuantizedMatrix).
int64_t GroupedBytes(int64_t elements, int bits) { return elements / 512 * (64 * bits + 64); }

std::string Shape(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

// Tensors that become rows of one matrix: queries, keys and values of a layer; gate and up.
int Stack(TensorRole role) {
  switch (role) {
    case TensorRole::kQuery:
    case TensorRole::kKey:
    case TensorRole::kValue:
      return 1;
    case TensorRole::kGate:
    case TensorRole::kUp:
      return 2;
    default:
      return 0;
  }
}

// The widest of a stack's parts decides its bits, and a part without any that none are kept.
void KeepTogether(std::vector<PlannedTensor>& tensors) {
  std::map<std::pair<int64_t, int>, int> bits;
  for (const PlannedTensor& tensor : tensors) {
    const int stack = Stack(tensor.expected.role);
    if (stack == 0 || !tensor.matrix()) continue;
    const auto [place, is_first] = bits.emplace(std::pair(tensor.expected.layer, stack), tensor.kept_bits);
    if (!is_first)
      place->second = tensor.kept_bits == 0 || place->second == 0 ? 0 : std::max(place->second, tensor.kept_bits);
  }
  for (PlannedTensor& tensor : tensors) {
    const int stack = Stack(tensor.expected.role);
    if (stack > 0 && tensor.matrix()) tensor.kept_bits = bits.at({tensor.expected.layer, stack});
  }
}

void Compare(const std::vector<RawTensor>& present, CheckpointPlan& plan) {
  plan.has_weights = true;
  std::unordered_map<std::string, const RawTensor*> by_name;
  for (const RawTensor& tensor : present) by_name[tensor.info.name] = &tensor;
  for (PlannedTensor& tensor : plan.tensors) {
    const std::string& name = tensor.expected.name;
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      if (!tensor.expected.optional) plan.missing.push_back(name);
      continue;
    }
    const RawTensor& raw = *found->second;
    by_name.erase(found);
    tensor.type = raw.info.dtype;
    if (!raw.type) {
      plan.mismatched.push_back(absl::StrCat(name, " has the type ", raw.info.dtype, ", which is not supported"));
    } else if (raw.info.shape != tensor.expected.shape) {
      plan.mismatched.push_back(
          absl::StrCat(name, " has the shape ", Shape(raw.info.shape), ", must have ", Shape(tensor.expected.shape)));
    } else if (tensor.matrix()) {
      tensor.kept_bits = GroupedBits(*raw.type);
    }
  }
  // Optional tensors that are absent take no part in anything.
  plan.tensors.erase(std::remove_if(plan.tensors.begin(), plan.tensors.end(),
                                    [](const PlannedTensor& t) { return t.expected.optional && t.type.empty(); }),
                     plan.tensors.end());
  KeepTogether(plan.tensors);
  for (const auto& [name, tensor] : by_name) plan.unread.push_back(name);
  std::sort(plan.unread.begin(), plan.unread.end());
}

CheckpointPlan PlanOf(ModelDescription description, CheckpointFormat format) {
  CheckpointPlan plan{.description = std::move(description), .format = format};
  for (ExpectedTensor& tensor : ExpectedTensors(plan.description.spec, plan.description.architecture->layout, format)) {
    plan.tensors.push_back({.expected = std::move(tensor)});
  }
  return plan;
}

}  // namespace

int64_t PlannedTensor::elements() const {
  return std::accumulate(expected.shape.begin(), expected.shape.end(), int64_t{1}, std::multiplies<>());
}

int64_t CheckpointPlan::parameters() const {
  int64_t count = 0;
  for (const PlannedTensor& tensor : tensors) count += tensor.elements();
  return count;
}

bool CheckpointPlan::quantised() const {
  return std::any_of(tensors.begin(), tensors.end(), [](const PlannedTensor& tensor) { return tensor.kept_bits > 0; });
}

absl::StatusOr<CheckpointPlan> PlanCheckpoint(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    return absl::NotFoundError(
        absl::StrCat(path, " does not exist: give a GGUF file, a Hugging Face folder or a config.json"));
  }
  const bool folder = fs::is_directory(path, error);
  if (folder || absl::EndsWithIgnoreCase(path, ".json")) {
    const std::string config = folder ? (fs::path(path) / "config.json").string() : path;
    TRIMTAB_ASSIGN_OR_RETURN(ModelDescription description, DescribeHuggingFace(config));
    CheckpointPlan plan = PlanOf(std::move(description), CheckpointFormat::kHuggingFace);
    if (folder && (fs::exists(fs::path(path) / "model.safetensors", error) ||
                   fs::exists(fs::path(path) / "model.safetensors.index.json", error))) {
      TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const SafetensorsCheckpoint> checkpoint,
                               SafetensorsCheckpoint::Open(path));
      return PlanTensors(std::move(plan.description), plan.format, checkpoint->tensors());
    }
    for (PlannedTensor& tensor : plan.tensors) tensor.type = plan.description.weight_type;
    return plan;
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::shared_ptr<const GgufFile> file, GgufFile::Open(path));
  TRIMTAB_ASSIGN_OR_RETURN(ModelDescription description, DescribeGguf(*file));
  return PlanTensors(std::move(description), CheckpointFormat::kGguf, file->tensors());
}

CheckpointPlan PlanTensors(ModelDescription description, CheckpointFormat format,
                           const std::vector<RawTensor>& present) {
  CheckpointPlan plan = PlanOf(std::move(description), format);
  Compare(present, plan);
  return plan;
}

absl::Status CheckComplete(const CheckpointPlan& plan, const std::string& path) {
  if (!plan.has_weights) {
    return ModelFileError(path,
                          "there are no weights: a folder needs model.safetensors or "
                          "model.safetensors.index.json");
  }
  std::vector<std::string> faults;
  const auto list = [&faults](std::string_view title, const std::vector<std::string>& lines) {
    if (lines.empty()) return;
    const auto shown = std::min(lines.size(), kShownFaults);
    faults.push_back(absl::StrCat(std::string(title), absl::StrJoin(lines.begin(), lines.begin() + shown, "; "),
                                  lines.size() > shown ? absl::StrCat("; and ", lines.size() - shown, " more") : ""));
  };
  list("tensors are missing: ", plan.missing);
  list("tensors are not as expected: ", plan.mismatched);
  return faults.empty() ? absl::OkStatus() : ModelFileError(path, absl::StrJoin(faults, "; "));
}

int64_t WeightBytes(const CheckpointPlan& plan, const WeightForm& form) {
  int64_t bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.matrix() && form.grouped && tensor.kept_bits > 0) {
      bytes += GroupedBytes(tensor.elements(), tensor.kept_bits);
    } else {
      bytes += tensor.elements() * (tensor.matrix() && form.plain_type == at::kBFloat16 ? 2 : 4);
    }
  }
  return bytes;
}

}  // namespace trimtab
