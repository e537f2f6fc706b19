// How much memory a model's weights will take, from its files' tables of tensors: no weight is read. Any thread.
#ifndef TRIMTAB_SERVER_WEIGHT_ESTIMATE_H_
#define TRIMTAB_SERVER_WEIGHT_ESTIMATE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "models/loaded_model.h"

namespace trimtab {

// Bytes of the weights as LoadModel keeps them with `precision`. Every tensor of the file counts, also those that the
// architecture does not use. Errors: those of opening the files (NOT_FOUND, MODEL_FILE_INVALID).
absl::StatusOr<int64_t> EstimateWeightBytes(const std::string& path, LoadOptions::Precision precision);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_WEIGHT_ESTIMATE_H_
