#include "netlink/link_monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/rt_fixture.h"

namespace meshd::netlink {
namespace {

using test::ip;
using test::must;
using test::output_of;
using test::prefix;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Field;
using ::testing::IsEmpty;
using Kind = LinkEvent::Kind;

auto event(Kind kind, bool removed, bool ours) {
  return AllOf(Field(&LinkEvent::kind, kind), Field(&LinkEvent::removed, removed),
               Field(&LinkEvent::ours, ours));
}

class LinkMonitorTest : public test::RtFixture {
 protected:
  void SetUp() override {
    RtFixture::SetUp();
    monitor_.emplace(must(LinkMonitor::open(kGroup)));
  }
  LinkMonitor& monitor() { return *monitor_; }
  // The kernel reports before it acknowledges: what a command did is there to be read.
  std::vector<LinkEvent> after(const std::string& command) {
    EXPECT_EQ(output_of(command), "");
    return must(monitor().read());
  }

 private:
  std::optional<LinkMonitor> monitor_;
};

TEST_F(LinkMonitorTest, QuietNamespaceHasNoEvents) {
  EXPECT_THAT(must(monitor().read()), IsEmpty());
}

TEST_F(LinkMonitorTest, TellsLinksOfOursFromOthers) {
  const auto made = after("ip link add v1 group 77 type veth peer name p1");
  EXPECT_THAT(made,
              Contains(AllOf(event(Kind::kLink, false, true), Field(&LinkEvent::name, "v1"))));
  EXPECT_THAT(made,
              Contains(AllOf(event(Kind::kLink, false, false), Field(&LinkEvent::name, "p1"))));
  EXPECT_THAT(after("ip link del v1"),
              Contains(AllOf(event(Kind::kLink, true, true), Field(&LinkEvent::name, "v1"))));
}

TEST_F(LinkMonitorTest, TellsAddressesAndForeignRoutes) {
  EXPECT_THAT(after("ip addr add 10.1.1.1/32 dev lo"),
              Contains(AllOf(event(Kind::kAddress, false, false),
                             Field(&LinkEvent::ifindex, kLoopbackIndex))));
  EXPECT_THAT(after("ip addr del 10.1.1.1/32 dev lo"),
              Contains(event(Kind::kAddress, true, false)));
  EXPECT_THAT(after("ip route add 192.0.2.0/24 dev lo"),
              Contains(event(Kind::kRoute, false, false)));
}

TEST_F(LinkMonitorTest, TellsIpv6AddressesOnceTheyAreUsable) {
  // From a work queue of the kernel, hence possibly after the command.
  auto events = after("ip -6 addr add fd00::1/128 dev lo nodad");
  const auto is_address = [](const LinkEvent& one) { return one.kind == Kind::kAddress; };
  for (int i = 0; i < 10 && std::ranges::none_of(events, is_address); ++i) {
    ASSERT_TRUE(test::readable(monitor().fd()));
    events = must(monitor().read());
  }
  EXPECT_THAT(events, Contains(event(Kind::kAddress, false, false)));
}

TEST_F(LinkMonitorTest, TellsOurRoutesAndWhoMadeThem) {
  const std::vector<Route> routes = {
      {.destination = prefix("10.88.0.0/15"), .ifindex = kLoopbackIndex, .scope = Scope::kLink},
      {.destination = prefix("fd88::/31"), .ifindex = kLoopbackIndex}};
  must(ensure_routes(channel(), routes));
  const auto made = must(monitor().read());
  EXPECT_THAT(made, Contains(AllOf(event(Kind::kRoute, false, true),
                                   Field(&LinkEvent::origin, channel().port_id()))));
  const auto gone = after("ip -6 route del fd88::/31 dev lo");
  EXPECT_THAT(gone, Contains(event(Kind::kRoute, true, true)));
  EXPECT_THAT(gone, testing::Not(Contains(Field(&LinkEvent::origin, channel().port_id()))));
}

TEST_F(LinkMonitorTest, LearntNeighboursAreNotTold) {
  after("ip link add v1 group 77 type veth peer name p1; ip link set v1 up");
  EXPECT_THAT(after("ip neigh add 10.1.1.2 lladdr 02:00:00:00:00:07 dev v1 nud reachable"),
              IsEmpty());
  EXPECT_THAT(after("ip neigh add 10.1.1.3 lladdr 02:00:00:00:00:07 dev v1 nud permanent"),
              Contains(event(Kind::kNeighbour, false, false)));
  const int v1 = must(find_link(channel(), "v1"))->index;
  const std::vector<Neighbour> ours = {{.ifindex = v1, .address = ip("10.1.1.4"), .mac = kPeerMac}};
  must(ensure_neighbours(channel(), ours));
  EXPECT_THAT(must(monitor().read()), Contains(event(Kind::kNeighbour, false, true)));
  EXPECT_THAT(after("ip neigh replace 10.1.1.4 lladdr 02:00:00:00:00:09 dev v1 nud stale"),
              Contains(event(Kind::kNeighbour, false, true)));
  EXPECT_THAT(after("ip neigh del 10.1.1.4 dev v1"), Contains(event(Kind::kNeighbour, true, true)));
}

TEST_F(LinkMonitorTest, LossIsToldAsUnknownAndListeningGoesOn) {
  monitor().set_receive_queue_for_test(4096);
  for (int i = 0; i < 40; ++i) {
    const std::vector<Route> routes = {
        {.destination = Prefix::of(ip("10.88.0.0").plus(static_cast<std::uint64_t>(i)), 32),
         .ifindex = kLoopbackIndex,
         .scope = Scope::kLink}};
    must(ensure_routes(channel(), routes));
  }
  EXPECT_THAT(must(monitor().read()), Contains(Field(&LinkEvent::kind, Kind::kUnknown)));
  EXPECT_THAT(after("ip addr add 10.1.1.1/32 dev lo"),
              Contains(event(Kind::kAddress, false, false)));
}

}  // namespace
}  // namespace meshd::netlink
