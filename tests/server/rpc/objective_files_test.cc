// ExportRevision and ImportRevision.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "steering/vector_files.h"
#include "tests/models/weights/file_builder.h"
#include "tests/server/rpc/services_fixture.h"

namespace trimtab {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Stub = v1::ObjectiveService::Stub;

class ObjectiveFilesTest : public ServicesTest {
 protected:
  static v1::ExportRevisionRequest ExportOf(const std::string& name, v1::ExportFormat format) {
    v1::ExportRevisionRequest request;
    request.set_name(name);
    request.set_format(format);
    return request;
  }
  v1::ExportRevisionResponse Exported(const v1::ExportRevisionRequest& request) {
    v1::ExportRevisionResponse response;
    const grpc::Status status = Export(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  grpc::Status Export(const v1::ExportRevisionRequest& request, v1::ExportRevisionResponse* response) {
    return Call(*objectives_, &Stub::ExportRevision, request, response);
  }
  static v1::ImportRevisionRequest ImportOf(const std::string& id, const v1::ExportRevisionResponse& exported) {
    v1::ImportRevisionRequest request;
    request.set_parent("models/fake");
    request.set_objective_id(id);
    *request.mutable_files() = exported.files();
    return request;
  }
  // direction.1 as llama.cpp writes it: without Trimtab's keys.
  static std::string ForeignControlVector() {
    GgufBuilder file;
    file.metadata = {GgufBuilder::Entry("general.architecture", 8, GgufBuilder::StringValue("controlvector")),
                     GgufBuilder::Entry("controlvector.model_hint", 8, GgufBuilder::StringValue("mistral"))};
    file.tensors = {{.name = "direction.1", .dimensions = {2}, .type = 0}};
    Append<float>(&file.data, 3);
    Append<float>(&file.data, 4);
    return file.Build();
  }
  v1::ImportRevisionRequest ForeignGguf(const std::string& id) {
    v1::ImportRevisionRequest request = ImportOf(id, {});
    v1::RevisionFile& file = *request.add_files();
    file.set_name("others.gguf");
    file.set_data(ForeignControlVector());
    request.mutable_gguf()->set_site(v1::SITE_BLOCK_OUTPUT);
    request.set_allow_other_fingerprint(true);
    return request;
  }
  grpc::Status Import(const v1::ImportRevisionRequest& request, v1::Objective* objective) {
    return Call(*objectives_, &Stub::ImportRevision, request, objective);
  }
  std::shared_ptr<const SteeringVector> Served(const std::string& id, int64_t revision) {
    return vectors_.Find("models/fake/objectives/" + id)->revisions.at(revision);
  }
};

TEST_F(ObjectiveFilesTest, WhatIsExportedIsImportedExactly) {
  const v1::Objective calm = Fitted("calm");
  const v1::ExportRevisionResponse exported = Exported(ExportOf(calm.name(), v1::EXPORT_FORMAT_UNSPECIFIED));
  EXPECT_EQ(exported.revision(), calm.name() + "/revisions/1");
  ASSERT_EQ(exported.files_size(), 2);
  EXPECT_EQ(exported.files(0).name(), "vectors.safetensors");
  EXPECT_EQ(exported.files(1).name(), "revision.json");
  const auto document = nlohmann::json::parse(exported.files(1).data());
  EXPECT_EQ(document["exported_from"], exported.revision());
  EXPECT_EQ(document["summary"]["method"], "scripted");

  v1::Objective copy;
  const grpc::Status status = Import(ImportOf("copy", exported), &copy);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(copy.name(), "models/fake/objectives/copy");
  EXPECT_EQ(copy.state(), v1::Objective::STATE_ACTIVE);
  EXPECT_EQ(copy.method(), "scripted");
  EXPECT_EQ(copy.active().revision(), 1);
  EXPECT_EQ(copy.active().name(), "models/fake/objectives/copy/revisions/1");
  EXPECT_EQ(copy.active().digest(), calm.active().digest());
  EXPECT_EQ(copy.active().recommended_strength(), calm.active().recommended_strength());
  EXPECT_EQ(copy.active().layers(0).layer(), 1);
  EXPECT_THAT(copy.active().imported_from(), AllOf(HasSubstr("vectors.safetensors"), HasSubstr(exported.revision())));
  EXPECT_EQ(copy.active().warnings_size(), 0);
  EXPECT_EQ(Served("copy", 1)->Serialize(), Served("calm", 1)->Serialize());

  // It serves at once.
  v1::GenerateRequest generate;
  generate.set_model("models/fake");
  generate.set_prompt("x");
  generate.add_steering()->set_objective("copy");
  v1::GenerateResponse response;
  ASSERT_TRUE(Call(*generation_, &v1::GenerationService::Stub::Generate, generate, &response).ok());
  EXPECT_EQ(response.applied(0).digest(), calm.active().digest());
  // And is on record.
  EXPECT_EQ(registry_->ListAudit(0, 100)->back().action, "import_revision");
}

TEST_F(ObjectiveFilesTest, AnExistingObjectiveGetsANextRevision) {
  const v1::Objective calm = Fitted("calm");
  ASSERT_TRUE(fit_->AddRevision(calm.name(), "operations/second", model_->fingerprint(), 0.8f).ok());
  // An earlier revision by name.
  v1::ImportRevisionRequest request =
      ImportOf("calm", Exported(ExportOf(calm.name() + "/revisions/1", v1::EXPORT_FORMAT_SAFETENSORS)));
  request.set_default_strength(-0.02f);
  request.set_max_strength(0.04f);
  v1::Objective objective;
  request.set_etag("stale");
  EXPECT_EQ(Reason(Import(request, &objective)), "ETAG_MISMATCH");
  ASSERT_TRUE(Get(calm.name(), &objective).ok());
  request.set_etag(objective.etag());
  const grpc::Status status = Import(request, &objective);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(objective.active().revision(), 3);
  EXPECT_EQ(objective.active().digest(), calm.active().digest());
  EXPECT_NE(objective.active().digest(), Served("calm", 2)->digest());
  EXPECT_EQ(objective.active().max_strength(), 0.04f);
  EXPECT_EQ(vectors_.Find(calm.name())->default_strength, -0.02f);
  EXPECT_EQ(vectors_.Find(calm.name())->max_strength, 0.04f);
  // Rolling back works as ever.
  v1::PromoteRevisionRequest promote;
  promote.set_name(calm.name());
  promote.set_revision(2);
  ASSERT_TRUE(Call(*objectives_, &Stub::PromoteRevision, promote, &objective).ok());
  EXPECT_EQ(objective.active().revision(), 2);
}

TEST_F(ObjectiveFilesTest, TheSameRequestImportsOnce) {
  v1::ImportRevisionRequest request =
      ImportOf("copy", Exported(ExportOf(Fitted("calm").name(), v1::EXPORT_FORMAT_SAFETENSORS)));
  request.set_request_id("r1");
  v1::Objective first, second;
  ASSERT_TRUE(Import(request, &first).ok());
  ASSERT_TRUE(Import(request, &second).ok());
  EXPECT_EQ(first.etag(), second.etag());
  EXPECT_EQ(second.active().revision(), 1);
  request.set_max_strength(1);
  const grpc::Status other = Import(request, &second);
  EXPECT_EQ(Reason(other), "FIELD_INVALID");
  EXPECT_THAT(other.error_message(), HasSubstr("request_id"));
}

TEST_F(ObjectiveFilesTest, AFitGoesFirst) {
  const v1::ExportRevisionResponse exported = Exported(ExportOf(Fitted("calm").name(), v1::EXPORT_FORMAT_SAFETENSORS));
  fit_->Hold();
  google::longrunning::Operation operation;
  ASSERT_TRUE(Register(Registration("wild"), &operation).ok());
  v1::Objective objective;
  const grpc::Status refused = Import(ImportOf("wild", exported), &objective);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reason(refused), "OBJECTIVE_NOT_READY");
  v1::ExportRevisionResponse nothing;
  EXPECT_EQ(Reason(Export(ExportOf("models/fake/objectives/wild", v1::EXPORT_FORMAT_SAFETENSORS), &nothing)),
            "OBJECTIVE_NOT_READY");
  fit_->Release();
  Await(operation.name());
  EXPECT_TRUE(Import(ImportOf("wild", exported), &objective).ok());
  EXPECT_EQ(objective.active().revision(), 2);
}

TEST_F(ObjectiveFilesTest, OtherWeightsMustBeAllowed) {
  const auto vector = TestVector("other-weights");
  const RevisionFiles files = WriteRevisionFiles(
      *vector, {.revision = "models/m/objectives/o/revisions/2",
                .summary = R"({"heldOut":{"marginGain":0.3},"recommendedStrength":0.1,"pairCount":40})"});
  v1::ImportRevisionRequest request = ImportOf("copy", {});
  for (const auto& [name, data] : {std::pair("a.safetensors", files.vectors), std::pair("a.json", files.document)}) {
    v1::RevisionFile& file = *request.add_files();
    file.set_name(name);
    file.set_data(data);
  }
  v1::Objective objective;
  const grpc::Status refused = Import(request, &objective);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Reason(refused), "FINGERPRINT_MISMATCH");
  EXPECT_EQ(Get("models/fake/objectives/copy", &objective).error_code(), grpc::StatusCode::NOT_FOUND);
  request.set_allow_other_fingerprint(true);
  ASSERT_TRUE(Import(request, &objective).ok());
  EXPECT_EQ(objective.active().digest(), vector->digest());
  EXPECT_EQ(objective.active().model_fingerprint(), model_->fingerprint());
  EXPECT_EQ(objective.active().pair_count(), 40);
  EXPECT_FALSE(objective.active().has_held_out());  // was measured on the other weights
  EXPECT_EQ(objective.active().recommended_strength(), 0.05f);
  ASSERT_EQ(objective.active().warnings_size(), 1);
  EXPECT_THAT(objective.active().warnings(0), HasSubstr("not measured"));
  EXPECT_THAT(objective.active().imported_from(), AllOf(HasSubstr("revisions/2"), HasSubstr("other-weights")));
  // With the same weights what the file says holds.
  const RevisionFiles own =
      WriteRevisionFiles(*TestVector(model_->fingerprint()), {.summary = R"({"heldOut":{"marginGain":0.3}})"});
  request.mutable_files(0)->set_data(own.vectors);
  request.mutable_files(1)->set_data(own.document);
  ASSERT_TRUE(Import(request, &objective).ok());
  EXPECT_EQ(objective.active().held_out().margin_gain(), 0.3);
}

TEST_F(ObjectiveFilesTest, AControlVectorGoesOutAndComesBack) {
  const v1::Objective calm = Fitted("calm");
  v1::ExportRevisionRequest request = ExportOf(calm.name(), v1::EXPORT_FORMAT_GGUF);
  v1::ExportRevisionResponse exported;
  const grpc::Status relative = Export(request, &exported);
  EXPECT_EQ(Reason(relative), "FIELD_INVALID");
  EXPECT_THAT(relative.error_message(), HasSubstr("gguf_scale"));
  request.set_gguf_scale(5);
  exported = Exported(request);
  ASSERT_EQ(exported.files_size(), 1);
  EXPECT_EQ(exported.files(0).name(), "control_vector.gguf");
  const ControlVector control = *ReadControlVector(exported.files(0).data());
  EXPECT_EQ(control.model_hint, "llama");
  EXPECT_EQ(control.model_fingerprint, model_->fingerprint());
  EXPECT_THAT(control.directions.at(1), ElementsAre(testing::FloatEq(3), testing::FloatEq(4)));

  v1::ImportRevisionRequest import = ImportOf("absolute", exported);
  import.mutable_gguf()->set_site(v1::SITE_BLOCK_OUTPUT);
  v1::Objective objective;
  grpc::Status status = Import(import, &objective);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(objective.method(), "control_vector");
  EXPECT_FLOAT_EQ(objective.active().layers(0).weight(), 5);
  EXPECT_EQ(objective.active().apply_to(), v1::APPLY_TO_ALL);
  EXPECT_EQ(objective.active().warnings_size(), 0);
  EXPECT_EQ(vectors_.Find(objective.name())->default_strength, 1);
  EXPECT_EQ(vectors_.Find(objective.name())->max_strength, 10);
  EXPECT_EQ(Served("absolute", 1)->spec().operation, Operation::kAdd);
  EXPECT_EQ(Served("absolute", 1)->spec().strength_mode, StrengthMode::kAbsolute);
  // An absolute vector has a strength that stands for itself.
  exported = Exported(ExportOf(objective.name(), v1::EXPORT_FORMAT_GGUF));
  EXPECT_THAT(ReadControlVector(exported.files(0).data())->directions.at(1),
              ElementsAre(testing::FloatEq(3), testing::FloatEq(4)));

  import.set_objective_id("relative");
  import.mutable_gguf()->set_relative(true);
  import.mutable_gguf()->set_preserve_norm(true);
  import.mutable_gguf()->set_layer_offset(2);
  status = Import(import, &objective);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(objective.active().layers(0).layer(), 3);
  EXPECT_EQ(objective.active().layers(0).weight(), 1);
  EXPECT_EQ(vectors_.Find(objective.name())->default_strength, 0.05f);
  EXPECT_EQ(vectors_.Find(objective.name())->max_strength, 0.5f);
  EXPECT_EQ(Served("relative", 1)->spec().operation, Operation::kAddPreserveNorm);
}

TEST_F(ObjectiveFilesTest, FilesOfOthersNameNoWeights) {
  v1::ImportRevisionRequest request = ForeignGguf("calm");
  request.set_allow_other_fingerprint(false);
  v1::Objective objective;
  EXPECT_EQ(Reason(Import(request, &objective)), "FINGERPRINT_MISMATCH");
  request.set_allow_other_fingerprint(true);
  request.set_default_strength(-300);
  const grpc::Status status = Import(request, &objective);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(vectors_.Find(objective.name())->max_strength, 1000);
  EXPECT_THAT(objective.active().imported_from(), AllOf(HasSubstr("others.gguf"), HasSubstr("mistral")));
  ASSERT_EQ(objective.active().warnings_size(), 2);
  EXPECT_THAT(objective.active().warnings(0), AllOf(HasSubstr("\"mistral\""), HasSubstr("\"llama\"")));
}

TEST_F(ObjectiveFilesTest, EverythingWrongWithARequestIsSaidAtOnce) {
  v1::ImportRevisionRequest request;
  request.set_parent("fake");
  request.set_objective_id("Calm");
  request.set_default_strength(2000);
  request.set_max_strength(-1);
  request.add_files()->set_name("notes.txt");
  request.add_files()->set_name("a.gguf");
  request.mutable_files(1)->set_data("x");
  v1::Objective objective;
  const grpc::Status status = Import(request, &objective);
  EXPECT_EQ(Reason(status), "FIELD_INVALID");
  for (const char* field :
       {"parent", "objective_id", "default_strength", "max_strength", "files[0].name", "files[0].data", "gguf"}) {
    EXPECT_THAT(status.error_message(), HasSubstr(field));
  }

  // One fault each.
  const auto error = [&](const std::function<void(v1::ImportRevisionRequest&)>& change) {
    v1::ImportRevisionRequest changed = ForeignGguf("calm");
    change(changed);
    const grpc::Status refused = Import(changed, &objective);
    EXPECT_EQ(Reason(refused), "FIELD_INVALID") << refused.error_message();
    return refused.error_message();
  };
  EXPECT_THAT(error([](auto& r) { r.clear_files(); }), HasSubstr("files"));
  EXPECT_THAT(error([](auto& r) { *r.add_files() = r.files(0); }), HasSubstr("one of each"));
  EXPECT_THAT(error([](auto& r) { r.mutable_files(0)->set_name("a.json"); }), HasSubstr("a .gguf file alone"));
  EXPECT_THAT(error([](auto& r) { r.mutable_gguf()->clear_site(); }), HasSubstr("gguf.site"));
  EXPECT_THAT(error([](auto& r) { r.mutable_gguf()->set_layer_offset(1001); }), HasSubstr("gguf.layer_offset"));
  EXPECT_THAT(error([](auto& r) { r.mutable_gguf()->set_layer_offset(3); }), HasSubstr("blocks 0 to 3"));
  EXPECT_THAT(error([](auto& r) { r.mutable_gguf()->set_layer_offset(-2); }), HasSubstr("layer_offset -2"));
  EXPECT_THAT(error([](auto& r) { r.set_default_strength(2), r.set_max_strength(1); }), HasSubstr("default_strength"));
  EXPECT_THAT(error([](auto& r) { r.mutable_files(0)->mutable_data()->resize(100); }), HasSubstr("ends within"));
  EXPECT_EQ(Get("models/fake/objectives/calm", &objective).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ObjectiveFilesTest, VectorsMustFitTheModel) {
  SteeringVectorSpec spec = TestVector(model_->fingerprint())->spec();
  spec.hidden_size = 3;
  spec.layers[0].direction.push_back(0);
  const RevisionFiles files = WriteRevisionFiles(**SteeringVector::Create(spec), {});
  v1::ImportRevisionRequest request = ImportOf("calm", {});
  v1::RevisionFile& vectors = *request.add_files();
  vectors.set_name("v.safetensors");
  vectors.set_data(files.vectors);
  v1::RevisionFile& document = *request.add_files();
  document.set_name("v.json");
  document.set_data(files.document);
  v1::Objective objective;
  grpc::Status status = Import(request, &objective);
  EXPECT_EQ(Reason(status), "FIELD_INVALID");
  EXPECT_THAT(status.error_message(), HasSubstr("this model has 2"));
  // Files that are damaged, and a summary that is none.
  request.mutable_files(0)->mutable_data()->pop_back();
  EXPECT_EQ(Reason(Import(request, &objective)), "FIELD_INVALID");
  auto json = nlohmann::json::parse(files.document);
  json["summary"] = {{"pairCount", "many"}};
  request.mutable_files(0)->set_data(files.vectors);
  request.mutable_files(1)->set_data(json.dump());
  status = Import(request, &objective);
  EXPECT_THAT(status.error_message(), HasSubstr("summary is no RevisionSummary"));
  request.set_parent("models/absent");
  EXPECT_EQ(Reason(Import(request, &objective)), "MODEL_NOT_FOUND");
}

TEST_F(ObjectiveFilesTest, ExportsSayWhatIsWrong) {
  v1::ExportRevisionResponse response;
  EXPECT_EQ(Reason(Export(ExportOf("models/fake/objectives/none", v1::EXPORT_FORMAT_GGUF), &response)),
            "OBJECTIVE_NOT_FOUND");
  const std::string name = Fitted("calm").name();
  EXPECT_EQ(Reason(Export(ExportOf(name + "/revisions/9", v1::EXPORT_FORMAT_GGUF), &response)), "REVISION_NOT_FOUND");
  v1::ExportRevisionRequest request = ExportOf("calm", static_cast<v1::ExportFormat>(9));
  request.set_gguf_scale(std::numeric_limits<float>::quiet_NaN());
  const grpc::Status status = Export(request, &response);
  for (const char* field : {"name", "format", "gguf_scale"}) EXPECT_THAT(status.error_message(), HasSubstr(field));
  request = ExportOf(name, v1::EXPORT_FORMAT_GGUF);
  request.set_gguf_scale(0);
  EXPECT_THAT(Export(request, &response).error_message(), HasSubstr("must not be 0"));
}

}  // namespace
}  // namespace trimtab
