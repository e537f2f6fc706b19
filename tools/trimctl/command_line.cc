#include "tools/trimctl/command_line.h"

#include <algorithm>
#include <map>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/trimctl/text.h"

namespace trimtab {
namespace {

constexpr std::string_view kCommonFlags[] = {"address", "o", "model", "timeout", "color"};
constexpr size_t kHelpWidth = 100;

// The name of "--name", "--name=value" and "-name"; empty for other arguments.
std::string_view FlagName(std::string_view argument) {
  if (argument.size() < 2 || argument.front() != '-') return "";
  argument.remove_prefix(argument[1] == '-' ? 2 : 1);
  return argument.substr(0, std::min(argument.find('='), argument.size()));
}

// absl finds "nowatch" by the name "watch".
absl::CommandLineFlag* FindFlag(std::string_view name) {
  if (absl::CommandLineFlag* flag = absl::FindCommandLineFlag(std::string(name)); flag != nullptr) return flag;
  if (name.substr(0, 2) != "no") return nullptr;
  absl::CommandLineFlag* flag = absl::FindCommandLineFlag(std::string(name.substr(2)));
  return flag != nullptr && flag->IsOfType<bool>() ? flag : nullptr;
}

std::string FlagHelp(const std::vector<std::string_view>& names) {
  std::string text;
  for (const std::string_view name : names) {
    const absl::CommandLineFlag* flag = absl::FindCommandLineFlag(std::string(name));
    if (flag == nullptr) continue;
    std::string help = flag->Help();
    if (const std::string value = flag->DefaultValue(); !value.empty() && value != "0" && value != "false") {
      absl::StrAppend(&help, " (default ", value, ")");
    }
    const std::vector<std::string> lines = Wrap(help, kHelpWidth - 25);
    for (size_t i = 0; i < lines.size(); ++i) {
      absl::StrAppendFormat(&text, "  %-22s %s\n",
                            i == 0 ? absl::StrCat(name.size() == 1 ? "-" : "--", std::string(name)) : "", lines[i]);
    }
  }
  return text;
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// Whether `argument`, a flag, takes the next one as its value.
bool TakesNext(std::string_view argument) {
  const absl::CommandLineFlag* flag = FindFlag(FlagName(argument));
  return argument.find('=') == std::string_view::npos && flag != nullptr && !flag->IsOfType<bool>();
}

}  // namespace

std::vector<std::string> CommandFirst(std::vector<std::string> arguments) {
  size_t command = 0;
  while (command < arguments.size() && !FlagName(arguments[command]).empty()) {
    command += TakesNext(arguments[command]) ? 2 : 1;
  }
  if (command < arguments.size()) {
    std::rotate(arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(command),
                arguments.begin() + static_cast<std::ptrdiff_t>(command) + 1);
  }
  return arguments;
}

std::vector<std::string> JoinRepeated(const std::vector<std::string>& arguments,
                                      const std::vector<std::string_view>& names) {
  std::vector<std::string> joined;
  std::map<std::string_view, size_t> places;  // of each flag in `joined`
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--") {
      joined.insert(joined.end(), arguments.begin() + static_cast<std::ptrdiff_t>(i), arguments.end());
      break;
    }
    const std::string_view name = FlagName(arguments[i]);
    const auto found = std::find(names.begin(), names.end(), name);
    const size_t equals = arguments[i].find('=');
    if (found == names.end() || (equals == std::string::npos && i + 1 == arguments.size())) {
      joined.push_back(arguments[i]);
      continue;
    }
    const std::string value = equals == std::string::npos ? arguments[++i] : arguments[i].substr(equals + 1);
    const auto [place, is_first] = places.emplace(*found, joined.size());
    if (is_first) {
      joined.push_back(absl::StrCat("--", std::string(*found), "=", value));
    } else {
      absl::StrAppend(&joined[place->second], ",", value);
    }
  }
  return joined;
}

absl::Status CheckFlags(const Command& command, const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--") break;
    const std::string_view name = FlagName(arguments[i]);
    if (name.empty()) continue;
    const absl::CommandLineFlag* flag = FindFlag(name);
    const auto is = [&](std::string_view known) { return flag != nullptr && flag->Name() == std::string(known); };
    if (std::none_of(command.flags.begin(), command.flags.end(), is) &&
        std::none_of(std::begin(kCommonFlags), std::end(kCommonFlags), is)) {
      return UsageError(
          absl::StrCat("\"", std::string(command.name), "\" has no flag \"", Printable(arguments[i]), "\""));
    }
    // The value of --name value is no flag.
    if (TakesNext(arguments[i])) ++i;
  }
  return absl::OkStatus();
}

std::string GeneralHelp(const std::vector<Command>& commands) {
  std::string text =
      "trimctl: the command line of a Trimtab server\n\n"
      "Usage: trimctl COMMAND [ARGUMENTS] [FLAGS]      trimctl COMMAND --help tells more\n\n";
  for (const Command& command : commands) {
    absl::StrAppendFormat(&text, "  %-12s %s\n", std::string(command.name), std::string(command.summary));
  }
  absl::StrAppend(
      &text, "\nFlags of all commands:\n", FlagHelp({std::begin(kCommonFlags), std::end(kCommonFlags)}),
      "\nExit status: 0 done, 1 wrong usage or input file, 2 refused or failed by the server, 3 no server or\n"
      "not available now, 4 not found, 5 the job failed or was cancelled, 130 after Ctrl-C.\n");
  return text;
}

std::string CommandHelp(const Command& command) {
  std::string text = absl::StrCat("Usage: trimctl ", std::string(command.name), command.arguments.empty() ? "" : " ",
                                  std::string(command.arguments), " [FLAGS]\n\n", std::string(command.summary), "\n");
  if (!command.details.empty()) absl::StrAppend(&text, "\n", std::string(command.details), "\n");
  if (!command.flags.empty()) absl::StrAppend(&text, "\n", FlagHelp(command.flags));
  absl::StrAppend(&text, "\nFlags of all commands:\n", FlagHelp({std::begin(kCommonFlags), std::end(kCommonFlags)}));
  return text;
}

std::string Closest(std::string_view name, const std::vector<Command>& commands) {
  size_t best = 3;
  std::string closest;
  for (const Command& command : commands) {
    if (const size_t distance = EditDistance(name, command.name); distance < best) {
      best = distance;
      closest = std::string(command.name);
    }
  }
  return closest;
}

}  // namespace trimtab
