#include "tools/trimctl/error_text.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/base/error.h"
#include "tools/trimctl/text.h"

namespace trimtab {

std::string_view HintFor(std::string_view reason) {
  static const auto& hints = *new std::map<std::string_view, std::string_view>{
      {kPromptTooLong, "shorten the prompt or ask for fewer output tokens; `trimctl models` shows the context length"},
      {kImageUnsupported, "this model reads text only"},
      {kPairsDegenerate, "give at least 4 pairs, about 50 are good, whose two answers differ in the wanted behaviour"},
      {kModelNotFound, "`trimctl models` lists the models; choose one with --model"},
      {kObjectiveNotFound, "`trimctl objectives` lists the objectives"},
      {kRevisionNotFound, "`trimctl show NAME` lists the revisions"},
      {kResourceNotFound,
       "list what is there: `trimctl operations`, `trimctl drift list`, `trimctl methods`, `trimctl models`"},
      {kObjectiveNotReady, "`trimctl show NAME` says whether it is still being fitted or has failed, and why"},
      {kFingerprintMismatch, "the objective was fitted on other weights; register it again on this model"},
      {kStrengthOutOfRange, "lower the strength, or raise the limit with `trimctl update NAME --max_strength X`"},
      {kObjectiveExists, "choose another --id, or remove the old one with `trimctl delete NAME`"},
      {kEtagMismatch, "somebody changed it meanwhile; look at it again and repeat"},
      {kMethodUnknown, "`trimctl methods` lists the methods"},
      {kMethodConfigMismatch, "`trimctl methods` names each method's configuration message"},
      {kQueueFull, "the server is busy; try again after the time named above"},
      {kJobQueueFull, "other jobs wait; `trimctl operations` lists them, try again later or cancel one"},
      {kQuotaExceeded, "try again later"},
      {kKvCacheTooSmall, "shorten prompt and answer, or start the server with a larger cache"},
      {kDeviceOutOfMemory, "use smaller batches (method configuration, batch_tokens) or a machine with more memory"},
      {kEngineUnhealthy, "the engine has stopped: look into the server's log and restart it"},
      {kShuttingDown, "the server stops; try again when it is back"},
      {kStorageUnavailable, "look at the server's disk and its log; nothing was changed"},
      {kOperationNotDone, "wait for it (`trimctl operations wait NAME`) or cancel it first"},
      {kModelFileInvalid, "the model's file is damaged or of an unknown kind; download it again"},
      {kNonFinite, "the strength drives the model out of its range; lower it"},
      {kInternal, "this is a defect of the server; its log says more"},
      {kCancelled, "it was cancelled; repeat the command if you need the result"},
      {kDeadlineExceeded, "give it more time with --timeout"},
  };
  const auto found = hints.find(reason);
  return found == hints.end() ? std::string_view() : found->second;
}

std::string FormatError(const absl::Status& status, std::string_view address) {
  const ErrorDetail detail = GetErrorDetail(status);
  // The message of a field error repeats the violations, which follow.
  const std::string message = detail.violations.empty() ? Printable(std::string(status.message()), /*multi_line=*/true)
                                                        : "the request has to be changed here:";
  std::string text =
      detail.reason.empty() ? absl::StrCat(message, "\n") : absl::StrCat(detail.reason, ": ", message, "\n");
  for (const FieldViolation& violation : detail.violations) {
    absl::StrAppend(&text, "  ", violation.field.empty() ? "" : Printable(violation.field) + ": ",
                    Printable(violation.description), "\n");
  }
  for (const auto& [key, value] : detail.metadata) {
    absl::StrAppend(&text, "  ", Printable(key), " = ", Printable(value), "\n");
  }
  if (detail.retry_after) {
    absl::StrAppend(&text, "  try again after ", FormatDuration(absl::ToDoubleSeconds(*detail.retry_after)), "\n");
  }
  if (detail.reason.empty() && absl::IsUnavailable(status)) {
    absl::StrAppend(&text, "  No server answers at ", std::string(address),
                    ". Is it running? --address or TRIMTAB_ADDRESS names another.\n");
  } else if (detail.reason.empty() && absl::IsDeadlineExceeded(status)) {
    absl::StrAppend(&text, "  ", std::string(HintFor(kDeadlineExceeded)), "\n");
  } else if (const std::string_view hint = HintFor(detail.reason); !hint.empty()) {
    absl::StrAppend(&text, "  What to do: ", std::string(hint), "\n");
  }
  return text;
}

}  // namespace trimtab
