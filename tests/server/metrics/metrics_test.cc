#include "server/metrics/metrics.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/base/error.h"
#include "tests/server/metrics/metrics_fixture.h"

namespace trimtab {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// The tables of docs/metrics.md.
std::map<std::string, Family> Documented() {
  std::ifstream file("docs/metrics.md");
  EXPECT_TRUE(file.good());
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  std::map<std::string, Family> families;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, "| `")) continue;
    const std::vector<std::string> cells = absl::StrSplit(line, '|');
    const std::string name(absl::StripAsciiWhitespace(
        absl::StripSuffix(absl::StripPrefix(absl::StripAsciiWhitespace(cells[1]), "`"), "`")));
    Family family{.type = std::string(absl::StripAsciiWhitespace(cells[2])), .help = cells[4]};
    for (const absl::string_view label : absl::StrSplit(cells[3], ',')) {
      const std::string stripped(absl::StripAsciiWhitespace(label));
      if (!stripped.empty()) family.labels.insert(stripped);
    }
    EXPECT_TRUE(families.emplace(name, family).second) << "documented twice: " << name;
  }
  return families;
}

// What `promtool check metrics` asks for.
TEST_F(MetricsTest, NamesFollowTheConventions) {
  Exercise();
  const Exposition exposition = Scrape();
  for (const auto& [name, family] : exposition.families) {
    SCOPED_TRACE(name);
    EXPECT_THAT(family.help, Not(IsEmpty()));
    EXPECT_THAT(family.type, testing::AnyOf("counter", "gauge", "histogram"));
    EXPECT_EQ(absl::EndsWith(name, "_total"), family.type == "counter");
    for (const char c : name) EXPECT_TRUE(std::islower(c) || std::isdigit(c) || c == '_') << c;
    for (const char* suffix : {"_count", "_sum", "_bucket"}) EXPECT_FALSE(absl::EndsWith(name, suffix));
    for (const std::string& word : std::vector<std::string>(absl::StrSplit(name, '_'))) {
      EXPECT_THAT(word, Not(testing::AnyOf("counter", "gauge", "histogram", "ms", "milliseconds", "kb", "mb", "percent",
                                           "minutes", "hours")));
    }
    EXPECT_FALSE(family.labels.contains("le"));
    for (const std::string& label : family.labels) {
      EXPECT_THAT(label, Not(testing::AnyOf("request_id", "user", "tenant", "prompt", "peer", "instance", "job")));
    }
  }
}

