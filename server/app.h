// The composition root: builds every part in order, serves, and takes everything down in reverse. Main thread.
#ifndef TRIMTAB_SERVER_APP_H_
#define TRIMTAB_SERVER_APP_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/config.h"

namespace trimtab {

class App {
 public:
  // Loads the models, opens the registry, takes up unfinished jobs and serves. Errors say which part failed and what to
  // change; nothing is left running then.
  static absl::StatusOr<std::unique_ptr<App>> Start(const ServerConfig& config);
  // Drains if Drain was not called.
  ~App();
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  int port() const;
  // 0 without metrics.
  int metrics_port() const;

  // Health says NOT_SERVING; new work is refused; jobs stop at a checkpoint and stay resumable; streams end by
  // themselves or are aborted at the configured time-out; then the server is shut down. Blocks. Idempotent.
  void Drain();

 private:
  class Impl;
  explicit App(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_APP_H_
