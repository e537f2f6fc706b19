#include "tools/trimctl/error_text.h"

#include <gtest/gtest.h>

#include <string>

#include "server/base/error.h"

namespace trimtab {
namespace {

TEST(ErrorText, ShowsEveryViolation) {
  EXPECT_EQ(
      FormatError(FieldError({{"config.top_p", "must be above 0"}, {"steering[1].strength", "must be a number"}}), ""),
      "FIELD_INVALID: the request has to be changed here:\n"
      "  config.top_p: must be above 0\n"
      "  steering[1].strength: must be a number\n");
}

TEST(ErrorText, ShowsMessageMetadataAndWhatToDo) {
  const std::string text = FormatError(
      ReasonError(absl::StatusCode::kFailedPrecondition, kStrengthOutOfRange, "too strong", {{"limit", "0.5"}}), "");
  EXPECT_EQ(text.rfind("STRENGTH_OUT_OF_RANGE: too strong\n  limit = 0.5\n  What to do: ", 0), 0u) << text;
}

TEST(ErrorText, ShowsWhenToTryAgain) {
  const std::string text = FormatError(OverloadError(kQueueFull, "full", absl::Seconds(2)), "");
  EXPECT_NE(text.find("try again after 2.0 s"), std::string::npos) << text;
}

TEST(ErrorText, NamesTheAddressWhereNobodyAnswers) {
  EXPECT_EQ(FormatError(absl::UnavailableError("connection refused"), "h:1"),
            "connection refused\n"
            "  No server answers at h:1. Is it running? --address or TRIMTAB_ADDRESS names another.\n");
}

TEST(ErrorText, TextOfTheServerCannotSteerTheTerminal) {
  const std::string text =
      FormatError(ReasonError(absl::StatusCode::kNotFound, kModelNotFound, "\033[2J", {{"\033k", "\033v"}}), "\033a");
  EXPECT_EQ(text.find('\033'), std::string::npos);
}

TEST(ErrorText, KnowsWhatToDoAboutTheReasons) {
  for (const std::string_view reason :
       {kPromptTooLong,    kImageUnsupported,   kPairsDegenerate,   kModelNotFound,        kObjectiveNotFound,
        kRevisionNotFound, kResourceNotFound,   kObjectiveNotReady, kFingerprintMismatch,  kStrengthOutOfRange,
        kObjectiveExists,  kEtagMismatch,       kMethodUnknown,     kMethodConfigMismatch, kQueueFull,
        kJobQueueFull,     kQuotaExceeded,      kKvCacheTooSmall,   kDeviceOutOfMemory,    kEngineUnhealthy,
        kShuttingDown,     kStorageUnavailable, kOperationNotDone,  kModelFileInvalid,     kNonFinite,
        kInternal,         kCancelled,          kDeadlineExceeded}) {
    EXPECT_FALSE(HintFor(reason).empty()) << reason;
  }
  EXPECT_TRUE(HintFor("UNHEARD_OF").empty());
}

}  // namespace
}  // namespace trimtab
