#include "server/config.h"

#include <gtest/gtest.h>

#include <string>

namespace trimtab {
namespace {

ServerConfig Good() {
  ServerConfig config;
  config.models = {"small=/models/small.gguf"};
  return config;
}

TEST(Config, ModelsHaveIds) {
  const auto source = [](const std::string& text) {
    const ModelSource parsed = ParseModelSource(text);
    return parsed.id + " " + parsed.path;
  };
  EXPECT_EQ(source("small=/models/x.gguf"), "small /models/x.gguf");
  EXPECT_EQ(source("/models/SmolLM2-135M-Instruct.Q4_1.gguf"),
            "smollm2-135m-instruct-q4-1 /models/SmolLM2-135M-Instruct.Q4_1.gguf");
  EXPECT_EQ(source("/models/Llama-3.2/"), "llama-3-2 /models/Llama-3.2/");
  // A path that has an equals sign is no id.
  EXPECT_EQ(source("/models/a=b.gguf"), "a-b /models/a=b.gguf");
}

TEST(Config, KnowsLoopback) {
  for (const char* address : {"127.0.0.1:50051", "127.1.2.3:0", "localhost:1", "[::1]:50051", "unix:/run/trimtab"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
  for (const char* address : {"0.0.0.0:50051", "[::]:50051", "10.0.0.1:1", "example.org:1", ":50051", "50051", ""}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

TEST(Config, PlaintextStaysOnLoopbackUnlessAllowed) {
  ServerConfig config = Good();
  EXPECT_TRUE(CheckConfig(config).ok());
  config.address = "0.0.0.0:50051";
  const absl::Status refused = CheckConfig(config);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("--allow_insecure"), absl::string_view::npos);
  config.allow_insecure = true;
  EXPECT_TRUE(CheckConfig(config).ok());
  config = Good();
  config.metrics_address = "0.0.0.0:9464";
  EXPECT_FALSE(CheckConfig(config).ok());
  config.metrics_address = "";
  EXPECT_TRUE(CheckConfig(config).ok());
}

TEST(Config, SaysWhatIsWrong) {
  const auto error = [](auto change) {
    ServerConfig config = Good();
    change(config);
    return std::string(CheckConfig(config).message());
  };
  EXPECT_NE(error([](ServerConfig& config) { config.models.clear(); }).find("--model"), std::string::npos);
  EXPECT_NE(error([](ServerConfig& config) { config.model_root = "/nowhere"; }).find("/nowhere"), std::string::npos);
  // Models may all come later.
  EXPECT_EQ(error([](ServerConfig& config) {
              config.models.clear();
              config.model_root = ::testing::TempDir();
            }),
            "");
  EXPECT_NE(error([](ServerConfig& config) { config.models = {"a=/x", "a=/y"}; }).find("id a"), std::string::npos);
  EXPECT_NE(error([](ServerConfig& config) { config.models = {"a="}; }).find("no path"), std::string::npos);
  EXPECT_NE(error([](ServerConfig& config) { config.precision = "int8"; }).find("--precision"), std::string::npos);
  EXPECT_NE(error([](ServerConfig& config) { config.kv_cache_mib = 0; }).find("--kv_cache_mib"), std::string::npos);
  for (int64_t count : {int64_t{-1}, int64_t{0}, int64_t{4097}}) {
    EXPECT_NE(error([&](ServerConfig& config) { config.metrics_objectives = count; }).find("--metrics_objectives"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace trimtab
