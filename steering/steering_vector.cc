#include "steering/steering_vector.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/hash.h"
#include "server/base/status_macros.h"
#include "steering/byte_io.h"

namespace trimtab {
namespace {

// File: magic (4 bytes), version (u32), payload, SHA-256 of all bytes before it. Strings carry a u32 length.
constexpr std::string_view kMagic = "TTSV";
constexpr uint32_t kVersion = 1;
constexpr size_t kChecksumSize = 32;
constexpr int64_t kMaxHidden = 1 << 20;
constexpr int64_t kMaxLayer = 1 << 16;
constexpr double kUnitNormTolerance = 1e-3;

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("steering vector: ", absl::string_view(what.data(), what.size())));
}

absl::Status CheckLayer(const LayerDirection& layer, int64_t hidden_size) {
  if (layer.layer < 0 || layer.layer > kMaxLayer) return Bad(absl::StrCat("layer ", layer.layer, " is out of range"));
  if (static_cast<int64_t>(layer.direction.size()) != hidden_size) {
    return Bad(
        absl::StrCat("layer ", layer.layer, " has ", layer.direction.size(), " numbers, hidden size is ", hidden_size));
  }
  double squares = 0;
  for (float x : layer.direction) squares += static_cast<double>(x) * x;
  if (!std::isfinite(squares)) return Bad(absl::StrCat("layer ", layer.layer, " holds a number that is not finite"));
  if (std::abs(std::sqrt(squares) - 1) > kUnitNormTolerance) {
    return Bad(absl::StrCat("layer ", layer.layer, " has norm ", std::sqrt(squares), ", must be 1"));
  }
  for (float x : {layer.weight, layer.explained_variance, layer.cosine_to_mean, layer.cosine_to_margin_gradient,
                  layer.bootstrap_stability}) {
    if (!std::isfinite(x))
      return Bad(absl::StrCat("layer ", layer.layer, " has a quality or weight that is not finite"));
  }
  return absl::OkStatus();
}

absl::Status CheckSpec(const SteeringVectorSpec& spec) {
  if (spec.model_fingerprint.empty()) return Bad("the model's fingerprint is missing");
  if (spec.method.empty()) return Bad("the method is missing");
  if (spec.site != Site::kBlockOutput && spec.site != Site::kAttentionOutput && spec.site != Site::kMlpOutput) {
    return Bad("unknown site");
  }
  if (spec.operation != Operation::kAdd && spec.operation != Operation::kAddPreserveNorm &&
      spec.operation != Operation::kAddOpposingPreserveNorm) {
    return Bad("unknown operation");
  }
  if (spec.strength_mode != StrengthMode::kRelative && spec.strength_mode != StrengthMode::kAbsolute) {
    return Bad("unknown strength mode");
  }
  if (spec.apply_to != ApplyTo::kAll && spec.apply_to != ApplyTo::kFromLastPrompt &&
      spec.apply_to != ApplyTo::kResponse) {
    return Bad("unknown apply_to");
  }
  if (!std::isfinite(spec.max_strength) || spec.max_strength <= 0) return Bad("max_strength must be above 0");
  if (!std::isfinite(spec.default_strength) || std::abs(spec.default_strength) > spec.max_strength) {
    return Bad("default_strength must be finite and at most max_strength");
  }
  if (spec.hidden_size <= 0 || spec.hidden_size > kMaxHidden) return Bad("the hidden size is out of range");
  if (spec.layers.empty()) return Bad("there are no layers");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (i > 0 && spec.layers[i].layer <= spec.layers[i - 1].layer) return Bad("layers must ascend");
    TRIMTAB_RETURN_IF_ERROR(CheckLayer(spec.layers[i], spec.hidden_size));
  }
  return absl::OkStatus();
}

// What the vector does, without names, defaults and quality numbers.
std::string Effect(const SteeringVectorSpec& spec) {
  ByteWriter writer;
  writer.Number(static_cast<uint32_t>(spec.site));
  writer.Number(static_cast<uint32_t>(spec.operation));
  writer.Number(static_cast<uint32_t>(spec.strength_mode));
  writer.Number(spec.hidden_size);
  for (const LayerDirection& layer : spec.layers) {
    writer.Number(layer.layer);
    writer.Number(layer.weight);
    writer.Raw(layer.direction.data(), layer.direction.size() * sizeof(float));
  }
  return writer.Take();
}

}  // namespace

SteeringVector::SteeringVector(SteeringVectorSpec spec) : spec_(std::move(spec)), digest_(Sha256Hex(Effect(spec_))) {}

