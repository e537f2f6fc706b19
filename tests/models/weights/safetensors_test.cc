#include "models/weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "absl/strings/str_replace.h"
#include "server/base/error.h"
#include "tests/models/weights/file_builder.h"

namespace trimtab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kValidHeader[] = R"({"__metadata__":{"format":"pt"},)"
                                R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[16,28]},)"
                                R"("a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
                                R"("ids":{"dtype":"I64","shape":[],"data_offsets":[28,36]}} )";
constexpr size_t kValidData = 36;

absl::StatusOr<std::vector<RawTensor>> ParseText(std::string_view text, ExactBytes* bytes) {
  *bytes = ExactBytes(text);
  return ParseSafetensors(bytes->span(), "test.safetensors");
}

absl::Status ErrorOf(std::string_view text) {
  ExactBytes bytes("");
  return ParseText(text, &bytes).status();
}

TEST(SafetensorsTest, ListsTensorsByOffset) {
  ExactBytes bytes("");
  const auto tensors = ParseText(SafetensorsFile(kValidHeader, kValidData), &bytes);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3u);
  const RawTensor &a = (*tensors)[0], &b = (*tensors)[1], &ids = (*tensors)[2];
  EXPECT_EQ(a.info.name, "a");
  EXPECT_EQ(a.type, ElementType::kF32);
  EXPECT_THAT(a.info.shape, ElementsAre(4));
  EXPECT_EQ(a.info.bytes, 16u);
  EXPECT_EQ(a.data[1], 7);
  EXPECT_EQ(b.info.dtype, "BF16");
  EXPECT_THAT(b.info.shape, ElementsAre(2, 3));
  EXPECT_EQ(b.data, a.data + 16);
  EXPECT_EQ(ids.info.dtype, "I64");
  EXPECT_EQ(ids.type, std::nullopt);
  EXPECT_TRUE(ids.info.shape.empty());
}

TEST(SafetensorsTest, AcceptsEmptyTensorsAndUnknownTypes) {
  EXPECT_TRUE(ErrorOf(SafetensorsFile("{}", 0)).ok());
  EXPECT_TRUE(ErrorOf(SafetensorsFile(R"({"e":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},)"
                                      R"("f":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                      R"("g":{"dtype":"F16","shape":[0],"data_offsets":[4,4]},)"
                                      R"("h":{"dtype":"F4","shape":[8],"data_offsets":[4,8]}})",
                                      8))
                  .ok());
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const std::string whole = SafetensorsFile(kValidHeader, kValidData);
  for (size_t size = 0; size < whole.size(); ++size) {
    const absl::Status status = ErrorOf(whole.substr(0, size));
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
    ASSERT_EQ(GetErrorDetail(status).reason, kModelFileInvalid) << size;
  }
}

