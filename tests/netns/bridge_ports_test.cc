// Containers on an engine's own bridge, of which some are ours as well: real frames, real bridge.
#include "meshd/bridge_ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "meshd/topology.h"
#include "netlink/link_monitor.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/ruleset_samples.h"
#include "tests/support/talk.h"

namespace meshd {
namespace {

namespace nl = netlink;
using test::ip;
using test::kSilence;
using test::must;
using test::output_of;
using test::ping;
using test::Talk;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// eth0 172.30.0.(10+i) on bridge `eng`, whose own address is 172.30.0.1.
struct OnBridge {
  explicit OnBridge(nl::Channel& channel, int number)
      : netns(test::make_netns()), address("172.30.0." + std::to_string(10 + number)) {
    plan.id = "c" + std::to_string(number);
    plan.host_ifname = "mesh" + std::to_string(number);
    plan.ifname = "mesh0";
    plan.mac = {{2, 0, 0, 0, 1, static_cast<std::uint8_t>(number)}};
    plan.v4 = ip(("10.213.0." + std::to_string(number)).c_str());
    plan.default_route = false;
    port = "port" + std::to_string(number);
    must(nl::call_in_netns(
        netns.fd(), [] { return nl::write_sysctl("net/ipv4/ping_group_range", "0 2147483647"); }));
    join(channel, "eng", port, "eth0", address);
  }
  void join(nl::Channel& channel, const std::string& bridge, const std::string& host,
            const std::string& inside, const std::string& own) const {
    nl::VethSpec veth;
    veth.host_name = host;
    veth.peer_name = inside;
    veth.host_mac = veth.peer_mac = plan.mac;
    veth.host_mac.bytes[1] = 1;
    veth.peer_netns_fd = netns.fd();
    must(nl::create_veth(channel, veth));
    EXPECT_EQ(output_of("ip link set " + host + " master " + bridge + " up"), "");
    EXPECT_EQ(test::output_in(
                  netns, "ip link set " + inside + " up; ip addr add " + own + "/24 dev " + inside),
              "");
  }
  nl::Netns netns;
  std::string address, port;
  LinkPlan plan;
};

class BridgePortsNetnsTest : public test::RtFixture {
 protected:
  void SetUp() override {
    RtFixture::SetUp();
    ASSERT_EQ(output_of("ip link add eng type bridge; ip link set eng up;"
                        "ip addr add 172.30.0.1/24 dev eng"),
              "");
    topology_.emplace(must(Topology::make(test::sample_settings())));
    must(topology().ensure_node());
  }
  Topology& topology() { return *topology_; }
  nl::Link port(const std::string& name) { return *must(nl::find_link(channel(), name)); }
  void attach(const OnBridge& container) {
    must(topology().connect(container.plan, container.netns.fd()));
  }

