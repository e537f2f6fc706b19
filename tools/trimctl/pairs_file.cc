#include "tools/trimctl/pairs_file.h"

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace trimtab {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxErrors = 20;
constexpr float kMaxWeight = 1000;
// What the server takes, so that a mistake is told with its line.
constexpr size_t kMaxPairs = 10'000;
constexpr size_t kMaxAnswerBytes = size_t{64} << 10;
constexpr size_t kMaxPromptBytes = size_t{1} << 20;
constexpr size_t kMaxTurns = 64;
// A line of a prompt and two answers, every byte of them escaped as \u0000.
constexpr size_t kMaxLineBytes = 6 * (kMaxPromptBytes + 2 * kMaxAnswerBytes) + 4096;
constexpr int kMaxDepth = 8;

// Collects the mistakes of a file.
class Errors {
 public:
  explicit Errors(std::string_view file) : file_(file) {}

  void Add(int line, std::string_view what) {
    if (count_++ < kMaxErrors) messages_.push_back(absl::StrCat(file_, ":", line, ": ", std::string(what)));
  }
  absl::Status status() const {
    if (count_ == 0) return absl::OkStatus();
    std::string text = absl::StrJoin(messages_, "\n");
    if (count_ > kMaxErrors) absl::StrAppend(&text, "\nand ", count_ - kMaxErrors, " more");
    return absl::InvalidArgumentError(text);
  }

 private:
  const std::string file_;
  size_t count_ = 0;
  std::vector<std::string> messages_;
};

// A name from the file as a message may hold it: short, without what could steer a terminal.
std::string Shown(const std::string& name) {
  constexpr size_t kMaxShown = 40;
  std::string shown = absl::CHexEscape(name.substr(0, kMaxShown));
  return name.size() > kMaxShown ? shown + "..." : shown;
}

// Parses one line into `object`, refusing what the library would take silently: a field twice, deep nesting.
class LineParser {
 public:
  // False with a mistake added.
  bool Parse(std::string_view line_text, int line, Errors& errors, Json& object) {
    if (line_text.size() > kMaxLineBytes) {
      errors.Add(line, absl::StrCat("has ", line_text.size(), " bytes, at most ", kMaxLineBytes, " are taken"));
      return false;
    }
    // Of objects that are open, innermost last.
    std::vector<std::set<std::string>> seen;
    std::string twice;
    bool deep = false;
    const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
      deep |= depth > kMaxDepth;
      if (event == Json::parse_event_t::object_start) seen.emplace_back();
      if (event == Json::parse_event_t::object_end) seen.pop_back();
      if (event == Json::parse_event_t::key && !seen.back().insert(value.get<std::string>()).second) {
        twice = value.get<std::string>();
      }
      return !deep;
    };
    try {
      object = Json::parse(line_text, watch);
    } catch (const Json::exception& error) {
      errors.Add(line, deep ? TooDeep() : Reason(error, line_text));
      return false;
    }
    if (deep) errors.Add(line, TooDeep());
    if (!twice.empty()) errors.Add(line, absl::StrCat("\"", Shown(twice), "\" is there twice; keep one"));
    return !deep;
  }

 private:
  static std::string TooDeep() { return absl::StrCat("is nested deeper than ", kMaxDepth, " levels"); }
  static std::string Reason(const Json::exception& error, std::string_view line_text) {
    const auto* const parse_error = dynamic_cast<const Json::parse_error*>(&error);
    const size_t byte = parse_error == nullptr ? 0 : std::min(parse_error->byte, line_text.size());
    const std::string what = error.what();
    if (what.find("ill-formed UTF-8") != std::string::npos) {
      return absl::StrCat("is not UTF-8 at byte ", byte, "; save the file as UTF-8");
    }
    if (what.find("number overflow") != std::string::npos) return "holds a number that is too large";
    if (byte >= line_text.size()) {
      return absl::StrCat("is not JSON: it ends too early, after byte ", line_text.size(),
                          " (an object must be on one line)");
    }
    return absl::StrCat("is not JSON, at byte ", byte);
  }
};

