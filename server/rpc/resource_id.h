// Ids that the server makes: in the order of time when sorted as text, unlike any other.
#ifndef TRIMTAB_SERVER_RPC_RESOURCE_ID_H_
#define TRIMTAB_SERVER_RPC_RESOURCE_ID_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/random/random.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace trimtab {

// For example "fit-20261124t084502123-5f0c21a9d3e8b776".
inline std::string NewResourceId(std::string_view prefix, absl::Time now) {
  const int64_t millis = absl::ToInt64Milliseconds(now - absl::FromUnixSeconds(absl::ToUnixSeconds(now)));
  return absl::StrFormat("%s-%s%03d-%016x", std::string(prefix),
                         absl::FormatTime("%Y%m%dt%H%M%S", now, absl::UTCTimeZone()), millis,
                         absl::Uniform<uint64_t>(absl::BitGen()));
}

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_RESOURCE_ID_H_
