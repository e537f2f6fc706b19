#include "steering/methods/head_probes.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <numeric>

namespace trimtab {
namespace {

// A case of tests/golden/make_probe_golden.py.
struct GoldenCase {
  int64_t heads = 0, count = 0, unseen_count = 0, size = 0, passes = 0;
  double inverse_regularization = 0;
  HeadSamples training, unseen;
  std::vector<double> coefficients, intercepts, accuracies, losses, network_accuracies, network_losses;
};

std::vector<GoldenCase> ReadGolden() {
  std::vector<GoldenCase> cases;
  std::ifstream file("tests/golden/probe_golden.txt");
  for (GoldenCase c; file >> c.heads >> c.count >> c.unseen_count >> c.size >> c.inverse_regularization >> c.passes;) {
    const auto read = [&](int64_t count) {
      std::vector<double> values(static_cast<size_t>(count));
      for (double& value : values) file >> value;
      return values;
    };
    const auto samples = [&](int64_t count) {
      const at::Tensor values = at::tensor(read(c.heads * count * c.size)).to(at::kFloat);
      return HeadSamples{.values = values.view({c.heads, count, c.size}),
                         .labels = at::tensor(read(count)).to(at::kFloat)};
    };
    c.training = samples(c.count);
    c.unseen = samples(c.unseen_count);
    c.coefficients = read(c.heads * c.size);
    for (auto* list : {&c.intercepts, &c.accuracies, &c.losses, &c.network_accuracies, &c.network_losses}) {
      *list = read(c.heads);
    }
    EXPECT_TRUE(file.good());
    cases.push_back(std::move(c));
  }
  EXPECT_EQ(cases.size(), 2u);
  return cases;
}

void ExpectNear(const at::Tensor& actual, const std::vector<double>& expected, double tolerance) {
  EXPECT_LT((actual.flatten() - at::tensor(expected)).abs().max().item<double>(), tolerance) << actual;
}

TEST(HeadProbesTest, LogisticProbesAreThoseOfScikitLearn) {
  for (const GoldenCase& c : ReadGolden()) {
    const LogisticProbes probes = FitLogisticProbes(c.training, c.inverse_regularization);
    ExpectNear(probes.weights, c.coefficients, 1e-6);
    ExpectNear(probes.biases, c.intercepts, 1e-6);
    const ProbeScores scores = Score(probes, c.unseen);
    ExpectNear(scores.accuracy, c.accuracies, 1e-9);
    ExpectNear(scores.cross_entropy, c.losses, 1e-6);
  }
}

// The numbers that the golden's networks begin with.
at::Tensor Parameter(int kind, std::vector<int64_t> shape) {
  const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  const at::Tensor values = 0.3 * at::sin(0.7 * at::arange(count, at::kDouble) + kind) + (kind == 2 ? 1.0 : 0.0);
  return values.to(at::kFloat).view(shape);
}

TEST(HeadProbesTest, NetworkProbesAreThoseOfPyTorch) {
  constexpr int64_t kWidth = NetworkProbes::kWidth;
  for (const GoldenCase& c : ReadGolden()) {
    const NetworkProbes probes{.in_weights = Parameter(0, {c.heads, c.size, kWidth}),
                               .in_biases = Parameter(1, {c.heads, kWidth}),
                               .norm_weights = Parameter(2, {c.heads, kWidth}),
                               .norm_biases = Parameter(3, {c.heads, kWidth}),
                               .out_weights = Parameter(4, {c.heads, kWidth}),
                               .out_biases = Parameter(5, {c.heads})};
    std::vector<std::vector<size_t>> orders;
    for (int64_t pass = 0; pass < c.passes; ++pass) {
      std::vector<size_t>& order = orders.emplace_back();
      for (int64_t i = 0; i < c.count; ++i) order.push_back(static_cast<size_t>((7 * i + pass) % c.count));
    }
    const ProbeScores scores = TrainNetworkProbes(probes, c.training, c.unseen, orders);
    ExpectNear(scores.accuracy, c.network_accuracies, 1e-9);
    ExpectNear(scores.cross_entropy, c.network_losses, 1e-4);
  }
}

TEST(HeadProbesTest, HeadsDoNotInfluenceEachOther) {
  const GoldenCase c = ReadGolden().front();
  const auto alone = [](const HeadSamples& samples) {
    return HeadSamples{.values = samples.values.narrow(0, 1, 1), .labels = samples.labels};
  };
  const LogisticProbes both = FitLogisticProbes(c.training, 1), one = FitLogisticProbes(alone(c.training), 1);
  EXPECT_LT((both.weights[1] - one.weights[0]).abs().max().item<double>(), 1e-9);
}

TEST(HeadProbesTest, ASeparableHeadHasAFiniteProbe) {
  const HeadSamples samples{.values = at::tensor(std::vector<float>{-1e4f, 1e4f, -2e4f, 3e4f}).view({1, 4, 1}),
                            .labels = at::tensor(std::vector<float>{0, 1, 0, 1})};
  const LogisticProbes probes = FitLogisticProbes(samples, 1);
  EXPECT_TRUE(probes.weights.isfinite().all().item<bool>());
  EXPECT_EQ(Score(probes, samples).accuracy[0].item<double>(), 1);
  // And a head that says nothing has one too.
  const HeadSamples constant{.values = samples.values * 0 + 3, .labels = samples.labels};
  EXPECT_TRUE(FitLogisticProbes(constant, 1).weights.isfinite().all().item<bool>());
}

TEST(HeadProbesTest, NetworksBeginAsTheirSeedSays) {
  const NetworkProbes a = InitialNetworkProbes(2, 9, 5, 1), b = InitialNetworkProbes(2, 9, 5, 1);
  const NetworkProbes other = InitialNetworkProbes(2, 9, 5, 2);
  EXPECT_TRUE(at::equal(a.in_weights, b.in_weights) && at::equal(a.out_biases, b.out_biases));
  EXPECT_FALSE(at::equal(a.in_weights, other.in_weights));
  EXPECT_LE(a.in_weights.abs().max().item<double>(), 1.0 / 3);
  EXPECT_GT(a.in_weights.abs().max().item<double>(), 0.3);
  EXPECT_LE(a.out_weights.abs().max().item<double>(), 0.25);
}

}  // namespace
}  // namespace trimtab
