#include "steering/steering_vector.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "server/base/hash.h"
#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

SteeringVectorSpec Spec() {
  SteeringVectorSpec spec = RandomSpec({3, 7}, 16, 1);
  spec.layers[0].weight = 0.5f;
  spec.layers[0].explained_variance = 0.25f;
  spec.layers[1].cosine_to_mean = 0.5f;
  spec.layers[1].cosine_to_margin_gradient = -0.125f;
  spec.layers[1].bootstrap_stability = 0.75f;
  spec.operation = Operation::kAdd;
  spec.strength_mode = StrengthMode::kAbsolute;
  spec.apply_to = ApplyTo::kResponse;
  spec.default_strength = 2;
  spec.max_strength = 8;
  return spec;
}

// `bytes` with the checksum made right again.
std::string Resealed(std::string bytes) {
  bytes.resize(bytes.size() - 32);
  const auto checksum = Sha256().Update(bytes).Finish();
  bytes.append(reinterpret_cast<const char*>(checksum.data()), checksum.size());
  return bytes;
}

TEST(SteeringVectorTest, SerializedVectorComesBackWhole) {
  const auto vector = *SteeringVector::Create(Spec());
  const auto parsed = SteeringVector::Parse(vector->Serialize());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const SteeringVectorSpec &a = vector->spec(), &b = (*parsed)->spec();
  EXPECT_EQ(a.model_fingerprint, b.model_fingerprint);
  EXPECT_EQ(a.method, b.method);
  EXPECT_EQ(a.operation, b.operation);
  EXPECT_EQ(a.strength_mode, b.strength_mode);
  EXPECT_EQ(a.apply_to, b.apply_to);
  EXPECT_EQ(a.default_strength, b.default_strength);
  EXPECT_EQ(a.max_strength, b.max_strength);
  EXPECT_EQ(a.layers, b.layers);
  EXPECT_EQ(vector->digest(), (*parsed)->digest());
  EXPECT_EQ(vector->Serialize(), (*parsed)->Serialize());
}

TEST(SteeringVectorTest, FindsLayers) {
  const auto vector = *SteeringVector::Create(Spec());
  ASSERT_NE(vector->Find(7), nullptr);
  EXPECT_EQ(vector->Find(7)->layer, 7);
  for (int64_t layer : {-1, 0, 4, 8}) EXPECT_EQ(vector->Find(layer), nullptr);
}

TEST(SteeringVectorTest, DigestCoversWhatTheVectorDoesAndNothingElse) {
  const std::string digest = (*SteeringVector::Create(Spec()))->digest();
  EXPECT_EQ(digest.size(), 64u);
  const auto digest_of = [](auto change) {
    SteeringVectorSpec spec = Spec();
    change(spec);
    return (*SteeringVector::Create(spec))->digest();
  };
  EXPECT_NE(digest, digest_of([](auto& s) { s.operation = Operation::kAddPreserveNorm; }));
  EXPECT_NE(digest, digest_of([](auto& s) { s.strength_mode = StrengthMode::kRelative; }));
  EXPECT_NE(digest, digest_of([](auto& s) { s.layers[0].weight = 1; }));
  EXPECT_NE(digest, digest_of([](auto& s) { s.layers[1].layer = 8; }));
  EXPECT_NE(digest, digest_of([](auto& s) { s.layers[1].direction = RandomUnit(16, 99); }));
  EXPECT_NE(digest, digest_of([](auto& s) { s.layers.pop_back(); }));
  EXPECT_EQ(digest, digest_of([](auto& s) { s.default_strength = 1; }));
  EXPECT_EQ(digest, digest_of([](auto& s) { s.method = "other"; }));
  EXPECT_EQ(digest, digest_of([](auto& s) { s.layers[0].explained_variance = 0; }));
}

