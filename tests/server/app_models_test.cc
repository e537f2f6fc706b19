// Several models in one server, through its RPCs: loaded beside each other, each with its objectives, unloaded while
// calls run, remembered.
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/app.h"
#include "server/base/error.h"
#include "server/rpc/grpc_status.h"
#include "tests/server/model_folder.h"
#include "trimtab/methods/v1/grains.pb.h"
#include "trimtab/v1/generation.grpc.pb.h"
#include "trimtab/v1/model.grpc.pb.h"
#include "trimtab/v1/objective.grpc.pb.h"

namespace trimtab {
namespace {

using google::longrunning::Operation;
using grpc::health::v1::HealthCheckResponse;

std::string Reason(const grpc::Status& status) {
  return status.ok() ? "" : GetErrorDetail(FromGrpcStatus(status)).reason;
}

class AppModelsTest : public ::testing::Test {
 protected:
  AppModelsTest() {
    std::string pattern = ::testing::TempDir() + "/appmodelsXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    CopyModel("tiny", folder_, "first");
    CopyModel("tiny", folder_ + "/root", "tiny");
    CopyModel("tiny_biased", folder_ + "/root", "biased");
    std::ofstream(folder_ + "/neutral.txt") << std::string(300, 'n');
    config_.models = {"first=" + folder_ + "/first"};
    config_.model_root = folder_ + "/root";
    config_.address = "127.0.0.1:0";
    config_.metrics_address = "";
    config_.registry = folder_ + "/registry.db";
    config_.neutral_text = folder_ + "/neutral.txt";
    config_.kv_cache_mib = 4;
    config_.engine_threads = 1;
    config_.idle_jobs = false;
    Start();
  }
  ~AppModelsTest() override {
    app_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Start() {
    app_.reset();
    auto app = App::Start(config_);
    ASSERT_TRUE(app.ok()) << app.status();
    app_ = *std::move(app);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", app_->port()), grpc::InsecureChannelCredentials());
    generation_ = v1::GenerationService::NewStub(channel_);
    models_ = v1::ModelService::NewStub(channel_);
    objectives_ = v1::ObjectiveService::NewStub(channel_);
    operations_ = google::longrunning::Operations::NewStub(channel_);
  }

  Operation Await(const Operation& started) {
    google::longrunning::WaitOperationRequest request;
    request.set_name(started.name());
    Operation operation;
    grpc::ClientContext context;
    const grpc::Status status = operations_->WaitOperation(&context, request, &operation);
    EXPECT_TRUE(status.ok() && operation.done()) << status.error_message();
    return operation;
  }
  Operation StartLoad(const std::string& id, const std::string& path) {
    v1::LoadModelRequest request;
    request.set_model_id(id);
    request.set_path(path);
    Operation operation;
    grpc::ClientContext context;
    const grpc::Status status = models_->LoadModel(&context, request, &operation);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return operation;
  }
  v1::Model Load(const std::string& id, const std::string& path) {
    const Operation operation = Await(StartLoad(id, path));
    v1::Model model;
    EXPECT_TRUE(operation.response().UnpackTo(&model)) << operation.ShortDebugString();
    return model;
  }
  Operation StartUnload(const std::string& id, int drain_seconds) {
    v1::UnloadModelRequest request;
    request.set_name("models/" + id);
    request.mutable_drain_timeout()->set_seconds(drain_seconds);
    Operation operation;
    grpc::ClientContext context;
    const grpc::Status status = models_->UnloadModel(&context, request, &operation);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return operation;
  }
  v1::Model::State StateOf(const std::string& id) {
    v1::GetModelRequest request;
    request.set_name("models/" + id);
    v1::Model model;
    grpc::ClientContext context;
    return models_->GetModel(&context, request, &model).ok() ? model.state() : v1::Model::STATE_UNSPECIFIED;
  }
  int Health(const std::string& model) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service("trimtab.v1.GenerationService/models/" + model);
    HealthCheckResponse response;
    const auto stub = grpc::health::v1::Health::NewStub(channel_);
    return stub->Check(&context, request, &response).ok() ? response.status() : -1;
  }

  static v1::GenerateRequest Ask(const std::string& model, int tokens) {
    v1::GenerateRequest request;
    request.set_model("models/" + model);
    request.set_prompt("some text");
    request.mutable_config()->set_max_output_tokens(tokens);
    request.mutable_config()->set_ignore_eos(true);
    return request;
  }
  static v1::GenerateRequest Steered(const std::string& model, float strength) {
    v1::GenerateRequest request = Ask(model, 8);
    request.add_steering()->set_objective("calm");
    request.mutable_steering(0)->set_strength(strength);
    return request;
  }
  grpc::Status Generate(const v1::GenerateRequest& request, v1::GenerateResponse* response = nullptr) {
    grpc::ClientContext context;
    v1::GenerateResponse unused;
    return generation_->Generate(&context, request, response != nullptr ? response : &unused);
  }

