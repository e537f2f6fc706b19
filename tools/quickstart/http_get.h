// The smallest HTTP client: one GET on the loopback interface, to show the metrics page. One thread.
#ifndef TRIMTAB_TOOLS_QUICKSTART_HTTP_GET_H_
#define TRIMTAB_TOOLS_QUICKSTART_HTTP_GET_H_

#include <string>

#include "absl/status/statusor.h"

namespace trimtab {

// The body of http://`address``path`, `address` being "127.0.0.1:port". UNAVAILABLE when it cannot be had.
absl::StatusOr<std::string> HttpGet(const std::string& address, const std::string& path);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_QUICKSTART_HTTP_GET_H_
