// Names and numbers that are fixed: clients, stored records and acceptance checks depend on them. Adding is fine;
// anything that fails here breaks somebody.
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "trimtab/methods/v1/grains.pb.h"
#include "trimtab/v1/drift.pb.h"
#include "trimtab/v1/generation.pb.h"
#include "trimtab/v1/model.pb.h"
#include "trimtab/v1/objective.pb.h"

namespace trimtab {
namespace {

// A field as "number name"; repeated ones with "*", optional ones with "?".
using Fields = std::vector<std::string>;

template <typename Message>
void ExpectHas(const Fields& expected) {
  const google::protobuf::Descriptor* const message = Message::descriptor();
  std::set<std::string> fields;
  for (int i = 0; i < message->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* const field = message->field(i);
    const std::string mark = field->is_repeated() ? "*" : field->has_optional_keyword() ? "?" : "";
    fields.insert(std::to_string(field->number()) + " " + field->name() + mark);
  }
  for (const std::string& field : expected) {
    EXPECT_TRUE(fields.contains(field)) << message->full_name() << " lacks " << field;
  }
}

TEST(Api, ServicesHaveTheirMethods) {
  const std::map<std::string, std::set<std::string>> expected = {
      {"trimtab.v1.GenerationService", {"Generate", "StreamGenerate", "Score", "CountTokens"}},
      {"trimtab.v1.ModelService", {"GetModel", "ListModels", "LoadModel", "UnloadModel"}},
      {"trimtab.v1.ObjectiveService",
       {"RegisterObjective", "GetObjective", "ListObjectives", "UpdateObjective", "DeleteObjective", "ListRevisions",
        "GetRevision", "PromoteRevision", "GetAttributions", "ListSteeringMethods", "GetSteeringMethod"}},
      {"trimtab.v1.DriftService", {"EvaluateDrift", "GetDriftReport", "ListDriftReports", "DeleteDriftReport"}}};
  const auto* const pool = google::protobuf::DescriptorPool::generated_pool();
  for (const auto& [name, methods] : expected) {
    const auto* const service = pool->FindServiceByName(name);
    ASSERT_NE(service, nullptr) << name;
    for (const std::string& method : methods) EXPECT_NE(service->FindMethodByName(method), nullptr) << name << method;
  }
  EXPECT_TRUE(pool->FindMethodByName("trimtab.v1.GenerationService.StreamGenerate")->server_streaming());
}

TEST(Api, GenerationKeepsItsNumbers) {
  ExpectHas<v1::GenerateRequest>(
      {"1 model", "2 conversation", "3 prompt", "4 config", "5 steering*", "6 priority", "7 request_id"});
  ExpectHas<v1::Conversation>({"1 contents*"});
  ExpectHas<v1::Content>({"1 role", "2 parts*"});
  ExpectHas<v1::Part>({"1 text", "2 image"});
  ExpectHas<v1::Image>({"1 data", "2 uri", "3 mime_type"});
  ExpectHas<v1::GenerationConfig>({"1 max_output_tokens?", "2 temperature?", "3 top_p?", "4 top_k?",
                                   "5 stop_sequences*", "6 seed?", "7 logprobs?", "8 repetition_penalty?", "9 min_p?",
                                   "10 ignore_eos"});
  ExpectHas<v1::SteeringSelection>({"1 objective", "2 strength?", "3 apply_to?"});
  ExpectHas<v1::GenerateResponse>({"1 text", "2 token_ids*", "3 logprobs*", "4 finish_reason", "5 usage", "6 applied*",
                                   "7 request_id", "8 timing"});
  ExpectHas<v1::AppliedSteering>({"1 objective", "2 revision", "3 digest", "4 strength", "5 apply_to",
                                  "6 steered_tokens", "7 mean_relative_dose"});
  ExpectHas<v1::ScoreRequest>({"1 model", "2 conversation", "3 prompt", "4 continuations*", "5 steering*"});
  ExpectHas<v1::ScoreResponse>({"1 scores*"});
  ExpectHas<v1::ContinuationScore>({"1 log_likelihood", "2 token_count", "3 is_greedy", "4 token_logprobs*"});
}

TEST(Api, ObjectivesKeepTheirNumbers) {
  ExpectHas<v1::RegisterObjectiveRequest>(
      {"1 parent", "2 objective_id", "3 objective", "4 request_id", "5 validate_only", "6 evaluate_drift"});
  ExpectHas<v1::Objective>({"1 name", "2 display_name", "3 description", "4 method", "5 method_config", "6 pairs*",
                            "7 default_strength?", "8 state", "9 error", "10 active", "11 create_time",
                            "12 update_time", "13 etag", "14 model_fingerprint", "16 held_out_pairs*",
                            "17 max_strength?"});
  ExpectHas<v1::PreferencePair>({"1 prompt*", "2 preferred", "3 dispreferred", "4 weight"});
  ExpectHas<v1::RevisionSummary>({"1 revision", "2 digest", "3 layers*", "4 pair_count", "5 median_completeness_error",
                                  "6 low_confidence_pairs", "7 held_out", "8 fit_time"});
  ExpectHas<v1::LayerSummary>(
      {"1 layer", "2 site", "3 explained_variance", "4 cosine_to_mean", "5 bootstrap_stability"});
  ExpectHas<v1::EffectSummary>({"1 accuracy_before", "2 accuracy_after", "3 margin_gain", "4 ci95"});
  ExpectHas<v1::RegisterObjectiveMetadata>({"1 objective", "2 phase", "3 completed_pairs", "4 total_pairs",
                                            "5 completed_percent", "6 eta", "7 create_time", "8 update_time",
                                            "9 partial_failures*"});
}

TEST(Api, ModelsAndDriftKeepTheirNumbers) {
  ExpectHas<v1::Model>({"1 name", "2 display_name", "3 architecture", "4 modalities*", "5 context_length",
                        "6 num_layers", "7 hidden_size", "8 device", "9 dtype", "10 fingerprint", "11 state", "18 path",
                        "19 error", "20 weight_bytes", "21 kv_cache_bytes"});
  ExpectHas<v1::LoadModelRequest>(
      {"1 model_id", "2 path", "3 request_id", "4 validate_only", "5 kv_cache_mib?", "6 precision"});
  ExpectHas<v1::UnloadModelRequest>({"1 name", "2 request_id", "3 validate_only", "4 drain_timeout"});
  ExpectHas<v1::EvaluateDriftRequest>({"1 parent", "2 steering*", "3 suite", "4 max_items", "5 seed"});
  ExpectHas<v1::DriftReport>({"1 name", "2 steering*", "3 suite", "4 items", "5 baseline_accuracy", "6 accuracy",
                              "7 accuracy_delta", "8 ci95_low", "9 ci95_high", "10 mcnemar_p", "11 flip_rate",
                              "12 mean_kl_choice", "13 letter_mass", "14 mean_kl_text", "15 subjects*",
                              "16 create_time"});
}

TEST(Api, EveryEnumStartsUnspecified) {
  for (const auto* const file :
       {v1::Model::descriptor()->file(), v1::Objective::descriptor()->file(), v1::DriftReport::descriptor()->file(),
        v1::GenerateRequest::descriptor()->file(), v1::SteeringSelection::descriptor()->file(),
        v1::RevisionSummary::descriptor()->file(), methods::v1::GrainsConfig::descriptor()->file()}) {
    const auto check = [](const google::protobuf::EnumDescriptor* type) {
      EXPECT_EQ(type->value(0)->number(), 0) << type->full_name();
      EXPECT_TRUE(type->value(0)->name().ends_with("_UNSPECIFIED")) << type->full_name();
    };
    for (int i = 0; i < file->enum_type_count(); ++i) check(file->enum_type(i));
    for (int i = 0; i < file->message_type_count(); ++i) {
      for (int j = 0; j < file->message_type(i)->enum_type_count(); ++j) check(file->message_type(i)->enum_type(j));
    }
  }
}

}  // namespace
}  // namespace trimtab
