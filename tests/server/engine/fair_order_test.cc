#include "server/engine/fair_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace trimtab {
namespace {

Request RequestOf(const std::string& tenant, Priority priority = Priority::kInteractive) {
  Request request;
  request.tenant = tenant;
  request.priority = priority;
  return request;
}

TEST(TenantOrderTest, OneTenantIsServedAsItComes) {
  TenantOrder order;
  int64_t last = -1;
  for (int i = 0; i < 5; ++i) {
    int64_t start = 0;
    order.Enter(RequestOf("a"), 10 + i, start);
    EXPECT_GT(start, last);
    last = start;
  }
}

TEST(TenantOrderTest, CompetitorsGetEqualSharesOfTokens) {
  TenantOrder order;
  std::vector<std::pair<int64_t, char>> starts;
  int64_t start = 0;
  for (int i = 0; i < 20; ++i) {
    order.Enter(RequestOf("long"), 100, start);
    starts.push_back({start, 'l'});
  }
  for (int i = 0; i < 20; ++i) {
    order.Enter(RequestOf("short"), 25, start);
    starts.push_back({start, 's'});
  }
  std::stable_sort(starts.begin(), starts.end(), [](auto a, auto b) { return a.first < b.first; });
  // Until the short ones are done, one long request for four short ones.
  EXPECT_EQ(std::count_if(starts.begin(), starts.begin() + 25, [](auto s) { return s.second == 'l'; }), 5);
}

TEST(TenantOrderTest, ANewcomerNeitherCatchesUpOnThePastNorWaitsForIt) {
  TenantOrder order;
  int64_t start = 0, newcomer = 0, queued = 0;
  for (int i = 0; i < 10; ++i) {
    order.Enter(RequestOf("old"), 100, start);
    order.Admitted(Priority::kInteractive, start);
  }
  for (int i = 0; i < 10; ++i) order.Enter(RequestOf("old"), 100, queued);
  order.Enter(RequestOf("new"), 100, newcomer);
  EXPECT_EQ(newcomer, start);
  EXPECT_LT(newcomer, queued);
}

TEST(TenantOrderTest, PrioritiesAreSeparateAndTenantsAreForgotten) {
  TenantOrder order;
  int64_t start = 0;
  Tenant* tenant = order.Enter(RequestOf("a"), 100, start);
  EXPECT_EQ(order.Enter(RequestOf("a", Priority::kBatch), 100, start), tenant);
  EXPECT_EQ(start, 0);
  EXPECT_EQ(order.tenants(), 1);
  order.Leave("a");
  EXPECT_EQ(tenant->requests, 1);
  order.Leave("a");
  EXPECT_EQ(order.tenants(), 0);
}

TEST(PrioritySharesTest, AClassEarnsFromHigherRanksOnly) {
  PriorityShares shares;
  shares.Count(Priority::kInteractive, 80);
  EXPECT_FALSE(shares.Spend(Priority::kBatch, 11));
  EXPECT_TRUE(shares.Spend(Priority::kBatch, 10));
  EXPECT_FALSE(shares.Spend(Priority::kBatch, 1)) << "it is spent";
  EXPECT_TRUE(shares.Spend(Priority::kBackground, 2));
  shares.Count(Priority::kBackground, 1000);
  EXPECT_FALSE(shares.Spend(Priority::kBatch, 1));
  shares.Count(Priority::kBatch, 1000);
  EXPECT_FALSE(shares.Spend(Priority::kBatch, 1));
  shares.Forget(Priority::kBackground);
  EXPECT_FALSE(shares.Spend(Priority::kBackground, 1));
}

}  // namespace
}  // namespace trimtab