// The first of `names` that `object` has; an error if it has two of them.
std::string FindName(const Json& object, std::initializer_list<const char*> names, int line, Errors& errors) {
  std::string found;
  for (const char* name : names) {
    if (!object.contains(name)) continue;
    if (!found.empty()) errors.Add(line, absl::StrCat("\"", found, "\" and \"", name, "\" mean the same; keep one"));
    if (found.empty()) found = name;
  }
  return found;
}

std::string TakeText(const Json& value, std::string_view what, bool may_be_empty, size_t max_bytes, int line,
                     Errors& errors) {
  if (!value.is_string()) {
    errors.Add(line, absl::StrCat(std::string(what), " must be a string"));
    return "";
  }
  std::string text = value.get<std::string>();
  if (text.empty() && !may_be_empty) errors.Add(line, absl::StrCat(std::string(what), " must not be empty"));
  if (text.size() > max_bytes) {
    errors.Add(line, absl::StrCat(std::string(what), " has ", text.size(), " bytes of UTF-8, at most ", max_bytes,
                                  " are taken"));
  }
  return text;
}

v1::Role ParseRole(const Json& value) {
  if (value == "system") return v1::ROLE_SYSTEM;
  if (value == "user") return v1::ROLE_USER;
  if (value == "assistant") return v1::ROLE_ASSISTANT;
  return v1::ROLE_UNSPECIFIED;
}

void AddContent(v1::PreferencePair& pair, v1::Role role, std::string text) {
  v1::Content& content = *pair.add_prompt();
  content.set_role(role);
  content.add_parts()->set_text(std::move(text));
}

void ParsePrompt(const Json& value, const std::string& name, int line, Errors& errors, v1::PreferencePair& pair) {
  if (value.is_string()) {
    AddContent(pair, v1::ROLE_USER,
               TakeText(value, absl::StrCat("\"", name, "\""), false, kMaxPromptBytes, line, errors));
    return;
  }
  if (!value.is_array() || value.empty()) {
    errors.Add(line, absl::StrCat("\"", name, "\" must be a string or a list of turns"));
    return;
  }
  if (value.size() > kMaxTurns) {
    errors.Add(line, absl::StrCat("\"", name, "\" has ", value.size(), " turns, at most ", kMaxTurns, " are taken"));
    return;
  }
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string what = absl::StrCat("\"", name, "\"[", i, "]");
    const Json& turn = value[i];
    if (!turn.is_object()) {
      errors.Add(line, absl::StrCat(what, " must be an object with \"role\" and \"text\""));
      continue;
    }
    const v1::Role role = turn.contains("role") ? ParseRole(turn["role"]) : v1::ROLE_UNSPECIFIED;
    if (role == v1::ROLE_UNSPECIFIED) {
      errors.Add(line, absl::StrCat(what, ".role must be \"system\", \"user\" or \"assistant\""));
    } else if (role == v1::ROLE_SYSTEM && i > 0) {
      errors.Add(line, absl::StrCat(what, ".role may be \"system\" in the first turn only"));
    } else if (role != v1::ROLE_USER && i + 1 == value.size()) {
      errors.Add(line, absl::StrCat(what, ".role must be \"user\" in the last turn"));
    }
    const std::string text = FindName(turn, {"text", "content"}, line, errors);
    if (text.empty()) {
      errors.Add(line, absl::StrCat(what, ".text is missing"));
      continue;
    }
    AddContent(pair, role, TakeText(turn[text], absl::StrCat(what, ".", text), false, kMaxPromptBytes, line, errors));
  }
}

void CheckKnown(const Json& object, int line, Errors& errors) {
  static constexpr std::string_view kKnown[] = {"prompt",       "question", "preferred", "chosen",
                                                "dispreferred", "rejected", "weight",    "images"};
  for (const auto& [name, value] : object.items()) {
    bool known = false;
    for (const std::string_view candidate : kKnown) known |= name == candidate;
    if (!known) {
      errors.Add(line,
                 absl::StrCat("\"", Shown(name),
                              "\" is not a field of a pair; known are prompt, preferred, dispreferred and weight"));
    }
  }
}

