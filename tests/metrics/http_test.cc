// The endpoint in a loop of the test's, and those who come to it by a socket.
#include "metrics/http.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/unique_fd.h"

namespace meshd::metrics {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class MetricsHttpTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = Endpoint::open({IpAddress::parse("127.0.0.1").value(), 0}, [this] {
      ++rendered_;
      return std::string("answer 42\n");
    });
    ASSERT_TRUE(opened) << opened.error().what;
    endpoint_ = *std::move(opened);
  }
  [[nodiscard]] UniqueFd connected() const {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(endpoint_->port());
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    return fd;
  }
  // What comes until the other end closes; the endpoint runs meanwhile.
  std::string read_all(int fd) {
    std::string got;
    for (;;) {
      pollfd waits[] = {{fd, POLLIN, 0}, {endpoint_->fd(), POLLIN, 0}};
      if (poll(waits, 2, 20'000) <= 0) return got + "<nothing came>";
      if (waits[1].revents != 0) static_cast<void>(endpoint_->serve());
      if (waits[0].revents == 0) continue;
      char bytes[4096];
      const auto count = read(fd, bytes, sizeof bytes);
      if (count <= 0) return got;
      got.append(bytes, static_cast<std::size_t>(count));
    }
  }
  std::string ask(const std::string& request) {
    const auto fd = connected();
    EXPECT_EQ(write(fd.get(), request.data(), request.size()),
              static_cast<ssize_t>(request.size()));
    return read_all(fd.get());
  }
  std::string ask_for(const std::string& method, const std::string& path) {
    return ask(method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }

  std::unique_ptr<Endpoint> endpoint_;
  int rendered_ = 0;
};

TEST_F(MetricsHttpTest, AnswersWithWhatIsTrueNow) {
  const auto got = ask_for("GET", "/metrics");
  EXPECT_THAT(got, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(got, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(got, HasSubstr("\r\n\r\nanswer 42\n"));
  EXPECT_EQ(rendered_, 1);
  EXPECT_THAT(ask_for("HEAD", "/metrics"), StartsWith("HTTP/1.1 200"));
}

TEST_F(MetricsHttpTest, ThereIsNothingElse) {
  EXPECT_THAT(ask_for("GET", "/"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(ask_for("GET", "/metrics/../etc/passwd"), StartsWith("HTTP/1.1 404"));
  const auto posted = ask_for("POST", "/metrics");
  EXPECT_THAT(posted, StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(posted, HasSubstr("Allow: GET, HEAD\r\n"));
  EXPECT_THAT(ask("\x16\x03\x01 no HTTP\r\n\r\n"), testing::Not(HasSubstr("answer")));
  EXPECT_EQ(rendered_, 0);
}

// A request that never ends does not keep others from theirs.
TEST_F(MetricsHttpTest, WhoHasNotFinishedHoldsNobodyUp) {
  const auto slow = connected();
  ASSERT_EQ(write(slow.get(), "GET /met", 8), 8);
  EXPECT_THAT(ask_for("GET", "/metrics"), HasSubstr("answer 42"));
  EXPECT_THAT(endpoint_->serve(), testing::Optional(testing::Gt(Duration(0))))
      << "the unfinished one is to be cut";
}

TEST_F(MetricsHttpTest, MoreThanItsConnectionsAreTurnedAway) {
  std::vector<UniqueFd> held;
  for (unsigned i = 0; i < kConnections; ++i) {
    held.push_back(connected());
    static_cast<void>(endpoint_->serve());
  }
  const auto one_more = connected();
  pollfd wait{one_more.get(), POLLIN, 0};
  static_cast<void>(endpoint_->serve());
  EXPECT_EQ(poll(&wait, 1, 0), 0) << "it is not served";
  held.clear();
  for (int i = 0; i < 100 && rendered_ == 0; ++i) {
    const std::string request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    if (i == 0) {
      ASSERT_EQ(write(one_more.get(), request.data(), request.size()),
                static_cast<ssize_t>(request.size()));
    }
    pollfd ready{endpoint_->fd(), POLLIN, 0};
    poll(&ready, 1, 100);
    static_cast<void>(endpoint_->serve());
  }
  EXPECT_EQ(rendered_, 1) << "its turn comes when others have gone";
}

TEST_F(MetricsHttpTest, APortThatIsTakenIsAnErrorThatSaysWhy) {
  const auto second =
      Endpoint::open({IpAddress::parse("127.0.0.1").value(), endpoint_->port()}, [] { return ""; });
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().what, StartsWith("metrics: listen on 127.0.0.1:"));
  EXPECT_THAT(second.error().what, HasSubstr("in use"));
}

TEST(MetricsListenTest, IsAnAddressAndAPort) {
  const auto v4 = parse_listen("127.0.0.1:9470");
  ASSERT_TRUE(v4) << v4.error().what;
  EXPECT_EQ(v4->address.to_string(), "127.0.0.1");
  EXPECT_EQ(v4->port, 9470);
  const auto v6 = parse_listen("[::1]:0");
  ASSERT_TRUE(v6) << v6.error().what;
  EXPECT_EQ(v6->address.to_string(), "::1");
  EXPECT_EQ(v6->port, 0);
  for (const auto* text : {"", "9470", "localhost:9470", "::1:9470", "[127.0.0.1]:1", "[::1]",
                           "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:9470 ", "127.0.0.1:-1"}) {
    const auto wrong = parse_listen(text);
    ASSERT_FALSE(wrong) << text;
    EXPECT_THAT(wrong.error().what, HasSubstr("is no ADDRESS:PORT"));
  }
}

}  // namespace
}  // namespace meshd::metrics
