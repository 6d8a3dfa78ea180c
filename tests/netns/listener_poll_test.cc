#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "netlink/sock_diag.h"
#include "tests/support/flows.h"
#include "tests/support/rt_fixture.h"

namespace meshd::netlink {
namespace {

using test::ip;
using test::must;
using test::serve;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ListenerPollTest : public test::RtFixture {};

TEST_F(ListenerPollTest, SeesWhoListensWhere) {
  const Netns container = connected_container();
  ListenerPoller poller = must(ListenerPoller::open(container.fd()));
  EXPECT_THAT(must(poller.poll()), IsEmpty());
  const UniqueFd any4 = serve(container, "0.0.0.0", 80);
  const UniqueFd local = serve(container, "127.0.0.1", 81);
  const UniqueFd one = serve(container, "10.88.0.2", 82);
  const UniqueFd dual = serve(container, "::", 83);
  const UniqueFd only6 = serve(container, "::", 84, SOCK_STREAM, true);
  const UniqueFd mapped = serve(container, "::ffff:10.88.0.2", 85);
  const UniqueFd datagram = serve(container, "0.0.0.0", 86, SOCK_DGRAM);
  EXPECT_THAT(must(poller.poll()),
              ElementsAre(Listener{.address = ip("0.0.0.0"), .port = 80},
                          Listener{.address = ip("10.88.0.2"), .port = 82},
                          Listener{.address = ip("10.88.0.2"), .port = 85},
                          Listener{.address = ip("127.0.0.1"), .port = 81},
                          Listener{.address = ip("::"), .port = 83},
                          Listener{.address = ip("::"), .port = 84, .v6_only = true}));
}

TEST_F(ListenerPollTest, ClosedListenerIsGone) {
  const Netns container = connected_container();
  ListenerPoller poller = must(ListenerPoller::open(container.fd()));
  UniqueFd listener = serve(container, "0.0.0.0", 80);
  EXPECT_EQ(must(poller.poll()).size(), 1U);
  listener.reset();
  EXPECT_THAT(must(poller.poll()), IsEmpty());
}

TEST_F(ListenerPollTest, SeesNoOtherNamespace) {
  const Netns container = connected_container();
  const Netns other = test::make_netns();
  const UniqueFd listener = serve(other, "0.0.0.0", 80);
  ListenerPoller poller = must(ListenerPoller::open(container.fd()));
  EXPECT_THAT(must(poller.poll()), IsEmpty());
}

TEST_F(ListenerPollTest, BoundWithoutListenIsNoListener) {
  const Netns container = connected_container();
  ListenerPoller poller = must(ListenerPoller::open(container.fd()));
  UniqueFd bound;
  must(run_in_netns(container.fd(),
                    [&bound] { bound = test::make_socket(ip("0.0.0.0"), SOCK_STREAM); }));
  const auto local = test::endpoint(ip("0.0.0.0"), 80);
  ASSERT_EQ(bind(bound.get(), local.get(), local.length), 0);
  EXPECT_THAT(must(poller.poll()), IsEmpty());
}

TEST_F(ListenerPollTest, ManyListenersTakeSeveralDatagrams) {
  const Netns container = connected_container();
  ListenerPoller poller = must(ListenerPoller::open(container.fd()));
  std::vector<UniqueFd> listeners;
  for (std::uint16_t port = 2000; port < 2600; ++port) {
    listeners.push_back(serve(container, "0.0.0.0", port));
  }
  EXPECT_EQ(must(poller.poll()).size(), 600U);
}

}  // namespace
}  // namespace meshd::netlink
