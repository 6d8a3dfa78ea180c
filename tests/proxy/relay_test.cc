// Relay: real sockets on both sides, driven by the test's own thread.
#include "proxy/relay.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>
#include <string>

#include "tests/support/temp_dir.h"

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

constexpr gid_t kNoGroup = static_cast<gid_t>(-1);

// What containers listen with.
class Listener {
 public:
  Listener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof name;
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
    EXPECT_EQ(listen(fd_.get(), 16), 0);
    EXPECT_EQ(getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
    upstream_ = {IpAddress::v4(INADDR_LOOPBACK), ntohs(name.sin_port)};
  }
  [[nodiscard]] const Upstream& upstream() const { return upstream_; }
  [[nodiscard]] UniqueFd take() const {
    return UniqueFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  }
  [[nodiscard]] bool is_called() const {
    pollfd wait{fd_.get(), POLLIN, 0};
    return poll(&wait, 1, 0) == 1;
  }
  void close() { fd_.reset(); }

 private:
  UniqueFd fd_;
  Upstream upstream_;
};

class RelayTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = Relay::make(folder(), kNoGroup);
    ASSERT_TRUE(made) << made.error().what;
    relay_ = *std::move(made);
  }
  [[nodiscard]] std::string folder() const { return dir_.path() + "/relay"; }
  std::string open(const std::string& key, const Listener& to) {
    auto path = relay_->open(key, to.upstream(), now_);
    EXPECT_TRUE(path);
    return path.value_or("");
  }
  // nginx's side.
  static UniqueFd call(const std::string& path) {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::ranges::copy(path, name.sun_path);
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) return {};
    fcntl(fd.get(), F_SETFL, O_NONBLOCK);
    return fd;
  }
  template <class Done>
  bool run_until(Done done) {
    for (int i = 0; i < 2000; ++i) {
      if (done()) return true;
      pollfd wait{relay_->fd(), POLLIN, 0};
      poll(&wait, 1, 5);
      relay_->serve(now_);
    }
    return done();
  }
  struct Ends {
    UniqueFd outer, inner;
  };
  Ends connect_through(const std::string& path, const Listener& to) {
    Ends ends{call(path), {}};
    EXPECT_TRUE(run_until([&] { return to.is_called(); }));
    ends.inner = to.take();
    return ends;
  }
  static void say(const UniqueFd& fd, std::string_view text) {
    ASSERT_EQ(send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // What comes, until it is so much or its end.
  std::string hear(const UniqueFd& fd, std::size_t size) {
    std::string heard;
    char buffer[65536];
    EXPECT_TRUE(run_until([&] {
      const auto got = recv(fd.get(), buffer, sizeof buffer, 0);
      if (got > 0) heard.append(buffer, static_cast<std::size_t>(got));
      return heard.size() >= size || got == 0;
    }));
    return heard;
  }
  bool has_ended(const UniqueFd& fd) {
    char byte = 0;
    return run_until([&] {
      const auto got = recv(fd.get(), &byte, 1, 0);
      return got == 0 || (got < 0 && errno == ECONNRESET);
    });
  }
  // Until no more is taken; how much it was.
  std::size_t fill(const UniqueFd& fd) {
    const std::string block(65536, 'x');
    std::size_t sent = 0;
    for (int idle = 0; idle < 20;) {
      const auto got = send(fd.get(), block.data(), block.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (got > 0) sent += static_cast<std::size_t>(got);
      idle = got > 0 ? 0 : idle + 1;
      relay_->serve(now_);
    }
    return sent;
  }

  TempDir dir_;
  TimePoint now_{1h};
  std::unique_ptr<Relay> relay_;
};

TEST_F(RelayTest, CarriesBytesBothWays) {
  const Listener listener;
  const auto ends = connect_through(open("aa", listener), listener);
  say(ends.outer, "GET / HTTP/1.1\r\n");
  EXPECT_EQ(hear(ends.inner, 16), "GET / HTTP/1.1\r\n");
  say(ends.inner, "HTTP/1.1 101\r\n");
  EXPECT_EQ(hear(ends.outer, 14), "HTTP/1.1 101\r\n");
  EXPECT_EQ(relay_->connections(), 1U);
  EXPECT_THAT(relay_->busy(), ElementsAre("aa"));
}

TEST_F(RelayTest, CuttingOneCallerEndsNobodyElsesConnections) {
  const Listener listener;
  const auto path = open("aa", listener);
  const auto one = connect_through(path, listener);
  const auto two = connect_through(path, listener);
  const auto other = connect_through(open("bb", listener), listener);
  relay_->cut("aa");
  for (const auto* ends : {&one, &two}) {
    EXPECT_TRUE(has_ended(ends->outer));
    EXPECT_TRUE(has_ended(ends->inner));
  }
  EXPECT_FALSE(call(path)) << "nobody gets in any more";
  say(other.outer, "still");
  EXPECT_EQ(hear(other.inner, 5), "still");
  EXPECT_EQ(relay_->connections(), 1U);
  relay_->cut("aa");
}

TEST_F(RelayTest, AContainerDoesNotKeepAnEndToWhichNobodyIs) {
  const Listener listener;
  auto ends = connect_through(open("aa", listener), listener);
  ends.outer.reset();
  EXPECT_TRUE(has_ended(ends.inner));
  relay_->sweep(now_);
  relay_->sweep(now_ + kLeftAloneLimit - 1s);
  EXPECT_EQ(relay_->connections(), 1U) << "what was sent is on its way";
  relay_->sweep(now_ + kLeftAloneLimit);
  EXPECT_EQ(relay_->connections(), 0U);
}

TEST_F(RelayTest, WhatWasSentBeforeTheEndArrives) {
  const Listener listener;
  const auto path = open("aa", listener);
  for (const bool from_outer : {true, false}) {
    auto ends = connect_through(path, listener);
    auto& from = from_outer ? ends.outer : ends.inner;
    const auto& to = from_outer ? ends.inner : ends.outer;
    const auto sent = fill(from);
    from.reset();
    EXPECT_EQ(hear(to, sent + 1).size(), sent);
    EXPECT_TRUE(has_ended(to));
    from_outer ? ends.inner.reset() : ends.outer.reset();
    EXPECT_TRUE(run_until([&] { return relay_->connections() == 0; }));
  }
}

TEST_F(RelayTest, OneWayMayEndBeforeTheOther) {
  const Listener listener;
  const auto ends = connect_through(open("aa", listener), listener);
  say(ends.outer, "question");
  shutdown(ends.outer.get(), SHUT_WR);
  EXPECT_EQ(hear(ends.inner, 100), "question");
  say(ends.inner, "answer");
  EXPECT_EQ(hear(ends.outer, 6), "answer");
}

TEST_F(RelayTest, WhoDoesNotReadIsNotReadFor) {
  const Listener listener;
  const auto ends = connect_through(open("aa", listener), listener);
  const int small = 16 * 1024;
  setsockopt(ends.inner.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  const auto sent = fill(ends.outer);
  EXPECT_GT(sent, kTurnBytes);
  EXPECT_EQ(fill(ends.outer), 0U) << "it waits";
  EXPECT_EQ(hear(ends.inner, sent).size(), sent) << "and nothing of it is lost";
  const auto other = connect_through(open("bb", listener), listener);
  say(other.outer, "beside it");
  EXPECT_EQ(hear(other.inner, 9), "beside it");
}

TEST_F(RelayTest, AnUpstreamThatIsAwayEndsTheConnection) {
  Listener listener;
  const auto path = open("aa", listener);
  listener.close();
  const auto outer = call(path);
  EXPECT_TRUE(has_ended(outer));
  EXPECT_EQ(relay_->connections(), 0U);
}

TEST_F(RelayTest, AnotherUpstreamCutsWhatGoesToTheOldOne) {
  const Listener before, after;
  const auto path = open("aa", before);
  const auto old = connect_through(path, before);
  EXPECT_EQ(open("aa", before), path);
  say(old.outer, "still");
  EXPECT_EQ(hear(old.inner, 5), "still");
  EXPECT_EQ(open("aa", after), path);
  EXPECT_TRUE(has_ended(old.outer));
  const auto ends = connect_through(path, after);
  say(ends.inner, "new");
  EXPECT_EQ(hear(ends.outer, 3), "new");
}

TEST_F(RelayTest, DoorsThatNobodyUsesGo) {
  const Listener listener;
  const auto unused = open("aa", listener), used = open("bb", listener);
  const auto ends = connect_through(used, listener);
  say(ends.outer, "still");
  EXPECT_EQ(hear(ends.inner, 5), "still");
  now_ += kDoorLife + 1s;
  relay_->sweep(now_);
  EXPECT_FALSE(std::filesystem::exists(unused));
  EXPECT_TRUE(std::filesystem::exists(used));
  relay_.reset();
  EXPECT_TRUE(std::filesystem::is_empty(folder()));
  char byte = 0;
  EXPECT_EQ(recv(ends.outer.get(), &byte, 1, 0), 0) << "and they end with the relay";
}

TEST_F(RelayTest, SocketsOfAnEarlierProcessGo) {
  const Listener listener;
  const auto path = open("aa", listener);
  auto other = Relay::make(folder(), kNoGroup);  // as after a kill
  ASSERT_TRUE(other);
  EXPECT_FALSE(std::filesystem::exists(path));
  const auto folder_mode = std::filesystem::status(folder()).permissions();
  EXPECT_EQ(folder_mode & std::filesystem::perms::others_all, std::filesystem::perms::none);
}

TEST_F(RelayTest, WithoutDescriptorsItWaitsAndDoesNotTurn) {
  const Listener container;
  const auto path = open("ab", container);
  const auto caller = call(path);
  ASSERT_TRUE(caller);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const UniqueFd first_free(dup(caller.get()));
  const rlimit used_up{static_cast<rlim_t>(first_free.get()), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &used_up), 0);
  pollfd wait{relay_->fd(), POLLIN, 0};
  const auto waited_for = poll(&wait, 1, 0);
  relay_->serve(now_);
  const auto left = poll(&wait, 1, 0);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(waited_for, 1);
  EXPECT_EQ(left, 0) << "it would be told of the same caller again and again";
  relay_->sweep(now_);
  EXPECT_TRUE(run_until([&] { return container.is_called(); })) << "it is let in later";
}

TEST_F(RelayTest, MoreThanItsLimitsIsRefused) {
  const Listener listener;
  relay_.reset();
  relay_ = Relay::make(folder(), kNoGroup, {.connections = 1, .doors = 2}).value();
  const auto path = open("aa", listener);
  open("bb", listener);
  const auto third = relay_->open("cc", listener.upstream(), now_);
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code, ErrorCode::kExhausted);
  const auto first = connect_through(path, listener);
  EXPECT_TRUE(has_ended(call(path)));
  say(first.outer, "still");
  EXPECT_EQ(hear(first.inner, 5), "still");
}

}  // namespace
}  // namespace meshd::proxy
