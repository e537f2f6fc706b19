// safetensors with a JSON document: what is written reads back exactly, what is wrong is said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "models/weights/safetensors.h"
#include "steering/vector_files.h"
#include "tests/models/weights/file_builder.h"
#include "tests/steering/testing/vectors.h"

namespace trimtab {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

SteeringVectorSpec Spec() {
  SteeringVectorSpec spec = RandomSpec({0, 3, 11}, 12, 7);
  spec.site = Site::kMlpOutput;
  spec.operation = Operation::kAdd;
  spec.strength_mode = StrengthMode::kAbsolute;
  spec.apply_to = ApplyTo::kResponse;
  spec.default_strength = -0.1f;
  spec.max_strength = 0.7f;
  spec.layers[1].weight = 1 / 3.0f;
  spec.layers[1].explained_variance = 0.123456789f;
  spec.layers[2].cosine_to_margin_gradient = -1e-30f;
  return spec;
}

RevisionFiles Written() {
  return WriteRevisionFiles(**SteeringVector::Create(Spec()), {.revision = "models/m/objectives/o/revisions/3",
                                                               .summary = R"({"method":"grains","warnings":["<x>"]})"});
}

// What is wrong after `change` of the document.
std::string ErrorAfter(const std::function<void(Json&)>& change) {
  const RevisionFiles files = Written();
  Json document = Json::parse(files.document);
  change(document);
  const absl::Status status = ReadRevisionFiles(files.vectors, document.dump()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(RevisionFilesTest, ReadsBackExactly) {
  const RevisionFiles files = Written();
  const absl::StatusOr<ImportedRevision> imported = ReadRevisionFiles(files.vectors, files.document);
  ASSERT_TRUE(imported.ok()) << imported.status();
  const auto vector = *SteeringVector::Create(Spec());
  EXPECT_EQ(imported->vector->Serialize(), vector->Serialize());
  EXPECT_EQ(imported->vector->digest(), vector->digest());
  EXPECT_EQ(imported->origin.revision, "models/m/objectives/o/revisions/3");
  EXPECT_EQ(Json::parse(imported->origin.summary), Json::parse(R"({"method":"grains","warnings":["<x>"]})"));
  // The same vector makes the same bytes.
  const RevisionFiles again = WriteRevisionFiles(*imported->vector, imported->origin);
  EXPECT_EQ(again.vectors, files.vectors);
  EXPECT_EQ(again.document, files.document);
}

TEST(RevisionFilesTest, EverySiteAndOperationHasAName) {
  for (const Site site : {Site::kBlockOutput, Site::kAttentionOutput, Site::kMlpOutput}) {
    for (const Operation operation :
         {Operation::kAdd, Operation::kAddPreserveNorm, Operation::kAddOpposingPreserveNorm}) {
      SteeringVectorSpec spec = Spec();
      spec.site = site;
      spec.operation = operation;
      const auto vector = *SteeringVector::Create(spec);
      const RevisionFiles files = WriteRevisionFiles(*vector, {});
      const absl::StatusOr<ImportedRevision> imported = ReadRevisionFiles(files.vectors, files.document);
      ASSERT_TRUE(imported.ok()) << imported.status();
      EXPECT_EQ(imported->vector->Serialize(), vector->Serialize());
    }
  }
}

TEST(RevisionFilesTest, TheTensorsAreOrdinarySafetensors) {
  const std::string vectors = Written().vectors;
  const absl::StatusOr<std::vector<RawTensor>> tensors =
      ParseSafetensors({reinterpret_cast<const uint8_t*>(vectors.data()), vectors.size()}, "f");
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[1].info.name, "layers.3.direction");
  EXPECT_EQ((*tensors)[1].info.dtype, "F32");
  EXPECT_EQ((*tensors)[1].info.shape, std::vector<int64_t>{12});
  EXPECT_EQ(((*tensors)[0].data - reinterpret_cast<const uint8_t*>(vectors.data())) % 8, 0);
}

TEST(RevisionFilesTest, TheDocumentIsForPeopleToo) {
  const Json document = Json::parse(Written().document);
  EXPECT_EQ(document["format"], "trimtab.revision");
  EXPECT_EQ(document["version"], 1);
  EXPECT_EQ(document["vector"]["site"], "mlp_output");
  EXPECT_EQ(document["vector"]["strength_mode"], "absolute");
  EXPECT_EQ(document["vector"]["apply_to"], "response");
  EXPECT_EQ(document["vector"]["layers"][1]["layer"], 3);
  EXPECT_EQ(document["summary"]["method"], "grains");
}

TEST(RevisionFilesTest, SaysEverythingThatIsWrongAtOnce) {
  const std::string message = ErrorAfter([](Json& document) {
    Json& vector = document["vector"];
    vector.erase("method");
    vector["site"] = "elsewhere";
    vector["default_strength"] = "strong";
    vector["hidden_size"] = -12;
    vector["colour"] = "red";
    vector["layers"][0]["weight"] = 1e300;
    document["note"] = 1;
  });
  for (const char* part :
       {"vector.method is missing", "vector.site must be one of block_output, attention_output, mlp_output",
        "vector.default_strength must be a number", "vector.hidden_size must be a whole number",
        "vector.\"colour\" is not known", "vector.layers[0].weight must be a number", "\"note\" is not known"}) {
    EXPECT_THAT(message, HasSubstr(part));
  }
}

TEST(RevisionFilesTest, TensorsAndLayersMustMatch) {
  EXPECT_THAT(ErrorAfter([](Json& document) { document["vector"]["layers"].erase(1); }),
              HasSubstr("\"layers.3.direction\" belongs to no layer"));
  EXPECT_THAT(ErrorAfter([](Json& document) { document["vector"]["layers"][1]["layer"] = 4; }),
              HasSubstr("tensor layers.4.direction is missing"));
  EXPECT_THAT(
      ErrorAfter([](Json& document) { document["vector"]["layers"].push_back(document["vector"]["layers"][2]); }),
      HasSubstr("layers.11.direction is missing, or the layer is there twice"));
  EXPECT_THAT(ErrorAfter([](Json& document) { document["vector"]["hidden_size"] = 13; }),
              HasSubstr("is F32 [12], must be F32 [13]"));
  EXPECT_THAT(ErrorAfter([](Json& document) { document["vector"]["layers"] = Json::array(); }), HasSubstr("no layer"));
  EXPECT_THAT(ErrorAfter([](Json& document) { document["vector"]["layers"] = 3; }), HasSubstr("must be a list"));
  EXPECT_THAT(ErrorAfter([](Json& document) { document["vector"] = "none"; }), HasSubstr("vector must be an object"));
}

TEST(RevisionFilesTest, TheDigestTiesTheFilesTogether) {
  EXPECT_THAT(ErrorAfter([](Json& document) { document["vector"]["layers"][0]["weight"] = 2; }),
              HasSubstr("do not belong together"));
  // Who takes the digest out changes the vector on purpose.
  RevisionFiles files = Written();
  Json document = Json::parse(files.document);
  document["vector"].erase("digest");
  document["vector"]["layers"][0]["weight"] = 2;
  EXPECT_TRUE(ReadRevisionFiles(files.vectors, document.dump()).ok());
  // A number that no vector may have.
  std::fill(files.vectors.end() - 4, files.vectors.end(), '\xff');
  EXPECT_THAT(std::string(ReadRevisionFiles(files.vectors, files.document).status().message()),
              HasSubstr("not finite"));
}

TEST(RevisionFilesTest, RefusesOtherFiles) {
  const RevisionFiles files = Written();
  for (const std::string& document : {std::string(), std::string("{"), std::string("[]"), std::string("{\"a\":1e999}"),
                                      std::string(100'000, '['), std::string(9 << 20, ' ')}) {
    const absl::Status status = ReadRevisionFiles(files.vectors, document).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("the document is"));
  }
  EXPECT_THAT(ErrorAfter([](Json& document) { document["format"] = "other"; }), HasSubstr("trimtab.revision"));
  EXPECT_THAT(ErrorAfter([](Json& document) { document["version"] = 2; }), HasSubstr("version must be 1"));
  EXPECT_THAT(std::string(ReadRevisionFiles("x", files.document).status().message()), HasSubstr("vectors.safetensors"));
}

// Cut off anywhere and with any bytes changed: an answer, never a crash (the sanitizers judge).
TEST(RevisionFilesTest, DamagedFilesAreNeverMoreThanAnError) {
  const RevisionFiles files = Written();
  const auto read = [](const std::string& vectors, const std::string& document) {
    const ExactBytes vector_bytes(vectors), document_bytes(document);
    const absl::Status status =
        ReadRevisionFiles({reinterpret_cast<const char*>(vector_bytes.data.get()), vector_bytes.size},
                          {reinterpret_cast<const char*>(document_bytes.data.get()), document_bytes.size})
            .status();
    EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
  };
  for (size_t size = 0; size < files.vectors.size(); ++size) read(files.vectors.substr(0, size), files.document);
  for (size_t size = 0; size < files.document.size(); ++size) read(files.vectors, files.document.substr(0, size));
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    read(Mutate(files.vectors, &random), files.document);
    read(files.vectors, Mutate(files.document, &random));
  }
}

}  // namespace
}  // namespace trimtab
