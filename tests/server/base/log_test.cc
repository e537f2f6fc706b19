#include "server/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trimtab {
namespace {

using ::testing::MatchesRegex;

constexpr char kTime[] = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z ";

std::string Logged(void (*log)(std::string_view, LogFields), std::string_view message, LogFields fields) {
  testing::internal::CaptureStderr();
  log(message, fields);
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, ALineHasTimeSeverityMessageAndFields) {
  EXPECT_THAT(Logged(LogInfo, "a job starts", {{"job", "operations/1"}, {"attempt", "2"}}),
              MatchesRegex(std::string(kTime) + "INFO a job starts job=operations/1 attempt=2\n"));
  EXPECT_THAT(Logged(LogWarning, "slow", {}), MatchesRegex(std::string(kTime) + "WARNING slow\n"));
  EXPECT_THAT(Logged(LogError, "broken", {}), MatchesRegex(std::string(kTime) + "ERROR broken\n"));
}

TEST(LogTest, ValuesCannotForgeFieldsOrLines) {
  EXPECT_THAT(Logged(LogInfo, "m", {{"a", "x b=y"}, {"c", "1\n2"}, {"d", "say \"hi\""}, {"e", ""}}),
              MatchesRegex(std::string(kTime) + "INFO m a=\"x b=y\" c=\"1\\\\n2\" d=\"say \\\\\"hi\\\\\"\" e=\"\"\n"));
}

}  // namespace
}  // namespace trimtab
