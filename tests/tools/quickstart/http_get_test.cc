#include "tools/quickstart/http_get.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

namespace trimtab {
namespace {

// Answers one request with `response`.
class OneAnswer {
 public:
  explicit OneAnswer(const std::string& response) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    EXPECT_EQ(listen(socket_, 1), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, response] {
      const int connection = accept(socket_, nullptr, nullptr);
      char buffer[4096];
      while (request_.find("\r\n\r\n") == std::string::npos) {
        const ssize_t got = recv(connection, buffer, sizeof(buffer), 0);
        if (got <= 0) break;
        request_.append(buffer, static_cast<size_t>(got));
      }
      EXPECT_EQ(send(connection, response.data(), response.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(response.size()));
      close(connection);
    });
  }
  ~OneAnswer() {
    thread_.join();
    close(socket_);
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // After the answer has come.
  const std::string& request() const { return request_; }

 private:
  const int socket_;
  int port_ = 0;
  std::string request_;
  std::thread thread_;
};

TEST(HttpGet, ReturnsTheBody) {
  const std::string long_body(100'000, 'x');
  OneAnswer server("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + long_body);
  const auto body = HttpGet(server.address(), "/metrics");
  ASSERT_TRUE(body.ok()) << body.status();
  EXPECT_EQ(*body, long_body);
  EXPECT_EQ(server.request().rfind("GET /metrics HTTP/1.0\r\n", 0), 0u);
}

TEST(HttpGet, RefusesOtherAnswers) {
  {
    OneAnswer server("HTTP/1.1 404 Not Found\r\nX: 200 \r\n\r\nnothing");
    EXPECT_EQ(HttpGet(server.address(), "/").status().code(), absl::StatusCode::kUnavailable);
  }
  OneAnswer server("nonsense");
  EXPECT_EQ(HttpGet(server.address(), "/").status().code(), absl::StatusCode::kUnavailable);
}

TEST(HttpGet, NeedsAnAddressWhereSomebodyAnswers) {
  EXPECT_EQ(HttpGet("127.0.0.1:1", "/").status().code(), absl::StatusCode::kUnavailable);
  for (const char* address : {"127.0.0.1", "localhost:80", "127.0.0.1:http", ""}) {
    EXPECT_EQ(HttpGet(address, "/").status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

}  // namespace
}  // namespace trimtab
