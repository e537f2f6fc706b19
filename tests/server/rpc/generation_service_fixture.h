// What the generation service's tests share.
#ifndef TRIMTAB_TESTS_SERVER_RPC_GENERATION_SERVICE_FIXTURE_H_
#define TRIMTAB_TESTS_SERVER_RPC_GENERATION_SERVICE_FIXTURE_H_

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/rpc/generation_service.h"
#include "tests/server/rpc/fake_model.h"
#include "tests/server/rpc/test_server.h"

namespace trimtab {

inline std::shared_ptr<const SteeringVector> MakeVector(const std::string& fingerprint) {
  SteeringVectorSpec spec;
  spec.model_fingerprint = fingerprint;
  spec.method = "grains";
  spec.hidden_size = 2;
  spec.layers = {{.layer = 1, .direction = {0.6f, 0.8f}}};
  auto vector = SteeringVector::Create(std::move(spec));
  EXPECT_TRUE(vector.ok()) << vector.status();
  return *vector;
}

// A server with the generation service over a fake model.
class GenerationServiceFixture : public ::testing::Test {
 protected:
  GenerationServiceFixture() {
    models_.Add(model_);
    environment_.models = &models_;
    environment_.vectors = &vectors_;
    environment_.clock = &clock_;
    environment_.prep = &prep_;
    environment_.egress = &egress_;
    environment_.id_prefix = "test";
    service_ = std::make_unique<GenerationServiceImpl>(environment_);
    server_ = std::make_unique<TestServer>(std::vector<grpc::Service*>{service_.get()});
    stub_ = v1::GenerationService::NewStub(server_->channel);
  }

  void PutObjective(ServedObjective::State state = ServedObjective::State::kActive) {
    auto objective = std::make_shared<ServedObjective>();
    objective->name = "models/fake/objectives/calm";
    objective->state = state;
    objective->active_revision = 2;
    objective->revisions = {{1, MakeVector("fingerprint-of-other")}, {2, vector_}};
    objective->default_strength = 0.05f;
    objective->max_strength = 0.3f;
    vectors_.Put(objective);
  }

  static v1::GenerateRequest Prompt(const std::string& text) {
    v1::GenerateRequest request;
    request.set_model("models/fake");
    request.set_prompt(text);
    return request;
  }

  grpc::Status Generate(const v1::GenerateRequest& request, v1::GenerateResponse* response) {
    grpc::ClientContext context;
    return stub_->Generate(&context, request, response);
  }

  // All pieces of a stream.
  grpc::Status Stream(const v1::GenerateRequest& request, std::vector<v1::GenerateResponse>* pieces) {
    grpc::ClientContext context;
    auto reader = stub_->StreamGenerate(&context, request);
    v1::GenerateResponse piece;
    while (reader->Read(&piece)) pieces->push_back(piece);
    return reader->Finish();
  }

  RealClock clock_;
  const std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>();
  const std::shared_ptr<const SteeringVector> vector_ = MakeVector("fingerprint-of-fake");
  ModelDirectory models_;
  VectorStore vectors_;
  Executor prep_{2, 1000};
  Executor egress_{2, 1000};
  CallEnvironment environment_;
  std::unique_ptr<GenerationServiceImpl> service_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_RPC_GENERATION_SERVICE_FIXTURE_H_
