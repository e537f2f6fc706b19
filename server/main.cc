// trimtab: flags -> App -> wait for a signal -> drain. --help lists the flags.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/app.h"
#include "server/base/log.h"
#include "server/build_info.h"
#include "server/config.h"
#include "server/dry_run.h"

ABSL_FLAG(std::vector<std::string>, model, {},
          "models to serve, comma-separated: a GGUF file or Hugging Face folder "
          "each, as path or id=path");
ABSL_FLAG(std::string, model_root, "",
          "folder below which clients may load further models while the server runs (LoadModel); empty: they may not");
ABSL_FLAG(std::string, precision, "auto",
          "how weights are kept: float32, bfloat16, file (quantised files in their own 4 or 8 bits), or auto: file "
          "where the processor and the file allow it, else what the processor is fast at");
ABSL_FLAG(std::string, address, "127.0.0.1:50051", "where to listen, host:port; port 0 picks a free one");
ABSL_FLAG(std::string, metrics_address, "127.0.0.1:9464", "where Prometheus scrapes, host:port; empty: nowhere");
ABSL_FLAG(int64_t, metrics_objectives, 64,
          "objectives per model that have metric series of their own, 1 to 4096; what comes beyond them is counted as "
          "__other__");
ABSL_FLAG(bool, allow_insecure, false, "allow plaintext on addresses beyond loopback");
ABSL_FLAG(bool, reflection, true, "answer gRPC reflection, so that tools need no .proto files");
ABSL_FLAG(std::string, registry, "trimtab.db", "SQLite file that holds objectives, jobs and reports");
ABSL_FLAG(std::vector<std::string>, drift_suite, {},
          "question sets for drift, comma-separated name=path; JSON lines or "
          "an MMLU folder; the first is the default");
ABSL_FLAG(std::string, neutral_text, "", "UTF-8 file of text on which the cost of steering is measured");
ABSL_FLAG(std::vector<std::string>, method_plugin, {},
          "shared objects with steering methods, comma-separated paths; their code runs with the server's rights");
ABSL_FLAG(int64_t, kv_cache_mib, 512, "memory of the key-value cache per model, MiB");
ABSL_FLAG(int64_t, max_running_requests, 64, "sequences that are computed together");
ABSL_FLAG(int64_t, max_waiting_requests, 256, "requests that wait, beyond which QUEUE_FULL is answered");
ABSL_FLAG(int64_t, max_step_tokens, 512, "tokens of one step; bounds the wait that a long prompt causes others");
ABSL_FLAG(
    absl::Duration, max_step_time, absl::Milliseconds(50),
    "a step in which interactive answers go on takes in only so much of waiting prompts that it should stay within "
    "this, but always 32 tokens; inf: no bound");
ABSL_FLAG(
    int64_t, max_waiting_per_tenant, 0,
    "requests of one tenant (metadata x-trimtab-tenant) that wait, beyond which QUOTA_EXCEEDED is answered; 0: no "
    "bound");
ABSL_FLAG(int64_t, max_running_per_tenant, 0, "requests of one tenant that run, beyond which they wait; 0: no bound");
ABSL_FLAG(int64_t, max_context, 0, "tokens of prompt and answer together; 0: the model's own limit");
ABSL_FLAG(
    int64_t, steering_slots, 256,
    "different vectors that running requests may use, at least 4; requests beyond them wait. A slot takes layers * "
    "hidden size * 4 bytes from its first use");
ABSL_FLAG(int, engine_threads, 0, "threads of the engine's steps; 0: all cores");
ABSL_FLAG(bool, prefix_caching, true, "share computed prompt prefixes between requests");
ABSL_FLAG(int64_t, max_queued_jobs, 64, "jobs that wait, beyond which JOB_QUEUE_FULL is answered");
ABSL_FLAG(int, job_threads, 0, "threads of a job; 0: all cores");
ABSL_FLAG(bool, idle_jobs, true, "run jobs at idle scheduling priority");
ABSL_FLAG(absl::Duration, drain_delay, absl::ZeroDuration(),
          "after SIGTERM: how long calls are still taken while "
          "health says NOT_SERVING");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30), "after SIGTERM: how long running calls may take to end");
