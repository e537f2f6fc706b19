// A process whose lines a test reads and which it may kill. One thread.
#ifndef TRIMTAB_TESTS_SERVER_REGISTRY_CHILD_PROCESS_H_
#define TRIMTAB_TESTS_SERVER_REGISTRY_CHILD_PROCESS_H_

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace trimtab {

class ChildProcess {
 public:
  ChildProcess(const std::string& program, std::vector<std::string> arguments) {
    std::vector<char*> argv = {const_cast<char*>(program.c_str())};
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return;
    process_ = fork();
    if (process_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(ends[1]);
    output_ = fdopen(ends[0], "r");
  }
  ~ChildProcess() {
    Kill();
    if (output_ != nullptr) fclose(output_);
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // The next line of its standard output; empty when it has ended.
  std::string Line() {
    char buffer[512];
    if (output_ == nullptr || fgets(buffer, sizeof(buffer), output_) == nullptr) return "";
    std::string line(buffer);
    if (!line.empty() && line.back() == '\n') line.pop_back();
    return line;
  }

  // Waits for its end: it holds no file any more.
  void Join() {
    if (process_ > 0) waitpid(process_, nullptr, 0);
    process_ = -1;
  }
  // Kills it as a power cut would and waits for its end; what it wrote can still be read. Whether it was alive.
  bool Kill() {
    if (process_ <= 0) return false;
    kill(process_, SIGKILL);
    int status = 0;
    waitpid(process_, &status, 0);
    process_ = -1;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }

 private:
  pid_t process_ = -1;
  FILE* output_ = nullptr;
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_REGISTRY_CHILD_PROCESS_H_
