// The registry's tables and how older files become newer ones. Called once, when the registry is opened.
#ifndef TRIMTAB_SERVER_REGISTRY_SCHEMA_H_
#define TRIMTAB_SERVER_REGISTRY_SCHEMA_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/registry/sqlite.h"

namespace trimtab {

// The newest schema that this server knows.
int64_t LatestSchemaVersion();

// Sets the connection up (WAL, synchronous=FULL, foreign keys), checks the file's integrity and brings its schema to
// the latest version, one transaction per step. FAILED_PRECONDITION for the file of another program or of a newer
// server, DATA_LOSS for a damaged one, UNAVAILABLE when the storage fails.
absl::Status PrepareSchema(Database& database, absl::Time now);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_REGISTRY_SCHEMA_H_
