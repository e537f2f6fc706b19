#include "tools/trimctl/flags.h"

#include <cstdlib>

#include "absl/flags/flag.h"
#include "server/base/status_macros.h"
#include "tools/trimctl/command.h"
#include "tools/trimctl/steer_argument.h"

namespace {

std::string DefaultAddress() {
  const char* address = std::getenv("TRIMTAB_ADDRESS");
  return address != nullptr && *address != '\0' ? address : "127.0.0.1:50051";
}

}  // namespace

ABSL_FLAG(std::string, address, DefaultAddress(), "the server, host:port; TRIMTAB_ADDRESS sets the default");
ABSL_FLAG(std::string, o, "text", "\"text\" for people or \"json\" (protobuf's JSON mapping) for programs");
ABSL_FLAG(std::string, color, "auto", "\"auto\" (on a terminal, unless NO_COLOR is set), \"always\" or \"never\"");
ABSL_FLAG(std::string, model, "", "model, \"x\" or \"models/x\"; needed only when the server has several");
ABSL_FLAG(absl::Duration, timeout, absl::Minutes(5),
          "longest time for one call; the wait for a job is not limited by it");

ABSL_FLAG(std::string, steer, "",
          "objective to steer by: NAME, NAME=STRENGTH or NAME@REVISION=STRENGTH; may be repeated, up to 4");
ABSL_FLAG(std::string, apply_to, "", "positions to steer: \"all\", \"from_last_prompt\" or \"response\"");

ABSL_FLAG(std::string, id, "", "name of the new objective, [a-z]([a-z0-9-]{0,61}[a-z0-9])?");
ABSL_FLAG(std::string, held_out, "", "pairs that only measure the effect, a file like the first");
ABSL_FLAG(absl::optional<std::string>, method, absl::nullopt,
          "steering method; `trimctl methods` lists them; unset: grains, for a refit the objective's");
ABSL_FLAG(std::string, config, "", "the method's configuration as textproto, or @FILE");
ABSL_FLAG(std::string, request_id, "", "makes a repeated call the same one");
ABSL_FLAG(bool, evaluate_drift, false, "also measure drift at the recommended strength");
ABSL_FLAG(bool, validate_only, false, "only check whether it could be done");
ABSL_FLAG(bool, watch, false, "show progress until it is done, then the result");
ABSL_FLAG(bool, keep_active, false, "leave the active revision in service; `trimctl promote` brings the new one in");
ABSL_FLAG(absl::optional<std::string>, display_name, absl::nullopt, "name for people");
ABSL_FLAG(absl::optional<std::string>, description, absl::nullopt, "what it is for");
ABSL_FLAG(absl::optional<float>, default_strength, absl::nullopt, "strength of requests that give none");
ABSL_FLAG(absl::optional<float>, max_strength, absl::nullopt, "largest absolute strength that a request may ask for");
ABSL_FLAG(std::vector<std::string>, clear, {},
          "fields to unset: display_name, description, default_strength, max_strength");
ABSL_FLAG(std::string, etag, "", "do it only if the objective still has this etag");

ABSL_FLAG(std::vector<std::string>, strengths, {},
          "strengths to measure, separated by commas; empty: eleven around the recommended one");
ABSL_FLAG(int32_t, max_pairs, 0, "most pairs to measure on, 0 for 200");
ABSL_FLAG(std::string, png, "", "write the curve as a picture to this file");

ABSL_FLAG(std::string, html, "", "write the audit as a web page to this file");
ABSL_FLAG(int32_t, pairs, 0, "number of pairs to show, 0 for all");

ABSL_FLAG(std::string, out, "", "folder to write to; it is made if it is not there");
ABSL_FLAG(std::string, format, "safetensors", "\"safetensors\" or \"gguf\"");
ABSL_FLAG(absl::optional<float>, gguf_scale, absl::nullopt,
          "GGUF: every direction is written times this; unset: the default strength of a vector of absolute strength");
