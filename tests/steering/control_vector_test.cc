// Control vectors: repeng's own file, ours, what llama.cpp makes of it, and files that are not what they say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "models/weights/gguf.h"
#include "steering/vector_files.h"
#include "tests/models/weights/file_builder.h"
#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

using ::testing::HasSubstr;

constexpr char kGolden[] = "tests/golden/data/vectors/repeng";

std::string Message(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

GgufTensorEntry Direction(const std::string& name, uint64_t size, uint64_t offset) {
  return {.name = name, .dimensions = {size}, .type = 0, .offset = offset};
}

// direction.1 and direction.2 of eight numbers each.
GgufBuilder Valid() {
  GgufBuilder file;
  file.metadata = {
      GgufBuilder::Entry("general.architecture", 8, GgufBuilder::StringValue("controlvector")),
      GgufBuilder::Entry("controlvector.model_hint", 8, GgufBuilder::StringValue("llama")),
  };
  file.tensors = {Direction("direction.1", 8, 0), Direction("direction.2", 8, 32)};
  for (int i = 0; i < 16; ++i) Append<float>(&file.data, static_cast<float>(i + 1));
  return file;
}

ControlVectorUse Use() { return {.model_fingerprint = "f"}; }

TEST(ControlVectorTest, ReadsWhatRepengWrites) {
  const absl::StatusOr<ControlVector> control = ReadControlVector(ReadWholeFile(std::string(kGolden) + ".gguf"));
  ASSERT_TRUE(control.ok()) << control.status();
  EXPECT_EQ(control->model_hint, "llama");
  EXPECT_EQ(control->model_fingerprint, "");
  const nlohmann::json expected = nlohmann::json::parse(ReadWholeFile(std::string(kGolden) + ".json"));
  ASSERT_EQ(control->directions.size(), expected.size());
  for (const auto& [layer, direction] : control->directions) {
    EXPECT_EQ(direction, expected[std::to_string(layer)].get<std::vector<float>>()) << layer;
  }
  // Strength 1 adds the tensor as it is, after the block of the tensor's own number.
  const auto vector = *ToSteeringVector(*control, Use());
  ASSERT_EQ(vector->spec().layers.size(), 3u);
  EXPECT_EQ(vector->spec().operation, Operation::kAdd);
  EXPECT_EQ(vector->spec().strength_mode, StrengthMode::kAbsolute);
  EXPECT_EQ(vector->spec().apply_to, ApplyTo::kAll);
  for (const LayerDirection& layer : vector->spec().layers) {
    const std::vector<float>& direction = control->directions.at(layer.layer);
    for (size_t i = 0; i < direction.size(); ++i) {
      EXPECT_NEAR(layer.weight * layer.direction[i], direction[i], 1e-6);
    }
  }
}

TEST(ControlVectorTest, WhatWeWriteReadsBack) {
  SteeringVectorSpec spec = RandomSpec({2, 5}, 12, 7);
  spec.layers[1].weight = 0.25f;
  const auto vector = *SteeringVector::Create(spec);
  const absl::StatusOr<std::string> bytes =
      WriteControlVector(*vector, -8, "qwen2", "models/m/objectives/o/revisions/3");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const absl::StatusOr<ControlVector> control = ReadControlVector(*bytes);
  ASSERT_TRUE(control.ok()) << control.status();
  EXPECT_EQ(control->model_hint, "qwen2");
  EXPECT_EQ(control->model_fingerprint, spec.model_fingerprint);
  EXPECT_EQ(control->revision, "models/m/objectives/o/revisions/3");
  ASSERT_EQ(control->directions.size(), 2u);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_FLOAT_EQ(control->directions.at(2)[i], -8 * spec.layers[0].weight * spec.layers[0].direction[i]);
    EXPECT_FLOAT_EQ(control->directions.at(5)[i], -2 * spec.layers[1].direction[i]);
  }
  const auto again = *ToSteeringVector(*control, Use());
  EXPECT_EQ(again->spec().layers[0].layer, 2);
  EXPECT_NEAR(again->spec().layers[1].weight, 2, 1e-5);
  EXPECT_NEAR(again->spec().layers[1].direction[3], -spec.layers[1].direction[3], 1e-6);
}

