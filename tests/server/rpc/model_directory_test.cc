#include "server/rpc/model_directory.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/base/error.h"
#include "tests/server/rpc/fake_model.h"

namespace trimtab {
namespace {

v1::Model Description(const std::string& name, v1::Model::State state) {
  v1::Model model;
  model.set_name(name);
  model.set_state(state);
  return model;
}

TEST(ModelDirectory, FindsWhatTakesRequests) {
  ModelDirectory models;
  EXPECT_EQ(GetErrorDetail(models.Find("a").status()).reason, kModelNotFound);
  models.Add(std::make_shared<FakeModel>("a"));
  ASSERT_TRUE(models.Find("a").ok());
  EXPECT_EQ((*models.Find("a"))->id(), "a");
  EXPECT_EQ(models.Describe("a")->state(), v1::Model::STATE_READY);
  EXPECT_EQ(GetErrorDetail(models.Describe("b").status()).resource_name, "models/b");
  models.Remove("a");
  EXPECT_FALSE(models.Find("a").ok());
}

TEST(ModelDirectory, SaysWhyAModelTakesNoRequests) {
  ModelDirectory models;
  for (const auto& [state, name] :
       {std::pair(v1::Model::STATE_LOADING, "LOADING"), std::pair(v1::Model::STATE_UNLOADING, "UNLOADING"),
        std::pair(v1::Model::STATE_FAILED, "FAILED")}) {
    models.Announce(Description("models/a", state));
    const absl::Status status = models.Find("a").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    const ErrorDetail detail = GetErrorDetail(status);
    EXPECT_EQ(detail.reason, kModelNotReady);
    EXPECT_EQ(detail.metadata.at("state"), name);
    EXPECT_EQ(detail.retry_after.has_value(), state == v1::Model::STATE_LOADING);
    EXPECT_EQ(models.Describe("a")->state(), state);
  }
}

TEST(ModelDirectory, WhatWasFoundStaysAlive) {
  ModelDirectory models;
  models.Add(std::make_shared<FakeModel>("a"));
  const std::shared_ptr<const ModelDirectory::Entries> before = models.snapshot();
  const std::shared_ptr<ServedModel> model = *models.Find("a");
  models.Announce(Description("models/a", v1::Model::STATE_UNLOADING));
  models.Remove("a");
  EXPECT_EQ(model->id(), "a");
  EXPECT_EQ(before->at("a").Describe().state(), v1::Model::STATE_READY);
  EXPECT_TRUE(models.snapshot()->empty());
}

TEST(ModelDirectory, ReadersAndWritersDoNotDisturbEachOther) {
  ModelDirectory models;
  models.Add(std::make_shared<FakeModel>("stays"));
  std::atomic<bool> done = false;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!done) {
        EXPECT_TRUE(models.Find("stays").ok());
        const auto model = models.Find("comes-and-goes");
        if (model.ok()) {
          EXPECT_EQ((*model)->id(), "comes-and-goes");
        }
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    models.Add(std::make_shared<FakeModel>("comes-and-goes"));
    models.Announce(Description("models/comes-and-goes", v1::Model::STATE_UNLOADING));
    models.Remove("comes-and-goes");
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace trimtab
