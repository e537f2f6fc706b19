// The requests of ObjectiveService that carry files, as plain structs; see validate.h. Pure; any thread.
#ifndef TRIMTAB_SERVER_RPC_PARSE_FILES_H_
#define TRIMTAB_SERVER_RPC_PARSE_FILES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/base/resource_name.h"
#include "steering/vector_files.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {

struct ExportCall {
  ObjectiveId objective;
  std::optional<int64_t> revision;  // unset: the active one
  bool gguf = false;
  std::optional<float> gguf_scale;
};
absl::StatusOr<ExportCall> ParseExportRevisionRequest(const v1::ExportRevisionRequest& request);

struct ImportCall {
  ObjectiveId id;
  // What the files hold, views into the request: either the first two or the third.
  std::string_view vectors, document, control_vector;
  std::string file_name;                                // of the vectors, for people
  std::optional<float> default_strength, max_strength;  // as asked for
  ControlVectorUse use;                                 // of control_vector; without the fingerprint
  bool allow_other_fingerprint = false;
};
// `request` must outlive the result. What is in the files is not looked at.
absl::StatusOr<ImportCall> ParseImportRevisionRequest(const v1::ImportRevisionRequest& request);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_PARSE_FILES_H_
