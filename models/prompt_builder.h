// From what a caller sends to token ids: chat template and tokenizer. The same object serves requests and ModelProbe,
// so what is attributed is what is served. Immutable, any thread; runs on the prep pool, never on a gRPC reaction.
#ifndef TRIMTAB_MODELS_PROMPT_BUILDER_H_
#define TRIMTAB_MODELS_PROMPT_BUILDER_H_

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/tokenizer/chat_template.h"
#include "models/tokenizer/tokenizer.h"

namespace trimtab {

struct BuiltPrompt {
  std::vector<TokenId> tokens;
  // For each token: true when it comes (at least in part) from the text of a user message (or is any token of a raw
  // prompt that is not a control token): the candidates of attribution (steering.md A4).
  std::vector<bool> from_user;
};

class PromptBuilder {
 public:
  // `chat_template` may be null: then only raw prompts are accepted.
  PromptBuilder(std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<const ChatTemplate> chat_template,
                bool add_bos);

  // Renders the template with the generation header; message text cannot produce control tokens. INVALID_ARGUMENT when
  // the model has no template or the template refuses the conversation.
  absl::StatusOr<BuiltPrompt> BuildChat(const std::vector<ChatMessage>& messages) const;
  // The text as it is: no template, special tokens in it are parsed; begins with BOS if the model wants it.
  absl::StatusOr<BuiltPrompt> BuildRaw(std::string_view text) const;
  // A response that continues a prompt: tokenised on its own, never together with the prompt (steering.md A1).
  std::vector<TokenId> EncodeContinuation(std::string_view text) const;

  bool has_chat_template() const { return chat_template_ != nullptr; }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const ChatTemplate> chat_template_;
  bool add_bos_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_PROMPT_BUILDER_H_
