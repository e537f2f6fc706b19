#include "models/tokenizer/chat_encoder.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/utf8.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

// While a template renders, each spelling of a control token in a message is a placeholder: kOpen, its number, kClose.
// So it stays apart from the template's own text whatever the template does with the message. Both are code points that
// are no characters (U+FDD0, U+FDD1); where a message holds them, they are replaced in the same way.
constexpr std::string_view kOpen = "\xEF\xB7\x90", kClose = "\xEF\xB7\x91";

struct Literal {
  std::string text;
  bool from_user;
};

// A rendered conversation with the literals back in their places.
struct Rendered {
  std::string text;
  std::vector<TextRange> marked;  // text of marked messages
};

// Replaces control tokens' spellings by placeholders and notes them in `literals`.
std::string Disarm(const Tokenizer& tokenizer, std::string_view text, bool from_user, std::vector<Literal>& literals) {
  std::vector<TextRange> found = tokenizer.FindSpecialTexts(text);
  for (const std::string_view reserved : {kOpen, kClose}) {
    for (size_t at = text.find(reserved); at != std::string_view::npos; at = text.find(reserved, at + 1)) {
      found.push_back({at, at + reserved.size()});
    }
  }
  std::sort(found.begin(), found.end(), [](const TextRange& a, const TextRange& b) { return a.begin < b.begin; });
  std::string out;
  size_t done = 0;
  for (const TextRange& range : found) {
    if (range.begin < done) continue;  // a reserved code point inside a control token
    out += text.substr(done, range.begin - done);
    absl::StrAppend(&out, std::string(kOpen), literals.size(), std::string(kClose));
    literals.push_back({std::string(text.substr(range.begin, range.end - range.begin)), from_user});
    done = range.end;
  }
  out += text.substr(done);
  return out;
}

void AppendMarked(std::string_view text, bool is_marked, Rendered& out) {
  if (is_marked && !text.empty()) out.marked.push_back({out.text.size(), out.text.size() + text.size()});
  out.text += text;
}

// Puts the literals back; those of user messages are marked, those of others only if `mark_all`.
absl::StatusOr<Rendered> Rearm(const std::vector<RenderedPart>& parts, const std::vector<Literal>& literals,
                               bool mark_all) {
  Rendered out;
  for (const RenderedPart& part : parts) {
    std::string_view rest = part.text;
    for (size_t open = rest.find(kOpen); open != std::string_view::npos; open = rest.find(kOpen)) {
      AppendMarked(rest.substr(0, open), part.is_marked, out);
      rest.remove_prefix(open + kOpen.size());
      size_t number = 0;
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
      rest.remove_prefix(end - rest.data());
      if (error != std::errc() || number >= literals.size() || rest.substr(0, kClose.size()) != kClose) {
        return FieldError({{.field = "conversation.contents",
                            .description = "the model's chat template cuts through the spelling of a control token"}});
      }
      rest.remove_prefix(kClose.size());
      AppendMarked(literals[number].text, mark_all || literals[number].from_user, out);
    }
    AppendMarked(rest, part.is_marked, out);
  }
  return out;
}

bool Overlaps(const std::vector<TextRange>& sorted, TextRange range) {
  const auto first = std::partition_point(sorted.begin(), sorted.end(),
                                          [&](const TextRange& other) { return other.end <= range.begin; });
  return first != sorted.end() && first->begin < range.end && range.begin < range.end;
}

}  // namespace

absl::StatusOr<EncodedChat> EncodeChat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                       const std::vector<ChatMessage>& messages, bool add_generation_prompt) {
  std::vector<Literal> literals;
  std::vector<ChatMessage> disarmed;
  const auto is_user = [&](size_t index) { return messages[index].role == "user"; };
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string text = ReplaceInvalidUtf8(messages[i].text);
    disarmed.push_back({messages[i].role, Disarm(tokenizer, text, is_user(i), literals)});
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<RenderedPart> parts,
                           chat_template.RenderParts(disarmed, add_generation_prompt, [](size_t) { return true; }));
  TRIMTAB_ASSIGN_OR_RETURN(const Rendered rendered, Rearm(parts, literals, true));
  // The engine's marks do not tell whose text it is: once more with those of user messages only.
  TRIMTAB_ASSIGN_OR_RETURN(const std::vector<RenderedPart> user_parts,
                           chat_template.RenderParts(disarmed, add_generation_prompt, is_user));
  TRIMTAB_ASSIGN_OR_RETURN(const Rendered rendered_user, Rearm(user_parts, literals, false));

  TokenizedText encoded = tokenizer.EncodeWithRanges(rendered.text, rendered.marked);
  EncodedChat chat{.tokens = std::move(encoded.ids)};
  chat.from_user.reserve(chat.tokens.size());
  for (const TextRange& range : encoded.ranges) chat.from_user.push_back(Overlaps(rendered_user.marked, range));
  return chat;
}

}  // namespace trimtab