ABSL_FLAG(bool, dry_run, false,
          "say which tensors the models need and how much memory serving them takes, compare with the checkpoint, and "
          "end; a model may be a config.json alone");
ABSL_FLAG(std::string, device_memory, "",
          "with --dry_run: memory that the server may use, for example 24GiB; the largest batch is worked out");
ABSL_FLAG(std::string, port_file, "", "write \"port metrics_port\" here when the server is ready");

namespace trimtab {
namespace {

ServerConfig ConfigFromFlags() {
  ServerConfig config;
  config.version = kVersion;
  config.revision = kBuildRevision;
  config.models = absl::GetFlag(FLAGS_model);
  config.model_root = absl::GetFlag(FLAGS_model_root);
  config.precision = absl::GetFlag(FLAGS_precision);
  config.address = absl::GetFlag(FLAGS_address);
  config.metrics_address = absl::GetFlag(FLAGS_metrics_address);
  config.metrics_objectives = absl::GetFlag(FLAGS_metrics_objectives);
  config.allow_insecure = absl::GetFlag(FLAGS_allow_insecure);
  config.reflection = absl::GetFlag(FLAGS_reflection);
  config.registry = absl::GetFlag(FLAGS_registry);
  config.drift_suites = absl::GetFlag(FLAGS_drift_suite);
  config.neutral_text = absl::GetFlag(FLAGS_neutral_text);
  config.method_plugins = absl::GetFlag(FLAGS_method_plugin);
  config.kv_cache_mib = absl::GetFlag(FLAGS_kv_cache_mib);
  config.max_running_requests = absl::GetFlag(FLAGS_max_running_requests);
  config.max_waiting_requests = absl::GetFlag(FLAGS_max_waiting_requests);
  config.max_step_tokens = absl::GetFlag(FLAGS_max_step_tokens);
  config.max_step_time = absl::GetFlag(FLAGS_max_step_time);
  config.max_waiting_per_tenant = absl::GetFlag(FLAGS_max_waiting_per_tenant);
  config.max_running_per_tenant = absl::GetFlag(FLAGS_max_running_per_tenant);
  config.max_context = absl::GetFlag(FLAGS_max_context);
  config.steering_slots = absl::GetFlag(FLAGS_steering_slots);
  config.engine_threads = absl::GetFlag(FLAGS_engine_threads);
  config.prefix_caching = absl::GetFlag(FLAGS_prefix_caching);
  config.max_queued_jobs = absl::GetFlag(FLAGS_max_queued_jobs);
  config.job_threads = absl::GetFlag(FLAGS_job_threads);
  config.idle_jobs = absl::GetFlag(FLAGS_idle_jobs);
  config.drain_delay = absl::GetFlag(FLAGS_drain_delay);
  config.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  return config;
}

// Written aside and moved, so that a reader never sees half of it.
bool WritePortFile(const std::string& path, const App& app) {
  const std::string part = path + ".part";
  {
    std::ofstream file(part);
    file << app.port() << " " << app.metrics_port() << "\n";
    if (!file.good()) return false;
  }
  return std::rename(part.c_str(), path.c_str()) == 0;
}

// SIGTERM and SIGINT, taken by a thread of their own. The first one asks for a drain; before the server is ready, and
// for the second one, the process ends at once: all that was acknowledged is on the disk.
class Signals {
 public:
  // Before any other thread, which then inherit the mask.
  Signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    std::thread([this] { Take(); }).detach();
  }
  void set_ready() { ready_ = true; }
  void WaitForFirst() { first_.WaitForNotification(); }

