#include "models/weights/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "absl/strings/match.h"
#include "models/weights/safetensors.h"
#include "server/base/error.h"
#include "tests/models/weights/file_builder.h"

namespace trimtab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kGolden[] = "tests/golden/data/weights/all_types";

absl::StatusOr<std::shared_ptr<const GgufFile>> ParseText(std::string_view text) {
  const ExactBytes bytes(text);
  return GgufFile::Parse(bytes.span(), bytes.data, "test.gguf");
}

// Reads everything that a parsed file offers; the sanitizers judge.
void ReadAll(const GgufFile& file) {
  std::vector<float> values;
  for (const RawTensor& tensor : file.tensors()) {
    int64_t count = 1;
    for (const int64_t size : tensor.info.shape) count *= size;
    values.resize(count);
    Dequantize(*tensor.type, tensor.data, count, values.data());
  }
  for (const std::string_view key : file.keys()) {
    const auto sink = [](const auto& value) {
      if (!value.ok()) {
        EXPECT_EQ(GetErrorDetail(value.status()).reason, kModelFileInvalid);
      }
    };
    sink(file.GetString(key));
    sink(file.GetInt(key));
    sink(file.GetFloat(key));
    sink(file.GetBool(key));
    sink(file.GetStrings(key));
    sink(file.GetInts(key));
    sink(file.GetFloats(key));
  }
}

// Two keys of scalars, two of arrays, three tensors.
GgufBuilder Valid() {
  GgufBuilder file;
  file.metadata = {
      GgufBuilder::Entry("general.architecture", 8, GgufBuilder::StringValue("llama")),
      GgufBuilder::Entry("general.alignment", 4, GgufBuilder::Bytes<uint32_t>(32)),
      GgufBuilder::Entry("tokens", 9,
                         GgufBuilder::ArrayValue(8, 2, GgufBuilder::StringValue("a") + GgufBuilder::StringValue("bc"))),
      GgufBuilder::Entry("sizes", 9, GgufBuilder::ArrayValue(5, 3, std::string(12, '\1'))),
  };
  file.tensors = {{.name = "quantised", .dimensions = {32, 2}, .type = 3, .offset = 0},
                  {.name = "floats", .dimensions = {4}, .type = 0, .offset = 64},
                  {.name = "halves", .dimensions = {3, 2}, .type = 1, .offset = 96}};
  file.data = std::string(96 + 12, '\2');
  return file;
}

