// Tokenizer::FromHuggingFaceJson: reads tokenizer.json (the format of Hugging Face `tokenizers`) and the two small
// files beside it that name the special tokens.
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/tokenizer_parts.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr int kMaxNesting = 8;  // of "Sequence" in "Sequence"

absl::Status Unsupported(std::string_view part, const std::string& type) {
  return absl::UnimplementedError(
      absl::StrCat("tokenizer.json: ", std::string(part), " \"", type, "\" is not supported: only byte-level BPE is"));
}

absl::StatusOr<Json> Parse(std::string_view text, std::string_view file) {
  if (text.size() > kMaxFileBytes) return TokenizerFileError(absl::StrCat(std::string(file), " is too large"));
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return TokenizerFileError(absl::StrCat(std::string(file), " is not a JSON object"));
  return json;
}

// The value at `key`, or null.
const Json& At(const Json& object, const char* key) {
  static const Json null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

std::string TypeOf(const Json& object) { return object.value("type", std::string()); }

absl::StatusOr<TokenId> ReadId(const Json& value) {
  if (!value.is_number_integer() || value < 0 || value >= kMaxVocabulary) {
    return TokenizerFileError("a token id is not a number in range");
  }
  return value.get<TokenId>();
}

// "model": vocabulary and merges.
absl::Status ReadModel(const Json& model, TokenizerSpec& spec) {
  const std::string type = model.contains("type") ? model["type"].get<std::string>() : "BPE";
  if (type != "BPE") return Unsupported("model", type);
  if (model.value("byte_fallback", false)) return Unsupported("model", "BPE with byte_fallback (SentencePiece)");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (At(model, key).is_string() && !model[key].get_ref<const std::string&>().empty()) {
      return Unsupported("model", absl::StrCat("BPE with ", key));
    }
  }
  if (At(model, "dropout").is_number() && model["dropout"] != 0) return Unsupported("model", "BPE with dropout");
  spec.ignore_merges = model.value("ignore_merges", false);
  spec.fuse_unknown = model.value("fuse_unk", false);

  const Json& vocabulary = model.at("vocab");
  if (vocabulary.size() > kMaxVocabulary) return TokenizerFileError("the vocabulary is too large");
  for (const auto& [text, value] : vocabulary.items()) {
    TRIMTAB_ASSIGN_OR_RETURN(const TokenId id, ReadId(value));
    if (text.empty()) return TokenizerFileError(absl::StrCat("token ", id, " is empty"));
    if (static_cast<size_t>(id) >= spec.texts.size()) spec.texts.resize(id + 1);
    if (!spec.texts[id].empty()) return TokenizerFileError(absl::StrCat("two tokens have the id ", id));
    spec.texts[id] = text;
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
  if (const Json& unknown = At(model, "unk_token"); unknown.is_string() && !unknown.get<std::string>().empty()) {
    TRIMTAB_ASSIGN_OR_RETURN(spec.unknown, ReadId(At(vocabulary, unknown.get<std::string>().c_str())));
  }
  return absl::OkStatus();
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

absl::Status ReadNormalizer(const Json& normalizer, TokenizerSpec& spec, int depth) {
  if (normalizer.is_null()) return absl::OkStatus();
  const std::string type = TypeOf(normalizer);
  if (type == "NFC") {
    spec.normalization = Normalization::kNfc;
    return absl::OkStatus();
  }
  if (type != "Sequence" || depth >= kMaxNesting) return Unsupported("normalizer", type);
  for (const Json& part : normalizer.at("normalizers")) {
    TRIMTAB_RETURN_IF_ERROR(ReadNormalizer(part, spec, depth + 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<SplitStep> ReadSplit(const Json& split) {
  SplitStep step{.pattern = std::string(), .invert = split.value("invert", false)};
  const std::string behavior = split.at("behavior");
  if (behavior == "Isolated") {
    step.behavior = SplitBehavior::kIsolated;
  } else if (behavior == "Removed") {
    step.behavior = SplitBehavior::kRemoved;
  } else if (behavior == "MergedWithPrevious") {
    step.behavior = SplitBehavior::kMergedWithPrevious;
  } else if (behavior == "MergedWithNext") {
    step.behavior = SplitBehavior::kMergedWithNext;
  } else if (behavior == "Contiguous") {
    step.behavior = SplitBehavior::kContiguous;
  } else {
    return Unsupported("split behavior", behavior);
  }
  const Json& pattern = split.at("pattern");
  if (pattern.contains("Regex")) {
    TRIMTAB_ASSIGN_OR_RETURN(step.pattern, Regex::Create(pattern["Regex"].get<std::string>()));
    return step;
  }
  const std::string literal = pattern.at("String");
  if (literal.empty()) return TokenizerFileError("a split pattern is empty");
  step.pattern = literal;
  return step;
}

// Appends the steps of `pre`; `has_bytes` becomes true at ByteLevel, which must come last.
absl::Status ReadPreTokenizer(const Json& pre, TokenizerSpec& spec, bool& has_bytes, int depth) {
  const std::string type = pre.is_object() ? TypeOf(pre) : "none";
  if (has_bytes) return Unsupported("pre_tokenizer", absl::StrCat(type, " after ByteLevel"));
  if (type == "Sequence" && depth < kMaxNesting) {
    for (const Json& part : pre.at("pretokenizers")) {
      TRIMTAB_RETURN_IF_ERROR(ReadPreTokenizer(part, spec, has_bytes, depth + 1));
    }
    return absl::OkStatus();
  }
  if (type == "Split") {
    TRIMTAB_ASSIGN_OR_RETURN(SplitStep step, ReadSplit(pre));
    spec.pre_tokenizer.push_back(std::move(step));
    return absl::OkStatus();
  }
  if (type == "Digits") {
    TRIMTAB_ASSIGN_OR_RETURN(Regex digit, Regex::Create("\\p{N}"));
    const bool individual = pre.value("individual_digits", false);
    spec.pre_tokenizer.push_back(SplitStep{
        .pattern = std::move(digit), .behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous});
    return absl::OkStatus();
  }
  if (type == "ByteLevel") {
    has_bytes = true;
    if (pre.at("add_prefix_space").get<bool>()) spec.pre_tokenizer.push_back(PrefixSpaceStep{});
    if (pre.value("use_regex", true)) {
      TRIMTAB_ASSIGN_OR_RETURN(Regex regex, Regex::Create(kGpt2Pattern));
      spec.pre_tokenizer.push_back(SplitStep{.pattern = std::move(regex)});
    }
    return absl::OkStatus();
  }
  return Unsupported("pre_tokenizer", type);
}

absl::Status CheckDecoder(const Json& decoder, int depth) {
  const std::string type = decoder.is_object() ? TypeOf(decoder) : "none";
  if (type == "ByteLevel") return absl::OkStatus();
  if (type == "Sequence" && decoder.at("decoders").size() == 1 && depth < kMaxNesting) {
    return CheckDecoder(decoder["decoders"][0], depth + 1);
  }
  return Unsupported("decoder", type);
}

// The control token that the post-processor puts before a text, if any.
std::optional<std::string> PrefixToken(const Json& post_processor, int depth) {
  if (!post_processor.is_object() || depth >= kMaxNesting) return std::nullopt;
  const std::string type = TypeOf(post_processor);
  if (type == "Sequence") {
    for (const Json& part : post_processor.at("processors")) {
      if (auto token = PrefixToken(part, depth + 1)) return token;
    }
  }
  if (type != "TemplateProcessing") return std::nullopt;
  const Json& single = post_processor.at("single");
  if (single.empty() || !single[0].contains("SpecialToken")) return std::nullopt;
  return single[0]["SpecialToken"].at("id").get<std::string>();
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
    const Json& text = value.is_object() ? At(value, "content") : value;
    if (!text.is_string()) return std::optional<TokenId>();
    TRIMTAB_ASSIGN_OR_RETURN(const TokenId id, Find(text.get<std::string>()));
    return std::optional<TokenId>(id);
  }

 private:
  absl::flat_hash_map<std::string, TokenId> ids_;
};

absl::Status ReadSpecialIds(const Json& tokenizer, const Json& config, const Json& generation, TokenizerSpec& spec) {
  const SpecialIdReader reader(spec);
  TRIMTAB_ASSIGN_OR_RETURN(spec.ids.bos, reader.Read(At(config, "bos_token")));
  TRIMTAB_ASSIGN_OR_RETURN(spec.ids.eos, reader.Read(At(config, "eos_token")));
  TRIMTAB_ASSIGN_OR_RETURN(spec.ids.pad, reader.Read(At(config, "pad_token")));
  TRIMTAB_ASSIGN_OR_RETURN(spec.ids.unk, reader.Read(At(config, "unk_token")));
  if (!spec.ids.unk) spec.ids.unk = spec.unknown;
  if (const auto prefix = PrefixToken(At(tokenizer, "post_processor"), 0)) {
    spec.ids.add_bos = true;
    TRIMTAB_ASSIGN_OR_RETURN(spec.ids.bos, reader.Find(*prefix));
  }
  if (const Json& add_bos = At(config, "add_bos_token"); add_bos.is_boolean()) spec.ids.add_bos = add_bos.get<bool>();
  const Json& eos = At(generation, "eos_token_id");  // a number or a list
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
  TRIMTAB_RETURN_IF_ERROR(ReadModel(tokenizer.at("model"), spec));
  TRIMTAB_RETURN_IF_ERROR(ReadAddedTokens(At(tokenizer, "added_tokens"), spec));
  TRIMTAB_RETURN_IF_ERROR(ReadNormalizer(At(tokenizer, "normalizer"), spec, 0));
  bool has_bytes = false;
  TRIMTAB_RETURN_IF_ERROR(ReadPreTokenizer(At(tokenizer, "pre_tokenizer"), spec, has_bytes, 0));
  if (!has_bytes) return Unsupported("pre_tokenizer", "without ByteLevel");
  TRIMTAB_RETURN_IF_ERROR(CheckDecoder(At(tokenizer, "decoder"), 0));
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
