// Vocabularies and goldens for the tokenizer's tests.
#ifndef TRIMTAB_TESTS_MODELS_TOKENIZER_VOCABULARIES_H_
#define TRIMTAB_TESTS_MODELS_TOKENIZER_VOCABULARIES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/tokenizer.h"

namespace trimtab {

// The text of a test's data file. Fails the test program when it is missing.
std::string ReadTestFile(const std::string& path);

struct TestVocabulary {
  GgufVocabulary vocabulary;
  std::string chat_template;  // empty: none
};

// From a GGUF file: "smollm2", "gpt-2", "llama-bpe", "qwen2", "llama-spm" (Llama 2) or "gemma3".
TestVocabulary LoadTestVocabulary(const std::string& name);

// The tokenizer of LoadTestVocabulary's file, or "unigram"; built once for each name.
std::shared_ptr<const Tokenizer> TestTokenizer(const std::string& name);

// A tokenizer.json of the same tokenizer, as its Hugging Face repository has it.
std::string TokenizerJson(const GgufVocabulary& vocabulary);

// Hashes as in tests/golden/make_tokenizer_golden.py.
inline constexpr uint64_t kHashStart = 0xCBF29CE484222325;
uint64_t HashBytes(std::string_view bytes, uint64_t state = kHashStart);
uint64_t HashIds(const std::vector<TokenId>& ids, uint64_t state = kHashStart);
std::string HashText(uint64_t state);

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_MODELS_TOKENIZER_VOCABULARIES_H_
