// Text to token ids and back, equal to Hugging Face `tokenizers`: byte-level BPE (SmolLM2, GPT-2, Llama 3, Qwen2),
// SentencePiece's BPE with byte fallback (Gemma, Llama 2, Mistral) and Unigram.
// Used by the prep pool, the egress pool and job workers. Immutable after building; any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_TOKENIZER_H_
#define TRIMTAB_MODELS_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/tokenizer/text_range.h"
#include "models/tokenizer/token_id.h"
#include "models/tokenizer/utf8.h"

namespace trimtab {

struct TokenizerParts;

// The vocabulary in a GGUF file, as its `tokenizer.ggml.*` keys give it.
struct GgufVocabulary {
  std::string model;                 // tokenizer.ggml.model: byte-level BPE is "gpt2", SentencePiece's BPE is "llama"
  std::string pre;                   // tokenizer.ggml.pre: which pre-tokenizer, for "gpt2"
  std::vector<std::string> tokens;   // the id is the place
  std::vector<int32_t> token_types;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; or empty
  std::vector<std::string> merges;   // "left right", lowest rank first, for "gpt2"
  std::vector<float> scores;         // by id, for "llama"
  std::optional<TokenId> bos, eos, pad, unk;
  std::vector<TokenId> end_of_generation;  // tokens that end an answer beside eos (end of turn, end of message)
  std::optional<bool> add_bos;             // unset: the family's own default (Llama 2, Llama 3, Gemma: true)
  bool add_space_prefix = true;            // a space before each stretch of text, for "llama" (not Gemma)
};

// Token ids with the bytes of the text that each stands for.
struct TokenizedText {
  std::vector<TokenId> ids;
  std::vector<TextRange> ranges;  // as long as `ids`, in order; empty ranges are possible
};

class Tokenizer {
 public:
  // What control tokens' literals in a text mean: kParse, "<|im_start|>" becomes its token; kPlain, it is text like any
  // other, so that no text can produce a control token (but for the unknown token of vocabularies that have one).
  enum class SpecialTokens { kParse, kPlain };

  // Builds from the text of a Hugging Face folder's tokenizer.json, and of its tokenizer_config.json and
  // generation_config.json (for bos, eos, pad, add_bos_token and the end-of-generation tokens; empty when there are
  // none). Errors: INVALID_ARGUMENT (MODEL_FILE_INVALID) for a file that contradicts itself or breaks a limit;
  // UNIMPLEMENTED names a part that is not supported (WordPiece, a precompiled charsmap).
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> FromHuggingFaceJson(
      std::string_view tokenizer_json, std::string_view tokenizer_config_json = "",
      std::string_view generation_config_json = "");
  // Builds from a GGUF file's vocabulary. Errors as above; UNIMPLEMENTED also for a `pre` that is not in our table.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> FromGguf(GgufVocabulary vocabulary);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // The tokens of `text`, without BOS or EOS of our own. Broken UTF-8 is first replaced by U+FFFD, one per maximal
  // broken part, as the reference does with lossy input. Should a pattern from a tokenizer.json reach its step limit,
  // the rest of that stretch is not split (logged as an error); the built-in patterns are linear.
  std::vector<TokenId> Encode(std::string_view text, SpecialTokens mode) const;

  // As Encode, with control tokens parsed only where they touch none of `plain` (sorted, disjoint ranges of `text`);
  // everything else is as if the text were encoded in one go. Ranges refer to `text`, which should be valid UTF-8
  // (else they refer to the text after replacement).
  TokenizedText EncodeWithRanges(std::string_view text, absl::Span<const TextRange> plain) const;

  // The text of `ids`, broken UTF-8 replaced by U+FFFD (see broken_utf8); ids out of range are skipped, control tokens
  // too when `skip_special`. A text that begins here: SentencePiece's space before the first word is left out.
  std::string Decode(absl::Span<const TokenId> ids, bool skip_special) const;

  // The bytes of one token inside a text, not always whole UTF-8: for IncrementalDecoder. Empty when out of range.
  std::string TokenBytes(TokenId id) const;

  // One U+FFFD for each broken byte with byte fallback, else for each maximal broken part, as the references do. (With
  // byte fallback the reference also breaks the valid characters of a run of byte tokens that holds a broken one; a
  // stream could not know.)
  BrokenUtf8 broken_utf8() const;

  bool IsSpecial(TokenId id) const;

  // The id of the added token with this text, or else of the ordinary token with these bytes (" the").
  std::optional<TokenId> Find(std::string_view token) const;

  // Where `text` (valid UTF-8) spells a control token, as it is or once normalised: in order, disjoint, the longest
  // where several begin together.
  std::vector<TextRange> FindSpecialTexts(std::string_view text) const;

  int32_t vocab_size() const;  // one more than the largest id
  std::optional<TokenId> bos() const;
  std::optional<TokenId> eos() const;
  std::optional<TokenId> pad() const;
  std::optional<TokenId> unk() const;
  // What the model wants before a raw prompt: BOS, or what the file's post-processor puts there. May be empty.
  const std::vector<TokenId>& prompt_prefix() const;
  bool add_bos() const { return !prompt_prefix().empty(); }
  // Tokens that end an answer: eos, those that the files name, and control tokens that are known to (such as
  // "<|im_end|>"). Ascending.
  const std::vector<TokenId>& end_of_generation() const;

 private:
  explicit Tokenizer(std::unique_ptr<const TokenizerParts> parts);

  const std::unique_ptr<const TokenizerParts> parts_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_TOKENIZER_H_
