#include "server/dry_run.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "models/checkpoint_plan.h"
#include "server/base/status_macros.h"
#include "server/engine/engine.h"

namespace trimtab {
namespace {

// The program itself with its libraries, tokenizers and buffers of calls.
constexpr int64_t kProgramBytes = int64_t{256} << 20;

// 1234567 -> "1,234,567".
std::string Grouped(int64_t number) {
  std::string digits = absl::StrCat(number);
  for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, 1, ',');
  return digits;
}

std::string Bytes(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes < int64_t{1} << 20) return absl::StrFormat("%.1f KiB", value / (1 << 10));
  if (bytes < int64_t{1} << 30) return absl::StrFormat("%.1f MiB", value / (1 << 20));
  return absl::StrFormat("%.2f GiB", value / (1 << 30));
}

std::string Shape(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

// Rows of a step and of its logits, in float32: what the engine's workspace grows to.
int64_t StepBytes(const ModelSpec& spec, const ServerConfig& config) {
  const int64_t row =
      3 * spec.hidden_size + (2 * spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim + 2 * spec.intermediate_size;
  return 4 * (config.max_step_tokens * row + config.max_running_requests * spec.vocab_size);
}

// Layers by their attention window, 0 for those that see all positions.
std::map<int64_t, int64_t> LayersByWindow(const ModelSpec& spec) {
  std::map<int64_t, int64_t> layers;
  for (const LayerSpec& layer : spec.layers) ++layers[layer.window];
  return layers;
}

std::string Tensors(const CheckpointPlan& plan) {
  size_t name_width = 0, shape_width = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    name_width = std::max(name_width, tensor.expected.name.size());
    shape_width = std::max(shape_width, Shape(tensor.expected.shape).size());
  }
  std::string text = absl::StrCat("Tensors, ", plan.tensors.size(), " expected:\n");
  for (const PlannedTensor& tensor : plan.tensors) {
    const std::string type = !tensor.type.empty() ? tensor.type : plan.has_weights ? "missing" : "type not given";
    absl::StrAppendFormat(&text, "  %-*s  %-*s  %s\n", static_cast<int>(name_width), tensor.expected.name,
                          static_cast<int>(shape_width), Shape(tensor.expected.shape), type);
  }
  return text;
}

std::string Faults(const CheckpointPlan& plan) {
  if (!plan.has_weights) return "Only the configuration was read: there are no weights to compare with.\n";
  std::string text;
  const auto list = [&text](const char* title, const std::vector<std::string>& lines) {
    if (lines.empty()) return;
    absl::StrAppend(&text, title, ", ", lines.size(), ":\n");
    for (const std::string& line : lines) absl::StrAppend(&text, "  ", line, "\n");
  };
  list("Missing", plan.missing);
  list("Not as expected", plan.mismatched);
  list("In the checkpoint but not read", plan.unread);
  return text.empty() ? "The checkpoint holds exactly these tensors.\n" : text;
}

std::string Shapes(const CheckpointPlan& plan) {
  const ModelSpec& spec = plan.description.spec;
  std::string text = absl::StrFormat(
      "  architecture %s, %d layers, hidden size %d, feed-forward %d, %d heads of %d (%d of keys), vocabulary %s,\n"
      "  context %s, %s parameters\n",
      spec.architecture, spec.num_layers(), spec.hidden_size, spec.intermediate_size, spec.num_heads, spec.head_dim,
      spec.num_kv_heads, Grouped(spec.vocab_size), Grouped(spec.context_length), Grouped(plan.parameters()));
  const std::map<int64_t, int64_t> windows = LayersByWindow(spec);
  for (const auto& [window, layers] : windows) {
    if (window > 0) {
      absl::StrAppendFormat(&text, "  %d of %d layers see the last %s positions only\n", layers, spec.num_layers(),
                            Grouped(window));
    }
  }
  return text;
}

// One --precision: its name in flags, how matrices are kept, the bytes of a key's or value's element.
struct Choice {
  const char* name;
  WeightForm form;
  int64_t element_bytes;
};

std::string Memory(const CheckpointPlan& plan, const ServerConfig& config, int64_t device_memory) {
  const ModelSpec& spec = plan.description.spec;
  const int64_t context =
      config.max_context > 0 ? std::min(config.max_context, spec.context_length) : spec.context_length;
  const EngineConfig engine;
  const int64_t blocks = (context + engine.block_size - 1) / engine.block_size;
  const int64_t bank = 4 * config.steering_slots * spec.num_layers() * spec.hidden_size;
  const int64_t rest = bank + StepBytes(spec, config) + kProgramBytes;
  std::vector<Choice> choices = {{"float32", {.plain_type = at::kFloat}, 4},
                                 {"bfloat16", {.plain_type = at::kBFloat16}, 2}};
  if (plan.quantised()) choices.push_back({"file", {.plain_type = at::kBFloat16, .grouped = true}, 2});

  std::string text = "Memory:\n";
  absl::StrAppendFormat(&text, "  %-12s %14s %16s   %s\n", "--precision", "weights", "KV per token",
                        absl::StrCat("KV of ", Grouped(context), " tokens"));
  for (const Choice& choice : choices) {
    const int64_t token = spec.kv_bytes_per_token(choice.element_bytes);
    absl::StrAppendFormat(&text, "  %-12s %14s %16s   %s\n", choice.name, Bytes(WeightBytes(plan, choice.form)),
                          Bytes(token), Bytes(blocks * engine.block_size * token));
  }
  const std::map<int64_t, int64_t> windows = LayersByWindow(spec);
  if (windows.rbegin()->first > 0) {
    for (const auto& [window, layers] : windows) {
      const int64_t token = 2 * layers * spec.num_kv_heads * spec.head_dim;  // elements
      absl::StrAppendFormat(&text, "  KV per token of the %d layers %s: %s in bfloat16, %s in float32\n", layers,
                            window > 0 ? absl::StrCat("with a window of ", Grouped(window)) : "that see all positions",
                            Bytes(2 * token), Bytes(4 * token));
    }
    absl::StrAppend(&text, "  The cache keeps all positions of all layers, also those behind a window.\n");
  }
  absl::StrAppendFormat(&text,
                        "  Beside these: steering bank %s (%d vectors), buffers of a step %s, program about %s\n",
                        Bytes(bank), config.steering_slots, Bytes(StepBytes(spec, config)), Bytes(kProgramBytes));
  if (device_memory == 0) {
    return text + "  --device_memory=24GiB, say, works out the largest batch.\n";
  }
  absl::StrAppendFormat(&text, "Largest batch within %s, %s tokens each:\n", Bytes(device_memory), Grouped(context));
  for (const Choice& choice : choices) {
    const int64_t block = engine.block_size * spec.kv_bytes_per_token(choice.element_bytes);
    const int64_t room = device_memory - WeightBytes(plan, choice.form) - rest;
    const int64_t batch = std::max<int64_t>(room, 0) / block / blocks;
    absl::StrAppendFormat(
        &text, "  %-12s %s\n", choice.name,
        room < 0 ? absl::StrCat("does not fit: ", Bytes(-room), " short")
        : batch == 0
            ? absl::StrCat("none of this length; all memory holds ", Grouped(room / block * engine.block_size),
                           " tokens")
            : absl::StrCat(Grouped(batch), batch == 1 ? " sequence" : " sequences",
                           ", with --kv_cache_mib=", (batch * blocks * block + (1 << 20) - 1) >> 20,
                           batch > config.max_running_requests ? absl::StrCat(" --max_running_requests=", batch) : ""));
  }
  return text;
}

}  // namespace

