// Parity with Hugging Face tokenizers on 10,000 texts, and with llama.cpp's own test cases.
#include <gtest/gtest.h>

#include <sstream>

#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "models/tokenizer/incremental_decoder.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/utf8.h"
#include "tests/models/tokenizer/vocabularies.h"

namespace trimtab {
namespace {

constexpr auto kParse = Tokenizer::SpecialTokens::kParse;

// One text of tests/golden/tokenizer_golden.txt.
struct GoldenText {
  std::string text;
  std::string ids_hash, decoded_hash;
  std::vector<TokenId> ids;  // only for some
};

// Twenty texts and what the other families make of them.
struct GoldenBlock {
  std::vector<GoldenText> texts;
  std::string gpt2_hash, llama3_hash, qwen2_hash;
  std::string gemma3_hash, llama2_hash, unigram_hash;  // of the decoded texts too
};

std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    out += static_cast<char>(std::stoi(std::string(text.substr(i + 2, 2)), nullptr, 16));
    i += 3;
  }
  return out;
}

std::vector<GoldenBlock> ReadGolden() {
  std::istringstream file(ReadTestFile("tests/golden/tokenizer_golden.txt"));
  std::vector<GoldenBlock> blocks(1);
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string kind;
    fields >> kind;
    GoldenBlock& block = blocks.back();
    if (kind == "S" || kind == "R") {
      GoldenText& golden = block.texts.emplace_back();
      int count = 1;
      fields >> golden.ids_hash >> golden.decoded_hash;
      if (kind == "R") fields >> count;
      const std::string unit = Unescape(std::string_view(line).substr(static_cast<size_t>(fields.tellg()) + 1));
      for (; count > 0; --count) golden.text += unit;
    } else if (kind == "I") {
      for (TokenId id; fields >> id;) block.texts.back().ids.push_back(id);
    } else if (kind == "F") {
      fields >> block.gpt2_hash >> block.llama3_hash >> block.qwen2_hash;
    } else {
      fields >> block.gemma3_hash >> block.llama2_hash >> block.unigram_hash;
      blocks.emplace_back();
    }
  }
  blocks.pop_back();
  return blocks;
}

std::string EncodedHash(const Tokenizer& tokenizer, const GoldenBlock& block) {
  uint64_t state = kHashStart;
  for (const GoldenText& golden : block.texts) state = HashIds(tokenizer.Encode(golden.text, kParse), state);
  return HashText(state);
}

// Of the tokens, then of their texts.
std::string RoundTripHash(const Tokenizer& tokenizer, const GoldenBlock& block) {
  std::vector<std::vector<TokenId>> encoded;
  uint64_t state = kHashStart;
  for (const GoldenText& golden : block.texts) {
    encoded.push_back(tokenizer.Encode(golden.text, kParse));
    state = HashIds(encoded.back(), state);
  }
  for (const std::vector<TokenId>& ids : encoded) state = HashBytes(tokenizer.Decode(ids, false) + '\0', state);
  return HashText(state);
}

class SmolLm2Golden : public testing::TestWithParam<const char*> {
 protected:
  std::shared_ptr<const Tokenizer> MakeTokenizer() const {
    if (std::string(GetParam()) == "gguf") return TestTokenizer("smollm2");
    auto tokenizer = Tokenizer::FromHuggingFaceJson(TokenizerJson(LoadTestVocabulary("smollm2").vocabulary));
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *tokenizer;
  }
};

TEST_P(SmolLm2Golden, EncodesAndDecodesAsTheReference) {
  const auto tokenizer = MakeTokenizer();
  int texts = 0, with_ids = 0;
  for (const GoldenBlock& block : ReadGolden()) {
    for (const GoldenText& golden : block.texts) {
      const std::vector<TokenId> ids = tokenizer->Encode(golden.text, kParse);
      EXPECT_EQ(HashText(HashIds(ids)), golden.ids_hash) << testing::PrintToString(golden.text.substr(0, 200));
      if (!golden.ids.empty()) {
        EXPECT_EQ(ids, golden.ids);
        ++with_ids;
      }
      const std::string decoded = tokenizer->Decode(ids, false) + '\0' + tokenizer->Decode(ids, true);
      EXPECT_EQ(HashText(HashBytes(decoded)), golden.decoded_hash)
          << testing::PrintToString(golden.text.substr(0, 200));
      ++texts;
    }
  }
  EXPECT_EQ(texts, 10000);
  EXPECT_EQ(with_ids, 500);
}

