// Tokenizer::FromHuggingFaceJson: reads tokenizer.json (the format of Hugging Face `tokenizers`) and the two small
// files beside it that name the special tokens.
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/tokenizer_json_steps.h"
#include "models/tokenizer/tokenizer_parts.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{256} << 20;

absl::StatusOr<Json> Parse(std::string_view text, std::string_view file) {
  if (text.size() > kMaxFileBytes) return TokenizerFileError(absl::StrCat(std::string(file), " is too large"));
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return TokenizerFileError(absl::StrCat(std::string(file), " is not a JSON object"));
  return json;
}

absl::StatusOr<TokenId> ReadId(const Json& value) {
  if (!value.is_number_integer() || value < 0 || value >= kMaxVocabulary) {
    return TokenizerFileError("a token id is not a number in range");
  }
  return value.get<TokenId>();
}

absl::Status AddToken(const std::string& text, TokenId id, TokenizerSpec& spec) {
  if (text.empty()) return TokenizerFileError(absl::StrCat("token ", id, " is empty"));
  if (static_cast<size_t>(id) >= spec.texts.size()) spec.texts.resize(id + 1);
  if (!spec.texts[id].empty()) return TokenizerFileError(absl::StrCat("two tokens have the id ", id));
  spec.texts[id] = text;
  return absl::OkStatus();
}

absl::Status ReadUnigram(const Json& model, TokenizerSpec& spec) {
  spec.model = TokenizerSpec::Model::kUnigram;
  const Json& vocabulary = model.at("vocab");
  if (vocabulary.size() > kMaxVocabulary) return TokenizerFileError("the vocabulary is too large");
  spec.texts.reserve(vocabulary.size());
  for (const Json& entry : vocabulary) {
    TRIMTAB_RETURN_IF_ERROR(AddToken(entry.at(0).get<std::string>(), static_cast<TokenId>(spec.texts.size()), spec));
    spec.scores.push_back(entry.at(1).get<double>());
  }
  if (const Json& unknown = JsonAt(model, "unk_id"); !unknown.is_null()) {
    TRIMTAB_ASSIGN_OR_RETURN(spec.unknown, ReadId(unknown));
  }
  return absl::OkStatus();
}

absl::Status ReadBpe(const Json& model, TokenizerSpec& spec) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (JsonAt(model, key).is_string() && !model[key].get_ref<const std::string&>().empty()) {
      return UnsupportedJson("model", absl::StrCat("BPE with ", key));
    }
  }
  if (JsonAt(model, "dropout").is_number() && model["dropout"] != 0) {
    return UnsupportedJson("model", "BPE with dropout");
  }
  spec.ignore_merges = model.value("ignore_merges", false);
  spec.fuse_unknown = model.value("fuse_unk", false);

  const Json& vocabulary = model.at("vocab");
  if (vocabulary.size() > kMaxVocabulary) return TokenizerFileError("the vocabulary is too large");
  for (const auto& [text, value] : vocabulary.items()) {
    TRIMTAB_ASSIGN_OR_RETURN(const TokenId id, ReadId(value));
    TRIMTAB_RETURN_IF_ERROR(AddToken(text, id, spec));
  }
  const Json& merges = model.at("merges");
  if (merges.size() > kMaxMerges) return TokenizerFileError("too many merges");
  spec.merges.reserve(merges.size());
  for (const Json& merge : merges) {
    if (merge.is_array() && merge.size() == 2) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string& pair = merge.get_ref<const std::string&>();
    const size_t space = pair.find(' ');
    if (space == std::string::npos || pair.find(' ', space + 1) != std::string::npos) {
      return TokenizerFileError(absl::StrCat("merge ", spec.merges.size(), " is not a pair"));
    }
    spec.merges.emplace_back(pair.substr(0, space), pair.substr(space + 1));
  }
  if (const Json& unknown = JsonAt(model, "unk_token"); unknown.is_string() && !unknown.get<std::string>().empty()) {
    TRIMTAB_ASSIGN_OR_RETURN(spec.unknown, ReadId(JsonAt(vocabulary, unknown.get<std::string>().c_str())));
  }
  return absl::OkStatus();
}

