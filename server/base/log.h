// Structured log lines on standard error: time, severity, message, then key=value fields. Never prompts, tokens or
// vectors. Any thread; one write per line.
#ifndef TRIMTAB_SERVER_BASE_LOG_H_
#define TRIMTAB_SERVER_BASE_LOG_H_

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace trimtab {

using LogFields = std::initializer_list<std::pair<std::string_view, std::string>>;

void LogInfo(std::string_view message, LogFields fields = {});
void LogWarning(std::string_view message, LogFields fields = {});
void LogError(std::string_view message, LogFields fields = {});

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_BASE_LOG_H_