TEST(SafetensorsTest, SaysWhatIsWrongWithAFile) {
  struct Case {
    std::string header;
    size_t data;
    std::string message;
  };
  const std::string good = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const auto tensor = [](const std::string& fields) { return R"({"t":{)" + fields + "}}"; };
  const auto range = [&](const std::string& shape, const std::string& offsets) {
    return tensor(R"("dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets);
  };
  const std::vector<Case> cases = {
      {"", 0, "the header does not begin with {"},
      {" {}", 0, "the header does not begin with {"},
      {"[]", 0, "the header does not begin with {"},
      {"{}x", 0, "not valid JSON at byte"},
      {"{", 0, "not valid JSON"},
      {"{\"\xff\":1}", 0, "not valid JSON"},
      {R"({"t":1})", 0, "tensor \"t\": a number is not expected here"},
      {R"({"t":null})", 0, "null is not expected here"},
      {R"({"t":"x"})", 0, "a string is not expected here"},
      {R"({"t":[]})", 0, "an array is not expected here"},
      {R"({"t":{"dtype":{}}})", 0, "an object is not expected here"},
      {R"({"t":{"dtype":["F32"]}})", 0, "an array is not expected here"},
      {R"({"t":{"shape":"x"}})", 0, "a string is not expected here"},
      {R"({"__metadata__":{"a":1}})", 0, "the header's __metadata__: a number is not expected here"},
      {R"({"__metadata__":{"a":{}}})", 0, "an object is not expected here"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "occurs twice"},
      {"{\"t\":" + good + ",\"t\":" + good + "}", 4, "tensor \"t\" occurs twice"},
      {tensor(R"("dtype":"F32","shape":[1])"), 4, "tensor \"t\" lacks one of dtype, shape and data_offsets"},
      {tensor(R"("dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4])"), 4, "has the field \"shape\" twice"},
      {tensor(R"("dtype":"F32","strides":[1])"), 4, "has an unknown field \"strides\""},
      {range("[-1]", "[0,4]"), 4, "a negative number is not expected here"},
      {range("[1.5]", "[0,4]"), 4, "a fraction or too large a number"},
      {range("[true]", "[0,4]"), 4, "a boolean is not expected here"},
      {range("[[1]]", "[0,4]"), 4, "an array is not expected here"},
      {range("[1e3]", "[0,4]"), 4, "a fraction or too large a number"},
      {range("[18446744073709551616]", "[0,4]"), 4, "a fraction or too large a number"},
      {range("[9223372036854775808]", "[0,4]"), 4, "tensor \"t\" has a dimension of size 9223372036854775808"},
      {range("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "has more than 8 dimensions"},
      {range("[1]", "[0]"), 4, "needs two data_offsets"},
      {range("[1]", "[0,4,8]"), 4, "a number is not expected here"},
      {range("[1]", "[4,0]"), 4, "ends before it begins"},
      {range("[1]", "[0,8]"), 4, "tensor \"t\" reaches to byte 8 of 4"},
      {range("[1]", "[0,18446744073709551615]"), 4, "reaches to byte 18446744073709551615 of 4"},
      {range("[2]", "[0,4]"), 4, "tensor \"t\" of type \"F32\" has a shape that does not give the 4 bytes"},
      {range("[0]", "[0,4]"), 4, "does not give the 4 bytes"},
      {range("[4611686018427387905]", "[0,4]"), 4, "does not give the 4 bytes"},  // times 4 wraps to 4
      {range("[4294967296,4294967296]", "[0,0]"), 0, "does not give the 0 bytes"},
      {range("[1]", "[4,8]"), 8, "tensor \"t\" begins at byte 4 and leaves a hole after 0"},
      {range("[1]", "[0,4]"), 5, "the tensors end at byte 4 of 5"},
      {"{}", 1, "the tensors end at byte 0 of 1"},
      {R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[2],"data_offsets":[2,6]}})",
       6, "tensor \"b\" begins at byte 2 and overlaps the one before, which ends at 4"},
      {"{\"a\":" + good + ",\"b\":" + good + "}", 4, "tensor \"b\" begins at byte 0 and overlaps"},
      {"{\"t\":" + std::string(1 << 20, '['), 0, "an array is not expected here"},
  };
  for (const Case& malformed : cases) {
    const absl::Status status = ErrorOf(SafetensorsFile(malformed.header, malformed.data));
    const std::string shown = malformed.header.substr(0, 100);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << shown;
    EXPECT_EQ(GetErrorDetail(status).reason, kModelFileInvalid) << shown;
    EXPECT_THAT(std::string(status.message()), HasSubstr(malformed.message)) << shown;
    EXPECT_THAT(std::string(status.message()), testing::StartsWith("test.safetensors: ")) << shown;
  }
  for (const uint64_t header_bytes : {uint64_t{11}, uint64_t{100'000'001}, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    const absl::Status status = ErrorOf(GgufBuilder::Bytes(header_bytes) + "{}        ");
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("claims a header of ", header_bytes)));
  }
}

TEST(SafetensorsTest, SurvivesMutations) {
  std::mt19937_64 random(4);
  const std::string file = SafetensorsFile(kValidHeader, kValidData);
  // Changes of digits alone reach the checks behind the JSON parser more often.
  const auto mutate_digits = [&random](std::string text) {
    for (int left = 1 + random() % 3; left > 0; --left) {
      const size_t at = text.find_first_of("0123456789", random() % text.size());
      if (at != std::string::npos) text[at] = static_cast<char>('0' + random() % 10);
    }
    return text;
  };
  int parsed = 0;
  for (int i = 0; i < 20'000; ++i) {
    ExactBytes bytes("");
    const auto tensors = ParseText(i % 2 == 0 ? Mutate(file, &random) : mutate_digits(file), &bytes);
    if (!tensors.ok()) {
      ASSERT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument) << tensors.status();
      ASSERT_EQ(GetErrorDetail(tensors.status()).reason, kModelFileInvalid);
      continue;
    }
    ++parsed;
    for (const RawTensor& tensor : *tensors) {
      int64_t count = 1;
      for (const int64_t size : tensor.info.shape) count *= size;
      std::vector<float> values(tensor.type ? count : 0);
      if (tensor.type) Dequantize(*tensor.type, tensor.data, count, values.data());
    }
  }
  EXPECT_GT(parsed, 1'000);
  EXPECT_LT(parsed, 15'000);

  const std::string index = R"({"metadata":{"total_size":1},"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})";
  for (int i = 0; i < 5'000; ++i) {
    const auto weight_map = ParseSafetensorsIndex(Mutate(index, &random), "index");
    if (!weight_map.ok()) {
      ASSERT_EQ(GetErrorDetail(weight_map.status()).reason, kModelFileInvalid);
    }
  }
}

TEST(SafetensorsIndexTest, ReadsTheWeightMap) {
  const auto weight_map = ParseSafetensorsIndex(
      R"({"metadata":{"total_size":36,"more":[{"a":null}]},"weight_map":{"a":"x.safetensors"},"other":[1.5,true,-1]})",
      "index");
  ASSERT_TRUE(weight_map.ok()) << weight_map.status();
  EXPECT_THAT(*weight_map, ElementsAre(testing::Pair("a", "x.safetensors")));
}

