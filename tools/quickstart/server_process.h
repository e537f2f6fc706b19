// A Trimtab server as a child process, for programs that need a real one for a while: the quickstart and tests. It
// never outlives its parent. One thread.
#ifndef TRIMTAB_TOOLS_QUICKSTART_SERVER_PROCESS_H_
#define TRIMTAB_TOOLS_QUICKSTART_SERVER_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace trimtab {

class ServerProcess {
 public:
  // Starts `binary` with `flags` on free ports of the loopback interface, its log going to `folder`/server.log, and
  // returns when it serves. Errors hold the end of the log: DEADLINE_EXCEEDED after `patience`, INTERNAL when the
  // server ended before it served. `folder` must exist and is not removed.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(const std::string& binary,
                                                              const std::vector<std::string>& flags,
                                                              const std::string& folder, absl::Duration patience);
  // Kills a server that is still running.
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  std::string metrics_address() const { return "127.0.0.1:" + std::to_string(metrics_port_); }
  pid_t pid() const { return pid_; }
  std::string log() const;

  // Sends a signal; SIGTERM drains.
  void Signal(int signal);
  // Waits for the end: the exit status, or 128 + the signal that ended it.
  int Wait();

 private:
  ServerProcess(pid_t pid, std::string folder) : pid_(pid), folder_(std::move(folder)) {}

  pid_t pid_;  // 0: has ended
  const std::string folder_;
  int port_ = 0, metrics_port_ = 0, status_ = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_QUICKSTART_SERVER_PROCESS_H_
