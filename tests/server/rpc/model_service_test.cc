#include "server/rpc/model_service.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/empty.pb.h"
#include "server/registry/sqlite_registry.h"
#include "server/rpc/to_proto.h"
#include "tests/server/rpc/fake_model.h"
#include "tests/server/rpc/test_server.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;
using ::testing::ElementsAre;

// Takes every path but "missing".
class FakeAdmin final : public ModelAdmin {
 public:
  explicit FakeAdmin(ModelDirectory& models) : models_(models) {}
  absl::StatusOr<v1::Model> CheckLoad(const v1::LoadModelRequest& request) override {
    if (request.path() == "missing") return FieldError({{"path", "is not there"}});
    if (models_.Describe(request.model_id()).ok()) {
      return ReasonError(absl::StatusCode::kAlreadyExists, kModelExists, "it is there");
    }
    v1::Model model;
    model.set_name(ModelName(request.model_id()));
    model.set_path(request.path());
    model.set_state(v1::Model::STATE_LOADING);
    return model;
  }
  void BeginLoad(const v1::Model& model) override { models_.Announce(model); }
  absl::Status CheckUnload(const std::string& id) override { return models_.Find(id).status(); }
  void BeginUnload(const std::string& id) override {
    v1::Model model;
    model.set_name(ModelName(id));
    model.set_state(v1::Model::STATE_UNLOADING);
    models_.Announce(model);
  }

 private:
  ModelDirectory& models_;
};

// The jobs themselves are not run: nobody has registered their kinds.
class ModelServiceTest : public ::testing::Test {
 protected:
  ModelServiceTest() : folder_(MakeFolder()) {
    registry_ = *SqliteRegistry::Open(folder_ + "/registry.db", clock_);
    for (const char* id : {"c", "a", "b"}) models_.Add(std::make_shared<FakeModel>(id));
    jobs_ = std::make_unique<JobManager>(*registry_, JobManagerConfig{.max_queued = 3}, clock_, nullptr);
    EXPECT_TRUE(jobs_->Start().ok());
    service_ = std::make_unique<ModelServiceImpl>(
        ModelServiceImpl::Parts{models_, admin_, *registry_, *jobs_, page_tokens_, executor_, clock_});
    server_ = std::make_unique<TestServer>(std::vector<grpc::Service*>{service_.get()});
    stub_ = v1::ModelService::NewStub(server_->channel);
  }
  ~ModelServiceTest() override {
    server_.reset();
    jobs_.reset();
    registry_.reset();
    std::filesystem::remove_all(folder_);
  }

  grpc::Status Load(const v1::LoadModelRequest& request, Operation* operation) {
    grpc::ClientContext context;
    return stub_->LoadModel(&context, request, operation);
  }
  grpc::Status Unload(const v1::UnloadModelRequest& request, Operation* operation) {
    grpc::ClientContext context;
    return stub_->UnloadModel(&context, request, operation);
  }
  static v1::LoadModelRequest LoadRequest(const std::string& id, const std::string& request_id = "") {
    v1::LoadModelRequest request;
    request.set_model_id(id);
    request.set_path("x.gguf");
    request.set_request_id(request_id);
    return request;
  }

  const RealClock clock_;
  const std::string folder_;
  std::unique_ptr<SqliteRegistry> registry_;
  ModelDirectory models_;
  FakeAdmin admin_{models_};
  PageTokenCodec page_tokens_{"key"};
  Executor executor_{2, 1000};
  std::unique_ptr<JobManager> jobs_;
  std::unique_ptr<ModelServiceImpl> service_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<v1::ModelService::Stub> stub_;

 private:
  static std::string MakeFolder() {
    std::string pattern = ::testing::TempDir() + "/modelsXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    return pattern;
  }
};