TEST(SafetensorsIndexTest, SaysWhatIsWrong) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "not valid JSON"},
      {"[]", "an object or array is not expected here"},
      {"1", "the index has no weight_map"},
      {"{}", "the index has no weight_map"},
      {R"({"weight_map":[]})", "an object or array is not expected here"},
      {R"({"weight_map":null})", "null is not expected here"},
      {R"({"weight_map":"x"})", "a string is not expected here"},
      {R"({"weight_map":{"a":1}})", "tensor \"a\" in the index: a number is not expected here"},
      {R"({"weight_map":{"a":{}}})", "an object or array is not expected here"},
      {R"({"weight_map":{"a":["x.safetensors"]}})", "an object or array is not expected here"},
      {R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})", "tensor \"a\" in the index occurs twice"},
      {R"({"weight_map":{},"weight_map":{}})", "two weight maps"},
      {R"({"metadata":)" + std::string(1 << 20, '['), "nested too deeply"},
      {R"({"weight_map":{"a":"../x.safetensors"}})", "is said to be in \"../x.safetensors\""},
      {R"({"weight_map":{"a":"/x.safetensors"}})", "is said to be in"},
      {R"({"weight_map":{"a":"sub/x.safetensors"}})", "is said to be in"},
      {R"({"weight_map":{"a":"..\\x.safetensors"}})", "is said to be in"},
      {R"({"weight_map":{"a":"x\u0000.safetensors"}})", "is said to be in"},
      {R"({"weight_map":{"a":".safetensors"}})", "is said to be in"},
      {R"({"weight_map":{"a":"pytorch_model.bin"}})", "is said to be in"},
      {R"({"weight_map":{"a":""}})", "is said to be in"},
  };
  for (const auto& [json, message] : cases) {
    const absl::Status status = ParseSafetensorsIndex(json, "index").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << json.substr(0, 100);
    EXPECT_EQ(GetErrorDetail(status).reason, kModelFileInvalid) << json.substr(0, 100);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << json.substr(0, 100);
  }
}

std::string OneTensor(const std::string& name, const std::string& dtype = "F32") {
  return SafetensorsFile(
      absl::StrCat("{\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[1],\"data_offsets\":[0,4]}}"), 4);
}

std::vector<std::string> NamesOf(const SafetensorsCheckpoint& checkpoint) {
  std::vector<std::string> names;
  for (const RawTensor& tensor : checkpoint.tensors()) names.push_back(tensor.info.name);
  return names;
}

TEST(SafetensorsCheckpointTest, OpensAFileAndAFolder) {
  const std::string folder = TestFolder();
  WriteFile(folder + "/model.safetensors", OneTensor("a"));
  for (const std::string& path : {folder, folder + "/model.safetensors"}) {
    const auto checkpoint = SafetensorsCheckpoint::Open(path);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ((*checkpoint)->path(), path);
    EXPECT_THAT(NamesOf(**checkpoint), ElementsAre("a"));
  }
}

TEST(SafetensorsCheckpointTest, OpensShardsAsTheIndexSays) {
  const std::string folder = TestFolder();
  WriteFile(folder + "/x.safetensors", OneTensor("a"));
  WriteFile(folder + "/y.safetensors", OneTensor("b"));
  WriteFile(folder + "/model.safetensors", OneTensor("not listed"));
  const std::string index = WriteFile(folder + "/model.safetensors.index.json",
                                      R"({"weight_map":{"b":"y.safetensors","a":"x.safetensors"}})");
  for (const std::string& path : {folder, index}) {
    const auto checkpoint = SafetensorsCheckpoint::Open(path);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_THAT(NamesOf(**checkpoint), ElementsAre("a", "b"));
    EXPECT_EQ((*checkpoint)->tensors()[1].data[3], 21);
  }
}

TEST(SafetensorsCheckpointTest, SaysWhatIsMissing) {
  const std::string folder = TestFolder();
  EXPECT_EQ(SafetensorsCheckpoint::Open(folder).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsCheckpoint::Open(folder + "/x").status().code(), absl::StatusCode::kNotFound);
  WriteFile(folder + "/x.safetensors", OneTensor("a"));
  const std::string index = folder + "/model.safetensors.index.json";
  WriteFile(index, R"({"weight_map":{"a":"x.safetensors","b":"gone.safetensors"}})");
  const absl::Status no_shard = SafetensorsCheckpoint::Open(folder).status();
  EXPECT_EQ(no_shard.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(no_shard.message()), HasSubstr("the shard \"gone.safetensors\" does not exist"));
  WriteFile(index, R"({"weight_map":{"a":"x.safetensors","b":"x.safetensors"}})");
  const absl::Status no_tensor = SafetensorsCheckpoint::Open(folder).status();
  EXPECT_EQ(no_tensor.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(no_tensor.message()), HasSubstr("tensor \"b\" is not in its shard \"x.safetensors\""));
  WriteFile(folder + "/x.safetensors", "short");
  EXPECT_THAT(std::string(SafetensorsCheckpoint::Open(folder).status().message()),
              HasSubstr(folder + "/x.safetensors: too short"));
}

}  // namespace
}  // namespace trimtab