TEST(ControlVectorTest, TheFileHasWhatLlamaCppLooksFor) {
  const std::string bytes = *WriteControlVector(*RandomVector({1, 2, 3}, 7, 1), 1, "llama", "");
  const auto file = *GgufFile::Parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, nullptr, "f");
  EXPECT_EQ(file->version(), 3u);
  EXPECT_EQ(*file->GetString("general.architecture"), "controlvector");
  EXPECT_EQ(*file->GetString("controlvector.model_hint"), "llama");
  EXPECT_EQ(*file->GetInt("controlvector.layer_count"), 3);
  ASSERT_EQ(file->tensors().size(), 3u);
  for (const RawTensor& tensor : file->tensors()) {
    EXPECT_EQ(tensor.type, ElementType::kF32);
    EXPECT_EQ(tensor.info.shape, std::vector<int64_t>{7});
  }
  // ggml wants the last tensor padded too.
  EXPECT_EQ(bytes.size() % 32, 0u);
  EXPECT_EQ(reinterpret_cast<const char*>(file->tensors().back().data) + 32, bytes.data() + bytes.size());
}

TEST(ControlVectorTest, WhatTheFormatCannotHoldIsRefused) {
  EXPECT_THAT(std::string(WriteControlVector(*RandomVector({0, 1}, 8, 1), 1, "llama", "").status().message()),
              HasSubstr("block 0"));
  SteeringVectorSpec spec = RandomSpec({1}, 8, 1);
  spec.site = Site::kMlpOutput;
  EXPECT_EQ(WriteControlVector(**SteeringVector::Create(spec), 1, "llama", "").status().code(),
            absl::StatusCode::kFailedPrecondition);
  spec = RandomSpec({1}, 8, 1);
  spec.layers[0].weight = 3e38f;
  EXPECT_THAT(Message(WriteControlVector(**SteeringVector::Create(spec), 900, "llama", "").status()),
              HasSubstr("float32"));
  EXPECT_THAT(Message(WriteControlVector(*RandomVector({1}, 8, 1), 0, "llama", "").status()), HasSubstr("scale"));
}

TEST(ControlVectorTest, ARelativeVectorHasUnitDirections) {
  const ControlVector control = *ReadControlVector(Valid().Build());
  ControlVectorUse use = Use();
  use.relative = true;
  use.preserve_norm = true;
  use.site = Site::kAttentionOutput;
  use.default_strength = 0.05f;
  use.max_strength = 0.5f;
  const auto vector = *ToSteeringVector(control, use);
  EXPECT_EQ(vector->spec().strength_mode, StrengthMode::kRelative);
  EXPECT_EQ(vector->spec().operation, Operation::kAddPreserveNorm);
  EXPECT_EQ(vector->spec().site, Site::kAttentionOutput);
  EXPECT_EQ(vector->spec().default_strength, 0.05f);
  for (const LayerDirection& layer : vector->spec().layers) EXPECT_EQ(layer.weight, 1);
  EXPECT_NEAR(vector->spec().layers[0].direction[7], 8 / std::sqrt(204.0), 1e-6);
}

TEST(ControlVectorTest, TheOffsetMovesBlocks) {
  const ControlVector control = *ReadControlVector(Valid().Build());
  ControlVectorUse use = Use();
  use.layer_offset = -1;  // what llama.cpp's cvector-generator measured
  EXPECT_EQ((*ToSteeringVector(control, use))->spec().layers[0].layer, 0);
  use.layer_offset = 10;
  EXPECT_EQ((*ToSteeringVector(control, use))->spec().layers[1].layer, 12);
  use.layer_offset = -2;
  EXPECT_THAT(Message(ToSteeringVector(control, use).status()), HasSubstr("direction.1 with layer_offset -2"));
  use.layer_offset = INT64_MAX;
  EXPECT_FALSE(ToSteeringVector(control, use).ok());
}

