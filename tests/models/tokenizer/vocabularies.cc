#include "tests/models/tokenizer/vocabularies.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

namespace trimtab {
namespace {

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
}

// Reads the values of a GGUF file in order. For files that the build vouches for: nothing is checked.
class GgufCursor {
 public:
  explicit GgufCursor(const std::string& bytes) : bytes_(bytes) {}

  template <typename T>
  T Take() {
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  std::string TakeString() {
    const auto length = Take<uint64_t>();
    at_ += length;
    return bytes_.substr(at_ - length, length);
  }

  // A value as JSON: numbers, strings and arrays of them.
  nlohmann::json TakeValue(uint32_t type) {
    switch (type) {
      case 0:
        return Take<uint8_t>();
      case 1:
        return Take<int8_t>();
      case 2:
        return Take<uint16_t>();
      case 3:
        return Take<int16_t>();
      case 4:
        return Take<uint32_t>();
      case 5:
        return Take<int32_t>();
      case 6:
        return Take<float>();
      case 7:
        return Take<uint8_t>() != 0;
      case 8:
        return TakeString();
      case 10:
        return Take<uint64_t>();
      case 11:
        return Take<int64_t>();
      case 12:
        return Take<double>();
      default:
        break;
    }
    if (type != 9) Fail("unknown GGUF type");
    const auto element = Take<uint32_t>();
    nlohmann::json array = nlohmann::json::array();
    for (uint64_t left = Take<uint64_t>(); left > 0; --left) array.push_back(TakeValue(element));
    return array;
  }

 private:
  const std::string& bytes_;
  size_t at_ = 0;
};

std::string GgufPath(const std::string& name) {
  if (name == "smollm2") return "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";
  return "../llama_cpp_jinja/models/ggml-vocab-" + name + ".gguf";
}

nlohmann::json Split(const char* pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

nlohmann::json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

nlohmann::json Sequence(std::vector<nlohmann::json> parts) {
  return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}};
}

}  // namespace

std::string ReadTestFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail("cannot read " + path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TestVocabulary LoadTestVocabulary(const std::string& name) {
  const std::string bytes = ReadTestFile(GgufPath(name));
  GgufCursor cursor(bytes);
  cursor.Take<uint64_t>();  // magic and version
  cursor.Take<uint64_t>();  // number of tensors
  std::map<std::string, nlohmann::json> values;
  for (uint64_t left = cursor.Take<uint64_t>(); left > 0; --left) {
    const std::string key = cursor.TakeString();
    const auto type = cursor.Take<uint32_t>();
    values[key] = cursor.TakeValue(type);
  }
  TestVocabulary result;
  const auto id = [&](const std::string& key) -> std::optional<TokenId> {
    const auto found = values.find("tokenizer.ggml." + key + "_token_id");
    if (found == values.end()) return std::nullopt;
    return found->second.get<TokenId>();
  };
  result.vocabulary = {.model = values["tokenizer.ggml.model"],
                       .pre = values["tokenizer.ggml.pre"],
                       .tokens = values["tokenizer.ggml.tokens"],
                       .token_types = values["tokenizer.ggml.token_type"],
                       .merges = values["tokenizer.ggml.merges"],
                       .bos = id("bos"),
                       .eos = id("eos"),
                       .pad = id("padding"),
                       .unk = id("unknown")};
  if (values.count("tokenizer.ggml.add_bos_token")) {
    result.vocabulary.add_bos = values["tokenizer.ggml.add_bos_token"].get<bool>();
  }
  if (values.count("tokenizer.chat_template")) result.chat_template = values["tokenizer.chat_template"];
  return result;
}

std::shared_ptr<const Tokenizer> TestTokenizer(const std::string& name) {
  static auto& cache = *new std::map<std::string, std::shared_ptr<const Tokenizer>>;
  std::shared_ptr<const Tokenizer>& tokenizer = cache[name];
  if (tokenizer == nullptr) {
    auto built = Tokenizer::FromGguf(LoadTestVocabulary(name).vocabulary);
    if (!built.ok()) Fail(std::string(built.status().message()));
    tokenizer = *std::move(built);
  }
  return tokenizer;
}

std::string TokenizerJson(const GgufVocabulary& vocabulary) {
  constexpr char kLlama3[] =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
      R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
  constexpr char kQwen2[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
                            R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
  nlohmann::json vocab = nlohmann::json::object(), added = nlohmann::json::array();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const bool control = vocabulary.token_types[id] == 3;
    if (control) {
      added.push_back({{"id", id},
                       {"content", vocabulary.tokens[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    }
    // SmolLM2's control tokens are in the model's vocabulary too; the other families keep them apart.
    if (vocabulary.token_types[id] == 1 || vocabulary.pre == "smollm") vocab[vocabulary.tokens[id]] = id;
  }
  nlohmann::json pre;
  if (vocabulary.pre == "smollm") {
    pre = Sequence({{{"type", "Digits"}, {"individual_digits", true}}, ByteLevel(true)});
  } else if (vocabulary.pre == "gpt-2") {
    pre = ByteLevel(true);
  } else {
    pre = Sequence({Split(vocabulary.pre == "qwen2" ? kQwen2 : kLlama3), ByteLevel(false)});
  }
  return nlohmann::json{{"version", "1.0"},
                        {"added_tokens", added},
                        {"normalizer", vocabulary.pre == "qwen2" ? nlohmann::json{{"type", "NFC"}} : nlohmann::json()},
                        {"pre_tokenizer", pre},
                        {"post_processor", nullptr},
                        {"decoder", ByteLevel(true)},
                        {"model",
                         {{"type", "BPE"},
                          {"dropout", nullptr},
                          {"unk_token", nullptr},
                          {"continuing_subword_prefix", nullptr},
                          {"end_of_word_suffix", nullptr},
                          {"fuse_unk", false},
                          {"byte_fallback", false},
                          {"ignore_merges", vocabulary.pre == "llama-bpe"},
                          {"vocab", vocab},
                          {"merges", vocabulary.merges}}}}
      .dump();
}

uint64_t HashBytes(std::string_view bytes, uint64_t state) {
  for (const char byte : bytes) state = (state ^ static_cast<unsigned char>(byte)) * 0x100000001B3;
  return state;
}

uint64_t HashIds(const std::vector<TokenId>& ids, uint64_t state) {
  for (const TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8)
      state = HashBytes(std::string(1, static_cast<char>(id >> shift)), state);
  }
  return state;
}

std::string HashText(uint64_t state) {
  char text[17];
  std::snprintf(text, sizeof(text), "%012llx", static_cast<unsigned long long>(state & 0xFFFFFFFFFFFF));
  return text;
}

}  // namespace trimtab