TEST(SteeringVectorTest, CreateRefusesWhatIsWrong) {
  const auto status_of = [](auto change) {
    SteeringVectorSpec spec = Spec();
    change(spec);
    return SteeringVector::Create(spec).status();
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(status_of([](auto&) {}).code(), absl::StatusCode::kOk);
  const std::vector<absl::Status> refused = {
      status_of([](auto& s) { s.model_fingerprint = ""; }),
      status_of([](auto& s) { s.method = ""; }),
      status_of([](auto& s) { s.site = Site::kAttentionHeads; }),
      status_of([](auto& s) { s.site = static_cast<Site>(0); }),
      status_of([](auto& s) { s.operation = static_cast<Operation>(7); }),
      status_of([](auto& s) { s.strength_mode = static_cast<StrengthMode>(0); }),
      status_of([](auto& s) { s.apply_to = static_cast<ApplyTo>(9); }),
      status_of([](auto& s) { s.max_strength = 0; }),
      status_of([](auto& s) { s.default_strength = 9; }),
      status_of([&](auto& s) { s.default_strength = nan; }),
      status_of([](auto& s) { s.hidden_size = 0; }),
      status_of([](auto& s) { s.hidden_size = 15; }),
      status_of([](auto& s) { s.layers.clear(); }),
      status_of([](auto& s) { s.layers[1].layer = 3; }),
      status_of([](auto& s) { std::swap(s.layers[0], s.layers[1]); }),
      status_of([](auto& s) { s.layers[0].layer = -1; }),
      status_of([](auto& s) { s.layers[0].direction.pop_back(); }),
      status_of([&](auto& s) { s.layers[0].direction[2] = nan; }),
      status_of([](auto& s) { s.layers[0].direction[2] += 1; }),
      status_of([](auto& s) { s.layers[0].direction.assign(16, 0.0f); }),
      status_of([&](auto& s) { s.layers[0].weight = nan; }),
  };
  for (const absl::Status& status : refused) EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
}

TEST(SteeringVectorTest, ParseRefusesEveryTruncation) {
  const std::string bytes = (*SteeringVector::Create(Spec()))->Serialize();
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(SteeringVector::Parse(bytes.substr(0, size)).ok()) << size;
    // With a checksum that fits, so that the lengths are what is checked.
    if (size > 40) {
      EXPECT_FALSE(SteeringVector::Parse(Resealed(bytes.substr(0, size))).ok()) << size;
    }
  }
  EXPECT_FALSE(SteeringVector::Parse(bytes + "x").ok());
  EXPECT_FALSE(SteeringVector::Parse(Resealed(bytes + "x")).ok());
}

TEST(SteeringVectorTest, ParseRefusesAnotherVersionAndMagic) {
  std::string bytes = (*SteeringVector::Create(Spec()))->Serialize();
  bytes[4] = 2;
  EXPECT_NE(SteeringVector::Parse(Resealed(bytes)).status().message().find("version 2"), std::string::npos);
  bytes[0] = 'X';
  EXPECT_FALSE(SteeringVector::Parse(Resealed(bytes)).ok());
}

TEST(SteeringVectorTest, ParseSurvivesMutations) {
  const std::string bytes = (*SteeringVector::Create(Spec()))->Serialize();
  std::mt19937 random(5);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string mutated = bytes;
    const int changes = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < changes; ++i) {
      const size_t place = random() % mutated.size();
      switch (random() % 3) {
        case 0:
          mutated[place] = static_cast<char>(random());
          break;
        case 1:
          mutated.erase(place, random() % 9);
          break;
        default:
          mutated.insert(place, random() % 9, static_cast<char>(0xFF));
      }
    }
    if (mutated.size() < 40) continue;
    EXPECT_EQ(SteeringVector::Parse(mutated).ok(), mutated == bytes);
    // Past the checksum: what is accepted must be a valid vector.
    const auto parsed = SteeringVector::Parse(Resealed(mutated));
    if (!parsed.ok()) continue;
    ++accepted;
    EXPECT_TRUE(SteeringVector::Create((*parsed)->spec()).ok());
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace trimtab
