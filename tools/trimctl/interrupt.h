// Ctrl-C ends the call that is under way, not the program: the caller then says what goes on without it. A second
// Ctrl-C ends the program. One object per process, made by main before any other thread, so that all threads inherit
// its mask.
#ifndef TRIMTAB_TOOLS_TRIMCTL_INTERRUPT_H_
#define TRIMTAB_TOOLS_TRIMCTL_INTERRUPT_H_

#include <grpcpp/client_context.h>

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace trimtab {

// Exit status of a program that Ctrl-C ended.
inline constexpr int kExitInterrupted = 130;

class Interrupt {
 public:
  // Blocks SIGINT, SIGTERM and SIGHUP and starts the thread that waits for them.
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool requested() const;
  // Returns when a signal has come.
  void Wait();

  // Cancels `context`'s call when a signal comes, for as long as the object lives.
  class Guard {
   public:
    Guard(Interrupt& interrupt, grpc::ClientContext& context);
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    Interrupt& interrupt_;
  };

 private:
  void Run();

  mutable absl::Mutex mutex_;
  bool requested_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* active_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::thread thread_;
};

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_TRIMCTL_INTERRUPT_H_
