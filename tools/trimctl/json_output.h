// Messages as JSON and text for -o json and method configurations. Any thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_JSON_OUTPUT_H_
#define TRIMTAB_TOOLS_TRIMCTL_JSON_OUTPUT_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/message.h"

namespace trimtab {

// `message` in protobuf's JSON mapping: camelCase names, enums by name, zeros printed, indented, ending with a line
// feed. A packed message (google.protobuf.Any) of a type that this program does not know is left out.
std::string ToJson(const google::protobuf::Message& message);

// The configuration `textproto` of a method whose message is `config_type`, packed. INVALID_ARGUMENT with line and
// column of the first mistake, or when this program does not know the type.
absl::StatusOr<google::protobuf::Any> ParseConfig(std::string_view config_type, std::string_view textproto);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_JSON_OUTPUT_H_
