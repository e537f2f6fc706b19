// The models of this server by id, as calls and jobs look them up while models come and go. Written by whoever hosts
// the models.
#ifndef TRIMTAB_SERVER_RPC_MODEL_DIRECTORY_H_
#define TRIMTAB_SERVER_RPC_MODEL_DIRECTORY_H_

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/rpc/served_model.h"
#include "trimtab/v1/model.pb.h"

namespace trimtab {

// Thread-safe; readers get a snapshot and never wait for a change. A model that a call has found stays alive until the
// call lets it go, whatever happens here.
class ModelDirectory {
 public:
  struct Entry {
    std::shared_ptr<ServedModel> model;  // null unless it takes requests
    v1::Model description;               // without a model: what is known, and its state

    v1::Model Describe() const { return model != nullptr ? model->Describe() : description; }
  };
  using Entries = std::map<std::string, Entry, std::less<>>;  // by id

  // It takes requests from now on.
  void Add(std::shared_ptr<ServedModel> model) ABSL_LOCKS_EXCLUDED(mutex_);
  // It is known, but takes none: `description` has its name, its state and what else is known.
  void Announce(v1::Model description) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(std::string_view id) ABSL_LOCKS_EXCLUDED(mutex_);

  std::shared_ptr<const Entries> snapshot() const ABSL_LOCKS_EXCLUDED(mutex_);
  // A model that takes requests. MODEL_NOT_FOUND, or MODEL_NOT_READY (metadata: state) when it is announced only.
  absl::StatusOr<std::shared_ptr<ServedModel>> Find(std::string_view id) const;
  // Any model. MODEL_NOT_FOUND.
  absl::StatusOr<v1::Model> Describe(std::string_view id) const;

 private:
  void Put(const std::string& id, Entry entry) ABSL_LOCKS_EXCLUDED(mutex_);

  mutable absl::Mutex mutex_;
  std::shared_ptr<const Entries> entries_ ABSL_GUARDED_BY(mutex_) = std::make_shared<const Entries>();
};

// MODEL_NOT_READY for a model in this state, with a time to try again when waiting helps.
absl::Status ModelNotReadyError(const v1::Model& model);
// "LOADING" of STATE_LOADING.
std::string StateName(v1::Model::State state);

}  // namespace trimtab

#endif  // TRIMTAB_SERVER_RPC_MODEL_DIRECTORY_H_
