// The artefact: directions at one site of one model's blocks, with how they are applied and what is known of their
// quality. Immutable after Create. No torch: the registry and the RPC layer handle it too. Any thread.
#ifndef TRIMTAB_STEERING_STEERING_VECTOR_H_
#define TRIMTAB_STEERING_STEERING_VECTOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/site.h"

namespace trimtab {

enum class Operation {
  kAdd = 1,
  kAddPreserveNorm = 2,  // the token's norm is restored (steering.md A7)
  // The same, and the further the token points away from the edit, the stronger it is: up to twice
  // (ICV, arXiv 2311.06668: 1 + max(0, cos(h, -edit))).
  kAddOpposingPreserveNorm = 3,
};
enum class StrengthMode {
  kRelative = 1 /* lambda = strength * |h| at the site */,
  kAbsolute = 2 /* lambda = strength */
};
// Values equal the API's ApplyTo.
enum class ApplyTo { kAll = 1, kFromLastPrompt = 2, kResponse = 3 };

// One layer's direction and its quality numbers (steering.md A6).
struct LayerDirection {
  int64_t layer = 0;             // 0-based block
  std::vector<float> direction;  // [hidden], unit norm, finite
  float weight = 1;              // the request's strength is multiplied by it at this layer
  float explained_variance = 0;  // first eigenvalue over the sum
  float cosine_to_mean = 0;      // of the direction with the mean of the deltas
  float cosine_to_margin_gradient = 0;
  float bootstrap_stability = 0;  // mean |cos| over resamples

  bool operator==(const LayerDirection&) const = default;
};

struct SteeringVectorSpec {
  std::string model_fingerprint;
  std::string method;              // "grains"
  Site site = Site::kBlockOutput;  // of all layers; not kAttentionHeads
  Operation operation = Operation::kAddPreserveNorm;
  StrengthMode strength_mode = StrengthMode::kRelative;
  ApplyTo apply_to = ApplyTo::kFromLastPrompt;  // default of a request that does not say
  float default_strength = 0.05f;
  float max_strength = 0.5f;  // beyond it requests are refused (absolute value)
  int64_t hidden_size = 0;
  std::vector<LayerDirection> layers;  // ascending, at least one
};

class SteeringVector {
 public:
  // Checks lengths, order, finiteness and unit norms. INVALID_ARGUMENT says what is wrong.
  static absl::StatusOr<std::shared_ptr<const SteeringVector>> Create(SteeringVectorSpec spec);
  // Untrusted bytes of Serialize (a versioned binary format with a checksum). INVALID_ARGUMENT when they are not that.
  static absl::StatusOr<std::shared_ptr<const SteeringVector>> Parse(std::string_view bytes);
  std::string Serialize() const;

  const SteeringVectorSpec& spec() const { return spec_; }
  // sha256 hex over everything that changes what the vector does (directions, weights, site, operation, mode).
  const std::string& digest() const { return digest_; }
  // Null when the layer is not steered.
  const LayerDirection* Find(int64_t layer) const;

 private:
  explicit SteeringVector(SteeringVectorSpec spec);
  SteeringVectorSpec spec_;
  std::string digest_;
};

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_STEERING_VECTOR_H_
