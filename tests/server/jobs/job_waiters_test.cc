#include "server/jobs/job_waiters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace trimtab {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class JobWaitersTest : public testing::Test {
 protected:
  JobWaiters::Done Note(std::string who) {
    return [this, who](const absl::StatusOr<JobRecord>& record) {
      told_.push_back(who + " " + (record.ok() ? record->name : absl::StatusCodeToString(record.status().code())));
    };
  }

  JobWaiters waiters_;
  std::vector<std::string> told_;
};

TEST_F(JobWaitersTest, TellsEachWaiterOfTheJobOnce) {
  waiters_.Add("a", Note("1"));
  waiters_.Add("a", Note("2"));
  waiters_.Add("b", Note("3"));
  waiters_.TellAll("a", JobRecord{.name = "a"});
  waiters_.TellAll("a", JobRecord{.name = "a"});
  waiters_.TellAll("c", JobRecord{.name = "c"});
  EXPECT_THAT(told_, ElementsAre("1 a", "2 a"));
}

TEST_F(JobWaitersTest, TellsOneAlone) {
  waiters_.Add("a", Note("1"));
  const JobWaiters::Handle second = waiters_.Add("a", Note("2"));
  waiters_.Tell("a", second, JobRecord{.name = "late"});
  waiters_.Tell("a", second, JobRecord{.name = "late"});
  waiters_.TellAll("a", JobRecord{.name = "a"});
  EXPECT_THAT(told_, ElementsAre("2 late", "1 a"));
}

TEST_F(JobWaitersTest, CloseTellsAllAndLaterOnes) {
  waiters_.Add("a", Note("1"));
  waiters_.Add("b", Note("2"));
  EXPECT_THAT(told_, IsEmpty());
  waiters_.Close(absl::UnavailableError("bye"));
  waiters_.Add("a", Note("3"));
  EXPECT_THAT(told_, ElementsAre("1 UNAVAILABLE", "2 UNAVAILABLE", "3 UNAVAILABLE"));
}

}  // namespace
}  // namespace trimtab
