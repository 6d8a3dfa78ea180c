#include "meshd/controller_link.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>

#include "base/unique_fd.h"
#include "tests/meshd/controller_link_fixture.h"

namespace meshd {
namespace {

using namespace std::chrono_literals;
using test::FakeController;
using test::LinkDriver;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using Part = FakeController::Part;

class ControllerLinkTest : public test::LinkFixture {};

TEST_F(ControllerLinkTest, MessagesGoBothWaysInOrder) {
  FakeController controller(authority_, dir_.path());
  LinkDriver node(known({controller.address()}));
  ASSERT_TRUE(node.run_until_connected()) << node.problem_now;
  ASSERT_EQ(node.messages.size(), 1U);
  EXPECT_TRUE(node.messages[0].has_welcome());
  constexpr std::uint64_t kMany = 500;
  for (std::uint64_t i = 1; i <= kMany; ++i) node.report(i);
  ASSERT_TRUE(node.run_until([&] { return node.messages.size() == kMany + 1; }));
  const auto heard = controller.heard();
  ASSERT_EQ(heard.size(), kMany);
  for (std::uint64_t i = 1; i <= kMany; ++i) {
    EXPECT_EQ(heard[i - 1].report().number(), i);
    EXPECT_EQ(node.messages[i].report_taken().number(), i);
  }
}

TEST_F(ControllerLinkTest, AHandlerMayAnswerAndMayEndTheSession) {
  FakeController controller(authority_, dir_.path());
  LinkDriver node(known({controller.address()}));
  node.on_message = [&](const mesh::v1::ToNode& message) {
    if (message.has_welcome()) return node.report(1);
    node.link().end_session("enough");
    node.report(2);  // too late
  };
  ASSERT_TRUE(node.run_until([&] { return !node.ends.empty(); }));
  EXPECT_EQ(node.ends[0], controller.address() + ": enough");
  EXPECT_TRUE(node.run_until([&] { return node.connections.size() == 2; }));
  EXPECT_TRUE(node.run_until([&] { return controller.received == 2; }));
  for (const auto& heard : controller.heard()) EXPECT_EQ(heard.report().number(), 1U);
}

TEST_F(ControllerLinkTest, WhatIsSentWithoutASessionIsDropped) {
  FakeController controller(authority_, dir_.path());
  LinkDriver node(known({controller.address()}));
  node.report(1);
  ASSERT_TRUE(node.run_until_connected());
  node.report(2);
  ASSERT_TRUE(node.run_until([&] { return controller.received == 1; }));
  EXPECT_EQ(controller.heard()[0].report().number(), 2U);
}

TEST_F(ControllerLinkTest, ComesBackWithinTwoSecondsOfTheController) {
  FakeController controller(authority_, dir_.path());
  LinkDriver node(known({controller.address()}));
  ASSERT_TRUE(node.run_until_connected());
  for (int i = 0; i < 5; ++i) {
    controller.stop();
    ASSERT_TRUE(node.run_until_disconnected(5s));
    ASSERT_TRUE(node.run_until_problem("no session with a controller: " + controller.address()));
    node.run_for(1s);
    controller.start();
    EXPECT_TRUE(node.run_until_connected(2s)) << i << ": " << node.problem_now;
    EXPECT_EQ(node.problem_now, "");
  }
  EXPECT_EQ(node.connections.size(), 6U);
  EXPECT_EQ(node.ends.size(), 5U);
}

TEST_F(ControllerLinkTest, GoesOnWithTheOtherController) {
  FakeController first(authority_, dir_.path());
  FakeController second(authority_, dir_.path(), {}, "c2");
  LinkDriver node(known({first.address(), second.address()}));
  ASSERT_TRUE(node.run_until_connected());
  const bool is_first = node.connections[0] == first.address();
  (is_first ? first : second).stop();
  ASSERT_TRUE(node.run_until([&] { return node.connections.size() == 2; }, 10s));
  EXPECT_EQ(node.connections[1], (is_first ? second : first).address());
}

TEST_F(ControllerLinkTest, OneThatSaysNothingIsGivenUpForTheOther) {
  FakeController mute(authority_, dir_.path());
  mute.part = Part::kMute;
  FakeController good(authority_, dir_.path(), {}, "c2");
  auto options = known({mute.address(), good.address()});
  options.times.answer = 300ms;
  LinkDriver node(options);
  ASSERT_TRUE(node.run_until_connected());
  EXPECT_EQ(node.connections[0], good.address());
  node.run_for(500ms);  // that limit is for the first answer alone
  EXPECT_TRUE(node.is_connected);
  EXPECT_THAT(node.ends, IsEmpty());
}

TEST_F(ControllerLinkTest, AControllerOfAnotherClusterIsNotSpokenWith) {
  const pki::SampleAuthority other(pki::real_now(), "other");
  FakeController controller(other, dir_.path(), {}, "c1", "other");
  LinkDriver node(known({controller.address()}));
  ASSERT_TRUE(node.run_until_problem("no session with a controller: " + controller.address()));
  node.run_for(1s);
  EXPECT_EQ(controller.sessions, 0);
  EXPECT_THAT(node.connections, IsEmpty());
}

TEST_F(ControllerLinkTest, AFarewellIsHeededAndSaid) {
  FakeController controller(authority_, dir_.path());
  controller.part = Part::kFarewell;
  controller.retry_after_ms = 1500;
  LinkDriver node(known({controller.address()}));
  ASSERT_TRUE(node.run_until_problem("upgrade"));
  const auto start = BootClock::now();
  controller.part = Part::kAnswer;
  ASSERT_TRUE(node.run_until_connected());
  EXPECT_GE(BootClock::now() - start, 1400ms);
  EXPECT_THAT(node.ends, IsEmpty());
}

TEST_F(ControllerLinkTest, AFarewellEndsASession) {
  FakeController controller(authority_, dir_.path());
  controller.part = Part::kWave;
  LinkDriver node(known({controller.address()}));
  ASSERT_TRUE(node.run_until([&] { return !node.ends.empty(); }));
  EXPECT_EQ(node.ends[0], controller.address() + ": upgrade");
  EXPECT_EQ(node.messages.size(), 1U);
}

TEST_F(ControllerLinkTest, SessionsThatDoNotLastAreBegunMoreSlowly) {
  FakeController controller(authority_, dir_.path());
  controller.part = Part::kDrop;
  auto options = known({controller.address()});
  options.times.settled = 30s;
  LinkDriver node(options);
  node.run_for(4s);
  // 0.1 s at least, then half as much more each: the tenth begins after 11 s or later.
  EXPECT_GE(controller.sessions, 2);
  EXPECT_LE(controller.sessions, 9);
  ASSERT_THAT(node.ends, Not(IsEmpty()));
  EXPECT_THAT(node.ends[0], HasSubstr("the controller ended the session"));
}

TEST_F(ControllerLinkTest, AControllerThatDoesNotReadIsLeft) {
  FakeController controller(authority_, dir_.path());
  controller.part = Part::kDeaf;
  LinkDriver node(known({controller.address()}));
  ASSERT_TRUE(node.run_until_connected());
  for (std::uint64_t i = 0; i < ControllerLink::kMaxUnsent / 2; ++i) node.report(i);
  node.run_for(200ms);
  EXPECT_TRUE(node.is_connected);
  controller.part = Part::kAnswer;  // the next session
  constexpr std::size_t kMebibyte = 1 << 20;
  for (std::size_t sent = 0; sent <= ControllerLink::kMaxUnsentBytes; sent += kMebibyte) {
    node.report(1, kMebibyte);
  }
  EXPECT_TRUE(node.is_connected);  // told by the loop, not within send()
  ASSERT_TRUE(node.run_until_disconnected());
  EXPECT_THAT(node.ends[0], HasSubstr("does not read"));
  EXPECT_TRUE(node.run_until_connected());
}

TEST_F(ControllerLinkTest, StopEndsASessionAtOnce) {
  FakeController controller(authority_, dir_.path());
  LinkDriver node(known({controller.address()}));
  ASSERT_TRUE(node.run_until_connected());
  for (std::uint64_t i = 0; i < 100; ++i) node.report(i, 1000);
  const auto start = BootClock::now();
  node.link().stop();
  node.link().stop();
  EXPECT_LT(BootClock::now() - start, 1s);
  EXPECT_FALSE(node.link().next_timer());
  node.run_for(50ms);
  EXPECT_THAT(node.ends, IsEmpty());
}

// Takes connections, and never says anything on them.
class BlackHole {
 public:
  BlackHole() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_.get(), 64), 0);
    EXPECT_EQ(getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  [[nodiscard]] const std::string& address() const { return address_; }

 private:
  UniqueFd fd_;
  std::string address_;
};

TEST_F(ControllerLinkTest, AHandshakeThatHangsIsGivenUpForTheOther) {
  const BlackHole hole;
  FakeController good(authority_, dir_.path());
  LinkDriver node(known({hole.address(), good.address()}));
  ASSERT_TRUE(node.run_until_connected(10s)) << node.problem_now;
  EXPECT_EQ(node.connections[0], good.address());
}

TEST_F(ControllerLinkTest, StopWhileConnectingOrWaitingEndsAtOnce) {
  const BlackHole hole;
  for (const auto after : {0ms, 20ms, 300ms, 2500ms}) {
    LinkDriver node(known({hole.address()}));
    node.run_for(after);
    const auto start = BootClock::now();
    node.link().stop();
    EXPECT_LT(BootClock::now() - start, 1s) << after.count();
  }
}

TEST_F(ControllerLinkTest, StopWhileJoiningEndsAtOnce) {
  const BlackHole hole;
  const auto text = pki::encode_ticket({.join_addresses = {hole.address()},
                                        .addresses = {hole.address()},
                                        .authorities = {authority_.list(), "lab"},
                                        .token = FakeController::kToken});
  std::ofstream(ticket_) << *text;
  ASSERT_EQ(chmod(ticket_.c_str(), 0600), 0);
  LinkDriver node(joining());
  node.run_for(300ms);
  const auto start = BootClock::now();
  node.link().stop();
  EXPECT_LT(BootClock::now() - start, 1s);
}

}  // namespace
}  // namespace meshd