  std::optional<Topology> topology_;
};

Talk between(const OnBridge& from, const OnBridge& to, std::chrono::milliseconds limit) {
  return ping(from.netns, ip(to.address.c_str()), limit);
}

TEST_F(BridgePortsNetnsTest, DeclaredOnesReachTheBridgeAndStrangersButNotEachOther) {
  const OnBridge a(channel(), 1), b(channel(), 2), stranger(channel(), 3);
  EXPECT_EQ(between(a, b, test::kPatience), Talk::kAnswered) << "as the engine has it";
  attach(a);
  EXPECT_EQ(between(a, b, test::kPatience), Talk::kAnswered) << "one alone may";
  attach(b);
  EXPECT_NE(between(a, b, kSilence), Talk::kAnswered);
  EXPECT_NE(between(b, a, kSilence), Talk::kAnswered);
  for (const auto* one : {&a, &b}) {
    EXPECT_TRUE(port(one->port).isolated.value());
    EXPECT_EQ(ping(one->netns, ip("172.30.0.1")), Talk::kAnswered);
    EXPECT_EQ(between(*one, stranger, test::kPatience), Talk::kAnswered);
    EXPECT_EQ(between(stranger, *one, test::kPatience), Talk::kAnswered);
  }
  EXPECT_FALSE(port(stranger.port).isolated.value());
}

TEST_F(BridgePortsNetnsTest, PortStaysShutAfterItsContainerIsDetached) {
  const OnBridge a(channel(), 1), b(channel(), 2);
  attach(a);
  attach(b);
  must(topology().disconnect(a.plan.host_ifname));
  EXPECT_NE(between(a, b, kSilence), Talk::kAnswered);
  attach(a);  // again, which finds it so
  EXPECT_TRUE(port(a.port).isolated.value());
}

TEST_F(BridgePortsNetnsTest, AnotherProcessFindsNothingToDo) {
  const OnBridge a(channel(), 1);
  attach(a);
  auto next = must(Topology::make(test::sample_settings()));
  EXPECT_THAT(must(next.audit({a.plan})).what, IsEmpty());
  EXPECT_TRUE(next.reaches(port(a.port).peer_netnsid.value()));
}

TEST_F(BridgePortsNetnsTest, NetworkThatComesLaterIsToldAndShut) {
  const OnBridge a(channel(), 1), b(channel(), 2), stranger(channel(), 3);
  attach(a);
  attach(b);
  auto monitor = must(nl::LinkMonitor::open(kLinkGroup));
  ASSERT_EQ(output_of("ip link add late type bridge; ip link set late up"), "");
  a.join(channel(), "late", "late1", "eth1", "172.31.0.1");
  b.join(channel(), "late", "late2", "eth1", "172.31.0.2");
  stranger.join(channel(), "late", "late3", "eth1", "172.31.0.3");
  EXPECT_EQ(ping(a.netns, ip("172.31.0.2")), Talk::kAnswered) << "until it is looked at";
  std::vector<std::string> told;
  for (const auto& event : must(monitor.read())) {
    if (event.open_port_to && topology().reaches(*event.open_port_to)) told.push_back(event.name);
  }
  EXPECT_THAT(told, AllOf(Contains("late1"), Contains("late2"), Not(Contains("late3"))));
  EXPECT_THAT(
      must(topology().audit({a.plan, b.plan})).what,
      ElementsAre("bridge port late1 was not isolated", "bridge port late2 was not isolated"));
  EXPECT_NE(ping(a.netns, ip("172.31.0.2"), kSilence), Talk::kAnswered);
  EXPECT_EQ(ping(a.netns, ip("172.31.0.3")), Talk::kAnswered);
  EXPECT_THAT(must(topology().audit({a.plan, b.plan})).what, IsEmpty());
}

TEST_F(BridgePortsNetnsTest, PortBehindWhichOthersMayBeIsTold) {
  const OnBridge a(channel(), 1);
  ASSERT_EQ(output_of("ip link add late type bridge"), "");
  a.join(channel(), "late", "late1", "eth1", "172.31.0.1");
  auto monitor = must(nl::LinkMonitor::open(kLinkGroup));
  ASSERT_EQ(output_of("ip link set late up; ip link set late1 down; ip link set late1 up; "
                      "ip link add nic0 type veth peer name nic1; ip link set nic0 master late"),
            "");
  std::vector<std::string> told, all;
  for (const auto& event : must(monitor.read())) {
    all.push_back(event.name);
    if (event.leads_out) told.push_back(event.name);
  }
  EXPECT_THAT(all, Contains("late1"));
  EXPECT_THAT(told, AllOf(Not(IsEmpty()), Each("nic0")));
}

TEST_F(BridgePortsNetnsTest, EndsInAThirdNamespaceAreNotTakenForPorts) {
  const OnBridge a(channel(), 1), b(channel(), 2);
  const auto third = test::make_netns();
  // A link with the number that a port has here, in a namespace that is not the node.
  ASSERT_EQ(test::output_in(third, "ip link add eng type bridge; ip link add more type bridge"),
            "");
  nl::VethSpec veth;
  veth.host_name = "x1";
  veth.peer_name = "eth5";
  veth.host_mac = a.plan.mac;
  veth.peer_mac = b.plan.mac;
  veth.peer_netns_fd = a.netns.fd();
  const auto made = must(nl::call_in_netns(third.fd(), [&]() -> Result<nl::Link> {
    auto there = TRY(nl::Channel::open(nl::Channel::Protocol::kRoute));
    return nl::create_veth(there, veth);
  }));
  ASSERT_EQ(made.index, port(b.port).index);
  attach(a);
  EXPECT_TRUE(port(a.port).isolated.value());
  EXPECT_FALSE(port(b.port).isolated.value());
}

void drop_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  ASSERT_EQ(syscall(SYS_capset, &header, none), 0);
}

TEST_F(BridgePortsNetnsTest, WhatCannotBeIsolatedIsRefusedByName) {
  const OnBridge a(channel(), 1);
  attach(a);
  ASSERT_EQ(output_of("bridge link set dev port1 isolated off"), "");
  const auto ours = port(a.plan.host_ifname);
  const auto inside = must(nl::call_in_netns(a.netns.fd(), []() -> Result<std::vector<nl::Link>> {
    auto there = TRY(nl::Channel::open(nl::Channel::Protocol::kRoute));
    return nl::list_links(there);
  }));
  drop_capabilities();
  const auto refused = isolate_beside(channel(), ours, inside);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().sys_errno, EPERM);
  EXPECT_THAT(refused.error().what, AllOf(HasSubstr("interface eth0"), HasSubstr("port1")));
}

TEST_F(BridgePortsNetnsTest, KernelThatCannotSaysSo) {
  const OnBridge a(channel(), 1);
  auto old = port(a.port);
  old.isolated.reset();
  const auto refused = nl::isolate_port(channel(), old);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  ASSERT_EQ(output_of("ip link del port1"), "");
  old.isolated = false;
  EXPECT_FALSE(must(nl::isolate_port(channel(), old))) << "gone is no failure";
}

}  // namespace
}  // namespace meshd