TEST_F(ModelServiceTest, ModelsAreListedInPages) {
  v1::Model loading;
  loading.set_name("models/d");
  loading.set_state(v1::Model::STATE_LOADING);
  models_.Announce(loading);
  std::vector<std::string> names;
  v1::ListModelsRequest request;
  request.set_page_size(2);
  for (int page = 0; page < 2; ++page) {
    v1::ListModelsResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(stub_->ListModels(&context, request, &response).ok());
    for (const v1::Model& model : response.models()) names.push_back(model.name());
    EXPECT_EQ(response.next_page_token().empty(), page == 1);
    request.set_page_token(response.next_page_token());
  }
  EXPECT_THAT(names, ElementsAre("models/a", "models/b", "models/c", "models/d"));

  v1::Model model;
  v1::GetModelRequest get;
  get.set_name("models/b");
  grpc::ClientContext found;
  ASSERT_TRUE(stub_->GetModel(&found, get, &model).ok());
  EXPECT_EQ(model.name(), "models/b");
  get.set_name("models/e");
  grpc::ClientContext missing;
  const grpc::Status status = stub_->GetModel(&missing, get, &model);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Reason(status), "MODEL_NOT_FOUND");
  EXPECT_EQ(GetErrorDetail(FromGrpcStatus(status)).resource_name, "models/e");
  get.set_name("d");
  grpc::ClientContext invalid;
  EXPECT_EQ(Reason(stub_->GetModel(&invalid, get, &model)), "FIELD_INVALID");
}

TEST_F(ModelServiceTest, ALoadIsDurableAndTakesTheName) {
  Operation operation;
  ASSERT_TRUE(Load(LoadRequest("new", "r1"), &operation).ok());
  EXPECT_FALSE(operation.done());
  v1::LoadModelMetadata metadata;
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata)) << operation.ShortDebugString();
  EXPECT_EQ(metadata.model(), "models/new");
  EXPECT_EQ(metadata.phase(), v1::LoadModelMetadata::PHASE_QUEUED);
  const JobRecord job = *registry_->GetJob(operation.name());
  EXPECT_EQ(job.kind, kLoadJob);
  EXPECT_EQ(job.target, "models/new");
  EXPECT_EQ(models_.Describe("new")->state(), v1::Model::STATE_LOADING);

  Operation again;
  ASSERT_TRUE(Load(LoadRequest("new", "r1"), &again).ok());
  EXPECT_EQ(again.name(), operation.name());
  EXPECT_EQ(Reason(Load(LoadRequest("new", "r2"), &again)), "MODEL_EXISTS");
  EXPECT_EQ(Reason(Load(LoadRequest("other", "r1"), &again)), "FIELD_INVALID");
  EXPECT_EQ(registry_->ListJobs({})->size(), 1u);
}

TEST_F(ModelServiceTest, ValidateOnlyChangesNothing) {
  v1::LoadModelRequest load = LoadRequest("new", "r1");
  load.set_validate_only(true);
  Operation operation;
  ASSERT_TRUE(Load(load, &operation).ok());
  EXPECT_TRUE(operation.done());
  v1::Model model;
  ASSERT_TRUE(operation.response().UnpackTo(&model));
  EXPECT_EQ(model.path(), "x.gguf");
  load.set_path("missing");
  EXPECT_EQ(Reason(Load(load, &operation)), "FIELD_INVALID");
  v1::UnloadModelRequest unload;
  unload.set_name("models/a");
  unload.set_validate_only(true);
  ASSERT_TRUE(Unload(unload, &operation).ok());
  EXPECT_TRUE(operation.done());
  EXPECT_TRUE(operation.response().Is<google::protobuf::Empty>());
  EXPECT_TRUE(registry_->ListJobs({})->empty());
  EXPECT_TRUE(models_.Find("a").ok());
  EXPECT_FALSE(models_.Describe("new").ok());
}

TEST_F(ModelServiceTest, AnUnloadRefusesCallsAtOnce) {
  v1::UnloadModelRequest request;
  request.set_name("models/none");
  Operation operation;
  EXPECT_EQ(Reason(Unload(request, &operation)), "MODEL_NOT_FOUND");
  request.set_name("models/a");
  request.set_request_id("r1");
  ASSERT_TRUE(Unload(request, &operation).ok());
  v1::UnloadModelMetadata metadata;
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata));
  EXPECT_EQ(metadata.model(), "models/a");
  EXPECT_EQ(GetErrorDetail(models_.Find("a").status()).reason, kModelNotReady);
  Operation again;
  ASSERT_TRUE(Unload(request, &again).ok());
  EXPECT_EQ(again.name(), operation.name());
  request.set_request_id("r2");
  EXPECT_EQ(Reason(Unload(request, &again)), "MODEL_NOT_READY");
}

}  // namespace
}  // namespace trimtab
