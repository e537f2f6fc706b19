#include "models/weights/tensor_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/weights/gguf.h"
#include "models/weights/safetensors.h"
#include "server/base/error.h"
#include "server/base/hash.h"
#include "tests/models/weights/file_builder.h"

namespace trimtab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::shared_ptr<const TensorSource> OpenGguf(const std::string& path) {
  const auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return MakeTensorSource(*file);
}

std::shared_ptr<const TensorSource> OpenSafetensors(const std::string& path) {
  const auto checkpoint = SafetensorsCheckpoint::Open(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return MakeTensorSource(*checkpoint);
}

std::string FloatSha256(const at::Tensor& tensor) {
  return Sha256().Update(tensor.data_ptr<float>(), tensor.nbytes()).FinishHex();
}

// "w" is F32 [2, 3] of the values below, "ids" I64 [1].
const std::vector<float> kValues = {1.0f, -2.5f, 0.1f, 1.00390625f, 70000.0f, -0.0f};

std::string SmallFile() {
  const std::string header =
      R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"ids":{"dtype":"I64","shape":[1],"data_offsets":[24,32]}})";
  std::string file = SafetensorsFile(header, 0);
  for (const float value : kValues) Append(&file, value);
  return file + std::string(8, '\0');
}

TEST(TensorSourceTest, LoadsEveryTargetType) {
  const auto source = OpenSafetensors(WriteFile(TestFolder() + "/x.safetensors", SmallFile()));
  EXPECT_THAT(source->names(), ElementsAre("ids", "w"));
  ASSERT_NE(source->Find("w"), nullptr);
  EXPECT_THAT(source->Find("w")->shape, ElementsAre(2, 3));
  EXPECT_EQ(source->Find("absent"), nullptr);
  EXPECT_EQ(source->Find(""), nullptr);
  EXPECT_EQ(source->Find("x"), nullptr);

  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const auto tensor = source->Load("w", {2, 3}, dtype);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->scalar_type(), dtype);
    EXPECT_TRUE(tensor->is_contiguous());
    EXPECT_FALSE(tensor->requires_grad());
    EXPECT_THAT(tensor->sizes().vec(), ElementsAre(2, 3));
  }
  const at::Tensor bf16 = *source->Load("w", {2, 3}, at::kBFloat16);
  EXPECT_EQ(static_cast<float>(bf16.data_ptr<c10::BFloat16>()[3]), 1.0f);  // 1 + 2^-8 is a tie: to even
  EXPECT_EQ(static_cast<float>(bf16.data_ptr<c10::BFloat16>()[2]), 0.10009765625f);
  const at::Tensor half = *source->Load("w", {2, 3}, at::kHalf);
  EXPECT_TRUE(std::isinf(static_cast<float>(half.data_ptr<c10::Half>()[4])));
}

TEST(TensorSourceTest, GivesCopiesThatOutliveTheFile) {
  auto source = OpenSafetensors(WriteFile(TestFolder() + "/x.safetensors", SmallFile()));
  const at::Tensor first = *source->Load("w", {2, 3}, at::kFloat);
  const at::Tensor second = *source->Load("w", {2, 3}, at::kFloat);
  EXPECT_NE(first.data_ptr(), second.data_ptr());
  source.reset();
  EXPECT_EQ(std::memcmp(first.data_ptr(), kValues.data(), 24), 0);
}