 private:
  void Take() {
    for (;;) {
      int signal = 0;
      if (sigwait(&set_, &signal) != 0) continue;
      if (!ready_ || first_.HasBeenNotified()) {
        LogWarning("ending at once", {{"signal", absl::StrCat(signal)}});
        _exit(128 + signal);
      }
      LogInfo("signal", {{"signal", absl::StrCat(signal)}});
      first_.Notify();
    }
  }

  sigset_t set_;
  std::atomic<bool> ready_ = false;
  absl::Notification first_;
};

std::string VersionLine() { return absl::StrCat("trimtab ", kVersion, " (", kBuildRevision, ")\n"); }

int Main() {
  // Never destroyed: its thread waits for ever.
  static Signals& signals = *new Signals;
  absl::StatusOr<std::unique_ptr<App>> app = App::Start(ConfigFromFlags());
  if (!app.ok()) {
    LogError("cannot start", {{"error", std::string(app.status().message())}});
    return EXIT_FAILURE;
  }
  signals.set_ready();
  if (const std::string path = absl::GetFlag(FLAGS_port_file); !path.empty() && !WritePortFile(path, **app)) {
    LogError("cannot write --port_file", {{"path", path}});
    return EXIT_FAILURE;
  }
  LogInfo("serving", {{"port", absl::StrCat((*app)->port())}, {"metrics_port", absl::StrCat((*app)->metrics_port())}});
  signals.WaitForFirst();
  (*app)->Drain();
  app->reset();
  LogInfo("ended");
  return EXIT_SUCCESS;
}

int DryRunMain() {
  absl::StatusOr<int64_t> memory = 0;
  if (const std::string text = absl::GetFlag(FLAGS_device_memory); !text.empty()) memory = ParseMemory(text);
  if (!memory.ok()) {
    LogError("--device_memory", {{"error", std::string(memory.status().message())}});
    return EXIT_FAILURE;
  }
  const absl::StatusOr<DryRun> run = RunDry(ConfigFromFlags(), *memory);
  if (!run.ok()) {
    LogError("dry run", {{"error", std::string(run.status().message())}});
    return EXIT_FAILURE;
  }
  std::cout << run->text << std::flush;
  return run->complete ? EXIT_SUCCESS : EXIT_FAILURE;
}

// Threads that wait for the next operation must not spin: with the default, any other busy thread on the machine (a
// job, an egress thread) makes an operation 6 to 15 times slower. GNU OpenMP reads its environment when the process
// starts, so the process starts itself again, once, with the settings it needs; what the operator has set is kept.
void SettleOpenMp(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "PASSIVE", 0);
  setenv("GOMP_SPINCOUNT", "0", 0);
  execv("/proc/self/exe", argv);
  LogWarning("cannot restart with OMP_WAIT_POLICY=PASSIVE: set it for steady latency");
}

}  // namespace
}  // namespace trimtab

int main(int argc, char** argv) {
  trimtab::SettleOpenMp(argv);
  absl::SetProgramUsageMessage(
      "serves language models whose behaviour can be steered per request.\n"
      "  trimtab --model=smollm2=model.gguf --registry=/var/lib/trimtab/registry.db");
  absl::FlagsUsageConfig usage;
  usage.version_string = &trimtab::VersionLine;
  usage.contains_help_flags = [](absl::string_view file) { return absl::EndsWith(file, "server/main.cc"); };
  absl::SetFlagsUsageConfig(usage);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    trimtab::LogError("unexpected argument", {{"argument", rest[1]}});
    return EXIT_FAILURE;
  }
  // `bazelw run` starts programs in a folder of its own; paths on the command line mean the caller's.
  if (const char* folder = std::getenv("BUILD_WORKING_DIRECTORY"); folder != nullptr && chdir(folder) != 0) {
    trimtab::LogError("cannot go to the folder that this was started from", {{"folder", folder}});
    return EXIT_FAILURE;
  }
  return absl::GetFlag(FLAGS_dry_run) ? trimtab::DryRunMain() : trimtab::Main();
}
