#include "models/tokenizer/tokenizer_json_steps.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/utf8.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

using Json = nlohmann::json;
using Pattern = std::variant<Regex, std::string>;

absl::StatusOr<Pattern> ReadPattern(const Json& pattern) {
  if (pattern.contains("Regex")) return Regex::Create(pattern["Regex"].get<std::string>());
  std::string literal = pattern.at("String");
  if (literal.empty()) return TokenizerFileError("a pattern is empty");
  return literal;
}

absl::StatusOr<ReplaceStep> ReadReplace(const Json& replace) {
  TRIMTAB_ASSIGN_OR_RETURN(Pattern pattern, ReadPattern(replace.at("pattern")));
  return ReplaceStep{.pattern = std::move(pattern), .content = replace.at("content").get<std::string>()};
}

// A text of one character.
absl::StatusOr<std::string> ReadCharacter(const Json& text) {
  std::string character = text.get<std::string>();
  if (character.empty() || ReadUtf8(character, 0).length != character.size()) {
    return TokenizerFileError("a text that must be one character is not");
  }
  return character;
}

absl::Status ReadNormalizerSteps(const Json& normalizer, std::vector<NormalizerStep>& steps, int depth) {
  const std::string type = JsonType(normalizer);
  if (type == "Sequence" && depth < kMaxJsonNesting) {
    for (const Json& part : normalizer.at("normalizers")) {
      TRIMTAB_RETURN_IF_ERROR(ReadNormalizerSteps(part, steps, depth + 1));
    }
  } else if (type == "NFC") {
    steps.emplace_back(NormalForm::kNfc);
  } else if (type == "NFD") {
    steps.emplace_back(NormalForm::kNfd);
  } else if (type == "NFKC") {
    steps.emplace_back(NormalForm::kNfkc);
  } else if (type == "NFKD") {
    steps.emplace_back(NormalForm::kNfkd);
  } else if (type == "Lowercase") {
    steps.emplace_back(LowercaseStep{});
  } else if (type == "Strip") {
    steps.emplace_back(StripStep{.left = normalizer.at("strip_left"), .right = normalizer.at("strip_right")});
  } else if (type == "Prepend") {
    steps.emplace_back(PrependStep{normalizer.at("prepend").get<std::string>()});
  } else if (type == "Replace") {
    TRIMTAB_ASSIGN_OR_RETURN(ReplaceStep replace, ReadReplace(normalizer));
    steps.emplace_back(std::move(replace));
  } else if (type == "Precompiled") {
    return UnsupportedJson("normalizer", "Precompiled (a charsmap compiled by SentencePiece)");
  } else {
    return UnsupportedJson("normalizer", type);
  }
  return absl::OkStatus();
}

