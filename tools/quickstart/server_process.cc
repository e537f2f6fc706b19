#include "tools/quickstart/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace trimtab {
namespace {

constexpr size_t kLogTail = 2000;

// In the child: becomes the server, or ends with 127.
[[noreturn]] void Become(const std::vector<char*>& arguments, const std::string& log, pid_t parent) {
  // A parent that dies between fork and here has another parent's id by then.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  // Paths among `flags` are relative to this program's folder, not to that of a user of `bazelw run`.
  unsetenv("BUILD_WORKING_DIRECTORY");
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // Ctrl-C on the terminal is for the parent, which then drains the server.
  setpgid(0, 0);
  const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0 || dup2(file, STDOUT_FILENO) < 0 || dup2(file, STDERR_FILENO) < 0) _exit(127);
  execv(arguments[0], arguments.data());
  _exit(127);
}

int ToStatus(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(const std::string& binary,
                                                                    const std::vector<std::string>& flags,
                                                                    const std::string& folder,
                                                                    absl::Duration patience) {
  const std::string port_file = folder + "/ports";
  std::filesystem::remove(port_file);
  std::vector<std::string> all = {binary, "--address=127.0.0.1:0", "--metrics_address=127.0.0.1:0",
                                  "--port_file=" + port_file};
  all.insert(all.end(), flags.begin(), flags.end());
  std::vector<char*> arguments;
  for (std::string& argument : all) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const std::string log = folder + "/server.log";
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::ResourceExhaustedError("cannot start another process");
  if (pid == 0) Become(arguments, log, parent);
  std::unique_ptr<ServerProcess> server(new ServerProcess(pid, folder));
  const absl::Time give_up = absl::Now() + patience;
  while (true) {
    std::ifstream ports(port_file);
    if (ports >> server->port_ >> server->metrics_port_) return server;
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) == pid) {
      server->pid_ = 0;
      return absl::InternalError(absl::StrCat("the server ended with status ", ToStatus(status), ":\n", server->log()));
    }
    if (absl::Now() > give_up) {
      return absl::DeadlineExceededError(
          absl::StrCat("the server did not serve within ", absl::FormatDuration(patience), ":\n", server->log()));
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
}

ServerProcess::~ServerProcess() {
  Signal(SIGKILL);
  Wait();
}

std::string ServerProcess::log() const {
  std::ifstream file(folder_ + "/server.log");
  std::ostringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  return all.size() > kLogTail ? "..." + all.substr(all.size() - kLogTail) : all;
}

void ServerProcess::Signal(int signal) {
  if (pid_ > 0) kill(pid_, signal);
}

int ServerProcess::Wait() {
  if (pid_ > 0) {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    status_ = ToStatus(status);
    pid_ = 0;
  }
  return status_;
}

}  // namespace trimtab
