#include "tests/models/tokenizer/vocabularies.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/weights/gguf.h"

namespace trimtab {
namespace {

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
}

template <typename T>
T OrFail(absl::StatusOr<T> value) {
  if (!value.ok()) Fail(std::string(value.status().message()));
  return *std::move(value);
}

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
  const std::shared_ptr<const GgufFile> file = OrFail(GgufFile::Open(GgufPath(name)));
  const auto texts = [&](const char* key) {
    const std::vector<std::string_view> views = OrFail(file->GetStrings(key));
    return std::vector<std::string>(views.begin(), views.end());
  };
  const auto id = [&](const char* key) -> std::optional<TokenId> {
    if (!file->Has(key)) return std::nullopt;
    return static_cast<TokenId>(OrFail(file->GetInt(key)));
  };
  const std::vector<int64_t> types = OrFail(file->GetInts("tokenizer.ggml.token_type"));
  TestVocabulary result;
  result.vocabulary = {.model = std::string(OrFail(file->GetString("tokenizer.ggml.model"))),
                       .pre = std::string(OrFail(file->GetString("tokenizer.ggml.pre"))),
                       .tokens = texts("tokenizer.ggml.tokens"),
                       .token_types = std::vector<int32_t>(types.begin(), types.end()),
                       .merges = texts("tokenizer.ggml.merges"),
                       .bos = id("tokenizer.ggml.bos_token_id"),
                       .eos = id("tokenizer.ggml.eos_token_id"),
                       .pad = id("tokenizer.ggml.padding_token_id"),
                       .unk = id("tokenizer.ggml.unknown_token_id")};
  if (file->Has("tokenizer.ggml.add_bos_token")) {
    result.vocabulary.add_bos = OrFail(file->GetBool("tokenizer.ggml.add_bos_token"));
  }
  result.chat_template = std::string(OrFail(file->GetStringOr("tokenizer.chat_template", "")));
  return result;
}

std::shared_ptr<const Tokenizer> TestTokenizer(const std::string& name) {
  static auto& cache = *new std::map<std::string, std::shared_ptr<const Tokenizer>>;
  std::shared_ptr<const Tokenizer>& tokenizer = cache[name];
  if (tokenizer == nullptr) {
    tokenizer = OrFail(Tokenizer::FromGguf(LoadTestVocabulary(name).vocabulary));
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
