#include "server/metrics/bounded_labels.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);
constexpr absl::Duration kIdle = absl::Minutes(15);

TEST(BoundedLabelsTest, TakesPlacesUntilTheyAreGone) {
  BoundedLabels labels(2, kIdle);
  std::optional<std::string> evicted;
  EXPECT_TRUE(labels.Use("a", kStart, &evicted));
  EXPECT_TRUE(labels.Use("b", kStart, &evicted));
  EXPECT_FALSE(labels.Use("c", kStart, &evicted));
  EXPECT_TRUE(labels.Use("a", kStart, &evicted));
  EXPECT_EQ(evicted, std::nullopt);
}

TEST(BoundedLabelsTest, OnlyAnIdleValueLosesItsPlace) {
  BoundedLabels labels(2, kIdle);
  std::optional<std::string> evicted;
  labels.Use("a", kStart, &evicted);
  labels.Use("b", kStart + absl::Minutes(1), &evicted);
  labels.Use("a", kStart + absl::Minutes(10), &evicted);
  EXPECT_FALSE(labels.Use("c", kStart + absl::Minutes(15), &evicted));
  EXPECT_TRUE(labels.Use("c", kStart + absl::Minutes(16), &evicted));
  EXPECT_EQ(evicted, "b");
  EXPECT_FALSE(labels.Use("b", kStart + absl::Minutes(16), &evicted));
  EXPECT_EQ(evicted, std::nullopt);
}

TEST(BoundedLabelsTest, ARemovedValueLeavesItsPlace) {
  BoundedLabels labels(1, kIdle);
  std::optional<std::string> evicted;
  labels.Use("a", kStart, &evicted);
  EXPECT_TRUE(labels.Remove("a"));
  EXPECT_FALSE(labels.Remove("a"));
  EXPECT_TRUE(labels.Use("b", kStart, &evicted));
}

TEST(BoundedLabelsTest, NoPlacesAtAll) {
  BoundedLabels labels(0, absl::ZeroDuration());
  std::optional<std::string> evicted;
  EXPECT_FALSE(labels.Use("a", kStart, &evicted));
}

}  // namespace
}  // namespace trimtab