  v1::Objective Register(const std::string& model) {
    v1::RegisterObjectiveRequest request;
    request.set_parent("models/" + model);
    request.set_objective_id("calm");
    v1::Objective& objective = *request.mutable_objective();
    objective.set_method("grains");
    methods::v1::GrainsConfig config;
    config.set_k(2);
    config.mutable_fit()->set_random_directions(1);
    config.mutable_fit()->add_layers(1);
    config.mutable_fit()->add_candidate_strengths(0.05f);
    objective.mutable_method_config()->PackFrom(config);
    for (int i = 0; i < 6; ++i) {
      v1::PreferencePair& pair = *objective.add_pairs();
      v1::Content& content = *pair.add_prompt();
      content.set_role(v1::ROLE_USER);
      content.add_parts()->set_text(absl::StrCat("question number ", i));
      pair.set_preferred("yes!");
      pair.set_dispreferred("no..");
    }
    Operation operation;
    grpc::ClientContext context;
    const grpc::Status status = objectives_->RegisterObjective(&context, request, &operation);
    EXPECT_TRUE(status.ok()) << status.error_message();
    operation = Await(operation);
    v1::Objective fitted;
    EXPECT_TRUE(operation.response().UnpackTo(&fitted)) << operation.ShortDebugString();
    return fitted;
  }
  v1::ListObjectivesResponse ListObjectives(const std::string& model, std::string* reason = nullptr) {
    v1::ListObjectivesRequest request;
    request.set_parent("models/" + model);
    v1::ListObjectivesResponse response;
    grpc::ClientContext context;
    const grpc::Status status = objectives_->ListObjectives(&context, request, &response);
    if (reason != nullptr) *reason = Reason(status);
    return response;
  }

