// The whole server on the small model: starts, serves, fits, drains, starts again.
#include "server/app.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

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
#include "trimtab/methods/v1/grains.pb.h"
#include "trimtab/v1/drift.grpc.pb.h"
#include "trimtab/v1/generation.grpc.pb.h"
#include "trimtab/v1/model.grpc.pb.h"
#include "trimtab/v1/objective.grpc.pb.h"

namespace trimtab {
namespace {

constexpr char kModel[] = "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf";

// What an HTTP GET of /metrics returns.
std::string Scrape(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  const std::string request = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string page;
  char buffer[65536];
  for (ssize_t count; (count = read(fd, buffer, sizeof(buffer))) > 0;) page.append(buffer, count);
  close(fd);
  return page;
}

class AppTest : public ::testing::Test {
 protected:
  AppTest() {
    std::string pattern = ::testing::TempDir() + "/appXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    config_.models = {absl::StrCat("small=", kModel)};
    config_.address = config_.metrics_address = "127.0.0.1:0";
    config_.registry = folder_ + "/registry.db";
    config_.kv_cache_mib = 64;
    config_.drift_suites = {
        "probe=" + Write("probe.jsonl", R"({"subject":"a","question":"1+1?","choices":["2","3"],"answer":0})")};
    config_.neutral_text = Write("neutral.txt", std::string(300, 'n') + " and so it went on for a long while.");
  }
  ~AppTest() override {
    app_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
    return folder_ + "/" + name;
  }
  void Start() {
    auto app = App::Start(config_);
    ASSERT_TRUE(app.ok()) << app.status();
    app_ = *std::move(app);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", app_->port()), grpc::InsecureChannelCredentials());
    generation_ = v1::GenerationService::NewStub(channel_);
  }
  static v1::GenerateRequest Ask(const std::string& question, int tokens) {
    v1::GenerateRequest request;
    request.set_model("models/small");
    v1::Content& content = *request.mutable_conversation()->add_contents();
    content.set_role(v1::ROLE_USER);
    content.add_parts()->set_text(question);
    request.mutable_config()->set_max_output_tokens(tokens);
    return request;
  }
  v1::GenerateResponse Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    v1::GenerateResponse response;
    const grpc::Status status = generation_->Generate(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  int Health(const std::string& service) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse response;
    const auto stub = grpc::health::v1::Health::NewStub(channel_);
    return stub->Check(&context, request, &response).ok() ? response.status() : -1;
  }
  // Six pairs and settings that make a fit quick.
  static v1::RegisterObjectiveRequest Registration() {
    v1::RegisterObjectiveRequest request;
    request.set_parent("models/small");
    request.set_objective_id("cheerful");
    request.set_evaluate_drift(true);
    v1::Objective& objective = *request.mutable_objective();
    objective.set_method("grains");
    methods::v1::GrainsConfig config;
    config.set_attribution(methods::v1::GrainsConfig::ATTRIBUTION_KIND_OCCLUSION);
    config.set_k(3);
    config.mutable_fit()->add_layers(15);
    config.mutable_fit()->add_candidate_strengths(0.05f);
    config.mutable_fit()->set_random_directions(1);
    objective.mutable_method_config()->PackFrom(config);
    for (const char* topic : {"the weather", "your day", "the garden", "my new job", "the train", "dinner"}) {
      v1::PreferencePair& pair = *objective.add_pairs();
      v1::Content& content = *pair.add_prompt();
      content.set_role(v1::ROLE_USER);
      content.add_parts()->set_text(absl::StrCat("What do you think of ", topic, "?"));
      pair.set_preferred("It is wonderful, I love it!");
      pair.set_dispreferred("It is awful, I hate it.");
    }
    return request;
  }

