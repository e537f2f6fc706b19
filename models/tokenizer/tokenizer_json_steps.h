// Reads the steps of a tokenizer.json around the model: normalizer, pre-tokenizer, decoder. Internal to this folder.
#ifndef TRIMTAB_MODELS_TOKENIZER_TOKENIZER_JSON_STEPS_H_
#define TRIMTAB_MODELS_TOKENIZER_TOKENIZER_JSON_STEPS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "models/tokenizer/tokenizer_parts.h"

namespace trimtab {

inline constexpr int kMaxJsonNesting = 8;  // of "Sequence" in "Sequence"

// The value at `key`, or null.
const nlohmann::json& JsonAt(const nlohmann::json& object, const char* key);

// Its "type"; "none" for what is not an object.
std::string JsonType(const nlohmann::json& object);

// UNIMPLEMENTED; names the part of the file and the kind that it has there.
absl::Status UnsupportedJson(std::string_view part, std::string_view kind);

// Fill spec.normalizer, spec.pre_tokenizer with spec.byte_level, and spec.decoder. UNIMPLEMENTED for steps that are not
// known or that cannot be combined; a key of a wrong type throws nlohmann::json::exception.
absl::Status ReadNormalizer(const nlohmann::json& normalizer, TokenizerSpec& spec);
absl::Status ReadPreTokenizer(const nlohmann::json& pre_tokenizer, TokenizerSpec& spec);
absl::Status ReadDecoder(const nlohmann::json& decoder, TokenizerSpec& spec);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_TOKENIZER_JSON_STEPS_H_