TEST(ControlVectorTest, ZerosSteerNothing) {
  GgufBuilder file = Valid();
  std::memset(file.data.data(), 0, 32);
  const auto vector = *ToSteeringVector(*ReadControlVector(file.Build()), Use());
  ASSERT_EQ(vector->spec().layers.size(), 1u);
  EXPECT_EQ(vector->spec().layers[0].layer, 2);
  std::memset(file.data.data(), 0, 64);
  EXPECT_THAT(Message(ToSteeringVector(*ReadControlVector(file.Build()), Use()).status()), HasSubstr("zeros"));
}

TEST(ControlVectorTest, SaysEverythingThatIsWrongWithTheTensors) {
  GgufBuilder file = Valid();
  file.tensors = {Direction("direction.1", 8, 0),   Direction("direction.x", 4, 32),
                  Direction("direction.02", 4, 64), Direction("output.weight", 4, 96),
                  Direction("direction.3", 4, 128), Direction("direction.4", 4, 160)};
  file.tensors[5].type = 1;  // F16
  file.tensors.push_back({.name = "direction.5", .dimensions = {2, 2}, .type = 0, .offset = 192});
  file.tensors.push_back(Direction("direction.-1", 4, 224));
  file.tensors.push_back(Direction("direction.99999999999999999999", 4, 256));
  file.data.resize(288);
  const std::string message = Message(ReadControlVector(file.Build()).status());
  for (const char* part : {"\"direction.x\" must be named direction.N", "\"direction.02\" must be named",
                           "\"output.weight\" must be named", "\"direction.3\" has 4 numbers, others have 8",
                           "\"direction.4\" is of type F16, must be F32", "\"direction.5\" has 2 dimensions",
                           "\"direction.-1\" must be named", "\"direction.99999999999999999999\" must be named"}) {
    EXPECT_THAT(message, HasSubstr(part));
  }
}

TEST(ControlVectorTest, RefusesOtherFiles) {
  EXPECT_THAT(Message(ReadControlVector("").status()), HasSubstr("not a GGUF file"));
  GgufBuilder file = Valid();
  file.metadata[0] = GgufBuilder::Entry("general.architecture", 8, GgufBuilder::StringValue("llama"));
  EXPECT_THAT(Message(ReadControlVector(file.Build()).status()), HasSubstr("must be \"controlvector\""));
  file.metadata.clear();
  EXPECT_THAT(Message(ReadControlVector(file.Build()).status()), HasSubstr("general.architecture"));
  file = Valid();
  file.tensors.clear();
  EXPECT_THAT(Message(ReadControlVector(file.Build()).status()), HasSubstr("no tensor direction.N"));
  file = Valid();
  file.tensors[1].name = "direction.1";
  EXPECT_THAT(Message(ReadControlVector(file.Build()).status()), HasSubstr("twice"));
  file = Valid();
  file.tensor_count = uint64_t{1} << 60;
  EXPECT_THAT(Message(ReadControlVector(file.Build()).status()), HasSubstr("tensors"));
  for (const float bad : {NAN, INFINITY}) {
    file = Valid();
    std::memcpy(file.data.data() + 12, &bad, sizeof(bad));
    EXPECT_THAT(Message(ReadControlVector(file.Build()).status()), HasSubstr("not finite"));
  }
}

// Cut off anywhere and with any bytes changed: an answer, never a crash (the sanitizers judge).
TEST(ControlVectorTest, DamagedFilesAreNeverMoreThanAnError) {
  const std::string valid = *WriteControlVector(*RandomVector({1, 4}, 12, 3), 2, "llama", "r");
  const auto read = [](const std::string& text) {
    const ExactBytes bytes(text);
    const absl::StatusOr<ControlVector> control =
        ReadControlVector({reinterpret_cast<const char*>(bytes.data.get()), bytes.size});
    if (!control.ok()) {
      EXPECT_EQ(control.status().code(), absl::StatusCode::kInvalidArgument) << control.status();
      return;
    }
    ToSteeringVector(*control, Use()).status().IgnoreError();
  };
  for (size_t size = 0; size < valid.size(); ++size) read(valid.substr(0, size));
  std::mt19937_64 random(1);
  for (int i = 0; i < 5000; ++i) read(Mutate(valid, &random));
}

}  // namespace
}  // namespace trimtab