TEST_F(MetricsTest, PromtoolAgrees) {
  if (std::system("promtool --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "promtool is not installed";
  Exercise();
  FILE* promtool = popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  const std::string text = metrics_.Scrape();
  EXPECT_EQ(fwrite(text.data(), 1, text.size(), promtool), text.size());
  EXPECT_EQ(pclose(promtool), 0);
}

TEST_F(MetricsTest, TheSeriesAreBounded) {
  Exercise();
  const Exposition exposition = Scrape();
  EXPECT_LE(exposition.series.size(), 5000u);
  RecordProperty("series", static_cast<int>(exposition.series.size()));
  printf("%zu series\n", exposition.series.size());
  std::set<std::string> vectors;
  for (const auto& [series, value] : exposition.series) {
    if (absl::StartsWith(series, "trimtab_vector_requests_total")) vectors.insert(series);
  }
  EXPECT_EQ(vectors.size(), 65u);
  EXPECT_EQ(Value("trimtab_vector_requests_total{model=\"small\",vector=\"__other__\"}"), 6);
}

TEST_F(MetricsTest, TheDocumentationAndTheServerAgree) {
  Exercise();
  std::map<std::string, Family> documented = Documented();
  for (const char* of_the_exposer :
       {"exposer_transferred_bytes_total", "exposer_scrapes_total", "exposer_request_latencies"}) {
    EXPECT_EQ(documented.erase(of_the_exposer), 1u);
  }
  const Exposition exposition = Scrape();
  for (const auto& [name, family] : exposition.families) {
    const auto found = documented.find(name);
    if (found == documented.end()) {
      ADD_FAILURE() << name << " is not documented";
      continue;
    }
    EXPECT_EQ(found->second.type, family.type) << name;
    EXPECT_EQ(found->second.labels, family.labels) << name;
  }
  for (const auto& [name, family] : documented) {
    EXPECT_TRUE(exposition.families.contains(name)) << name << " is documented, but not exported";
  }
}

TEST_F(MetricsTest, SeriesOfEnumsExistFromTheStart) {
  const Exposition exposition = Scrape();
  for (const char* series :
       {"trimtab_requests_finished_total{finish_reason=\"deadline\",model=\"small\"}",
        "trimtab_requests_rejected_total{reason=\"queue_full\"}", "trimtab_requests_rejected_total{reason=\"other\"}",
        "trimtab_prompt_tokens_total{model=\"small\",source=\"prefix_cache\"}",
        "trimtab_generation_tokens_total{model=\"small\",steered=\"true\"}",
        "trimtab_time_to_first_token_seconds_count{model=\"small\",steered=\"true\"}",
        "trimtab_step_seconds_count{model=\"small\",phase=\"decode\"}",
        "trimtab_vectors{model=\"small\",state=\"incompatible\"}", "trimtab_jobs{kind=\"drift\",state=\"running\"}",
        "trimtab_jobs_finished_total{kind=\"fit\",result=\"cancelled\"}", "trimtab_nonfinite_total{model=\"small\"}",
        "trimtab_registry_errors_total{backend=\"sqlite\",op=\"write\"}",
        "trimtab_audit_events_total{action=\"commit_fit\",result=\"failed\"}", "trimtab_draining",
        "trimtab_vector_requests_total{model=\"small\",vector=\"__other__\"}"}) {
    const auto found = exposition.series.find(series);
    EXPECT_TRUE(found != exposition.series.end() && found->second == 0) << series;
  }
  EXPECT_EQ(Value("trimtab_max_running_requests{model=\"small\"}"), 64);
  EXPECT_EQ(Value("trimtab_cache_config_info{block_size=\"16\",model=\"small\",num_blocks=\"1000\"}"), 1);
  EXPECT_EQ(Value("trimtab_model_info{model=\"small\",quantization=\"Q4_1\",sha256=\"feed\"}"), 1);
  EXPECT_EQ(Value("trimtab_build_info{revision=\"abc\",version=\"1.2.3\"}"), 1);
}

TEST_F(MetricsTest, ShowsJobs) {
  metrics_.OnJobCounts("fit", 2, 1);
  metrics_.OnJobProgress("fit", 0.5, absl::Seconds(30));
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(Value("trimtab_jobs{kind=\"fit\",state=\"queued\"}"), 2);
  EXPECT_EQ(Value("trimtab_job_progress_ratio{kind=\"fit\"}"), 0.5);
  // Grows although nothing was reported.
  EXPECT_EQ(Value("trimtab_job_oldest_running_age_seconds{kind=\"fit\"}"), 40);
  metrics_.OnJobEnd("fit", "succeeded", absl::Seconds(3), absl::Seconds(40));
  metrics_.OnJobCounts("fit", 0, 0);
  EXPECT_EQ(Value("trimtab_jobs_finished_total{kind=\"fit\",result=\"succeeded\"}"), 1);
  EXPECT_EQ(Value("trimtab_job_run_seconds_sum{kind=\"fit\"}"), 40);
  EXPECT_EQ(Value("trimtab_job_queue_seconds_sum{kind=\"fit\"}"), 3);
  EXPECT_EQ(Value("trimtab_job_oldest_running_age_seconds{kind=\"fit\"}"), 0);
  EXPECT_EQ(Value("trimtab_job_progress_ratio{kind=\"fit\"}"), 0);
}

TEST_F(MetricsTest, CountsChangesOfTheRegistry) {
  metrics_.SetRegistryRevision(41);
  metrics_.OnChange("commit_fit");
  metrics_.OnStorageFailure("commit_fit", absl::UnavailableError("full"));
  metrics_.OnStorageFailure("get_objective", absl::DataLossError("damaged"));
  metrics_.OnStorageFailure("save_partial", absl::UnavailableError("full"));
  EXPECT_EQ(Value("trimtab_registry_revision{backend=\"sqlite\"}"), 42);
  EXPECT_EQ(Value("trimtab_registry_errors_total{backend=\"sqlite\",op=\"read\"}"), 1);
  EXPECT_EQ(Value("trimtab_registry_errors_total{backend=\"sqlite\",op=\"write\"}"), 2);
  EXPECT_EQ(Value("trimtab_audit_events_total{action=\"commit_fit\",result=\"succeeded\"}"), 1);
  EXPECT_EQ(Value("trimtab_audit_events_total{action=\"commit_fit\",result=\"failed\"}"), 1);
  EXPECT_EQ(Value("trimtab_audit_write_failures_total"), 1);
}

TEST_F(MetricsTest, CountsRejectionsByReason) {
  metrics_.OnRequestRejected(OverloadError(kQueueFull, "full", absl::Seconds(1)));
  metrics_.OnRequestRejected(NotFoundError(kObjectiveNotFound, "objective", "x"));
  metrics_.OnRequestRejected(FieldError({{"model", "is missing"}}));
  metrics_.OnRequestRejected(absl::InternalError("without a reason"));
  for (const char* reason : {"queue_full", "unknown_vector", "invalid", "other"}) {
    EXPECT_EQ(Value(absl::StrCat("trimtab_requests_rejected_total{reason=\"", reason, "\"}")), 1) << reason;
  }
}

TEST_F(MetricsTest, CountsRpcs) {
  const RpcMethod method{.type = "unary", .service = "trimtab.v1.GenerationService", .method = "Generate"};
  metrics_.grpc().OnRpcStarted(method);
  metrics_.grpc().OnRpcMessageReceived(method);
  metrics_.grpc().OnRpcHandled(method, grpc::StatusCode::NOT_FOUND, absl::Milliseconds(20));
  metrics_.grpc().OnRpcMessageSent(method);
  const std::string labels =
      "grpc_method=\"Generate\",grpc_service=\"trimtab.v1.GenerationService\",grpc_type=\"unary\"}";
  EXPECT_EQ(Value("grpc_server_started_total{" + labels), 1);
  EXPECT_EQ(Value("grpc_server_msg_received_total{" + labels), 1);
  EXPECT_EQ(Value("grpc_server_msg_sent_total{" + labels), 1);
  EXPECT_EQ(Value("grpc_server_handled_total{grpc_code=\"NotFound\"," + labels), 1);
  EXPECT_EQ(Value("grpc_server_handled_total{grpc_code=\"OK\"," + labels), 0);
  EXPECT_DOUBLE_EQ(Value("grpc_server_handling_seconds_sum{" + labels), 0.02);
}

TEST_F(MetricsTest, MethodsAreBounded) {
  for (int i = 0; i < 100; ++i) metrics_.grpc().OnRpcStarted(Method(i));
  EXPECT_EQ(Value("grpc_server_started_total{grpc_method=\"unknown\",grpc_service=\"unknown\","
                  "grpc_type=\"unknown\"}"),
            36);
}

TEST_F(MetricsTest, ShowsTheProcess) {
  EXPECT_GT(Value("process_resident_memory_bytes"), 1e6);
  EXPECT_GE(Value("process_virtual_memory_bytes"), Value("process_resident_memory_bytes"));
  EXPECT_GT(Value("process_open_fds"), 2);
  EXPECT_GE(Value("process_max_fds"), Value("process_open_fds"));
  EXPECT_GE(Value("process_cpu_seconds_total"), 0);
  const double now = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  EXPECT_NEAR(Value("process_start_time_seconds"), now, 3600);
}

// Answer of a GET of /metrics.
std::string Get(int port) {
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  const std::string request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(send(client, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t size; (size = recv(client, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, size);
  close(client);
  return answer;
}

TEST_F(MetricsTest, IsServedOnAPortOfItsOwn) {
  const absl::StatusOr<int> port = metrics_.Expose("127.0.0.1:0");
  ASSERT_TRUE(port.ok()) << port.status();
  ASSERT_GT(*port, 0);
  metrics_.SetDraining(true);
  metrics_.AddStreamQueueDepth(5);
  metrics_.AddStreamQueueDepth(-2);
  Get(*port);
  const std::string answer = Get(*port);
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("trimtab_draining 1\n"));
  EXPECT_THAT(answer, HasSubstr("trimtab_stream_queue_depth 3\n"));
  EXPECT_THAT(answer, HasSubstr("process_open_fds"));
  // All that it serves is documented.
  const std::map<std::string, Family> documented = Documented();
  for (const absl::string_view line : absl::StrSplit(answer, '\n')) {
    if (!absl::StartsWith(line, "# TYPE ")) continue;
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    EXPECT_TRUE(documented.contains(words[2])) << words[2];
  }
  EXPECT_EQ(metrics_.Expose("127.0.0.1:0").status().code(), absl::StatusCode::kFailedPrecondition);
  Metrics second({}, clock_);
  const absl::Status taken = second.Expose(absl::StrCat("127.0.0.1:", *port)).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kUnavailable) << taken;
}

}  // namespace
}  // namespace trimtab
