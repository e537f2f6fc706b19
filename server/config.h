// How a server is configured: made once (from flags, in main.cc), then const.
#ifndef TRIMTAB_SERVER_CONFIG_H_
#define TRIMTAB_SERVER_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace trimtab {

struct ServerConfig {
  std::string version = "unknown", revision = "unknown";  // of the build
  // "id=path" or "path" (the id is made from its last part): a Hugging Face folder or a GGUF file each.
  std::vector<std::string> models;
  // Folder below which clients may load models at run time; empty: none.
  std::string model_root;
  std::string precision = "auto";  // of weights: auto, float32, bfloat16 or file (LoadOptions::Precision)
  std::string address = "127.0.0.1:50051";
  std::string metrics_address = "127.0.0.1:9464";  // empty: no metrics
  int64_t metrics_objectives = 64;                 // of a model that have series of their own
  bool allow_insecure = false;                     // plaintext beyond loopback
  bool reflection = true;
  std::string registry = "trimtab.db";    // path of the SQLite file; its folder must exist
  std::vector<std::string> drift_suites;  // "name=path" each; the first is the default
  std::string neutral_text;               // path; empty: none
  // Shared objects with further steering methods (steering/plugin.h), paths.
  std::vector<std::string> method_plugins;

  int64_t kv_cache_mib = 512;
  int64_t max_running_requests = 64, max_waiting_requests = 256, max_step_tokens = 512;
  int64_t max_waiting_per_tenant = 0, max_running_per_tenant = 0;  // 0: no bound
  absl::Duration max_step_time = absl::Milliseconds(50);           // while interactive answers go on
  int64_t max_context = 0;                                         // tokens; 0: the model's own
  int64_t steering_slots = 256;                                    // different vectors in use; at least 4
  int engine_threads = 0;                                          // 0: all cores
  bool prefix_caching = true;
  int64_t max_queued_jobs = 64;
  int job_threads = 0;  // 0: all cores
  bool idle_jobs = true;

  absl::Duration drain_delay;                           // after health says NOT_SERVING, before calls are refused
  absl::Duration drain_timeout = absl::Seconds(30);     // for streams to end by themselves
  absl::Duration shutdown_timeout = absl::Seconds(10);  // for what is cut off then
};

// INVALID_ARGUMENT says which setting is wrong: no model, an unknown precision, plaintext on an address that is not
// loopback without allow_insecure.
absl::Status CheckConfig(const ServerConfig& config);

// Whether an address (host:port, [v6]:port, unix:path) can be reached from this machine only.
bool IsLoopback(const std::string& address);

// "id=path" or "path".
struct ModelSource {
  std::string id, path;
};
ModelSource ParseModelSource(const std::string& text);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_CONFIG_H_
