// The vectors that one engine can apply in a step: a fixed-size table, reference-counted, least recently used out
// first. Owned by the engine thread.
#ifndef TRIMTAB_STEERING_RUNTIME_STEERING_BANK_H_
#define TRIMTAB_STEERING_RUNTIME_STEERING_BANK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "steering/steering_vector.h"

namespace trimtab {

// A slot holds one vector for all layers: row [slot, layer] of the table is direction * weight, zeros where the vector
// does not steer. Identity is the vector's digest, so two objectives with the same vector share a slot, and strength is
// not part of it.
class SteeringBank {
 public:
  SteeringBank(int64_t num_slots, int64_t num_layers, int64_t hidden_size);

  // The vector's slot, loading it if need be, with one reference taken. Nullopt when every slot is referenced: the
  // request waits. Only vectors of the right hidden size and layers may be given: a caller's mistake throws c10::Error.
  std::optional<int32_t> Acquire(const std::shared_ptr<const SteeringVector>& vector);
  // Gives one reference back; the vector stays loaded until its slot is needed.
  void Release(int32_t slot);

  const at::Tensor& table() const { return table_; }  // [slots, layers, hidden] float32
  const SteeringVector& vector(int32_t slot) const { return *slots_[slot].vector; }
  // [hidden] of the table.
  const float* row(int32_t slot, int64_t layer) const {
    return table_.const_data_ptr<float>() + (slot * num_layers() + layer) * hidden_size();
  }
  // How a slot's vector is applied.
  struct Rule {
    Site site = Site::kBlockOutput;
    bool relative = false;        // strength is a multiple of the row's norm
    bool preserves_norm = false;  // the row's norm is restored
    bool opposes = false;         // Operation::kAddOpposingPreserveNorm
  };
  Rule rule(int32_t slot) const { return slots_[slot].rule; }
  // At the site of the slot's rule.
  bool steers(int32_t slot, int64_t layer) const { return slots_[slot].squares[static_cast<size_t>(layer)] >= 0; }
  // Sum of the squares of row(slot, layer); below 0 where the vector does not steer.
  float squares(int32_t slot, int64_t layer) const { return slots_[slot].squares[static_cast<size_t>(layer)]; }
  int64_t num_layers() const { return table_.size(1); }
  int64_t hidden_size() const { return table_.size(2); }
  int64_t num_slots() const { return static_cast<int64_t>(slots_.size()); }
  int64_t bytes() const;

  struct Counters {
    int64_t hits = 0, misses = 0, evictions = 0, uploaded_bytes = 0;
  };
  const Counters& counters() const { return counters_; }

 private:
  struct Slot {
    std::shared_ptr<const SteeringVector> vector;  // null until first used
    std::vector<float> squares;                    // [layers], see squares()
    Rule rule;
    int64_t references = 0;
    std::list<int32_t>::iterator idle;  // place in idle_ while references == 0
  };
  at::Tensor table_;  // its pages are touched, and so take memory, when a slot is first used
  std::vector<Slot> slots_;
  std::list<int32_t> idle_;  // unreferenced slots, least recently used first
  std::unordered_map<std::string, int32_t> by_digest_;
  Counters counters_;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_RUNTIME_STEERING_BANK_H_