absl::StatusOr<SplitBehavior> ReadBehavior(const std::string& behavior) {
  if (behavior == "Isolated") return SplitBehavior::kIsolated;
  if (behavior == "Removed") return SplitBehavior::kRemoved;
  if (behavior == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (behavior == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (behavior == "Contiguous") return SplitBehavior::kContiguous;
  return UnsupportedJson("split behavior", behavior);
}

absl::StatusOr<SplitStep> ReadSplit(const Json& split) {
  TRIMTAB_ASSIGN_OR_RETURN(Pattern pattern, ReadPattern(split.at("pattern")));
  TRIMTAB_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(split.at("behavior")));
  return SplitStep{.pattern = std::move(pattern), .behavior = behavior, .invert = split.value("invert", false)};
}

absl::StatusOr<SplitStep> SplitAt(std::string_view pattern, SplitBehavior behavior) {
  TRIMTAB_ASSIGN_OR_RETURN(Regex regex, Regex::Create(pattern));
  return SplitStep{.pattern = std::move(regex), .behavior = behavior};
}

// Metaspace, as pre-tokenizer and as decoder. Files from before "prepend_scheme" say "add_prefix_space".
absl::StatusOr<MetaspaceStep> ReadMetaspace(const Json& metaspace) {
  MetaspaceStep step;
  TRIMTAB_ASSIGN_OR_RETURN(step.replacement, ReadCharacter(metaspace.at("replacement")));
  const std::string fallback = metaspace.value("add_prefix_space", true) ? "always" : "never";
  const std::string scheme = metaspace.value("prepend_scheme", fallback);
  if (scheme == "always") {
    step.scheme = PrependScheme::kAlways;
  } else if (scheme == "first") {
    step.scheme = PrependScheme::kFirst;
  } else if (scheme == "never") {
    step.scheme = PrependScheme::kNever;
  } else {
    return UnsupportedJson("prepend_scheme", scheme);
  }
  if (const Json& split = JsonAt(metaspace, "split"); split.is_boolean()) step.split = split.get<bool>();
  return step;
}

bool Rewrites(const PreTokenizerStep& step) { return !std::holds_alternative<SplitStep>(step); }

// Appends the steps of `pre`; `has_bytes` becomes true at ByteLevel, which must come last.
absl::Status ReadPreTokenizerSteps(const Json& pre, TokenizerSpec& spec, bool& has_bytes, int depth) {
  const std::string type = JsonType(pre);
  if (has_bytes) return UnsupportedJson("pre_tokenizer", absl::StrCat(type, " after ByteLevel"));
  if (type == "Sequence" && depth < kMaxJsonNesting) {
    for (const Json& part : pre.at("pretokenizers")) {
      TRIMTAB_RETURN_IF_ERROR(ReadPreTokenizerSteps(part, spec, has_bytes, depth + 1));
    }
    return absl::OkStatus();
  }
  std::vector<PreTokenizerStep>& steps = spec.pre_tokenizer;
  if (type == "Split") {
    TRIMTAB_ASSIGN_OR_RETURN(SplitStep split, ReadSplit(pre));
    steps.emplace_back(std::move(split));
  } else if (type == "Digits") {
    const bool individual = pre.value("individual_digits", false);
    TRIMTAB_ASSIGN_OR_RETURN(SplitStep split,
                             SplitAt("\\p{N}", individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
    steps.emplace_back(std::move(split));
  } else if (type == "WhitespaceSplit") {
    TRIMTAB_ASSIGN_OR_RETURN(SplitStep split, SplitAt("\\s", SplitBehavior::kRemoved));
    steps.emplace_back(std::move(split));
  } else if (type == "Metaspace") {
    TRIMTAB_ASSIGN_OR_RETURN(MetaspaceStep metaspace, ReadMetaspace(pre));
    steps.emplace_back(std::move(metaspace));
  } else if (type == "ByteLevel") {
    has_bytes = true;
    if (pre.at("add_prefix_space").get<bool>()) steps.emplace_back(PrefixSpaceStep{});
    if (pre.value("use_regex", true)) {
      TRIMTAB_ASSIGN_OR_RETURN(SplitStep split, SplitAt(kGpt2Pattern, SplitBehavior::kIsolated));
      steps.emplace_back(std::move(split));
    }
  } else {
    return UnsupportedJson("pre_tokenizer", type);
  }
  return absl::OkStatus();
}

// What ReadDecoderSteps has met.
struct DecoderState {
  bool has_bytes = false;  // ByteLevel
  bool fused = false;      // from here on a step sees the whole text
};

absl::Status ReadDecoderSteps(const Json& decoder, TokenDecoderOptions& options, DecoderState& state, int depth) {
  const std::string type = JsonType(decoder);
  if (type == "Sequence" && depth < kMaxJsonNesting) {
    for (const Json& part : decoder.at("decoders")) {
      TRIMTAB_RETURN_IF_ERROR(ReadDecoderSteps(part, options, state, depth + 1));
    }
    return absl::OkStatus();
  }
  if (type == "Strip") {
    StripCharacterStep strip{.start = decoder.at("start"), .stop = decoder.at("stop")};
    TRIMTAB_ASSIGN_OR_RETURN(strip.content, ReadCharacter(decoder.at("content")));
    if (!state.fused) {
      options.steps.emplace_back(std::move(strip));
    } else if (strip.stop > 0 || options.strip) {
      return UnsupportedJson("decoder", "Strip at the end of a text");
    } else {
      options.strip = std::move(strip);
    }
    return absl::OkStatus();
  }
  if (state.fused) return UnsupportedJson("decoder", absl::StrCat(type, " after Fuse"));
  if (type == "ByteLevel") {
    state.has_bytes = true;
    state.fused = true;
  } else if (type == "Fuse") {
    state.fused = true;
  } else if (type == "ByteFallback") {
    options.byte_fallback = true;
  } else if (type == "Replace") {
    TRIMTAB_ASSIGN_OR_RETURN(ReplaceStep replace, ReadReplace(decoder));
    options.steps.emplace_back(std::move(replace));
  } else if (type == "Metaspace") {
    TRIMTAB_ASSIGN_OR_RETURN(const MetaspaceStep metaspace, ReadMetaspace(decoder));
    options.steps.emplace_back(MetaspaceDecoderStep{.replacement = metaspace.replacement,
                                                    .drop_first = metaspace.scheme != PrependScheme::kNever});
  } else {
    return UnsupportedJson("decoder", type);
  }
  return absl::OkStatus();
}

}  // namespace

const Json& JsonAt(const Json& object, const char* key) {
  static const Json null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

std::string JsonType(const Json& object) { return object.is_object() ? object.value("type", std::string()) : "none"; }

absl::Status UnsupportedJson(std::string_view part, std::string_view kind) {
  return absl::UnimplementedError(
      absl::StrCat("tokenizer.json: ", std::string(part), " \"", std::string(kind), "\" is not supported"));
}

absl::Status ReadNormalizer(const Json& normalizer, TokenizerSpec& spec) {
  return normalizer.is_null() ? absl::OkStatus() : ReadNormalizerSteps(normalizer, spec.normalizer, 0);
}

absl::Status ReadPreTokenizer(const Json& pre_tokenizer, TokenizerSpec& spec) {
  spec.byte_level = false;
  if (pre_tokenizer.is_null()) return absl::OkStatus();
  TRIMTAB_RETURN_IF_ERROR(ReadPreTokenizerSteps(pre_tokenizer, spec, spec.byte_level, 0));
  if (std::count_if(spec.pre_tokenizer.begin(), spec.pre_tokenizer.end(), Rewrites) > 1) {
    return UnsupportedJson("pre_tokenizer", "Sequence with more than one prefix space");
  }
  return absl::OkStatus();
}

absl::Status ReadDecoder(const Json& decoder, TokenizerSpec& spec) {
  DecoderState state;
  TRIMTAB_RETURN_IF_ERROR(ReadDecoderSteps(decoder, spec.decoder, state, 0));
  if (state.has_bytes != spec.byte_level || (state.has_bytes && !spec.decoder.steps.empty())) {
    return UnsupportedJson("decoder", "with a pre_tokenizer that it does not undo");
  }
  return absl::OkStatus();
}

}  // namespace trimtab