v1::PreferencePair ParsePair(const Json& object, int line, Errors& errors) {
  v1::PreferencePair pair;
  CheckKnown(object, line, errors);
  if (const std::string name = FindName(object, {"prompt", "question"}, line, errors); !name.empty()) {
    ParsePrompt(object[name], name, line, errors, pair);
  } else {
    errors.Add(line, "\"prompt\" is missing");
  }
  if (const std::string name = FindName(object, {"preferred", "chosen"}, line, errors); !name.empty()) {
    pair.set_preferred(TakeText(object[name], absl::StrCat("\"", name, "\""), false, kMaxAnswerBytes, line, errors));
  } else {
    errors.Add(line, "\"preferred\" is missing");
  }
  // A pair without a dispreferred answer asks for a likelihood objective.
  if (const std::string name = FindName(object, {"dispreferred", "rejected"}, line, errors); !name.empty()) {
    pair.set_dispreferred(TakeText(object[name], absl::StrCat("\"", name, "\""), true, kMaxAnswerBytes, line, errors));
  }
  if (object.contains("weight")) {
    const Json& weight = object["weight"];
    const double value = weight.is_number() ? weight.get<double>() : -1;
    if (!(value >= 0 && value <= kMaxWeight)) errors.Add(line, "\"weight\" must be a number from 0 to 1000");
    pair.set_weight(static_cast<float>(value));
  }
  if (object.contains("images") && !object["images"].empty()) {
    errors.Add(line, "\"images\" needs a vision-language model, which this server does not serve");
  }
  return pair;
}

// What only the two answers together, or two pairs, can have wrong.
void CheckAnswers(const v1::PreferencePair& first, const v1::PreferencePair& pair, int line, Errors& errors) {
  if (!pair.preferred().empty() && pair.preferred() == pair.dispreferred()) {
    errors.Add(line, "the two answers are the same: nothing can be learnt from them");
  }
  if (pair.dispreferred().empty() != first.dispreferred().empty()) {
    errors.Add(line, first.dispreferred().empty()
                         ? "has a dispreferred answer, the first pair has none: give one in every pair or in none"
                         : "has no dispreferred answer, the first pair has one: give one in every pair or in none");
  }
}

}  // namespace

absl::StatusOr<std::vector<v1::PreferencePair>> ParsePairs(std::string_view text, std::string_view file) {
  Errors errors(file);
  LineParser parser;
  std::vector<v1::PreferencePair> pairs;
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.substr(0, kByteOrderMark.size()) == kByteOrderMark) text.remove_prefix(kByteOrderMark.size());
  for (int line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view content = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (content.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (pairs.size() == kMaxPairs) {
      errors.Add(line, absl::StrCat("is one pair too many: at most ", kMaxPairs, " are taken"));
      break;
    }
    Json object;
    if (!parser.Parse(content, line, errors, object)) continue;
    if (!object.is_object()) {
      errors.Add(line, "must be a JSON object, {\"prompt\": ..., \"preferred\": ..., \"dispreferred\": ...}");
      continue;
    }
    pairs.push_back(ParsePair(object, line, errors));
    CheckAnswers(pairs.front(), pairs.back(), line, errors);
  }
  if (absl::Status status = errors.status(); !status.ok()) return status;
  if (pairs.empty()) return absl::InvalidArgumentError(absl::StrCat(std::string(file), ": holds no pairs"));
  return pairs;
}

absl::StatusOr<std::vector<v1::PreferencePair>> ReadPairsFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::string text(kMaxFileBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  text.resize(static_cast<size_t>(stream.gcount()));
  if (text.size() > kMaxFileBytes) return absl::InvalidArgumentError(absl::StrCat(path, ": is larger than 64 MiB"));
  return ParsePairs(text, path);
}

}  // namespace trimtab