ABSL_FLAG(bool, force, false, "replace files that exist");
ABSL_FLAG(std::string, site, "",
          "GGUF: where in a block its tensors are added, \"block_output\", \"attention_output\" or \"mlp_output\"");
ABSL_FLAG(bool, preserve_norm, false, "GGUF: restore the activation's norm after adding");
ABSL_FLAG(bool, relative, false,
          "GGUF: strengths are multiples of the activation's norm; the tensors are made unit vectors");
ABSL_FLAG(int32_t, layer_offset, 0,
          "GGUF: tensor direction.N steers block N plus this, counted from 0; 0 is llama.cpp's and repeng's way");
ABSL_FLAG(bool, allow_other_fingerprint, false,
          "import vectors although the file names other weights, or none as GGUF files of others do");

ABSL_FLAG(std::string, system, "", "instructions before the prompt");
ABSL_FLAG(
    bool, raw, false,
    "give the prompt to the model as it is, without its chat template; a base model has none and takes nothing else");
ABSL_FLAG(bool, stats, false, "also say what steered, tokens and times");
ABSL_FLAG(absl::optional<int32_t>, max_output_tokens, absl::nullopt, "most tokens to generate");
ABSL_FLAG(absl::optional<float>, temperature, absl::nullopt, "0 is greedy");
ABSL_FLAG(absl::optional<float>, top_p, absl::nullopt, "nucleus");
ABSL_FLAG(absl::optional<int32_t>, top_k, absl::nullopt, "most likely tokens kept");
ABSL_FLAG(absl::optional<float>, min_p, absl::nullopt, "least share of the likeliest token's probability");
ABSL_FLAG(absl::optional<float>, repetition_penalty, absl::nullopt, "above 1: fewer repetitions");
ABSL_FLAG(absl::optional<uint64_t>, seed, absl::nullopt, "seed of the sampler, or of the draw of questions");
ABSL_FLAG(absl::optional<int32_t>, logprobs, absl::nullopt, "log-probabilities and so many alternatives; with -o json");
ABSL_FLAG(std::vector<std::string>, stop, {}, "text that ends the answer; may be repeated");
ABSL_FLAG(bool, ignore_eos, false, "go on after the model's end token");

ABSL_FLAG(std::string, suite, "", "drift suite; `trimctl models` lists them, empty is the server's default");
ABSL_FLAG(int32_t, max_items, 0, "most questions, 0 for all");
ABSL_FLAG(int32_t, shots, 0, "solved examples before each question, 0 to 5");
ABSL_FLAG(absl::optional<int32_t>, max_text_tokens, absl::nullopt, "most tokens of neutral text, 0 for none");

ABSL_FLAG(absl::optional<int32_t>, kv_cache_mib, absl::nullopt,
          "memory of the model's key-value cache; unset: the server's --kv_cache_mib");
ABSL_FLAG(std::string, precision, "",
          "how weights are kept: auto, float32, bfloat16 or file; empty: the server's --precision");
ABSL_FLAG(absl::optional<absl::Duration>, drain_timeout, absl::nullopt,
          "how long running calls may take to end, up to 1h; unset: the server's --drain_timeout");

namespace trimtab {

absl::StatusOr<std::vector<v1::SteeringSelection>> SteeringFromFlags() {
  absl::StatusOr<std::vector<v1::SteeringSelection>> selections = ParseSteerList(absl::GetFlag(FLAGS_steer));
  if (!selections.ok()) return AsUsageError(selections.status());
  const absl::StatusOr<v1::ApplyTo> apply_to = ParseApplyTo(absl::GetFlag(FLAGS_apply_to));
  if (!apply_to.ok()) return AsUsageError(apply_to.status());
  if (*apply_to != v1::APPLY_TO_UNSPECIFIED) {
    for (v1::SteeringSelection& selection : *selections) selection.set_apply_to(*apply_to);
  }
  return selections;
}

}  // namespace trimtab
