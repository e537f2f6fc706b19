// docs/models.md says of architectures, memory and flags what the code says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "models/checkpoint_plan.h"
#include "models/model_registry.h"
#include "server/dry_run.h"
#include "tests/docs/page.h"

namespace trimtab {
namespace {

using ::testing::HasSubstr;

TEST(ModelsPage, ListsEveryArchitecture) {
  const std::string page = Read("docs/models.md");
  for (const Architecture* architecture : Architectures()) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat("`", std::string(architecture->hugging_face), "`")));
    if (architecture->gguf.empty()) continue;
    EXPECT_THAT(page, HasSubstr(absl::StrCat("`", std::string(architecture->gguf), "`")));
  }
}

// The largest batch that a dry run names for bfloat16; 0 if none fits.
int Batch(const std::string& config, int64_t memory) {
  ServerConfig server;
  server.models = {config};
  server.max_context = 8192;
  const absl::StatusOr<DryRun> run = RunDry(server, memory);
  EXPECT_TRUE(run.ok()) << run.status();
  std::smatch match;
  const std::regex line("\n  bfloat16 +([0-9]+) sequence");
  return run.ok() && std::regex_search(run->text, match, line) ? std::stoi(match[1]) : 0;
}

TEST(ModelsPage, HasTheMemoryThatADryRunPrints) {
  const std::string page = Read("docs/models.md");
  for (const auto& [title, file] : {std::pair("Llama-3.1-8B", "llama-3.1-8b"), std::pair("Qwen2.5-7B", "qwen2.5-7b"),
                                    std::pair("Gemma-3-12B, text", "gemma-3-12b-text")}) {
    const std::string config = absl::StrCat("tests/server/data/", file, ".json");
    const absl::StatusOr<CheckpointPlan> plan = PlanCheckpoint(config);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const auto gib = [&](at::ScalarType type) {
      return absl::StrFormat("%.2f GiB", static_cast<double>(WeightBytes(*plan, {.plain_type = type})) / (1 << 30));
    };
    std::string parameters = absl::StrCat(plan->parameters());
    for (size_t i = parameters.size(); i > 3; i -= 3) parameters.insert(i - 3, 1, ',');
    const double key_value = static_cast<double>(plan->description.spec.kv_bytes_per_token(2)) / 1024;
    EXPECT_THAT(page, HasSubstr(absl::StrFormat("| %s | %s | %s | %s | %.1f KiB | %d | %d |", title, parameters,
                                                gib(at::kFloat), gib(at::kBFloat16), key_value,
                                                Batch(config, int64_t{24} << 30), Batch(config, int64_t{80} << 30))));
  }
}

// Every flag that these pages name is one of a program's.
TEST(Pages, NameFlagsThatExist) {
  std::set<std::string> known = {"help"};
  for (const char* source : {"server/main.cc", "tools/trimctl/flags.cc", "tools/quickstart/main.cc"}) {
    known.merge(Matches(Read(source), "ABSL_FLAG\\(\\s*[^,]+,\\s*([a-z_]+),"));
  }
  EXPECT_GT(known.size(), 60u);
  for (const char* page : {"README.md", "docs/models.md", "docs/errors.md", "docs/life_of_a_request.md"}) {
    for (const std::string& flag : Matches(Read(page), "[ `(\"]--([a-z][a-z_]*)")) {
      EXPECT_EQ(known.count(flag), 1u) << page << " names --" << flag;
    }
  }
}

}  // namespace
}  // namespace trimtab
