// A small tokenizer.json that tests change, and what they expect of broken ones.
#ifndef TRIMTAB_TESTS_MODELS_TOKENIZER_SMALL_TOKENIZER_H_
#define TRIMTAB_TESTS_MODELS_TOKENIZER_SMALL_TOKENIZER_H_

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "models/tokenizer/tokenizer.h"
#include "server/base/error.h"

namespace trimtab {

// A small tokenizer.json: the letters a to f, space ("Ġ", id 6), the merges "a b" (7) and "Ġ ab" (8).
inline nlohmann::json SmallJson() {
  return {{"added_tokens", nlohmann::json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}, {"d", 3}, {"e", 4}, {"f", 5}, {"Ġ", 6}, {"ab", 7}, {"Ġab", 8}}},
            {"merges", {"a b", "Ġ ab"}}}}};
}

inline nlohmann::json Added(int id, const char* text, bool special = true) {
  return {{"id", id}, {"content", text}, {"special", special}};
}

inline std::shared_ptr<const Tokenizer> Build(const nlohmann::json& tokenizer,
                                              const nlohmann::json& config = nlohmann::json::object(),
                                              const nlohmann::json& generation = nlohmann::json::object()) {
  auto built = Tokenizer::FromHuggingFaceJson(tokenizer.dump(), config.dump(), generation.dump());
  EXPECT_TRUE(built.ok()) << built.status();
  return *built;
}

inline absl::Status BuildError(const nlohmann::json& tokenizer,
                               const nlohmann::json& config = nlohmann::json::object()) {
  return Tokenizer::FromHuggingFaceJson(tokenizer.dump(), config.dump()).status();
}

inline void ExpectInvalid(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(GetErrorDetail(status).reason, kModelFileInvalid);
}

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_MODELS_TOKENIZER_SMALL_TOKENIZER_H_
