#include "server/engine/fair_order.h"

#include <gtest/gtest.h>

namespace trimtab {
namespace {

int64_t& Served(Tenant* tenant, Priority priority = Priority::kInteractive) { return tenant->account(priority).served; }

TEST(TenantOrderTest, CompetitorsGetEqualSharesOfTokens) {
  TenantOrder order;
  Tenant* wordy = order.Enter("wordy", Priority::kInteractive);
  Tenant* brief = order.Enter("brief", Priority::kInteractive);
  int wordy_turns = 0, brief_turns = 0;
  while (brief_turns < 20) {
    const bool is_wordy = Served(wordy) < Served(brief);
    Served(is_wordy ? wordy : brief) += is_wordy ? 100 : 25;
    ++(is_wordy ? wordy_turns : brief_turns);
  }
  EXPECT_EQ(wordy_turns, 5) << "one for four of the other's";
}

TEST(TenantOrderTest, WhoComesStartsLevelWithTheLeastServed) {
  TenantOrder order;
  Tenant* first = order.Enter("first", Priority::kInteractive);
  EXPECT_EQ(Served(first), 0);
  Served(first) = 1000;
  Tenant* second = order.Enter("second", Priority::kInteractive);
  EXPECT_EQ(Served(second), 1000) << "it does not catch up on the past";
  Served(second) = 1600;
  EXPECT_EQ(Served(order.Enter("third", Priority::kInteractive)), 1000) << "nor waits for it";
  EXPECT_EQ(order.Enter("second", Priority::kInteractive), second);
  EXPECT_EQ(Served(second), 1600) << "more requests change nothing";
}

TEST(TenantOrderTest, ComingBackPaysNoDebt) {
  TenantOrder order;
  Tenant* a = order.Enter("a", Priority::kInteractive);
  Tenant* b = order.Enter("b", Priority::kInteractive);
  order.Enter("b", Priority::kBatch);
  Served(a) = 500;
  Served(b) = 900;
  order.Leave("b", Priority::kInteractive);
  order.Enter("b", Priority::kInteractive);
  EXPECT_EQ(Served(b), 900);
}

TEST(TenantOrderTest, PrioritiesAreSeparateAndTenantsAreForgotten) {
  TenantOrder order;
  Tenant* tenant = order.Enter("a", Priority::kInteractive);
  Served(tenant) = 70;
  EXPECT_EQ(order.Enter("a", Priority::kBatch), tenant);
  EXPECT_EQ(Served(order.Enter("b", Priority::kBatch), Priority::kBatch), 0);
  EXPECT_EQ(order.tenants(), 2);
  order.Leave("a", Priority::kInteractive);
  order.Leave("b", Priority::kBatch);
  EXPECT_EQ(order.tenants(), 1);
  order.Leave("a", Priority::kBatch);
  EXPECT_EQ(order.tenants(), 0);
}

TEST(PromptPlaceTest, TheShorterPassesUntilTheLongerHasAged) {
  EXPECT_LT(PromptPlace(0, 100), PromptPlace(10, 100));
  EXPECT_LT(PromptPlace(1000, 100), PromptPlace(0, 2000));
  EXPECT_LT(PromptPlace(0, 2000), PromptPlace(kPassing * 2000, 1)) << "whatever comes then is too late";
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
