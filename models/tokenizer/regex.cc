#include "models/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/tokenizer/utf8.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

constexpr size_t kMaxPatternBytes = 16 * 1024;
// Backtracking steps of one match. The built-in patterns need at most a few per byte of the text.
constexpr uint32_t kMatchLimit = 50'000'000;
constexpr size_t kJitStackStart = 32 * 1024, kJitStackLimit = 4 * 1024 * 1024;

// Unicode's White_Space. PCRE2's own \s would add U+180E, which Oniguruma leaves out.
constexpr std::string_view kWhiteSpace =
    "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

absl::StatusOr<std::string> RewriteForPcre2(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's') {
        out += in_class ? std::string(kWhiteSpace) : absl::StrCat("[", std::string(kWhiteSpace), "]");
      } else if (escaped == 'S' && !in_class) {
        absl::StrAppend(&out, "[^", std::string(kWhiteSpace), "]");
      } else if (escaped == 'S' || escaped == 'h' || escaped == 'H') {
        return absl::UnimplementedError(absl::StrCat("pre-tokenizer pattern uses \\", std::string(1, escaped),
                                                     in_class ? " inside a character class" : ""));
      } else {
        out += c;
        out += escaped;
      }
      continue;
    }
    if (c == '[') {
      in_class = true;
    } else if (c == ']') {
      in_class = false;
    }
    out += c;
  }
  return out;
}

// What a thread needs to run any pattern.
struct MatchResources {
  MatchResources()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackLimit, nullptr)) {
    if (data == nullptr || context == nullptr || stack == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchResources() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  MatchResources(const MatchResources&) = delete;
  MatchResources& operator=(const MatchResources&) = delete;

  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

std::string Pcre2Message(int code) {
  PCRE2_UCHAR message[256];
  if (pcre2_get_error_message(code, message, sizeof(message)) < 0) return absl::StrCat("error ", code);
  return reinterpret_cast<const char*>(message);
}

PCRE2_SPTR Units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

absl::StatusOr<Regex> Regex::Create(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes || !IsValidUtf8(pattern)) {
    return ReasonError(absl::StatusCode::kInvalidArgument, kModelFileInvalid,
                       "pre-tokenizer pattern is longer than 16 KiB or not UTF-8");
  }
  TRIMTAB_ASSIGN_OR_RETURN(const std::string rewritten, RewriteForPcre2(pattern));
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 50);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Multi-line: in Oniguruma's Ruby syntax ^ and $ always match at line ends.
  pcre2_code* code = pcre2_compile(Units(rewritten), rewritten.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error,
                                   &offset, context.get());
  if (code == nullptr) {
    return ReasonError(absl::StatusCode::kInvalidArgument, kModelFileInvalid,
                       absl::StrCat("pre-tokenizer pattern does not compile: ", Pcre2Message(error)));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT (another CPU) the interpreter gives the same matches
  return Regex(std::shared_ptr<const void>(
      code, [](const void* owned) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(owned))); }));
}

absl::Status Regex::FindAll(std::string_view text, std::vector<TextRange>& matches) const {
  thread_local MatchResources resources;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(resources.data);
  size_t position = 0;
  size_t last_end = static_cast<size_t>(-1);
  while (position <= text.size()) {
    const int result =
        pcre2_match(code, Units(text), text.size(), position, PCRE2_NO_UTF_CHECK, resources.data, resources.context);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::ResourceExhaustedError(absl::StrCat("pre-tokenizer pattern: ", Pcre2Message(result)));
    }
    const TextRange match{found[0], found[1]};
    position = match.end;
    if (match.begin >= match.end) {
      // An empty match: kept unless it directly follows the match before it, then one character further.
      position += match.end < text.size() ? ReadUtf8(text, match.end).length : 1;
      if (match.end == last_end) continue;
    }
    last_end = match.end;
    matches.push_back(match);
  }
  return absl::OkStatus();
}

}  // namespace trimtab
