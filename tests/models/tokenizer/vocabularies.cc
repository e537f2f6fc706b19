#include "tests/models/tokenizer/vocabularies.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_replace.h"
#include "models/tokenizer/gguf_vocabulary.h"
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
  if (name == "gemma3") return GgufPath("gemma-4");
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

// Makes Gemma 3's vocabulary of Gemma 4's, which differs in names of control tokens and holds merges in place of scores
// and types.
void TurnIntoGemma3(GgufVocabulary& vocabulary) {
  constexpr int32_t kNormal = 1, kControl = 3, kUserDefined = 4, kByte = 6;
  vocabulary.model = "llama";
  vocabulary.tokens[105] = "<start_of_turn>";
  vocabulary.tokens[106] = "<end_of_turn>";
  vocabulary.tokens[255999] = "<start_of_image>";
  vocabulary.tokens[256000] = "<end_of_image>";
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const bool is_white_space_or_markup = (id >= 107 && id < 238) || (id >= 255968 && id <= 256000);
    int32_t& type = vocabulary.token_types[id];
    if (type == kByte) continue;
    type = id == 5 || is_white_space_or_markup ? kUserDefined : id < 107 || id > 256000 ? kControl : kNormal;
    vocabulary.scores[id] = type == kNormal ? 494.0f - static_cast<float>(id) : -1000.0f;
    // Files write the spaces of user-defined tokens out.
    if (type == kUserDefined) vocabulary.tokens[id] = absl::StrReplaceAll(vocabulary.tokens[id], {{"\u2581", " "}});
  }
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
  TestVocabulary result;
  result.vocabulary = OrFail(ReadGgufVocabulary(*file));
  if (name == "gemma3") TurnIntoGemma3(result.vocabulary);
  result.chat_template = std::string(OrFail(file->GetStringOr("tokenizer.chat_template", "")));
  return result;
}

std::shared_ptr<const Tokenizer> TestTokenizer(const std::string& name) {
  static auto& cache = *new std::map<std::string, std::shared_ptr<const Tokenizer>>;
  std::shared_ptr<const Tokenizer>& tokenizer = cache[name];
  if (tokenizer == nullptr) {
    tokenizer = OrFail(name == "unigram"
                           ? Tokenizer::FromHuggingFaceJson(ReadTestFile("tests/golden/data/unigram/tokenizer.json"))
                           : Tokenizer::FromGguf(LoadTestVocabulary(name).vocabulary));
  }
  return tokenizer;
}

namespace {

// With the merges that the vocabulary holds.
std::string SentencePieceJson(const GgufVocabulary& vocabulary) {
  nlohmann::json vocab = nlohmann::json::object(), added = nlohmann::json::array();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int32_t type = vocabulary.token_types[id];
    const std::string text =
        type == 4 ? absl::StrReplaceAll(vocabulary.tokens[id], {{" ", "\u2581"}}) : vocabulary.tokens[id];
    vocab[text] = id;
    if (type == 3 || type == 4) added.push_back({{"id", id}, {"content", text}, {"special", type == 3}});
  }
  const nlohmann::json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  nlohmann::json restore = replace;
  restore["pattern"]["String"] = "\u2581";
  restore["content"] = " ";
  // As Gemma's: after the normalizer there is no space to split at.
  const nlohmann::json pre = {
      {"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "MergedWithPrevious"}, {"invert", false}};
  return nlohmann::json{
      {"added_tokens", added},
      {"normalizer", replace},
      {"pre_tokenizer", pre},
      {"decoder", {{"type", "Sequence"}, {"decoders", {restore, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges", vocabulary.merges}}}}
      .dump();
}

}  // namespace

std::string TokenizerJson(const GgufVocabulary& vocabulary) {
  if (vocabulary.model == "llama") return SentencePieceJson(vocabulary);
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