  std::string folder_;
  ServerConfig config_;
  std::unique_ptr<App> app_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GenerationService::Stub> generation_;
};

TEST_F(AppTest, ServesFitsDrainsAndStartsAgain) {
  Start();
  EXPECT_EQ(Health(""), grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("trimtab.v1.GenerationService"), grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("trimtab.v1.GenerationService/models/small"), grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("trimtab.v1.GenerationService/models/other"), -1);

  v1::Model model;
  v1::GetModelRequest get;
  get.set_name("models/small");
  grpc::ClientContext model_context;
  ASSERT_TRUE(v1::ModelService::NewStub(channel_)->GetModel(&model_context, get, &model).ok());
  EXPECT_EQ(model.architecture(), "llama");
  EXPECT_EQ(model.num_layers(), 30);
  EXPECT_EQ(model.hidden_size(), 576);
  EXPECT_EQ(model.parameter_count(), 134'515'008);
  EXPECT_EQ(model.state(), v1::Model::STATE_READY);
  EXPECT_EQ(model.drift_suites(0), "probe");

  const v1::GenerateResponse plain = Generate(Ask("Tell me about elephants.", 20));
  EXPECT_NE(plain.text().find("lephants are"), std::string::npos) << plain.text();

  // Register while it serves.
  google::longrunning::Operation operation;
  grpc::ClientContext register_context;
  ASSERT_TRUE(
      v1::ObjectiveService::NewStub(channel_)->RegisterObjective(&register_context, Registration(), &operation).ok());
  EXPECT_EQ(Generate(Ask("Tell me about elephants.", 20)).text(), plain.text());
  google::longrunning::WaitOperationRequest wait;
  wait.set_name(operation.name());
  grpc::ClientContext wait_context;
  const auto operations = google::longrunning::Operations::NewStub(channel_);
  ASSERT_TRUE(operations->WaitOperation(&wait_context, wait, &operation).ok());
  ASSERT_TRUE(operation.done());
  v1::Objective objective;
  ASSERT_TRUE(operation.response().UnpackTo(&objective)) << operation.error().message();
  EXPECT_EQ(objective.active().layers(0).layer(), 15);
  v1::RegisterObjectiveMetadata metadata;
  ASSERT_TRUE(operation.metadata().UnpackTo(&metadata));
  EXPECT_EQ(metadata.completed_percent(), 100);
  v1::GetDriftReportRequest get_report;
  get_report.set_name(metadata.drift_report());
  v1::DriftReport report;
  grpc::ClientContext report_context;
  ASSERT_TRUE(v1::DriftService::NewStub(channel_)->GetDriftReport(&report_context, get_report, &report).ok());
  EXPECT_EQ(report.items(), 1);

  v1::GenerateRequest steered = Ask("Tell me about elephants.", 20);
  steered.add_steering()->set_objective("cheerful");
  steered.mutable_steering(0)->set_strength(0);
  EXPECT_EQ(Generate(steered).text(), plain.text());
  steered.mutable_steering(0)->set_strength(0.1f);
  const v1::GenerateResponse before = Generate(steered);
  EXPECT_EQ(before.applied(0).digest(), objective.active().digest());
  EXPECT_GT(before.applied(0).steered_tokens(), 0);

  const std::string page = Scrape(app_->metrics_port());
  for (const char* line :
       {"grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"RegisterObjective\"",
        "trimtab_vectors{model=\"small\",state=\"ready\"} 1", "trimtab_jobs_finished_total{kind=\"fit\"",
        "trimtab_vector_requests_total{model=\"small\",vector=\"cheerful\"} 1", "trimtab_drift_accuracy_delta"}) {
    EXPECT_NE(page.find(line), std::string::npos) << line;
  }

  // A stream that runs when the drain begins ends by itself.
  absl::Notification streaming;
  std::thread client([&] {
    v1::GenerateRequest request = Ask("Tell me a long story.", 60);
    request.mutable_config()->set_ignore_eos(true);
    grpc::ClientContext context;
    auto reader = generation_->StreamGenerate(&context, request);
    v1::GenerateResponse piece;
    while (reader->Read(&piece)) {
      if (!streaming.HasBeenNotified()) streaming.Notify();
    }
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_EQ(piece.finish_reason(), v1::FINISH_REASON_LENGTH);
  });
  streaming.WaitForNotification();
  app_->Drain();
  client.join();
  app_.reset();

  Start();
  const v1::GenerateResponse after = Generate(steered);
  EXPECT_EQ(after.text(), before.text());
  EXPECT_EQ(after.applied(0).digest(), before.applied(0).digest());
}

TEST_F(AppTest, SaysWhyItCannotStart) {
  const auto error = [this](auto change) {
    ServerConfig config = config_;
    change(config);
    return App::Start(config).status();
  };
  const absl::Status model = error([](ServerConfig& config) { config.models = {"/nowhere/model.gguf"}; });
  EXPECT_EQ(model.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(model.message().find("/nowhere/model.gguf"), absl::string_view::npos);
  EXPECT_EQ(error([](ServerConfig& config) { config.address = "0.0.0.0:0"; }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(error([](ServerConfig& config) { config.registry = "/nowhere/registry.db"; }).ok());
  EXPECT_FALSE(error([](ServerConfig& config) { config.drift_suites = {"a=/nowhere"}; }).ok());
  Start();
  const absl::Status in_use = error([this](ServerConfig& config) {
    config.registry += "2";
    config.address = absl::StrCat("127.0.0.1:", app_->port());
  });
  EXPECT_EQ(in_use.code(), absl::StatusCode::kUnavailable) << in_use;
  // Two servers on one registry would undo each other's work.
  EXPECT_EQ(error([](ServerConfig&) {}).code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace trimtab
