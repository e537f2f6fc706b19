#include "models/tokenizer/chat_template.h"

#include <algorithm>
#include <array>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#include "jinja/value.h"
#include "models/tokenizer/utf8.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "third_party/jinja_guard.h"

namespace trimtab {
namespace {

constexpr size_t kMaxSourceBytes = 256 * 1024;
constexpr int kMaxTagTokens = 2000;
constexpr int kMaxNesting = 64;
constexpr size_t kMaxErrorBytes = 200;
constexpr std::array<std::string_view, 4> kRoles = {"system", "user", "assistant", "tool"};

absl::Status TemplateError(std::string_view message) {
  return ReasonError(absl::StatusCode::kInvalidArgument, kModelFileInvalid,
                     absl::StrCat("chat template: ", std::string(message)));
}

absl::Status ConversationError(std::string message) {
  return FieldError({{.field = "conversation.contents", .description = std::move(message)}});
}

// What the engine's message says after its quotation of the template.
std::string ShortMessage(std::string message) {
  const size_t start = message.rfind("Error: ");
  if (start != std::string::npos) message.erase(0, start + 7);
  if (message.size() > kMaxErrorBytes) message.resize(kMaxErrorBytes);
  return ReplaceInvalidUtf8(message);
}

using Token = jinja::token;

// Whether the statement that begins at `tokens[i]` opens a block that an "end..." statement closes.
bool OpensBlock(const std::vector<Token>& tokens, size_t i) {
  const std::string& name = tokens[i + 1].value;
  if (name == "if" || name == "for" || name == "macro" || name == "call" || name == "filter") return true;
  if (name != "set") return false;
  // "set x = ..." opens none.
  int brackets = 0;
  for (++i; i < tokens.size() && tokens[i].t != Token::close_statement; ++i) {
    if (tokens[i].t == Token::open_paren) ++brackets;
    if (tokens[i].t == Token::close_paren) --brackets;
    if (tokens[i].t == Token::equals && brackets == 0) return false;
  }
  return true;
}

bool ClosesBlock(const std::string& name) {
  return name == "endif" || name == "endfor" || name == "endmacro" || name == "endcall" || name == "endfilter" ||
         name == "endset";
}

// The engine's parser and its syntax tree recurse: bounds how deep a template can make them go.
absl::Status CheckNesting(const std::vector<Token>& tokens) {
  std::vector<int> blocks;  // for each open block: how many branches (each elif is one level deeper in the tree)
  int depth = 0, brackets = 0, tag_tokens = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    switch (tokens[i].t) {
      case Token::open_statement:
      case Token::open_expression:
        tag_tokens = 0;
        brackets = 0;
        break;
      case Token::open_paren:
      case Token::open_square_bracket:
      case Token::open_curly_bracket:
        ++brackets;
        break;
      case Token::close_paren:
      case Token::close_square_bracket:
      case Token::close_curly_bracket:
        --brackets;
        break;
      default:
        break;
    }
    if (++tag_tokens > kMaxTagTokens || brackets > kMaxNesting) return TemplateError("a tag is too complex");
    if (tokens[i].t != Token::open_statement || i + 1 == tokens.size()) continue;
    const std::string& name = tokens[i + 1].value;
    if (OpensBlock(tokens, i)) {
      blocks.push_back(1);
      ++depth;
    } else if (name == "elif" && !blocks.empty()) {
      ++blocks.back();
      ++depth;
    } else if (ClosesBlock(name) && !blocks.empty()) {
      depth -= blocks.back();
      blocks.pop_back();
    }
    if (depth > kMaxNesting) return TemplateError("blocks are nested too deeply");
  }
  return absl::OkStatus();
}

// The engine's range(), for at most so many elements as the limits allow.
jinja::value BoundedRange(const jinja::func_args& args) {
  for (const jinja::value& value : args.get_args()) CheckJinjaCount(value->as_int());
  return jinja::global_builtins().at("range")(args);
}

}  // namespace

struct ChatTemplate::Program {
  std::string source, bos, eos;
  jinja::program tree;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Create(std::string source, std::string bos,
                                                                         std::string eos) {
  if (source.size() > kMaxSourceBytes) return TemplateError("is longer than 256 KiB");
  if (!IsValidUtf8(source)) return TemplateError("is not UTF-8");
  try {
    jinja::lexer_result lexed = jinja::lexer().tokenize(source);
    TRIMTAB_RETURN_IF_ERROR(CheckNesting(lexed.tokens));
    auto program = std::unique_ptr<const Program>(
        new Program{std::move(source), std::move(bos), std::move(eos), jinja::parse_from_tokens(lexed)});
    return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(program)));
  } catch (const std::exception& error) {
    return TemplateError(ShortMessage(error.what()));
  }
}

absl::StatusOr<std::vector<RenderedPart>> ChatTemplate::RenderParts(const std::vector<ChatMessage>& messages,
                                                                    bool add_generation_prompt,
                                                                    absl::FunctionRef<bool(size_t)> is_marked) const {
  if (messages.empty()) return ConversationError("must not be empty");
  for (const ChatMessage& message : messages) {
    if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
      return ConversationError("a role must be system, user, assistant or tool");
    }
  }
  jinja_depth = 0;
  jinja_steps = 0;
  try {
    auto list = jinja::mk_val<jinja::value_array>();
    for (size_t i = 0; i < messages.size(); ++i) {
      auto text = jinja::mk_val<jinja::value_string>(ReplaceInvalidUtf8(messages[i].text));
      if (is_marked(i)) text->mark_input();
      auto message = jinja::mk_val<jinja::value_object>();
      message->insert("role", jinja::mk_val<jinja::value_string>(messages[i].role));
      message->insert("content", text);
      list->push_back(message);
    }
    jinja::context context(program_->source);
    context.set_val("messages", list);
    context.set_val("add_generation_prompt", jinja::mk_val<jinja::value_bool>(add_generation_prompt));
    // As transformers does for a conversation without them.
    context.set_val("tools", jinja::mk_val<jinja::value_none>());
    context.set_val("documents", jinja::mk_val<jinja::value_none>());
    if (!program_->bos.empty()) context.set_val("bos_token", jinja::mk_val<jinja::value_string>(program_->bos));
    if (!program_->eos.empty()) context.set_val("eos_token", jinja::mk_val<jinja::value_string>(program_->eos));
    context.set_val("range", jinja::mk_val<jinja::value_func>("range", jinja::func_handler(BoundedRange)));
    const jinja::value result = jinja::runtime(context).execute(program_->tree);
    const jinja::value_string gathered = jinja::runtime::gather_string_parts(result);
    std::vector<RenderedPart> parts;
    for (jinja::string_part& part : gathered->val_str.parts) {
      if (!parts.empty() && parts.back().is_marked == part.is_input) {
        parts.back().text += part.val;
      } else if (!part.val.empty()) {
        parts.push_back({std::move(part.val), part.is_input});
      }
    }
    return parts;
  } catch (const std::exception& error) {
    return ConversationError(absl::StrCat("refused by the model's chat template: ", ShortMessage(error.what())));
  }
}

absl::StatusOr<std::string> ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                                 bool add_generation_prompt) const {
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<RenderedPart> parts,
                           RenderParts(messages, add_generation_prompt, [](size_t) { return true; }));
  std::string text;
  for (const RenderedPart& part : parts) text += part.text;
  return text;
}

}  // namespace trimtab
