#include "meshd/http_probe.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <random>

namespace meshd {
namespace {

using testing::HasSubstr;

constexpr TimePoint kNow{std::chrono::seconds(1000)};

// --- StatusParser --------------------------------------------------------------------

std::optional<Result<int>> parse(std::string_view bytes) { return StatusParser().feed(bytes); }

TEST(StatusParserTest, ReadsTheStatusLine) {
  EXPECT_EQ(**parse("HTTP/1.1 200 OK\r\n"), 200);
  EXPECT_EQ(**parse("HTTP/1.0 404 Not Found\nwhatever"), 404);
  EXPECT_EQ(**parse("HTTP/1.1 503\r\n"), 503);
  EXPECT_EQ(**parse("HTTP/1.1 302 \r\n"), 302);
}

TEST(StatusParserTest, SkipsInterimAnswers) {
  EXPECT_EQ(**parse("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
                    "HTTP/1.1 204 No Content\r\n"),
            204);
}

TEST(StatusParserTest, BytesMayArriveOneByOne) {
  const std::string_view answer = "HTTP/1.1 100 C\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n";
  StatusParser parser;
  for (std::size_t i = 0; i + 1 < answer.size(); ++i) {
    ASSERT_FALSE(parser.feed(answer.substr(i, 1))) << i;
  }
  EXPECT_EQ(**parser.feed("\n"), 200);
}

TEST(StatusParserTest, WhatIsNotHttpIsRefused) {
  for (const auto* bytes :
       {"SSH-2.0-OpenSSH_9.2\r\n", "\r\n", "HTTP/2 200 OK\r\n", "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 20\r\n", "HTTP/1.1  200 OK\r\n", "HTTP/1.1 2x0 OK\r\n", "HTTP/1.1 099 OK\r\n",
        "HTTP/1.1 600 OK\r\n", "HTTP/1.1 101 Switching\r\n", "HTTP/1.x 200 OK\r\n"}) {
    const auto outcome = parse(bytes);
    ASSERT_TRUE(outcome) << bytes;
    EXPECT_FALSE(*outcome) << bytes;
  }
}

TEST(StatusParserTest, EndlessAnswersAreCutOff) {
  struct Case {
    std::string_view first, then;
  };
  for (const auto& [first, then] :
       {Case{"x", "x"}, Case{"HTTP/1.1 100 C\r\n", "x"}, Case{"", "HTTP/1.1 100 C\r\n\r\n"}}) {
    StatusParser parser;
    auto outcome = parser.feed(first);
    for (std::size_t fed = 0; !outcome && fed <= kMaxProbeBytes; fed += then.size()) {
      outcome = parser.feed(then);
    }
    ASSERT_TRUE(outcome) << then;
    EXPECT_FALSE(*outcome) << then;
  }
}

TEST(StatusParserTest, RandomBytesNeverGiveACodeOutOfRange) {
  std::mt19937 random(7);
  const std::string_view alphabet = "HTP/1. 0234\r\n:a\xff";
  for (int run = 0; run < 20'000; ++run) {
    std::string bytes = run % 2 == 0 ? "HTTP/1.1 " : "";
    const auto length = random() % 60;
    for (unsigned i = 0; i < length; ++i) bytes += alphabet[random() % alphabet.size()];
    const auto outcome = parse(bytes);
    if (outcome && *outcome) {
      EXPECT_GE(**outcome, 200);
      EXPECT_LE(**outcome, 599);
    }
  }
}

// --- HttpProbe -----------------------------------------------------------------------

class HttpProbeTest : public testing::Test {
 protected:
  void SetUp() override {
    listener_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof name;
    ASSERT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
    ASSERT_EQ(listen(listener_.get(), 4), 0);
    ASSERT_EQ(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
    port_ = ntohs(name.sin_port);
  }

  Result<HttpProbe> start(std::string_view path = "/healthz") const {
    return HttpProbe::start(IpAddress::v4(INADDR_LOOPBACK), port_, path, kNow);
  }

  // Drives the probe until it wants to read, i.e. until its request is out.
  static std::optional<Result<int>> until_sent(HttpProbe& probe) {
    std::optional<Result<int>> outcome;
    while (!outcome && probe.events() == EPOLLOUT && ready(probe)) outcome = probe.advance(kNow);
    return outcome;
  }
  static std::optional<Result<int>> until_done(HttpProbe& probe) {
    std::optional<Result<int>> outcome;
    while (!outcome && ready(probe)) outcome = probe.advance(kNow);
    return outcome;
  }
  static bool ready(const HttpProbe& probe) {
    const auto wanted = static_cast<short>(probe.events() == EPOLLIN ? POLLIN : POLLOUT);
    pollfd p{probe.fd(), wanted, 0};
    return poll(&p, 1, 5000) == 1;
  }
  UniqueFd accept_one() const { return UniqueFd(accept(listener_.get(), nullptr, nullptr)); }

  UniqueFd listener_;
  std::uint16_t port_ = 0;
};

TEST_F(HttpProbeTest, AsksForThePathAndReturnsTheStatus) {
  auto probe = start("/lab?x=1");
  ASSERT_TRUE(probe);
  const auto server = accept_one();
  ASSERT_FALSE(until_sent(*probe));
  std::array<char, 1024> request{};
  const auto got = recv(server.get(), request.data(), request.size(), 0);
  ASSERT_GT(got, 0);
  EXPECT_EQ(std::string(request.data(), static_cast<std::size_t>(got)),
            fmt::format("GET /lab?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUser-Agent: meshd\r\n"
                        "Accept: */*\r\nConnection: close\r\n\r\n",
                        port_));
  const std::string_view answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  ASSERT_GT(send(server.get(), answer.data(), answer.size(), 0), 0);
  const auto outcome = until_done(*probe);
  ASSERT_TRUE(outcome);
  EXPECT_EQ(**outcome, 200);
}

TEST_F(HttpProbeTest, RefusedConnectionSaysSo) {
  listener_.reset();
  auto probe = start();
  ASSERT_TRUE(probe);
  const auto outcome = until_done(*probe);
  ASSERT_TRUE(outcome);
  ASSERT_FALSE(*outcome);
  EXPECT_EQ(outcome->error().sys_errno, ECONNREFUSED);
  EXPECT_THAT(outcome->error().what, HasSubstr(fmt::format("127.0.0.1:{}/healthz", port_)));
}

TEST_F(HttpProbeTest, SilentServerIsGivenUpAtTheDeadline) {
  auto probe = start();
  ASSERT_TRUE(probe);
  ASSERT_FALSE(until_sent(*probe));
  EXPECT_FALSE(probe->advance(probe->deadline() - Duration(1)));
  const auto outcome = probe->advance(probe->deadline());
  ASSERT_TRUE(outcome);
  ASSERT_FALSE(*outcome);
  EXPECT_EQ(outcome->error().sys_errno, ETIMEDOUT);
}

TEST_F(HttpProbeTest, ServerThatDripsIsGivenUpAtTheDeadline) {
  auto probe = start();
  ASSERT_TRUE(probe);
  const auto server = accept_one();
  ASSERT_FALSE(until_sent(*probe));
  ASSERT_EQ(send(server.get(), "H", 1, 0), 1);
  ASSERT_TRUE(ready(*probe));
  const auto outcome = probe->advance(kNow + kProbeLimit);
  ASSERT_TRUE(outcome);
  EXPECT_FALSE(*outcome);
}

TEST_F(HttpProbeTest, ServerThatClosesIsAnError) {
  auto probe = start();
  ASSERT_TRUE(probe);
  auto server = accept_one();
  ASSERT_FALSE(until_sent(*probe));
  ASSERT_EQ(shutdown(server.get(), SHUT_WR), 0);
  const auto outcome = until_done(*probe);
  ASSERT_TRUE(outcome);
  ASSERT_FALSE(*outcome);
  EXPECT_THAT(outcome->error().what, HasSubstr("closed without an answer"));
}

TEST_F(HttpProbeTest, CalledTooEarlyItJustWaits) {
  auto probe = start();
  ASSERT_TRUE(probe);
  EXPECT_FALSE(probe->advance(kNow));
  EXPECT_FALSE(probe->advance(kNow));
}

TEST(HttpProbeTargetTest, PathThatWouldBreakTheRequestIsRefused) {
  for (const auto* path : {"", "healthz", "/a b", "/a\r\nX: y", "/\x7f", "/\xc3\xa9"}) {
    EXPECT_FALSE(HttpProbe::start(IpAddress::v4(INADDR_LOOPBACK), 80, path, kNow)) << path;
  }
  EXPECT_FALSE(HttpProbe::start(IpAddress::v4(INADDR_LOOPBACK), 0, "/", kNow));
}

}  // namespace
}  // namespace meshd
