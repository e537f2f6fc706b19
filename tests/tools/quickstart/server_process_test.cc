#include "tools/quickstart/server_process.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

namespace trimtab {
namespace {

class ServerProcessTest : public ::testing::Test {
 protected:
  ServerProcessTest() {
    std::string pattern = ::testing::TempDir() + "/serverXXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~ServerProcessTest() override { std::filesystem::remove_all(folder_); }

  // A stand-in for the server: a shell script that gets the server's flags.
  std::string Script(const std::string& text) {
    const std::string path = folder_ + "/server.sh";
    std::ofstream(path) << "#!/bin/sh\nfor flag; do case $flag in --port_file=*) ports=${flag#*=};; esac; done\n"
                        << text;
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }

  std::string folder_;
};

TEST_F(ServerProcessTest, ReadsThePortsAndStopsTheServer) {
  const auto server = ServerProcess::Start(Script("echo started \"$@\"; echo 12 34 > \"$ports\"; exec sleep 1000"),
                                           {"--extra=1"}, folder_, absl::Minutes(1));
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->address(), "127.0.0.1:12");
  EXPECT_EQ((*server)->metrics_address(), "127.0.0.1:34");
  EXPECT_NE((*server)->log().find("--extra=1"), std::string::npos);
  (*server)->Signal(SIGTERM);
  EXPECT_EQ((*server)->Wait(), 128 + SIGTERM);
  EXPECT_EQ((*server)->Wait(), 128 + SIGTERM);
}

TEST_F(ServerProcessTest, KillsTheServerAtTheEnd) {
  auto server = ServerProcess::Start(Script("trap '' TERM; echo 1 2 > \"$ports\"; exec sleep 1000"), {}, folder_,
                                     absl::Minutes(1));
  ASSERT_TRUE(server.ok()) << server.status();
  const pid_t pid = (*server)->pid();
  EXPECT_EQ(kill(pid, 0), 0);
  server->reset();
  EXPECT_NE(kill(pid, 0), 0);
}

TEST_F(ServerProcessTest, SaysWhyTheServerEnded) {
  const absl::Status failed =
      ServerProcess::Start(Script("echo no such model >&2; exit 3"), {}, folder_, absl::Minutes(1)).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kInternal);
  EXPECT_NE(std::string(failed.message()).find("status 3:\nno such model"), std::string::npos) << failed;
  EXPECT_EQ(ServerProcess::Start(folder_ + "/missing", {}, folder_, absl::Minutes(1)).status().code(),
            absl::StatusCode::kInternal);
}

TEST_F(ServerProcessTest, GivesUp) {
  EXPECT_EQ(ServerProcess::Start(Script("exec sleep 1000"), {}, folder_, absl::ZeroDuration()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace trimtab
