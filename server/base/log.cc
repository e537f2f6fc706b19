#include "server/base/log.h"

#include <unistd.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace trimtab {
namespace {

absl::string_view ToAbsl(std::string_view text) { return absl::string_view(text.data(), text.size()); }

void Write(absl::string_view severity, std::string_view message, LogFields fields) {
  std::string line = absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()), " ",
                                  severity, " ", ToAbsl(message));
  for (const auto& [key, value] : fields) {
    absl::StrAppend(&line, " ", ToAbsl(key), "=");
    const bool plain = !value.empty() && value.find_first_of(" \"\n\r\t=") == std::string::npos;
    absl::StrAppend(&line, plain ? value : absl::StrCat("\"", absl::Utf8SafeCEscape(value), "\""));
  }
  line.push_back('\n');
  // A log line that cannot be written is dropped: there is no one to tell.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void LogInfo(std::string_view message, LogFields fields) { Write("INFO", message, fields); }
void LogWarning(std::string_view message, LogFields fields) { Write("WARNING", message, fields); }
void LogError(std::string_view message, LogFields fields) { Write("ERROR", message, fields); }

}  // namespace trimtab