  std::string folder_;
  ServerConfig config_;
  std::unique_ptr<App> app_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GenerationService::Stub> generation_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<v1::ObjectiveService::Stub> objectives_;
  std::unique_ptr<google::longrunning::Operations::Stub> operations_;
};

TEST_F(AppModelsTest, TwoModelsServeWithTheirOwnObjectivesAndAreFoundAgain) {
  EXPECT_EQ(Health("second"), -1);
  const v1::Model second = Load("second", "biased");
  EXPECT_EQ(second.state(), v1::Model::STATE_READY);
  EXPECT_EQ(Health("first"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("second"), HealthCheckResponse::SERVING);

  // The same answers alone and at the same time.
  v1::GenerateResponse first_alone, second_alone;
  ASSERT_TRUE(Generate(Ask("first", 30), &first_alone).ok());
  ASSERT_TRUE(Generate(Ask("second", 30), &second_alone).ok());
  EXPECT_NE(first_alone.text(), second_alone.text());
  std::vector<std::thread> clients;
  for (const std::string model : {"first", "second", "first", "second"}) {
    clients.emplace_back([&, model] {
      for (int i = 0; i < 10; ++i) {
        v1::GenerateResponse response;
        EXPECT_TRUE(Generate(Ask(model, 30), &response).ok());
        EXPECT_EQ(response.text(), model == "first" ? first_alone.text() : second_alone.text());
      }
    });
  }
  for (std::thread& client : clients) client.join();

  // An objective of the same id on each.
  const v1::Objective first_calm = Register("first"), second_calm = Register("second");
  EXPECT_NE(first_calm.active().digest(), second_calm.active().digest());
  v1::GenerateResponse before;
  ASSERT_TRUE(Generate(Steered("second", 0.3f), &before).ok());
  EXPECT_EQ(before.applied(0).digest(), second_calm.active().digest());
  // A vector of the one by its full name for the other: never.
  v1::GenerateRequest foreign = Steered("first", 0.3f);
  foreign.mutable_steering(0)->set_objective("models/second/objectives/calm");
  EXPECT_EQ(Reason(Generate(foreign)), "FIELD_INVALID");

  Start();
  EXPECT_EQ(StateOf("second"), v1::Model::STATE_READY);
  v1::GenerateResponse after;
  ASSERT_TRUE(Generate(Steered("second", 0.3f), &after).ok());
  EXPECT_EQ(after.text(), before.text());
  EXPECT_EQ(after.applied(0).digest(), before.applied(0).digest());
}

TEST_F(AppModelsTest, ABaseModelTakesRawPromptsOnly) {
  CopyModel("tiny", folder_ + "/root", "base");
  const std::string tokenizer_config = folder_ + "/root/base/tokenizer_config.json";
  std::filesystem::remove(tokenizer_config);
  std::ofstream(tokenizer_config) << R"({"eos_token": "<|end|>"})";
  EXPECT_FALSE(Load("base", "base").has_chat_template());

  v1::GenerateRequest chat = Ask("base", 5);
  v1::Content& content = *chat.mutable_conversation()->add_contents();
  content.set_role(v1::ROLE_USER);
  content.add_parts()->set_text("some text");
  const grpc::Status refused = Generate(chat);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Reason(refused), "FIELD_INVALID");
  EXPECT_THAT(refused.error_message(), testing::HasSubstr("no chat template: send a raw prompt"));

  v1::GenerateResponse response;
  EXPECT_TRUE(Generate(Ask("base", 5), &response).ok());
  EXPECT_EQ(response.usage().output_tokens(), 5);
}

TEST_F(AppModelsTest, AnUnloadLetsAStreamEndAndKeepsTheObjectives) {
  Load("second", "biased");
  const v1::Objective calm = Register("second");
  grpc::ClientContext context;
  auto reader = generation_->StreamGenerate(&context, Ask("second", 200));
  v1::GenerateResponse piece;
  ASSERT_TRUE(reader->Read(&piece));
  const Operation unload = StartUnload("second", 3600);
  // However far the unload has come.
  EXPECT_THAT(Reason(Generate(Ask("second", 1))), ::testing::AnyOf("MODEL_NOT_READY", "MODEL_NOT_FOUND"));
  int64_t tokens = piece.token_ids_size();
  while (reader->Read(&piece)) tokens += piece.token_ids_size();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 200);
  EXPECT_EQ(piece.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_FALSE(Await(unload).has_error());
  EXPECT_EQ(StateOf("second"), v1::Model::STATE_UNSPECIFIED);
  EXPECT_EQ(Health("second"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("first"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Reason(Generate(Ask("second", 1))), "MODEL_NOT_FOUND");
  EXPECT_TRUE(Generate(Ask("first", 1)).ok());

  std::string reason;
  EXPECT_EQ(ListObjectives("second").objectives_size(), 1);
  ListObjectives("third", &reason);
  EXPECT_EQ(reason, "MODEL_NOT_FOUND");
  EXPECT_EQ(Reason(Generate(Steered("second", 0.3f))), "MODEL_NOT_FOUND");
  Start();
  EXPECT_EQ(StateOf("second"), v1::Model::STATE_UNSPECIFIED);

  // The objectives come back with the weights they were fitted on, and with no others.
  Load("second", "biased");
  v1::GenerateResponse steered;
  ASSERT_TRUE(Generate(Steered("second", 0.3f), &steered).ok());
  EXPECT_EQ(steered.applied(0).digest(), calm.active().digest());
  EXPECT_FALSE(Await(StartUnload("second", 0)).has_error());
  Load("second", "tiny");
  EXPECT_EQ(Reason(Generate(Steered("second", 0.3f))), "FINGERPRINT_MISMATCH");
  EXPECT_TRUE(Generate(Ask("second", 1)).ok());
}

TEST_F(AppModelsTest, AnUnloadWithoutTimeAbortsAStream) {
  Load("second", "biased");
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (int i = 0; i < 8; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(generation_->StreamGenerate(contexts.back().get(), Ask("second", 240)));
  }
  for (auto& reader : readers) {
    v1::GenerateResponse piece;
    ASSERT_TRUE(reader->Read(&piece));
  }
  EXPECT_FALSE(Await(StartUnload("second", 0)).has_error());
  for (auto& reader : readers) {
    v1::GenerateResponse piece;
    while (reader->Read(&piece)) {
    }
    // It had ended already, or it was told why it ends, or it was broken off in the middle of a message.
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok() || Reason(status) == "MODEL_NOT_READY" ||
                status.error_code() == grpc::StatusCode::CANCELLED)
        << status.error_message();
  }
  EXPECT_TRUE(Generate(Ask("first", 1)).ok());
}

TEST_F(AppModelsTest, AConfiguredModelComesBackWithTheServer) {
  EXPECT_FALSE(Await(StartUnload("first", 0)).has_error());
  EXPECT_EQ(Reason(Generate(Ask("first", 1))), "MODEL_NOT_FOUND");
  Start();
  EXPECT_TRUE(Generate(Ask("first", 1)).ok());
}

TEST_F(AppModelsTest, CallsAreCheckedBeforeAnythingIsDone) {
  const auto reason_of_load = [this](const std::string& id, const std::string& path) {
    v1::LoadModelRequest request;
    request.set_model_id(id);
    request.set_path(path);
    Operation operation;
    grpc::ClientContext context;
    return Reason(models_->LoadModel(&context, request, &operation));
  };
  EXPECT_EQ(reason_of_load("second", "../first"), "FIELD_INVALID");
  EXPECT_EQ(reason_of_load("second", folder_ + "/first"), "FIELD_INVALID");
  EXPECT_EQ(reason_of_load("Second", "biased"), "FIELD_INVALID");
  EXPECT_EQ(reason_of_load("first", "biased"), "MODEL_EXISTS");
  std::ofstream(folder_ + "/root/broken.gguf") << "nothing of that kind";
  EXPECT_EQ(reason_of_load("second", "broken.gguf"), "MODEL_FILE_INVALID");
  EXPECT_EQ(StateOf("second"), v1::Model::STATE_UNSPECIFIED);
  config_.model_root = "";
  Start();
  EXPECT_EQ(reason_of_load("second", "biased"), "LOADING_DISABLED");
}

}  // namespace
}  // namespace trimtab
