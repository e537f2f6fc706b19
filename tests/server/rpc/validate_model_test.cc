#include <gtest/gtest.h>

#include <set>
#include <string>

#include "server/base/error.h"
#include "server/rpc/validate.h"

namespace trimtab {
namespace {

std::set<std::string> Fields(const absl::Status& status) {
  std::set<std::string> fields;
  for (const FieldViolation& violation : GetErrorDetail(status).violations) fields.insert(violation.field);
  return fields;
}

TEST(ParseLoadModel, TakesWhatTheApiSays) {
  v1::LoadModelRequest request;
  request.set_model_id("gemma3-270m");
  request.set_path("gemma/model.gguf");
  EXPECT_TRUE(ParseLoadModelRequest(request).ok());
  request.set_kv_cache_mib(1);
  request.set_precision("bfloat16");
  request.set_request_id("r1");
  EXPECT_TRUE(ParseLoadModelRequest(request).ok());
}

TEST(ParseLoadModel, ReportsEverythingThatIsWrong) {
  v1::LoadModelRequest request;
  request.set_model_id("Not An Id");
  request.set_request_id("umlaut \xC3\xBC");
  request.set_kv_cache_mib(0);
  request.set_precision("int3");
  EXPECT_EQ(Fields(ParseLoadModelRequest(request)),
            (std::set<std::string>{"model_id", "path", "request_id", "kv_cache_mib", "precision"}));
  request.set_path(std::string("a\0b", 3));
  EXPECT_TRUE(Fields(ParseLoadModelRequest(request)).contains("path"));
  request.set_path(std::string(5000, 'x'));
  EXPECT_TRUE(Fields(ParseLoadModelRequest(request)).contains("path"));
  request.set_kv_cache_mib((1 << 20) + 1);
  EXPECT_TRUE(Fields(ParseLoadModelRequest(request)).contains("kv_cache_mib"));
}

TEST(ParseUnloadModel, ReadsTheDrainTimeout) {
  v1::UnloadModelRequest request;
  request.set_name("models/small");
  auto call = ParseUnloadModelRequest(request);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->model, "small");
  EXPECT_FALSE(call->drain_timeout.has_value());
  request.mutable_drain_timeout()->set_nanos(500'000'000);
  EXPECT_EQ(ParseUnloadModelRequest(request)->drain_timeout, absl::Milliseconds(500));
  request.mutable_drain_timeout()->set_seconds(3600);
  request.mutable_drain_timeout()->set_nanos(1);
  EXPECT_EQ(Fields(ParseUnloadModelRequest(request).status()), (std::set<std::string>{"drain_timeout"}));
  request.set_name("small");
  request.mutable_drain_timeout()->set_seconds(-1);
  EXPECT_EQ(Fields(ParseUnloadModelRequest(request).status()), (std::set<std::string>{"name", "drain_timeout"}));
}

}  // namespace
}  // namespace trimtab