// "model": vocabulary, and merges or scores.
absl::Status ReadModel(const Json& model, TokenizerSpec& spec) {
  const std::string type = model.contains("type") ? model["type"].get<std::string>() : "BPE";
  spec.byte_fallback = model.value("byte_fallback", false);
  if (spec.byte_fallback && spec.byte_level) return UnsupportedJson("model", "with byte_fallback after ByteLevel");
  if (type == "BPE") return ReadBpe(model, spec);
  if (type == "Unigram" && !spec.byte_level) return ReadUnigram(model, spec);
  return UnsupportedJson("model", type);
}

absl::Status ReadAddedTokens(const Json& tokens, TokenizerSpec& spec) {
  for (const Json& token : tokens) {
    AddedToken added{.text = token.at("content").get<std::string>(),
                     .special = token.value("special", false),
                     .normalized = token.value("normalized", false),
                     .single_word = token.value("single_word", false),
                     .lstrip = token.value("lstrip", false),
                     .rstrip = token.value("rstrip", false)};
    TRIMTAB_ASSIGN_OR_RETURN(added.id, ReadId(token.at("id")));
    if (!added.text.empty()) spec.added.push_back(std::move(added));
  }
  return absl::OkStatus();
}

// Appends the control tokens that the post-processor puts before a text. Those after it would end a prompt that is to
// be continued: they are left out.
absl::Status ReadPromptPrefix(const Json& post_processor, std::vector<TokenId>& prefix, int depth) {
  const std::string type = JsonType(post_processor);
  if (type == "Sequence" && depth < kMaxJsonNesting) {
    for (const Json& part : post_processor.at("processors")) {
      TRIMTAB_RETURN_IF_ERROR(ReadPromptPrefix(part, prefix, depth + 1));
    }
  } else if (type == "TemplateProcessing") {
    for (const Json& part : post_processor.at("single")) {
      if (!part.contains("SpecialToken")) break;
      const std::string name = part["SpecialToken"].at("id");
      for (const Json& id : post_processor.at("special_tokens").at(name).at("ids")) {
        TRIMTAB_ASSIGN_OR_RETURN(prefix.emplace_back(), ReadId(id));
      }
    }
  } else if (type != "none" && type != "ByteLevel") {
    return UnsupportedJson("post_processor", type);
  }
  return absl::OkStatus();
}

class SpecialIdReader {
 public:
  explicit SpecialIdReader(const TokenizerSpec& spec) {
    for (size_t id = 0; id < spec.texts.size(); ++id) ids_[spec.texts[id]] = static_cast<TokenId>(id);
    for (const AddedToken& token : spec.added) ids_.try_emplace(token.text, token.id);
  }

  absl::StatusOr<TokenId> Find(const std::string& text) const {
    const auto found = ids_.find(text);
    if (found != ids_.end()) return found->second;
    return TokenizerFileError(absl::StrCat("the special token \"", text, "\" is not in the vocabulary"));
  }

  // `value` is null, a text, or an object with "content" (an added token written out).
  absl::StatusOr<std::optional<TokenId>> Read(const Json& value) const {
    const Json& text = value.is_object() ? JsonAt(value, "content") : value;
    if (!text.is_string()) return std::optional<TokenId>();
    TRIMTAB_ASSIGN_OR_RETURN(const TokenId id, Find(text.get<std::string>()));
    return std::optional<TokenId>(id);
  }

 private:
  absl::flat_hash_map<std::string, TokenId> ids_;
};

