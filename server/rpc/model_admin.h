// What ModelService asks of whoever hosts the models. Implemented by ModelHost, and by tests.
#ifndef TRIMTAB_SERVER_RPC_MODEL_ADMIN_H_
#define TRIMTAB_SERVER_RPC_MODEL_ADMIN_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trimtab/v1/model.pb.h"

namespace trimtab {

// Thread-safe; may block on the disk. The service calls one method at a time.
class ModelAdmin {
 public:
  virtual ~ModelAdmin() = default;

  // Whether the model could be loaded now; if so, what it would be: name, path, memory, STATE_LOADING. Errors: those
  // that LoadModel names in the API. `request` has passed ParseLoadModelRequest.
  virtual absl::StatusOr<v1::Model> CheckLoad(const v1::LoadModelRequest& request) = 0;
  // The model's load is durable: its name is taken from now on.
  virtual void BeginLoad(const v1::Model& model) = 0;
  // MODEL_NOT_FOUND; MODEL_NOT_READY while it is loaded or unloaded.
  virtual absl::Status CheckUnload(const std::string& id) = 0;
  // The model's unload is durable: new calls are refused from now on.
  virtual void BeginUnload(const std::string& id) = 0;
};

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_MODEL_ADMIN_H_
