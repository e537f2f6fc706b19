// A scrape taken apart, and the fixture of the tests of metrics.
#ifndef TRIMTAB_TESTS_SERVER_METRICS_METRICS_FIXTURE_H_
#define TRIMTAB_TESTS_SERVER_METRICS_METRICS_FIXTURE_H_

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/metrics/metrics.h"

namespace trimtab {

struct Family {
  std::string type, help;
  std::set<std::string> labels;
};

struct Exposition {
  std::map<std::string, Family> families;
  std::map<std::string, double> series;  // by the text before the value
};

// The family of a sample's name.
inline std::string FamilyOf(const std::string& name, const std::map<std::string, Family>& families) {
  if (families.contains(name)) return name;
  for (const char* suffix : {"_bucket", "_sum", "_count"}) {
    const std::string base(absl::StripSuffix(name, suffix));
    if (base != name && families.contains(base)) return base;
  }
  ADD_FAILURE() << "a sample without a family: " << name;
  return name;
}

inline Exposition Parse(const std::string& text) {
  Exposition exposition;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::MaxSplits(' ', 3));
    if (words[0] == "#") {
      Family& family = exposition.families[words[2]];
      (words[1] == "TYPE" ? family.type : family.help) = words.size() > 3 ? words[3] : "";
      continue;
    }
    const size_t space = line.rfind(' ');
    const std::string series(line.substr(0, space));
    double value = 0;
    if (!absl::SimpleAtod(line.substr(space + 1), &value)) value = -1;
    EXPECT_TRUE(exposition.series.emplace(series, value).second) << "twice: " << series;
    const size_t brace = series.find('{');
    Family& family = exposition.families[FamilyOf(series.substr(0, brace), exposition.families)];
    if (brace == std::string::npos) continue;
    // No value in these tests holds a quote or a comma before a quote.
    for (const absl::string_view pair :
         absl::StrSplit(series.substr(brace + 1, series.size() - brace - 2), "\",", absl::SkipEmpty())) {
      const std::string label(pair.substr(0, pair.find('=')));
      if (label != "le" && label != "quantile") family.labels.insert(label);
    }
  }
  return exposition;
}

inline RpcMethod Method(int i) {
  return {.type = "unary", .service = "trimtab.v1.ObjectiveService", .method = absl::StrCat("Method", i)};
}

class MetricsTest : public testing::Test {
 protected:
  MetricsTest()
      : metrics_({.version = "1.2.3", .revision = "abc"}, clock_),
        held_(metrics_.AddModel({.id = "small",
                                 .sha256 = "feed",
                                 .quantization = "Q4_1",
                                 .max_running_requests = 64,
                                 .block_size = 16,
                                 .num_blocks = 1000,
                                 .context_length = 8192})),
        model_(*held_) {}

  Exposition Scrape() const { return Parse(metrics_.Scrape()); }
  double Value(const std::string& series) const {
    const Exposition exposition = Scrape();
    const auto found = exposition.series.find(series);
    if (found != exposition.series.end()) return found->second;
    ADD_FAILURE() << "no series " << series;
    return -1;
  }

  // As a busy server: every family has a series.
  void Exercise() {
    for (int i = 0; i < 30; ++i) metrics_.grpc().AddMethod(Method(i));
    for (int i = 0; i < 70; ++i) {
      const std::string objective = absl::StrCat("objective-", i);
      model_.SetObjective(objective, {9, 10, 11}, 0.5);
      model_.OnVectorUse(objective, 10);
      model_.OnDriftReport(objective, "probe", {.samples = 100});
      model_.OnDriftReport(objective, "mmlu", {.samples = 100});
    }
  }

  ManualClock clock_;
  Metrics metrics_;
  std::shared_ptr<ModelMetrics> held_;
  ModelMetrics& model_;
};

}  // namespace trimtab

#endif  // TRIMTAB_TESTS_SERVER_METRICS_METRICS_FIXTURE_H_