TEST(TensorSourceTest, SaysWhyATensorCannotBeLoaded) {
  const std::string path = WriteFile(TestFolder() + "/x.safetensors", SmallFile());
  const auto source = OpenSafetensors(path);
  const absl::Status absent = source->Load("absent", {1}, at::kFloat).status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(absent.message(), path + ": has no tensor \"absent\"");
  EXPECT_EQ(GetErrorDetail(absent).reason, kModelFileInvalid);
  const absl::Status shape = source->Load("w", {3, 2}, at::kFloat).status();
  EXPECT_EQ(shape.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(shape.message(), path + ": tensor \"w\" has shape [2, 3], the model needs [3, 2]");
  EXPECT_EQ(GetErrorDetail(shape).reason, kModelFileInvalid);
  EXPECT_FALSE(source->Load("w", {2, 3, 1}, at::kFloat).ok());
  EXPECT_FALSE(source->Load("w", {}, at::kFloat).ok());
  const absl::Status type = source->Load("ids", {1}, at::kFloat).status();
  EXPECT_EQ(type.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(type.message()), HasSubstr("tensor \"ids\" has type \"I64\", which cannot be loaded"));
  EXPECT_EQ(source->Load("w", {2, 3}, at::kLong).status().code(), absl::StatusCode::kInternal);
}

TEST(TensorSourceTest, HashesWhatTheWeightsAreAndNotHowTheyLie) {
  const auto file = [](const std::string& name, const std::string& dtype, int shape) {
    return SafetensorsFile(
        absl::StrCat("{\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[", shape, "],\"data_offsets\":[0,4]}}"), 4);
  };
  const std::string folder = TestFolder();
  const auto hash = [&](const std::string& content) {
    return OpenSafetensors(WriteFile(folder + "/x.safetensors", content))->ContentHash().value();
  };
  const std::string base = hash(file("a", "F16", 2));
  EXPECT_EQ(base.size(), 64u);
  EXPECT_EQ(base, hash(file("a", "F16", 2)));
  EXPECT_NE(base, hash(file("b", "F16", 2)));
  EXPECT_NE(base, hash(file("a", "BF16", 2)));
  EXPECT_NE(base, hash(file("a", "F32", 1)));
  std::string other_bytes = file("a", "F16", 2);
  other_bytes.back() ^= 1;
  EXPECT_NE(base, hash(other_bytes));

  const std::string together = hash(SafetensorsFile(R"({"b":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},)"
                                                    R"("a":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
                                                    4));
  WriteFile(folder + "/1.safetensors", SafetensorsFile(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0));
  WriteFile(folder + "/2.safetensors", file("b", "F16", 2));
  WriteFile(folder + "/model.safetensors.index.json", R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  EXPECT_EQ(*OpenSafetensors(folder)->ContentHash(), together);
}

TEST(TensorSourceTest, ConvertsEveryTypeToEveryTarget) {
  const auto source = OpenGguf("tests/golden/data/weights/all_types.gguf");
  const auto golden = OpenSafetensors("tests/golden/data/weights/all_types.safetensors");
  for (const std::string& name : golden->names()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const auto tensor = source->Load(name, {2, 512}, dtype);
      const auto expected = golden->Load(name, {2, 512}, dtype);
      ASSERT_TRUE(tensor.ok() && expected.ok()) << name;
      EXPECT_EQ(std::memcmp(tensor->data_ptr(), expected->data_ptr(), tensor->nbytes()), 0) << name;
    }
  }
}

constexpr char kSmolLm2[] = "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";

TEST(SmolLm2Test, ConvertsLargeTensorsInPieces) {
  const auto source = OpenGguf(kSmolLm2);
  const at::Tensor exact = *source->Load("blk.0.attn_q.weight", {576, 576}, at::kFloat);
  const at::Tensor bf16 = *source->Load("blk.0.attn_q.weight", {576, 576}, at::kBFloat16);
  int64_t differing = 0;
  for (int64_t i = 0; i < exact.numel(); ++i) {
    differing += bf16.data_ptr<c10::BFloat16>()[i] != c10::BFloat16(exact.data_ptr<float>()[i]);
  }
  EXPECT_EQ(differing, 0);
}

TEST(SmolLm2Test, IsReadAsTheReferenceReadsIt) {
  const auto file = GgufFile::Open(kSmolLm2);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto source = MakeTensorSource(*file);
  const auto golden =
      nlohmann::json::parse(ReadWholeFile("tests/golden/data/weights/smollm2_135m_q4_1.json"), nullptr, false);
  ASSERT_TRUE(golden.is_object());

  EXPECT_EQ((*file)->tensors().size(), golden["tensor_count"].get<size_t>());
  EXPECT_EQ((*file)->keys().size(), golden["metadata"].size() + golden["array_sizes"].size());
  for (const auto& [key, value] : golden["metadata"].items()) {
    if (value.is_string()) {
      EXPECT_EQ(*(*file)->GetString(key), value.get<std::string>()) << key;
    } else if (value.is_boolean()) {
      EXPECT_EQ(*(*file)->GetBool(key), value.get<bool>()) << key;
    } else if (value.is_number_integer()) {
      EXPECT_EQ(*(*file)->GetInt(key), value.get<int64_t>()) << key;
    } else {
      EXPECT_EQ(*(*file)->GetFloat(key), value.get<double>()) << key;
    }
  }
  const auto sizes = golden["array_sizes"];
  const auto tokens = (*file)->GetStrings("tokenizer.ggml.tokens");
  const auto merges = (*file)->GetStrings("tokenizer.ggml.merges");
  const auto types = (*file)->GetInts("tokenizer.ggml.token_type");
  ASSERT_TRUE(tokens.ok() && merges.ok() && types.ok());
  EXPECT_EQ(tokens->size(), sizes["tokenizer.ggml.tokens"].get<size_t>());
  EXPECT_EQ(types->size(), sizes["tokenizer.ggml.token_type"].get<size_t>());
  EXPECT_EQ(merges->size(), sizes["tokenizer.ggml.merges"].get<size_t>());
  EXPECT_EQ(merges->back(), golden["last_merge"].get<std::string>());

  for (const auto& [name, expected] : golden["tensors"].items()) {
    const TensorInfo* info = source->Find(name);
    ASSERT_NE(info, nullptr) << name;
    EXPECT_EQ(info->dtype, expected["type"].get<std::string>()) << name;
    EXPECT_EQ(info->shape, expected["shape"].get<std::vector<int64_t>>()) << name;
    const auto tensor = source->Load(name, info->shape, at::kFloat);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(FloatSha256(*tensor), expected["float_sha256"].get<std::string>()) << name;
  }
  Sha256 all;
  for (const std::string& name : source->names()) {
    const at::Tensor tensor = *source->Load(name, source->Find(name)->shape, at::kFloat);
    all.Update(tensor.data_ptr<float>(), tensor.nbytes());
  }
  EXPECT_EQ(all.FinishHex(), golden["all_float_sha256"].get<std::string>());
  EXPECT_EQ(*source->ContentHash(), *source->ContentHash());
}

}  // namespace
}  // namespace trimtab
