// Waits for an operation of the server and shows its progress meanwhile. One thread.
#ifndef TRIMTAB_TOOLS_TRIMCTL_WATCH_H_
#define TRIMTAB_TOOLS_TRIMCTL_WATCH_H_

#include <string>

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "tools/trimctl/client.h"
#include "tools/trimctl/progress_bar.h"

namespace trimtab {

// What the operation's metadata says.
ProgressState GetProgress(const google::longrunning::Operation& operation);

// Items that a job left out and why, one line each.
std::string FormatPartialFailures(const google::longrunning::Operation& operation);

// The operation `name` when it is done, whether it succeeded or failed; `bar` follows it. CANCELLED after Ctrl-C: the
// operation goes on.
absl::StatusOr<google::longrunning::Operation> Watch(Client& client, const std::string& name, ProgressBar& bar);

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_WATCH_H_