TEST(GgufTest, ReadsMetadataOfEveryType) {
  const auto file = GgufFile::Open(std::string(kGolden) + ".gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufFile& gguf = **file;
  EXPECT_EQ(gguf.version(), 3u);
  EXPECT_EQ(*gguf.GetString("general.architecture"), "test");
  EXPECT_EQ(*gguf.GetInt("test.uint8"), 200);
  EXPECT_EQ(*gguf.GetInt("test.int8"), -100);
  EXPECT_EQ(*gguf.GetInt("test.uint16"), 60000);
  EXPECT_EQ(*gguf.GetInt("test.int16"), -30000);
  EXPECT_EQ(*gguf.GetInt("test.uint32"), 4'000'000'000);
  EXPECT_EQ(*gguf.GetInt("test.int32"), -2'000'000'000);
  EXPECT_EQ(*gguf.GetInt("test.int64"), -(int64_t{1} << 62));
  EXPECT_EQ(*gguf.GetFloat("test.float32"), 0.1f);
  EXPECT_EQ(*gguf.GetFloat("test.float64"), 0.1);
  EXPECT_EQ(*gguf.GetFloat("test.int16"), -30000.0);
  EXPECT_TRUE(*gguf.GetBool("test.bool"));
  EXPECT_EQ(*gguf.GetString("test.string"), "grüße");
  EXPECT_THAT(*gguf.GetStrings("test.strings"), ElementsAre("a", "", "ß"));
  EXPECT_THAT(*gguf.GetInts("test.ints"), ElementsAre(3, -4, 5));
  EXPECT_THAT(*gguf.GetFloats("test.floats"), ElementsAre(0.5f, -1.25f));
  EXPECT_THAT(*gguf.GetInts("test.bools"), ElementsAre(1, 0));
  EXPECT_TRUE(gguf.Has("test.bools"));
  EXPECT_THAT(gguf.keys(), testing::Contains("test.float64"));
}

TEST(GgufTest, SaysWhyAKeyCannotBeRead) {
  const auto file = GgufFile::Open(std::string(kGolden) + ".gguf");
  ASSERT_TRUE(file.ok());
  const GgufFile& gguf = **file;
  const auto expect = [](const absl::Status& status, absl::StatusCode code, const std::string& message) {
    EXPECT_EQ(status.code(), code);
    EXPECT_EQ(GetErrorDetail(status).reason, kModelFileInvalid);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  expect(gguf.GetInt("absent").status(), absl::StatusCode::kNotFound, "has no metadata key \"absent\"");
  expect(gguf.GetStrings("absent").status(), absl::StatusCode::kNotFound, "has no metadata key \"absent\"");
  expect(gguf.GetInt("test.string").status(), kInvalid,
         "metadata key \"test.string\": expected an integer below 2^63, found string");
  expect(gguf.GetInt("test.uint64").status(), kInvalid, "expected an integer below 2^63, found uint64");
  expect(gguf.GetInt("test.float32").status(), kInvalid, "found float32");
  expect(gguf.GetInt("test.ints").status(), kInvalid, "found an array of int32");
  expect(gguf.GetBool("test.uint8").status(), kInvalid, "expected a boolean");
  expect(gguf.GetString("test.strings").status(), kInvalid, "expected a string, found an array of string");
  expect(gguf.GetStrings("test.string").status(), kInvalid, "expected an array");
  expect(gguf.GetStrings("test.ints").status(), kInvalid, "expected an array of strings");
  expect(gguf.GetInts("test.floats").status(), kInvalid, "expected an array of integers");
  expect(gguf.GetInts("test.strings").status(), kInvalid, "expected an array of integers");
  expect(gguf.GetFloats("test.ints").status(), kInvalid, "expected an array of floats");

  EXPECT_EQ(*gguf.GetIntOr("absent", 7), 7);
  EXPECT_EQ(*gguf.GetIntOr("test.uint8", 7), 200);
  EXPECT_EQ(*gguf.GetFloatOr("absent", 0.5), 0.5);
  EXPECT_EQ(*gguf.GetStringOr("absent", "x"), "x");
  EXPECT_TRUE(*gguf.GetBoolOr("absent", true));
  EXPECT_FALSE(gguf.GetIntOr("test.string", 7).ok());
}

TEST(GgufTest, DequantisesEveryTypeAsTheReferenceDoes) {
  const auto file = GgufFile::Open(std::string(kGolden) + ".gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto expected = SafetensorsCheckpoint::Open(std::string(kGolden) + ".safetensors");
  ASSERT_TRUE(expected.ok()) << expected.status();
  ASSERT_EQ((*file)->tensors().size(), std::size(kElementTypes));
  ASSERT_EQ((*expected)->tensors().size(), std::size(kElementTypes));
  for (const RawTensor& tensor : (*file)->tensors()) {
    EXPECT_EQ(tensor.info.dtype, tensor.info.name);
    ASSERT_THAT(tensor.info.shape, ElementsAre(2, 512));
    std::vector<float> values(2 * 512);
    Dequantize(*tensor.type, tensor.data, values.size(), values.data());
    for (const RawTensor& golden : (*expected)->tensors()) {
      if (golden.info.name != tensor.info.name) continue;
      ASSERT_EQ(golden.info.bytes, values.size() * sizeof(float));
      EXPECT_EQ(std::memcmp(values.data(), golden.data, golden.info.bytes), 0) << tensor.info.name;
    }
  }
}

TEST(GgufTest, ReversesDimensions) {
  const auto file = ParseText(Valid().Build());
  ASSERT_TRUE(file.ok()) << file.status();
  const std::vector<RawTensor>& tensors = (*file)->tensors();
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].info.name, "quantised");
  EXPECT_THAT(tensors[0].info.shape, ElementsAre(2, 32));
  EXPECT_EQ(tensors[0].info.bytes, 40u);
  EXPECT_THAT(tensors[2].info.shape, ElementsAre(2, 3));
  EXPECT_EQ(tensors[2].info.dtype, "F16");
  ReadAll(**file);
}

TEST(GgufTest, ReadsVersion2AndFilesWithoutTensors) {
  GgufBuilder file = Valid();
  file.version = 2;
  EXPECT_TRUE(ParseText(file.Build()).ok());
  EXPECT_TRUE(ParseText(GgufBuilder().Build()).ok());
}

TEST(GgufTest, RefusesEveryTruncation) {
  const std::string whole = Valid().Build();
  for (size_t size = 0; size < whole.size(); ++size) {
    const absl::Status status = ParseText(whole.substr(0, size)).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
    ASSERT_EQ(GetErrorDetail(status).reason, kModelFileInvalid) << size;
  }
}

struct Malformed {
  std::string name;
  void (*spoil)(GgufBuilder* file);
  std::string message;
};

TEST(GgufTest, SaysWhatIsWrongWithAFile) {
  constexpr uint64_t kHuge = uint64_t{1} << 63;
  const std::vector<Malformed> cases = {
      {"magic", [](GgufBuilder* f) { f->magic = 1; }, "not a GGUF file"},
      {"version 1", [](GgufBuilder* f) { f->version = 1; }, "GGUF version 1 is not supported"},
      {"version 4", [](GgufBuilder* f) { f->version = 4; }, "GGUF version 4 is not supported"},
      {"big-endian", [](GgufBuilder* f) { f->version = 0x03000000; }, "big-endian"},
      {"tensors", [](GgufBuilder* f) { f->tensor_count = ~0ull; }, "claims 18446744073709551615 tensors"},
      {"tensors by size", [](GgufBuilder* f) { f->tensor_count = 60'000; }, "claims 60000 tensors"},
      {"tensors by limit",
       [](GgufBuilder* f) {
         f->tensor_count = 65'537;
         f->data.resize(4 << 20);
       },
       "the limit of 65536"},
      {"keys", [](GgufBuilder* f) { f->metadata_count = ~0ull; }, "claims 18446744073709551615 metadata keys"},
      {"keys by limit",
       [](GgufBuilder* f) {
         f->metadata_count = 65'537;
         f->data.resize(4 << 20);
       },
       "the limit of 65536"},
      {"key length", [](GgufBuilder* f) { f->metadata = {GgufBuilder::Bytes(~0ull) + std::string(16, 'x')}; },
       "ends within the name of metadata key 1 of 1"},
      {"key too long", [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry(std::string(65'537, 'k'), 0, "x")}; },
       "has 65537 bytes; 1 to 65536 are allowed"},
      {"empty key", [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry("", 0, "x")}; }, "has 0 bytes"},
      {"key twice", [](GgufBuilder* f) { f->metadata.push_back(f->metadata[0]); },
       "metadata key \"general.architecture\" occurs twice"},
      {"value type", [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry("k", 13, "x")}; },
       "metadata key \"k\" has unknown type 13"},
      {"value string", [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry("k", 8, GgufBuilder::Bytes(kHuge))}; },
       "ends within metadata key \"k\""},
      {"boolean", [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry("k", 7, "\2")}; }, "boolean of value 2"},
      {"boolean in array",
       [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry("k", 9, GgufBuilder::ArrayValue(7, 2, "\1\2"))}; },
       "holds a boolean other than 0 and 1"},
      {"array count",
       [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry("k", 9, GgufBuilder::ArrayValue(10, kHuge / 4, ""))}; },
       "metadata key \"k\", an array of 2305843009213693952 elements"},
      {"array of strings count",
       [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry("k", 9, GgufBuilder::ArrayValue(8, ~0ull, ""))}; },
       "an array of 18446744073709551615 elements"},
      {"array of a long string",
       [](GgufBuilder* f) {
         f->metadata = {GgufBuilder::Entry("k", 9, GgufBuilder::ArrayValue(8, 1, GgufBuilder::Bytes(~0ull)))};
       },
       "an array of 1 elements"},
      {"array of arrays",
       [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry("k", 9, GgufBuilder::ArrayValue(9, 1, ""))}; },
       "array of arrays"},
      {"array of unknown",
       [](GgufBuilder* f) { f->metadata = {GgufBuilder::Entry("k", 9, GgufBuilder::ArrayValue(77, 1, ""))}; },
       "array of unknown type 77"},
      {"tensor twice", [](GgufBuilder* f) { f->tensors[1].name = "quantised"; }, "tensor \"quantised\" occurs twice"},
      {"tensor without name", [](GgufBuilder* f) { f->tensors[1].name = ""; }, "has a name of 0 bytes"},
      {"tensor's long name", [](GgufBuilder* f) { f->tensors[1].name = std::string(65'537, 'n'); },
       "has a name of 65537 bytes"},
      {"dimensions",
       [](GgufBuilder* f) {
         f->tensors[1].dimensions = {1, 1, 1, 1, 1};
       },
       "tensor \"floats\" has 5 dimensions"},
      {"dimensions lie", [](GgufBuilder* f) { f->tensors[1].dimension_count = ~0u; }, "has 4294967295 dimensions"},
      {"zero dimension",
       [](GgufBuilder* f) {
         f->tensors[1].dimensions = {4, 0};
       },
       "tensor \"floats\" has a dimension of size 0"},
      {"2^63", [](GgufBuilder* f) { f->tensors[1].dimensions = {kHuge}; },
       "has a dimension of size 9223372036854775808"},
      {"product wraps to 0",
       [](GgufBuilder* f) {
         f->tensors[1].dimensions = {1ull << 32, 1ull << 32};
       },
       "tensor \"floats\" is larger than the file"},
      {"product wraps to 4",
       [](GgufBuilder* f) {
         f->tensors[1].dimensions = {(1ull << 62) + 1, 4};
       },
       "tensor \"floats\" is larger than the file"},
      {"bytes wrap to 0", [](GgufBuilder* f) { f->tensors[1].dimensions = {1ull << 62}; },
       "tensor \"floats\" is larger than the file"},
      {"bytes of blocks wrap",
       [](GgufBuilder* f) {
         f->tensors[0].dimensions = {1ull << 62, 1};
       },
       "tensor \"quantised\" is larger than the file"},
      {"larger than the file", [](GgufBuilder* f) { f->tensors[1].dimensions = {100'000}; },
       "tensor \"floats\" is larger than the file"},
      {"partial block",
       [](GgufBuilder* f) {
         f->tensors[0].dimensions = {33, 2};
       },
       "tensor \"quantised\" has rows of 33 elements, not a multiple of the 32"},
      {"rows share blocks",
       [](GgufBuilder* f) {
         f->tensors[0].dimensions = {16, 4};
       },
       "has rows of 16 elements"},
      {"scalar of blocks", [](GgufBuilder* f) { f->tensors[0].dimensions = {}; }, "has rows of 1 elements"},
      {"type", [](GgufBuilder* f) { f->tensors[0].type = 10; },
       "tensor \"quantised\" has ggml type 10, which is not supported; supported are F32, F16, BF16, Q4_0"},
      {"type's number", [](GgufBuilder* f) { f->tensors[0].type = ~0u; }, "has ggml type 4294967295"},
      {"offset", [](GgufBuilder* f) { f->tensors[1].offset = 1; },
       "tensor \"floats\" is at offset 1, not a multiple of the alignment 32"},
      {"offset beyond the end", [](GgufBuilder* f) { f->tensors[1].offset = 1 << 20; },
       "tensor \"floats\" of 16 bytes at offset 1048576 reaches beyond the end"},
      {"offset wraps", [](GgufBuilder* f) { f->tensors[1].offset = ~0ull - 31; },
       "tensor \"floats\" of 16 bytes at offset 18446744073709551584 reaches beyond the end"},
      {"end beyond the end", [](GgufBuilder* f) { f->data.pop_back(); }, "tensor \"halves\" of 12 bytes"},
      {"overlap", [](GgufBuilder* f) { f->tensors[1].offset = 32; }, "tensors \"quantised\" and \"floats\" overlap"},
      {"same place", [](GgufBuilder* f) { f->tensors[2].offset = 64; }, "overlap"},
      {"alignment 0",
       [](GgufBuilder* f) { f->metadata[1] = GgufBuilder::Entry("general.alignment", 4, std::string(4, 0)); },
       "\"general.alignment\" is 0; a power of two"},
      {"alignment 24", [](GgufBuilder* f) { f->metadata[1] = GgufBuilder::Entry("general.alignment", 0, "\x18"); },
       "\"general.alignment\" is 24; a power of two"},
      {"alignment -32", [](GgufBuilder* f) { f->metadata[1] = GgufBuilder::Entry("general.alignment", 1, "\xe0"); },
       "\"general.alignment\" is -32; a power of two"},
      {"alignment 2^21",
       [](GgufBuilder* f) {
         f->metadata[1] = GgufBuilder::Entry("general.alignment", 10, GgufBuilder::Bytes(uint64_t{1} << 21));
       },
       "\"general.alignment\" is 2097152"},
      {"alignment's type",
       [](GgufBuilder* f) {
         f->metadata[1] = GgufBuilder::Entry("general.alignment", 8, GgufBuilder::StringValue("32"));
       },
       "\"general.alignment\": expected an integer below 2^63, found string"},
  };
  for (const Malformed& malformed : cases) {
    GgufBuilder file = Valid();
    malformed.spoil(&file);
    const absl::Status status = ParseText(file.Build()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << malformed.name;
    EXPECT_EQ(GetErrorDetail(status).reason, kModelFileInvalid) << malformed.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(malformed.message)) << malformed.name;
    EXPECT_THAT(std::string(status.message()), testing::StartsWith("test.gguf: ")) << malformed.name;
  }
}

TEST(GgufTest, SurvivesMutations) {
  std::mt19937_64 random(3);
  GgufBuilder small = Valid();
  small.metadata.push_back(GgufBuilder::Entry("flags", 9, GgufBuilder::ArrayValue(7, 2, std::string("\1\0", 2))));
  small.metadata.push_back(GgufBuilder::Entry("scale", 6, GgufBuilder::Bytes(1.5f)));
  const std::string files[] = {small.Build(), ReadWholeFile(std::string(kGolden) + ".gguf")};
  int parsed = 0;
  for (int i = 0; i < 20'000; ++i) {
    // The large file costs more and is hit less often where it matters.
    const auto file = ParseText(Mutate(files[i % 10 == 0], &random));
    if (!file.ok()) {
      ASSERT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << file.status();
      ASSERT_EQ(GetErrorDetail(file.status()).reason, kModelFileInvalid);
      continue;
    }
    ++parsed;
    ReadAll(**file);
  }
  EXPECT_GT(parsed, 1'000);  // the mutations are not so coarse that they only meet the first check
  EXPECT_LT(parsed, 15'000);
}

}  // namespace
}  // namespace trimtab