TEST_P(SmolLm2Golden, IncrementalDecodingGivesTheSameText) {
  const auto tokenizer = MakeTokenizer();
  for (const GoldenBlock& block : ReadGolden()) {
    for (const GoldenText& golden : block.texts) {
      const std::vector<TokenId> ids = tokenizer->Encode(golden.text, kParse);
      IncrementalDecoder decoder(tokenizer, false);
      std::string text;
      for (const TokenId id : ids) {
        const std::string piece = decoder.Push(id);
        ASSERT_TRUE(IsValidUtf8(piece));
        text += piece;
      }
      text += decoder.Flush();
      ASSERT_EQ(text, tokenizer->Decode(ids, false));
    }
  }
}

TEST_P(SmolLm2Golden, RangesCoverTheText) {
  const auto tokenizer = MakeTokenizer();
  for (const GoldenBlock& block : ReadGolden()) {
    const GoldenText& golden = block.texts.front();
    const TokenizedText encoded = tokenizer->EncodeWithRanges(golden.text, {});
    ASSERT_EQ(encoded.ids, tokenizer->Encode(golden.text, kParse));
    ASSERT_EQ(encoded.ranges.size(), encoded.ids.size());
    const std::string text = ReplaceInvalidUtf8(golden.text);
    for (size_t i = 0; i < encoded.ids.size(); ++i) {
      const TextRange& range = encoded.ranges[i];
      const std::string bytes = tokenizer->TokenBytes(encoded.ids[i]);
      // Bytes that no token holds are dropped: a range may be wider than its token.
      ASSERT_GE(range.end - range.begin, bytes.size());
      ASSERT_TRUE(i == 0 || range.begin >= encoded.ranges[i - 1].end);
      if (range.end - range.begin == bytes.size()) {
        ASSERT_EQ(text.substr(range.begin, bytes.size()), bytes);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Source, SmolLm2Golden, testing::Values("gguf", "json"),
                         [](const auto& info) { return std::string(info.param); });

class FamilyGolden : public testing::TestWithParam<const char*> {};

TEST_P(FamilyGolden, EncodesAsTheReferenceFromBothSources) {
  const std::string name = GetParam();
  const auto from_gguf = TestTokenizer(name);
  const auto from_json = Tokenizer::FromHuggingFaceJson(TokenizerJson(LoadTestVocabulary(name).vocabulary));
  ASSERT_TRUE(from_json.ok()) << from_json.status();
  for (const GoldenBlock& block : ReadGolden()) {
    const std::string& expected = name == "gpt-2"       ? block.gpt2_hash
                                  : name == "llama-bpe" ? block.llama3_hash
                                                        : block.qwen2_hash;
    EXPECT_EQ(EncodedHash(*from_gguf, block), expected);
    EXPECT_EQ(EncodedHash(**from_json, block), expected);
  }
}

class LlamaCppCases : public testing::TestWithParam<const char*> {};

TEST_P(LlamaCppCases, EncodesAsLlamaCpp) {
  const std::string name = GetParam();
  const std::string base = "../llama_cpp_jinja/models/ggml-vocab-" + name + ".gguf";
  const std::vector<std::string> texts = absl::StrSplit(ReadTestFile(base + ".inp"), "\n__ggml_vocab_test__\n");
  const std::vector<std::string> results = absl::StrSplit(ReadTestFile(base + ".out"), '\n');
  const auto tokenizer = TestTokenizer(name);
  int compared = 0;
  for (size_t i = 0; i < texts.size() && i < results.size(); ++i) {
    std::vector<TokenId> expected;
    std::istringstream ids(results[i]);
    for (TokenId id; ids >> id;) expected.push_back(id);
    EXPECT_EQ(tokenizer->Encode(texts[i], kParse), expected) << testing::PrintToString(texts[i]);
    ++compared;
  }
  EXPECT_GE(compared, 40);
}

INSTANTIATE_TEST_SUITE_P(Family, FamilyGolden, testing::Values("gpt-2", "llama-bpe", "qwen2"), [](const auto& info) {
  return absl::StrReplaceAll(info.param, {{"-", ""}});
});

INSTANTIATE_TEST_SUITE_P(Family, LlamaCppCases, testing::Values("gpt-2", "llama-bpe", "qwen2", "llama-spm"),
                         [](const auto& info) {
                           return absl::StrReplaceAll(info.param, {{"-", ""}});
                         });

class SentencePieceGolden : public testing::TestWithParam<const char*> {
 protected:
  static std::string Expected(const GoldenBlock& block) {
    const std::string name = GetParam();
    return name == "gemma3" ? block.gemma3_hash : name == "llama-spm" ? block.llama2_hash : block.unigram_hash;
  }
};

TEST_P(SentencePieceGolden, EncodesAndDecodesAsTheReference) {
  const auto tokenizer = TestTokenizer(GetParam());
  for (const GoldenBlock& block : ReadGolden()) {
    EXPECT_EQ(RoundTripHash(*tokenizer, block), Expected(block)) << block.texts.front().text.substr(0, 100);
  }
}

TEST_P(SentencePieceGolden, IncrementalDecodingContinuesAText) {
  const auto tokenizer = TestTokenizer(GetParam());
  const TokenId before = tokenizer->Encode("x", kParse).back();
  for (const GoldenBlock& block : ReadGolden()) {
    std::vector<TokenId> ids = tokenizer->Encode(block.texts.front().text, kParse);
    IncrementalDecoder decoder(tokenizer, false);
    std::string text;
    for (const TokenId id : ids) {
      const std::string piece = decoder.Push(id);
      ASSERT_TRUE(IsValidUtf8(piece));
      text += piece;
    }
    text += decoder.Flush();
    ids.insert(ids.begin(), before);
    ASSERT_EQ(tokenizer->Decode({&before, 1}, false) + text, tokenizer->Decode(ids, false));
  }
}

TEST_P(SentencePieceGolden, RangesCoverTheText) {
  const auto tokenizer = TestTokenizer(GetParam());
  for (const GoldenBlock& block : ReadGolden()) {
    const std::string text = ReplaceInvalidUtf8(block.texts.front().text);
    const TokenizedText encoded = tokenizer->EncodeWithRanges(text, {});
    ASSERT_EQ(encoded.ids, tokenizer->Encode(text, kParse));
    size_t done = 0;
    for (const TextRange& range : encoded.ranges) {
      ASSERT_LE(range.begin, range.end);
      ASSERT_LE(range.end, text.size());
      ASSERT_GE(range.end, done);  // parts of a composed character share its range
      done = range.end;
    }
    if (GetParam() == std::string("unigram")) continue;  // strips white space
    ASSERT_EQ(done, encoded.ids.empty() ? 0 : text.size()) << testing::PrintToString(text);
  }
}

INSTANTIATE_TEST_SUITE_P(Family, SentencePieceGolden, testing::Values("gemma3", "llama-spm", "unigram"),
                         [](const auto& info) { return std::string(info.param).substr(0, 5); });

TEST(Gemma3Golden, TheModelsOwnMergesGiveTheSame) {
  const auto tokenizer = Tokenizer::FromHuggingFaceJson(TokenizerJson(LoadTestVocabulary("gemma3").vocabulary));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const GoldenBlock& block : ReadGolden()) EXPECT_EQ(RoundTripHash(**tokenizer, block), block.gemma3_hash);
}

}  // namespace
}  // namespace trimtab
