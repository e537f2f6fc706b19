// Chat templates: a conversation becomes the text that a model was trained on. Rendered by llama.cpp's Jinja engine,
// with limits, since templates come from model files. Used by the prep pool and job workers.
#ifndef TRIMTAB_MODELS_TOKENIZER_CHAT_TEMPLATE_H_
#define TRIMTAB_MODELS_TOKENIZER_CHAT_TEMPLATE_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trimtab {

struct ChatMessage {
  std::string role;  // system, user, assistant or tool
  std::string text;
};

// A part of a rendered conversation.
struct RenderedPart {
  std::string text;
  bool is_marked;  // from a marked message's text, not from the template
};

// A compiled template. Immutable after Create; any thread.
class ChatTemplate {
 public:
  // `source` is the Jinja text (GGUF's tokenizer.chat_template, or chat_template in tokenizer_config.json); `bos` and
  // `eos` are the texts of those tokens, empty for none. INVALID_ARGUMENT (MODEL_FILE_INVALID) for a template that does
  // not parse or is beyond the limits (256 KiB, 2,000 tokens in one tag, 64 nested blocks or brackets).
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Create(std::string source, std::string bos,
                                                                    std::string eos);
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // The text of the conversation; with `add_generation_prompt` it ends where the model's answer begins. Broken UTF-8 in
  // messages becomes U+FFFD. INVALID_ARGUMENT (FIELD_INVALID) for no messages, for an unknown role, and when the
  // template refuses the conversation or runs into its limits. To encode the result use EncodeChat: here the text of a
  // message may spell control tokens.
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;

  // As Render, in parts that tell where text of those messages stands for which `is_marked(index)` holds. Text that a
  // template makes of a marked one (split, replace, join) is marked too, as a whole; what it writes as JSON is not.
  absl::StatusOr<std::vector<RenderedPart>> RenderParts(const std::vector<ChatMessage>& messages,
                                                        bool add_generation_prompt,
                                                        absl::FunctionRef<bool(size_t)> is_marked) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);

  const std::unique_ptr<const Program> program_;
};

}  // namespace trimtab

#endif  // TRIMTAB_MODELS_TOKENIZER_CHAT_TEMPLATE_H_
