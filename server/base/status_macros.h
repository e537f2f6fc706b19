// Macros that pass a failed absl::Status on. Used everywhere; absl 20220623 has none of its own.
#ifndef TRIMTAB_SERVER_BASE_STATUS_MACROS_H_
#define TRIMTAB_SERVER_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define TRIMTAB_CONCAT_INNER_(a, b) a##b
#define TRIMTAB_CONCAT_(a, b) TRIMTAB_CONCAT_INNER_(a, b)

// Returns the status of `expression` from the enclosing function unless it is OK.
#define TRIMTAB_RETURN_IF_ERROR(expression)                                 \
  do {                                                                      \
    if (absl::Status trimtab_status = (expression); !trimtab_status.ok()) { \
      return trimtab_status;                                                \
    }                                                                       \
  } while (false)

// Evaluates a StatusOr; on success assigns its value to `lhs` (which may declare a variable), else returns its status.
#define TRIMTAB_ASSIGN_OR_RETURN(lhs, expression) \
  TRIMTAB_ASSIGN_OR_RETURN_IMPL_(TRIMTAB_CONCAT_(trimtab_statusor_, __LINE__), lhs, expression)

#define TRIMTAB_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expression) \
  auto statusor = (expression);                                   \
  if (!statusor.ok()) return statusor.status();                   \
  lhs = *std::move(statusor)

#endif  // TRIMTAB_SERVER_BASE_STATUS_MACROS_H_
