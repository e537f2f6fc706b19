// A conversation to token ids, so that no text of a message can become a control token. Any thread.
#ifndef TRIMTAB_MODELS_TOKENIZER_CHAT_ENCODER_H_
#define TRIMTAB_MODELS_TOKENIZER_CHAT_ENCODER_H_

#include <vector>

#include "absl/status/statusor.h"
#include "models/tokenizer/chat_template.h"
#include "models/tokenizer/tokenizer.h"

namespace trimtab {

struct EncodedChat {
  std::vector<TokenId> tokens;
  // For each token: whether it stands, at least in part, for text of a user message.
  std::vector<bool> from_user;
};

// Renders `messages` and encodes the result as one text: the template's control tokens are parsed, those spelt in a
// message are ordinary text. Equal to encoding Render's text with kParse when no message spells a control token.
// Errors: as ChatTemplate::Render; INVALID_ARGUMENT also when the template cuts through a control token's spelling.
absl::StatusOr<EncodedChat> EncodeChat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                       const std::vector<ChatMessage>& messages, bool add_generation_prompt);

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_CHAT_ENCODER_H_
