// A steering vector as files that people keep and exchange: safetensors with a JSON document, which read back exactly,
// and the GGUF control vectors of llama.cpp and the Python package repeng. Files from outside are untrusted. Called by
// the RPC layer; no torch. Pure functions; any thread.
#ifndef TRIMTAB_STEERING_VECTOR_FILES_H_
#define TRIMTAB_STEERING_VECTOR_FILES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "steering/steering_vector.h"

namespace trimtab {

inline constexpr std::string_view kVectorsFileName = "vectors.safetensors";
inline constexpr std::string_view kRevisionFileName = "revision.json";
inline constexpr std::string_view kControlVectorFileName = "control_vector.gguf";

// What a file says beside the vector.
struct VectorOrigin {
  std::string revision;  // full name of the revision that was exported; empty in the files of others
  std::string summary;   // a JSON object for people and programs, not interpreted here; empty: none
};

// --- safetensors + JSON ---

// The tensors "layers.N.direction" (F32, [hidden]), N from 0, and the document: everything else that makes the vector,
// its digest, and the origin. Same vector, same bytes.
struct RevisionFiles {
  std::string vectors;   // vectors.safetensors
  std::string document;  // revision.json
};
RevisionFiles WriteRevisionFiles(const SteeringVector& vector, const VectorOrigin& origin);

struct ImportedRevision {
  std::shared_ptr<const SteeringVector> vector;
  VectorOrigin origin;
};
// INVALID_ARGUMENT with everything that is wrong: not these formats, fields that are missing, unknown or of another
// type, tensors that are missing, too many or of another shape, a vector that SteeringVector::Create refuses, and a
// digest in the document that is not the vector's. A document without a digest is not checked against one.
absl::StatusOr<ImportedRevision> ReadRevisionFiles(std::string_view vectors, std::string_view document);

// --- GGUF control vectors ---
//
// As llama.cpp (common_control_vector_load, llama_adapter_cvec) and repeng (ControlVector.export_gguf and import_gguf)
// read and write them: general.architecture "controlvector", controlvector.model_hint, controlvector.layer_count and
// the F32 tensors direction.N, [hidden]. Both add direction.N, times a strength, to the residual stream after block N,
// counted from 0; llama.cpp refuses direction.0.

struct ControlVector {
  std::string model_hint;         // the model's architecture, "llama"; empty in files that do not say
  std::string model_fingerprint;  // Trimtab's key; empty in the files of others
  std::string revision;           // likewise: full name of the revision that was exported
  std::map<int64_t, std::vector<float>> directions;  // N of direction.N -> [hidden], finite
};

// Every direction times its layer's weight times `scale` (finite, not 0). FAILED_PRECONDITION for a vector that the
// format cannot hold: another site than the block's output, or block 0; INVALID_ARGUMENT when a product is not finite.
absl::StatusOr<std::string> WriteControlVector(const SteeringVector& vector, double scale, std::string_view model_hint,
                                               std::string_view revision);

// INVALID_ARGUMENT says what is wrong: not GGUF, another architecture, tensors of another name, type or length, two of
// one block, numbers that are not finite.
absl::StatusOr<ControlVector> ReadControlVector(std::string_view bytes);

// What the file does not say.
struct ControlVectorUse {
  std::string model_fingerprint;  // of the model that it is for
  Site site = Site::kBlockOutput;
  bool preserve_norm = false;
  bool relative = false;     // strengths are multiples of the activation's norm; directions become unit vectors
  int64_t layer_offset = 0;  // direction.N steers block N + layer_offset
  float default_strength = 1, max_strength = 10;
};
// The vector: without `relative` a tensor's norm becomes its layer's weight, so that strength 1 adds the tensor as it
// is; with it every weight is 1. Tensors of zeros are left out. Requests that do not say steer all positions, as
// llama.cpp and repeng do. INVALID_ARGUMENT when blocks come out below 0 or all tensors are zeros, and as
// SteeringVector::Create.
absl::StatusOr<std::shared_ptr<const SteeringVector>> ToSteeringVector(const ControlVector& control,
                                                                       const ControlVectorUse& use);

}  // namespace trimtab

#endif  // TRIMTAB_STEERING_VECTOR_FILES_H_