absl::StatusOr<std::shared_ptr<const SteeringVector>> SteeringVector::Create(SteeringVectorSpec spec) {
  TRIMTAB_RETURN_IF_ERROR(CheckSpec(spec));
  return std::shared_ptr<const SteeringVector>(new SteeringVector(std::move(spec)));
}

std::string SteeringVector::Serialize() const {
  ByteWriter writer;
  writer.Raw(kMagic.data(), kMagic.size());
  writer.Number(kVersion);
  writer.String(spec_.model_fingerprint);
  writer.String(spec_.method);
  writer.Number(static_cast<uint32_t>(spec_.site));
  writer.Number(static_cast<uint32_t>(spec_.operation));
  writer.Number(static_cast<uint32_t>(spec_.strength_mode));
  writer.Number(static_cast<uint32_t>(spec_.apply_to));
  writer.Number(spec_.default_strength);
  writer.Number(spec_.max_strength);
  writer.Number(spec_.hidden_size);
  writer.Number(static_cast<uint32_t>(spec_.layers.size()));
  for (const LayerDirection& layer : spec_.layers) {
    writer.Number(layer.layer);
    writer.Number(layer.weight);
    writer.Number(layer.explained_variance);
    writer.Number(layer.cosine_to_mean);
    writer.Number(layer.cosine_to_margin_gradient);
    writer.Number(layer.bootstrap_stability);
    writer.Raw(layer.direction.data(), layer.direction.size() * sizeof(float));
  }
  const auto checksum = Sha256().Update(writer.bytes()).Finish();
  writer.Raw(checksum.data(), checksum.size());
  return writer.Take();
}

absl::StatusOr<std::shared_ptr<const SteeringVector>> SteeringVector::Parse(std::string_view bytes) {
  if (bytes.size() < kMagic.size() + sizeof(kVersion) + kChecksumSize || bytes.substr(0, kMagic.size()) != kMagic) {
    return Bad("these bytes are not a steering vector");
  }
  uint32_t version = 0;
  std::memcpy(&version, bytes.data() + kMagic.size(), sizeof(version));
  if (version != kVersion) return Bad(absl::StrCat("format version ", version, " is not supported, only ", kVersion));
  const std::string_view body = bytes.substr(0, bytes.size() - kChecksumSize);
  const auto checksum = Sha256().Update(body).Finish();
  if (std::memcmp(checksum.data(), bytes.data() + body.size(), kChecksumSize) != 0) {
    return Bad("the checksum does not match: the bytes are damaged");
  }

  ByteReader reader(body.substr(kMagic.size() + sizeof(kVersion)));
  SteeringVectorSpec spec;
  uint32_t site = 0, operation = 0, strength_mode = 0, apply_to = 0, num_layers = 0;
  reader.String(spec.model_fingerprint);
  reader.String(spec.method);
  reader.Number(site);
  reader.Number(operation);
  reader.Number(strength_mode);
  reader.Number(apply_to);
  reader.Number(spec.default_strength);
  reader.Number(spec.max_strength);
  reader.Number(spec.hidden_size);
  reader.Number(num_layers);
  if (!reader.ok()) return Bad("the bytes end too early");
  spec.site = static_cast<Site>(site);
  spec.operation = static_cast<Operation>(operation);
  spec.strength_mode = static_cast<StrengthMode>(strength_mode);
  spec.apply_to = static_cast<ApplyTo>(apply_to);
  if (spec.hidden_size <= 0 || spec.hidden_size > kMaxHidden) return Bad("the hidden size is out of range");
  const size_t layer_bytes = sizeof(int64_t) + (5 + static_cast<size_t>(spec.hidden_size)) * sizeof(float);
  if (reader.remaining() % layer_bytes != 0 || reader.remaining() / layer_bytes != num_layers) {
    return Bad("the number of layers does not fit the length");
  }
  spec.layers.resize(num_layers);
  for (LayerDirection& layer : spec.layers) {
    layer.direction.resize(static_cast<size_t>(spec.hidden_size));
    reader.Number(layer.layer);
    reader.Number(layer.weight);
    reader.Number(layer.explained_variance);
    reader.Number(layer.cosine_to_mean);
    reader.Number(layer.cosine_to_margin_gradient);
    reader.Number(layer.bootstrap_stability);
    reader.Raw(layer.direction.data(), layer.direction.size() * sizeof(float));
  }
  return Create(std::move(spec));
}

const LayerDirection* SteeringVector::Find(int64_t layer) const {
  const auto it = std::lower_bound(spec_.layers.begin(), spec_.layers.end(), layer,
                                   [](const LayerDirection& entry, int64_t wanted) { return entry.layer < wanted; });
  return it != spec_.layers.end() && it->layer == layer ? &*it : nullptr;
}

}  // namespace trimtab