absl::StatusOr<DryRun> RunDry(const ServerConfig& config, int64_t device_memory) {
  TRIMTAB_RETURN_IF_ERROR(CheckConfig(config));
  DryRun run;
  for (const std::string& model : config.models) {
    const ModelSource source = ParseModelSource(model);
    const absl::StatusOr<CheckpointPlan> plan = PlanCheckpoint(source.path);
    if (!plan.ok()) {
      return absl::Status(plan.status().code(), absl::StrCat("model ", source.path, ": ", plan.status().message()));
    }
    run.complete = run.complete && plan->missing.empty() && plan->mismatched.empty();
    absl::StrAppend(&run.text, run.text.empty() ? "" : "\n", source.path, "\n", Tensors(*plan), Faults(*plan),
                    "Model:\n", Shapes(*plan), Memory(*plan, config, device_memory));
  }
  return run;
}

absl::StatusOr<int64_t> ParseMemory(const std::string& text) {
  static constexpr std::pair<const char*, double> kUnits[] = {
      {"kib", 1024.0}, {"mib", 1048576.0}, {"gib", 1073741824.0}, {"tib", 1099511627776.0},
      {"kb", 1e3},     {"mb", 1e6},        {"gb", 1e9},           {"tb", 1e12},
      {"b", 1}};
  std::string number = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text));
  double factor = 1;
  for (const auto& [unit, bytes] : kUnits) {
    if (!absl::EndsWith(number, unit)) continue;
    number.resize(number.size() - std::char_traits<char>::length(unit));
    factor = bytes;
    break;
  }
  double value = 0;
  if (!absl::SimpleAtod(number, &value) || !(value > 0) || !(value * factor < 1e18)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not an amount of memory such as 24GiB"));
  }
  return static_cast<int64_t>(value * factor);
}

}  // namespace trimtab
