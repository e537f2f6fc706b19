#include "server/base/status_macros.h"

#include <gtest/gtest.h>

#include <memory>

namespace trimtab {
namespace {

absl::Status Pass(const absl::Status& status, int* reached) {
  TRIMTAB_RETURN_IF_ERROR(status);
  ++*reached;
  return absl::OkStatus();
}

absl::StatusOr<int> Sum(absl::StatusOr<int> a, absl::StatusOr<int> b) {
  TRIMTAB_ASSIGN_OR_RETURN(const int x, a);
  int y = 0;
  TRIMTAB_ASSIGN_OR_RETURN(y, b);
  return x + y;
}

TEST(StatusMacrosTest, ReturnsTheFirstError) {
  int reached = 0;
  EXPECT_EQ(Pass(absl::AbortedError("a"), &reached), absl::AbortedError("a"));
  EXPECT_EQ(reached, 0);
  EXPECT_TRUE(Pass(absl::OkStatus(), &reached).ok());
  EXPECT_EQ(reached, 1);
}

TEST(StatusMacrosTest, AssignsOrReturns) {
  EXPECT_EQ(*Sum(1, 2), 3);
  EXPECT_EQ(Sum(absl::AbortedError("a"), absl::InternalError("b")).status(), absl::AbortedError("a"));
  EXPECT_EQ(Sum(1, absl::InternalError("b")).status(), absl::InternalError("b"));
}

TEST(StatusMacrosTest, MovesTheValueOut) {
  const auto take = []() -> absl::StatusOr<std::unique_ptr<int>> {
    TRIMTAB_ASSIGN_OR_RETURN(std::unique_ptr<int> value,
                             absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(7)));
    return value;
  };
  EXPECT_EQ(**take(), 7);
}

}  // namespace
}  // namespace trimtab
