#include "server/metrics/model_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/server/metrics/metrics_fixture.h"

namespace trimtab {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ModelMetricsTest : public MetricsTest {};

TEST_F(ModelMetricsTest, CountsSteps) {
  model_.OnStep({.sequences = 3,
                 .prefill_tokens = 100,
                 .decode_tokens = 2,
                 .steered_sequences = 2,
                 .steered_output_tokens = 2,
                 .unsteered_output_tokens = 1,
                 .duration = absl::Milliseconds(30),
                 .steering_duration = absl::Milliseconds(2),
                 .nonfinite_rows = 1});
  model_.OnStep({.sequences = 1, .decode_tokens = 1, .unsteered_output_tokens = 1, .duration = absl::Milliseconds(5)});
  EXPECT_EQ(Value("trimtab_step_batch_sequences_sum{model=\"small\"}"), 4);
  EXPECT_EQ(Value("trimtab_step_seconds_count{model=\"small\",phase=\"prefill\"}"), 1);
  EXPECT_EQ(Value("trimtab_step_seconds_count{model=\"small\",phase=\"decode\"}"), 1);
  EXPECT_EQ(Value("trimtab_prompt_tokens_total{model=\"small\",source=\"computed\"}"), 100);
  EXPECT_EQ(Value("trimtab_generation_tokens_total{model=\"small\",steered=\"true\"}"), 2);
  EXPECT_EQ(Value("trimtab_generation_tokens_total{model=\"small\",steered=\"false\"}"), 2);
  EXPECT_DOUBLE_EQ(Value("trimtab_steering_apply_seconds_total{model=\"small\"}"), 0.002);
  EXPECT_EQ(Value("trimtab_nonfinite_total{model=\"small\"}"), 1);
}

TEST_F(ModelMetricsTest, ShowsQueues) {
  model_.OnStep({.sequences = 2, .steered_sequences = 2});
  model_.OnQueues({.running = 2, .waiting = 5, .used_blocks = 250, .total_blocks = 1000});
  EXPECT_EQ(Value("trimtab_requests_running{model=\"small\"}"), 2);
  EXPECT_EQ(Value("trimtab_requests_waiting{model=\"small\"}"), 5);
  EXPECT_EQ(Value("trimtab_kv_cache_usage_ratio{model=\"small\"}"), 0.25);
  EXPECT_EQ(Value("trimtab_steered_sequences_running{model=\"small\"}"), 2);
  model_.OnQueues({.total_blocks = 1000});
  EXPECT_EQ(Value("trimtab_kv_cache_usage_ratio{model=\"small\"}"), 0);
  EXPECT_EQ(Value("trimtab_steered_sequences_running{model=\"small\"}"), 0);
}

TEST_F(ModelMetricsTest, MeasuresRequests) {
  RequestObservation request{.reason = FinishReason::kStopSequence, .steered = true};
  request.usage = {.prompt_tokens = 20, .cached_prompt_tokens = 16, .output_tokens = 11};
  request.timing = {.queue = absl::Milliseconds(10), .prefill = absl::Milliseconds(40), .decode = absl::Seconds(1)};
  request.time_to_first_token = absl::Milliseconds(50);
  request.total = absl::Milliseconds(1050);
  model_.OnRequestEnd(request);
  model_.OnInterTokenLatency(true, absl::Milliseconds(100));
  EXPECT_EQ(Value("trimtab_requests_finished_total{finish_reason=\"stop\",model=\"small\"}"), 1);
  EXPECT_DOUBLE_EQ(Value("trimtab_time_to_first_token_seconds_sum{model=\"small\",steered=\"true\"}"), 0.05);
  EXPECT_DOUBLE_EQ(Value("trimtab_request_time_per_output_token_seconds_sum{model=\"small\",steered=\"true\"}"), 0.1);
  EXPECT_DOUBLE_EQ(Value("trimtab_inter_token_latency_seconds_sum{model=\"small\",steered=\"true\"}"), 0.1);
  EXPECT_DOUBLE_EQ(Value("trimtab_request_duration_seconds_sum{model=\"small\"}"), 1.05);
  EXPECT_DOUBLE_EQ(Value("trimtab_request_queue_seconds_sum{model=\"small\"}"), 0.01);
  EXPECT_DOUBLE_EQ(Value("trimtab_request_prefill_seconds_sum{model=\"small\"}"), 0.04);
  EXPECT_DOUBLE_EQ(Value("trimtab_request_decode_seconds_sum{model=\"small\"}"), 1);
  EXPECT_EQ(Value("trimtab_request_prompt_tokens_sum{model=\"small\"}"), 20);
  EXPECT_EQ(Value("trimtab_request_generation_tokens_sum{model=\"small\"}"), 11);
}

TEST_F(ModelMetricsTest, RequestsWithoutTokensHaveNoTokenLatency) {
  model_.OnRequestEnd({.reason = FinishReason::kCancelled});
  model_.OnRequestEnd({.reason = FinishReason::kStop, .score = true, .usage = {.prompt_tokens = 100}});
  EXPECT_EQ(Value("trimtab_requests_finished_total{finish_reason=\"cancelled\",model=\"small\"}"), 1);
  EXPECT_EQ(Value("trimtab_requests_finished_total{finish_reason=\"stop\",model=\"small\"}"), 1);
  EXPECT_EQ(Value("trimtab_time_to_first_token_seconds_count{model=\"small\",steered=\"false\"}"), 0);
  EXPECT_EQ(Value("trimtab_request_duration_seconds_count{model=\"small\"}"), 1);
}

TEST_F(ModelMetricsTest, CountsCaches) {
  model_.OnPrefixLookup(100, 64);
  model_.OnPreemption();
  model_.OnStall();
  model_.OnBank(5, 3, 1, 3000, 2000);
  model_.OnBank(7, 3, 1, 3000, 1000);  // totals
  EXPECT_EQ(Value("trimtab_prefix_cache_queries_total{model=\"small\"}"), 100);
  EXPECT_EQ(Value("trimtab_prefix_cache_hits_total{model=\"small\"}"), 64);
  EXPECT_EQ(Value("trimtab_prompt_tokens_total{model=\"small\",source=\"prefix_cache\"}"), 64);
  EXPECT_EQ(Value("trimtab_preemptions_total{model=\"small\"}"), 1);
  EXPECT_EQ(Value("trimtab_stream_stalled_total{model=\"small\"}"), 1);
  EXPECT_EQ(Value("trimtab_vector_cache_hits_total{model=\"small\"}"), 7);
  EXPECT_EQ(Value("trimtab_vector_cache_misses_total{model=\"small\"}"), 3);
  EXPECT_EQ(Value("trimtab_vector_cache_evictions_total{model=\"small\"}"), 1);
  EXPECT_EQ(Value("trimtab_steering_uploads_bytes_total{model=\"small\"}"), 3000);
  EXPECT_EQ(Value("trimtab_vector_cache_bytes{model=\"small\"}"), 1000);
}

TEST_F(ModelMetricsTest, ObjectivesComeAndGo) {
  model_.SetObjective("calm", {9, 10}, 0.25);
  model_.SetObjective("calm", {9}, 0.5);  // another revision
  model_.OnVectorUse("calm", 7);
  model_.OnDriftError("calm", "probe");
  model_.OnDriftError("calmer", "probe");
  model_.SetVectorCounts({.ready = 3, .pending = 2, .disabled = 1});
  EXPECT_EQ(Value("trimtab_vector_info{layers=\"9\",model=\"small\",vector=\"calm\"}"), 1);
  EXPECT_EQ(Value("trimtab_objective_effect{model=\"small\",vector=\"calm\"}"), 0.5);
  EXPECT_EQ(Value("trimtab_vector_tokens_total{model=\"small\",vector=\"calm\"}"), 7);
  EXPECT_EQ(Value("trimtab_vectors{model=\"small\",state=\"ready\"}"), 3);
  EXPECT_THAT(metrics_.Scrape(), Not(HasSubstr("9,10")));
  model_.RemoveObjective("calm");
  EXPECT_THAT(metrics_.Scrape(), Not(HasSubstr("\"calm\"")));
  EXPECT_THAT(metrics_.Scrape(), HasSubstr("\"calmer\""));
}

TEST_F(ModelMetricsTest, AnIdleObjectiveLosesItsPlace) {
  Exercise();
  EXPECT_THAT(metrics_.Scrape(), Not(HasSubstr("trimtab_vector_tokens_total{model=\"small\",vector=\"late\"")));
  clock_.Advance(absl::Minutes(20));
  model_.OnVectorUse("late", 1);
  EXPECT_EQ(Value("trimtab_vector_tokens_total{model=\"small\",vector=\"late\"}"), 1);
}

TEST_F(ModelMetricsTest, TheNumberOfObjectivesWithSeriesIsConfigured) {
  Metrics metrics({.max_vectors = 2}, clock_);
  const std::shared_ptr<ModelMetrics> held = metrics.AddModel({.id = "small"});
  ModelMetrics& model = *held;
  for (const char* objective : {"a", "b", "c", "d"}) {
    model.OnVectorUse(objective, 5);
    model.OnDriftError(objective, "probe");
  }
  const Exposition exposition = Parse(metrics.Scrape());
  const auto tokens = [&](const std::string& objective) {
    const auto found =
        exposition.series.find("trimtab_vector_tokens_total{model=\"small\",vector=\"" + objective + "\"}");
    return found == exposition.series.end() ? -1 : found->second;
  };
  EXPECT_EQ(tokens("a"), 5);
  EXPECT_EQ(tokens("b"), 5);
  EXPECT_EQ(tokens("c"), -1);
  EXPECT_EQ(tokens("__other__"), 10);
  // Of drift, the latest.
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("suite=\"probe\",vector=\"b\"")));
  EXPECT_THAT(metrics.Scrape(), HasSubstr("suite=\"probe\",vector=\"d\""));
}

