// The texts of a vocabulary's tokens, one after the other in one block of memory. Immutable after building; any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_TOKEN_TEXTS_H_
#define TRIMTAB_MODELS_TOKENIZER_TOKEN_TEXTS_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "models/tokenizer/token_id.h"

namespace trimtab {

class TokenTexts {
 public:
  // Room for so many tokens and bytes: views stay valid while no more are added.
  TokenTexts(size_t tokens, size_t bytes) {
    begins_.reserve(tokens + 1);
    bytes_.reserve(bytes);
  }

  // The text of the next id; empty: there is no such token.
  void Add(std::string_view text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    begins_.push_back(bytes_.size());
  }

  // `id` must be in range. The view is valid as long as this object, also when that is moved.
  std::string_view operator[](TokenId id) const {
    return {bytes_.data() + begins_[id], static_cast<size_t>(begins_[id + 1] - begins_[id])};
  }

  size_t size() const { return begins_.size() - 1; }

 private:
  std::vector<char> bytes_;
  std::vector<uint64_t> begins_ = {0};
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_TOKEN_TEXTS_H_
