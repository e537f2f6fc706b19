// Collects everything that is wrong with a request, so that a caller learns it all at once. One per request; not
// thread-safe.
#ifndef TRIMTAB_SERVER_RPC_FIELD_CHECKER_H_
#define TRIMTAB_SERVER_RPC_FIELD_CHECKER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/base/error.h"

namespace trimtab {

// Every method returns whether the value is fine and remembers a violation otherwise. `field` is the path in the
// request, for example "steering[1].strength".
class FieldChecker {
 public:
  void Fail(std::string_view field, std::string_view description);

  // UTF-8 of min_bytes to max_bytes.
  bool Text(std::string_view field, std::string_view value, size_t min_bytes, size_t max_bytes);
  // Printable ASCII of at most max_bytes; empty is fine.
  bool Token(std::string_view field, std::string_view value, size_t max_bytes);
  bool Count(std::string_view field, int64_t count, int64_t min, int64_t max);
  bool Integer(std::string_view field, int64_t value, int64_t min, int64_t max);
  // Finite and in [min, max].
  bool Number(std::string_view field, double value, double min, double max);
  // Finite and in (min, max].
  bool NumberAbove(std::string_view field, double value, double min, double max);

  bool ok() const { return violations_.empty(); }
  // OK or FIELD_INVALID with every violation.
  absl::Status status() const;

 private:
  std::vector<FieldViolation> violations_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_FIELD_CHECKER_H_