TEST_F(ModelMetricsTest, TheSeriesOfAModelEndWithIt) {
  Exercise();
  std::shared_ptr<ModelMetrics> other = metrics_.AddModel({.id = "other", .sha256 = "beef", .context_length = 4096});
  other->OnVectorUse("calm", 1);
  held_.reset();
  EXPECT_THAT(metrics_.Scrape(), Not(HasSubstr("model=\"small\"")));
  EXPECT_EQ(Value("trimtab_vector_tokens_total{model=\"other\",vector=\"calm\"}"), 1);
  // Loaded again, all counts anew.
  held_ = metrics_.AddModel({.id = "small", .context_length = 8192});
  EXPECT_EQ(Value("trimtab_vector_tokens_total{model=\"small\",vector=\"__other__\"}"), 0);
  EXPECT_EQ(Value("trimtab_requests_running{model=\"small\"}"), 0);
}

TEST_F(ModelMetricsTest, ShowsDrift) {
  model_.OnDriftReport("calm", "probe",
                       {.baseline_accuracy = 0.5,
                        .accuracy = 0.45,
                        .accuracy_delta = -0.05,
                        .ci95_low = -0.07,
                        .ci95_high = -0.03,
                        .samples = 120,
                        .mean_kl_text = 0.1,
                        .cross_entropy_delta = 0});
  const std::string labels = "{model=\"small\",suite=\"probe\",vector=\"calm\"}";
  EXPECT_EQ(Value("trimtab_drift_accuracy_ratio{arm=\"baseline\",model=\"small\",suite=\"probe\",vector=\"calm\"}"),
            0.5);
  EXPECT_EQ(Value("trimtab_drift_accuracy_delta" + labels), -0.05);
  EXPECT_NEAR(Value("trimtab_drift_accuracy_delta_ci95" + labels), 0.02, 1e-12);
  EXPECT_EQ(Value("trimtab_drift_samples" + labels), 120);
  EXPECT_EQ(Value("trimtab_drift_mean_kl_nats" + labels), 0.1);
  EXPECT_EQ(Value("trimtab_drift_perplexity_ratio" + labels), 1);
  EXPECT_EQ(Value("trimtab_drift_last_run_timestamp_seconds" + labels), 1e9);
  // Beyond noise below one point: a failure. Within: a pass.
  model_.OnDriftReport("calm", "probe", {.accuracy_delta = -0.02, .ci95_low = -0.04, .ci95_high = 0});
  const std::string runs = "trimtab_drift_runs_total{model=\"small\",result=\"";
  EXPECT_EQ(Value(runs + "fail\",suite=\"probe\",vector=\"calm\"}"), 1);
  EXPECT_EQ(Value(runs + "pass\",suite=\"probe\",vector=\"calm\"}"), 1);
  EXPECT_EQ(Value(runs + "error\",suite=\"probe\",vector=\"calm\"}"), 0);
}

}  // namespace
}  // namespace trimtab