absl::Status ReadSpecialIds(const Json& tokenizer, const Json& config, const Json& generation, TokenizerSpec& spec) {
  const SpecialIdReader reader(spec);
  TRIMTAB_ASSIGN_OR_RETURN(spec.ids.bos, reader.Read(JsonAt(config, "bos_token")));
  TRIMTAB_ASSIGN_OR_RETURN(spec.ids.eos, reader.Read(JsonAt(config, "eos_token")));
  TRIMTAB_ASSIGN_OR_RETURN(spec.ids.pad, reader.Read(JsonAt(config, "pad_token")));
  TRIMTAB_ASSIGN_OR_RETURN(spec.ids.unk, reader.Read(JsonAt(config, "unk_token")));
  if (!spec.ids.unk) spec.ids.unk = spec.unknown;
  TRIMTAB_RETURN_IF_ERROR(ReadPromptPrefix(JsonAt(tokenizer, "post_processor"), spec.ids.prompt_prefix, 0));
  if (!spec.ids.bos && !spec.ids.prompt_prefix.empty()) spec.ids.bos = spec.ids.prompt_prefix.front();
  if (const Json& add_bos = JsonAt(config, "add_bos_token"); add_bos.is_boolean()) {
    if (!add_bos.get<bool>()) {
      spec.ids.prompt_prefix.clear();
    } else if (spec.ids.prompt_prefix.empty() && spec.ids.bos) {
      spec.ids.prompt_prefix = {*spec.ids.bos};
    }
  }
  const Json& eos = JsonAt(generation, "eos_token_id");  // a number or a list
  for (const Json& id : eos.is_array() ? eos : eos.is_null() ? Json::array() : Json::array({eos})) {
    TRIMTAB_ASSIGN_OR_RETURN(spec.ids.end_of_generation.emplace_back(), ReadId(id));
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerSpec> ReadSpec(std::string_view tokenizer_json, std::string_view tokenizer_config_json,
                                       std::string_view generation_config_json) {
  TRIMTAB_ASSIGN_OR_RETURN(const Json tokenizer, Parse(tokenizer_json, "tokenizer.json"));
  Json config = Json::object(), generation = Json::object();
  if (!tokenizer_config_json.empty()) {
    TRIMTAB_ASSIGN_OR_RETURN(config, Parse(tokenizer_config_json, "tokenizer_config.json"));
  }
  if (!generation_config_json.empty()) {
    TRIMTAB_ASSIGN_OR_RETURN(generation, Parse(generation_config_json, "generation_config.json"));
  }
  TokenizerSpec spec;
  TRIMTAB_RETURN_IF_ERROR(ReadNormalizer(JsonAt(tokenizer, "normalizer"), spec));
  TRIMTAB_RETURN_IF_ERROR(ReadPreTokenizer(JsonAt(tokenizer, "pre_tokenizer"), spec));
  TRIMTAB_RETURN_IF_ERROR(ReadModel(tokenizer.at("model"), spec));
  TRIMTAB_RETURN_IF_ERROR(ReadDecoder(JsonAt(tokenizer, "decoder"), spec));
  TRIMTAB_RETURN_IF_ERROR(ReadAddedTokens(JsonAt(tokenizer, "added_tokens"), spec));
  TRIMTAB_RETURN_IF_ERROR(ReadSpecialIds(tokenizer, config, generation, spec));
  return spec;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::FromHuggingFaceJson(
    std::string_view tokenizer_json, std::string_view tokenizer_config_json, std::string_view generation_config_json) {
  try {
    TRIMTAB_ASSIGN_OR_RETURN(TokenizerSpec spec,
                             ReadSpec(tokenizer_json, tokenizer_config_json, generation_config_json));
    TRIMTAB_ASSIGN_OR_RETURN(std::unique_ptr<const TokenizerParts> parts, BuildTokenizerParts(std::move(spec)));
    return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
  } catch (const Json::exception& error) {
    // A key that is missing or of another type.
    return TokenizerFileError(error.what());
  }
}

}  // namespace trimtab
