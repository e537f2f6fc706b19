#include "tools/trimctl/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace trimtab {
namespace {

sigset_t Signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return set;
}

}  // namespace

Interrupt::Interrupt() {
  const sigset_t set = Signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { Run(); });
}

Interrupt::~Interrupt() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  pthread_kill(thread_.native_handle(), SIGINT);
  thread_.join();
}

void Interrupt::Run() {
  const sigset_t set = Signals();
  while (true) {
    int signal = 0;
    if (sigwait(&set, &signal) != 0) continue;
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    if (requested_) _exit(kExitInterrupted);
    requested_ = true;
    if (active_ != nullptr) active_->TryCancel();
  }
}

bool Interrupt::requested() const {
  absl::MutexLock lock(&mutex_);
  return requested_;
}

void Interrupt::Wait() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&requested_));
}

Interrupt::Guard::Guard(Interrupt& interrupt, grpc::ClientContext& context) : interrupt_(interrupt) {
  absl::MutexLock lock(&interrupt_.mutex_);
  interrupt_.active_ = &context;
  if (interrupt_.requested_) context.TryCancel();
}

Interrupt::Guard::~Guard() {
  absl::MutexLock lock(&interrupt_.mutex_);
  interrupt_.active_ = nullptr;
}

}  // namespace trimtab
