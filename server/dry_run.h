// trimtab --dry_run: says what serving models would read and how much memory it would take, and ends. Called by main.
#ifndef TRIMTAB_SERVER_DRY_RUN_H_
#define TRIMTAB_SERVER_DRY_RUN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/config.h"

namespace trimtab {

struct DryRun {
  std::string text;      // for people
  bool complete = true;  // no model lacks a tensor or has one that cannot be loaded
};

// Of every model of `config`, whose path may also be a config.json. `device_memory`: bytes that the server may use, 0
// if not known: then no batch is worked out. Errors of a model hold its path.
absl::StatusOr<DryRun> RunDry(const ServerConfig& config, int64_t device_memory);

// "24GiB", "512 MiB", "80 GB", "1e9": bytes; INVALID_ARGUMENT for anything else.
absl::StatusOr<int64_t> ParseMemory(const std::string& text);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_DRY_RUN_H_
