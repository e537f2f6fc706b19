#include "models/prompt_builder.h"

#include <utility>

#include "models/tokenizer/chat_encoder.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace trimtab {

PromptBuilder::PromptBuilder(std::shared_ptr<const Tokenizer> tokenizer,
                             std::shared_ptr<const ChatTemplate> chat_template, bool add_bos)
    : tokenizer_(std::move(tokenizer)), chat_template_(std::move(chat_template)), add_bos_(add_bos) {}

absl::StatusOr<BuiltPrompt> PromptBuilder::BuildChat(const std::vector<ChatMessage>& messages) const {
  if (chat_template_ == nullptr) {
    return FieldError({{"conversation", "this model has no chat template: send a raw prompt"}});
  }
  TRIMTAB_ASSIGN_OR_RETURN(EncodedChat chat,
                           EncodeChat(*tokenizer_, *chat_template_, messages, /*add_generation_prompt=*/true));
  return BuiltPrompt{std::move(chat.tokens), std::move(chat.from_user)};
}

absl::StatusOr<BuiltPrompt> PromptBuilder::BuildRaw(std::string_view text) const {
  BuiltPrompt prompt;
  if (add_bos_) prompt.tokens = tokenizer_->prompt_prefix();
  const std::vector<TokenId> tokens = tokenizer_->Encode(text, Tokenizer::SpecialTokens::kParse);
  prompt.tokens.insert(prompt.tokens.end(), tokens.begin(), tokens.end());
  for (TokenId token : prompt.tokens) prompt.from_user.push_back(!tokenizer_->IsSpecial(token));
  return prompt;
}

std::vector<TokenId> PromptBuilder::EncodeContinuation(std::string_view text) const {
  return tokenizer_->Encode(text, Tokenizer::SpecialTokens::kPlain);
}

}  // namespace trimtab
