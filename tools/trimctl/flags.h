// The flags of trimctl. Each command lists those that it reads (command.h).
#ifndef TRIMTAB_TOOLS_TRIMCTL_FLAGS_H_
#define TRIMTAB_TOOLS_TRIMCTL_FLAGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/flags/declare.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "trimtab/v1/common.pb.h"

// All commands.
ABSL_DECLARE_FLAG(std::string, address);
ABSL_DECLARE_FLAG(std::string, o);
ABSL_DECLARE_FLAG(std::string, color);
ABSL_DECLARE_FLAG(std::string, model);
ABSL_DECLARE_FLAG(absl::Duration, timeout);
// Steering.
ABSL_DECLARE_FLAG(std::string, steer);
ABSL_DECLARE_FLAG(std::string, apply_to);
// Registration and updates.
ABSL_DECLARE_FLAG(std::string, id);
ABSL_DECLARE_FLAG(std::string, held_out);
ABSL_DECLARE_FLAG(absl::optional<std::string>, method);
ABSL_DECLARE_FLAG(std::string, config);
ABSL_DECLARE_FLAG(std::string, request_id);
ABSL_DECLARE_FLAG(bool, evaluate_drift);
ABSL_DECLARE_FLAG(bool, validate_only);
ABSL_DECLARE_FLAG(bool, watch);
ABSL_DECLARE_FLAG(bool, keep_active);
ABSL_DECLARE_FLAG(absl::optional<std::string>, display_name);
ABSL_DECLARE_FLAG(absl::optional<std::string>, description);
ABSL_DECLARE_FLAG(absl::optional<float>, default_strength);
ABSL_DECLARE_FLAG(absl::optional<float>, max_strength);
ABSL_DECLARE_FLAG(std::vector<std::string>, clear);
ABSL_DECLARE_FLAG(std::string, etag);
// Strength curves.
ABSL_DECLARE_FLAG(std::vector<std::string>, strengths);
ABSL_DECLARE_FLAG(int32_t, max_pairs);
ABSL_DECLARE_FLAG(std::string, png);
// The audit.
ABSL_DECLARE_FLAG(std::string, html);
ABSL_DECLARE_FLAG(int32_t, pairs);
// Files.
ABSL_DECLARE_FLAG(std::string, out);
ABSL_DECLARE_FLAG(std::string, format);
ABSL_DECLARE_FLAG(absl::optional<float>, gguf_scale);
ABSL_DECLARE_FLAG(bool, force);
ABSL_DECLARE_FLAG(std::string, site);
ABSL_DECLARE_FLAG(bool, preserve_norm);
ABSL_DECLARE_FLAG(bool, relative);
ABSL_DECLARE_FLAG(int32_t, layer_offset);
ABSL_DECLARE_FLAG(bool, allow_other_fingerprint);
// Generation.
ABSL_DECLARE_FLAG(std::string, system);
ABSL_DECLARE_FLAG(bool, raw);
ABSL_DECLARE_FLAG(bool, stats);
ABSL_DECLARE_FLAG(absl::optional<int32_t>, max_output_tokens);
ABSL_DECLARE_FLAG(absl::optional<float>, temperature);
ABSL_DECLARE_FLAG(absl::optional<float>, top_p);
ABSL_DECLARE_FLAG(absl::optional<int32_t>, top_k);
ABSL_DECLARE_FLAG(absl::optional<float>, min_p);
ABSL_DECLARE_FLAG(absl::optional<float>, repetition_penalty);
ABSL_DECLARE_FLAG(absl::optional<uint64_t>, seed);
ABSL_DECLARE_FLAG(absl::optional<int32_t>, logprobs);
ABSL_DECLARE_FLAG(std::vector<std::string>, stop);
ABSL_DECLARE_FLAG(bool, ignore_eos);
// Drift.
ABSL_DECLARE_FLAG(std::string, suite);
ABSL_DECLARE_FLAG(int32_t, max_items);
ABSL_DECLARE_FLAG(int32_t, shots);
ABSL_DECLARE_FLAG(absl::optional<int32_t>, max_text_tokens);
// Models.
ABSL_DECLARE_FLAG(absl::optional<int32_t>, kv_cache_mib);
ABSL_DECLARE_FLAG(std::string, precision);
ABSL_DECLARE_FLAG(absl::optional<absl::Duration>, drain_timeout);

namespace trimtab {

// The selections of --steer with --apply_to; usage errors.
absl::StatusOr<std::vector<v1::SteeringSelection>> SteeringFromFlags();

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_FLAGS_H_
