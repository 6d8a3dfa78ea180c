// The node and its containers: the resolver, who of the node reaches containers, and what a
// container's interface cannot send.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"

namespace meshd::test {
namespace {

class RulesetNodeTest : public testing::Test {
 protected:
  [[nodiscard]] IpAddress resolver(Family family, int which = 0) const {
    return family == Family::kV4 ? bed_.settings().resolver4[which]
                                 : bed_.settings().resolver6[which];
  }

  // Where no answer is expected, and no refusal.
  [[nodiscard]] Talk query(const IpAddress& to) const {
    return talk(bed_[0].netns, Proto::kUdp, to, 53, std::nullopt, kSilence);
  }

  MeshBed bed_{2};
  EchoServer v4_{bed_[1].netns, bed_[1].v4, 5432};
  EchoServer v6_{bed_[1].netns, bed_[1].v6, 5432};
};

TEST_F(RulesetNodeTest, ResolverAnswersUntracked) {
  const EchoServer dns4(bed_.node(), resolver(Family::kV4), 53);
  const EchoServer dns6(bed_.node(), resolver(Family::kV6), 53);
  const auto tracked = [] { return output_of("cat /proc/sys/net/netfilter/nf_conntrack_count"); };
  ASSERT_EQ(tracked(), "0\n");
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(talk(bed_[0].netns, proto, resolver(family), 53), Talk::kAnswered);
  });
  EXPECT_EQ(tracked(), "0\n");
  bed_.add(MeshBed::allow(bed_[0], bed_[1], Proto::kUdp, 5432));
  EXPECT_EQ(talk(bed_[0].netns, Proto::kUdp, bed_[1].v4, 5432), Talk::kAnswered);
  EXPECT_EQ(tracked(), "1\n") << "the control";
}

TEST_F(RulesetNodeTest, ResolversSecondAddressIsNotAskedDirectly) {
  const EchoServer dns4(bed_.node(), resolver(Family::kV4, 1), 53);
  const EchoServer dns6(bed_.node(), resolver(Family::kV6, 1), 53);
  for (const Family family : kFamilies) {
    EXPECT_EQ(talk(bed_[0].netns, Proto::kTcp, resolver(family, 1), 53), Talk::kRefused);
    // The refusal is an error about port 53: see ResolverWithoutSocketsIsSilent.
    EXPECT_EQ(query(resolver(family, 1)), Talk::kSilent);
  }
  EXPECT_EQ(dns4.questions() + dns6.questions(), 0U);
}

// Nobody listens: a query by UDP is met by silence, so that the client asks again; other
// ports of the resolver are refused as ever.
TEST_F(RulesetNodeTest, ResolverWithoutSocketsIsSilent) {
  for (const Family family : kFamilies) {
    EXPECT_EQ(query(resolver(family)), Talk::kSilent);
    EXPECT_EQ(query(bed_.outside().at(family)), Talk::kSilent) << "redirected";
    EXPECT_EQ(talk(bed_[0].netns, Proto::kUdp, resolver(family), 54), Talk::kRefused);
    EXPECT_EQ(talk(bed_[0].netns, Proto::kTcp, resolver(family), 54), Talk::kRefused);
  }
}

TEST_F(RulesetNodeTest, ResolverAnswersPingsUpToALimit) {
  for (const Family family : kFamilies) {
    EXPECT_EQ(ping(bed_[0].netns, resolver(family)), Talk::kAnswered);
    EXPECT_NE(ping(bed_[0].netns, bed_.node_address(family)), Talk::kAnswered);
    Talk last = Talk::kAnswered;
    const std::chrono::milliseconds short_limit(30);
    for (int i = 0; i < 60 && last == Talk::kAnswered; ++i) {
      last = ping(bed_[0].netns, resolver(family), short_limit);
    }
    EXPECT_EQ(last, Talk::kSilent);
    EXPECT_EQ(ping(bed_[1].netns, resolver(family)), Talk::kAnswered) << "a limit of its own";
  }
}

TEST_F(RulesetNodeTest, ContainersReachNoListenerOfTheNode) {
  const EchoServer node4(bed_.node(), bed_.node_address(Family::kV4), 22);
  const EchoServer node6(bed_.node(), bed_.node_address(Family::kV6), 22);
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(talk(bed_[0].netns, proto, bed_.node_address(family), 22), Talk::kRefused);
  });
  EXPECT_EQ(node4.questions() + node6.questions(), 0U);
}

class RulesetUidTest : public RulesetNodeTest {
 protected:
  void SetUp() override { ASSERT_EQ(getuid(), 0U) << "run as root: another uid is needed"; }
  // The same as talk(), from a process of that uid on the node.
  [[nodiscard]] Talk ask_as(uid_t uid, Family family, Proto proto) const {
    const pid_t child = fork();
    if (child == 0) {
      if (setgid(uid) != 0 || setuid(uid) != 0) _exit(100);
      _exit(static_cast<int>(plain_talk(family, proto)));
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) < 100);
    return static_cast<Talk>(WEXITSTATUS(status));
  }
  // Without entering a namespace, which needs a privilege: the process is in the node's.
  [[nodiscard]] Talk plain_talk(Family family, Proto proto) const {
    return talk_here(proto, bed_[1].at(family), 5432);
  }
};

TEST_F(RulesetUidTest, OnlyRootAndNamedUsersReachContainers) {
  constexpr uid_t kStranger = 65534, kUser = 4711;
  bed_.add({policy::ElementBuilder(policy::SetId::kUsers).number(kUser).build()});
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(talk(bed_.node(), proto, bed_[1].at(family), 5432), Talk::kAnswered);
    EXPECT_EQ(ask_as(kUser, family, proto), Talk::kAnswered);
    EXPECT_EQ(ask_as(kStranger, family, proto), Talk::kRefused);
  });
}

TEST_F(RulesetUidTest, RuleHoldsForPublishedPortsAndServiceAddresses) {
  for (const Proto proto : kProtos) {
    bed_.add(bed_.publish(proto, 25432, bed_[1], 5432, 1));
    bed_.add(bed_.slots(proto, 5432, bed_[1]));
  }
  const auto as_stranger = [this](const IpAddress& to, std::uint16_t port) {
    const pid_t child = fork();
    if (child == 0) {
      if (setgid(65534) != 0 || setuid(65534) != 0) _exit(100);
      _exit(static_cast<int>(talk_here(Proto::kTcp, to, port)));
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return static_cast<Talk>(WEXITSTATUS(status));
  };
  for (const Family family : kFamilies) {
    EXPECT_EQ(as_stranger(bed_.node_address(family), 25432), Talk::kRefused);
  }
  EXPECT_EQ(as_stranger(bed_.vip(Family::kV4), 5432), Talk::kRefused);
  EXPECT_EQ(v4_.questions() + v6_.questions(), 0U);
}

TEST_F(RulesetNodeTest, SpoofedSourcesVanish) {
  for (const Proto proto : kProtos) {
    bed_.add(MeshBed::allow(bed_[0], bed_[1], proto, 5432));
  }
  const auto expect_arrival = [this](RawDatagram datagram, bool arrives) {
    const auto before = v4_.questions() + v6_.questions(), dropped = bed_.counter("c_spoof");
    datagram.port = 5432;
    send_raw(bed_[0].netns, datagram);
    // An honest question afterwards: what came before it has been judged by then.
    EXPECT_EQ(talk(bed_[0].netns, Proto::kUdp, bed_[1].at(datagram.to.family()), 5432),
              Talk::kAnswered);
    EXPECT_EQ(v4_.questions() + v6_.questions() - before, arrives ? 2U : 1U)
        << datagram.from.to_string();
    EXPECT_EQ(bed_.counter("c_spoof") - dropped, arrives ? 0U : 1U) << datagram.from.to_string();
  };
  for (const Family family : kFamilies) {
    const auto& own = bed_[0].at(family);
    const auto& to = bed_[1].at(family);
    expect_arrival({bed_[0].mac, own, to}, true);  // the control: our frames do arrive
    expect_arrival({bed_[1].mac, own, to}, false);
    expect_arrival({bed_[0].mac, to, to}, false);
    expect_arrival({bed_[0].mac, resolver(family), to}, false);
    expect_arrival({bed_[0].mac, bed_.node_address(family), to}, false);
    expect_arrival({bed_[0].mac, own.plus(40), to}, false);
  }
  expect_arrival({bed_[0].mac, ip("127.0.0.1"), bed_[1].v4}, false);
  expect_arrival({bed_[0].mac, ip("fe80::1"), bed_[1].v6}, false);
}

TEST_F(RulesetNodeTest, MeshSourceFromElsewhereVanishes) {
  bed_.add(MeshBed::allow(bed_[0], bed_[1], Proto::kUdp, 5432));
  const auto before = bed_.counter("c_foreign");
  // Where send_raw() sends to.
  ASSERT_EQ(output_of("ip link set up0 address 02:00:00:00:00:01"), "");
  for (const Family family : kFamilies) {
    send_raw(bed_.outside().netns,
             {Mac{{2, 0, 0, 0, 9, 9}}, bed_[0].at(family), bed_[1].at(family), 5432});
  }
  EXPECT_EQ(bed_.counter("c_foreign") - before, 2U);
  EXPECT_EQ(v4_.questions() + v6_.questions(), 0U);
}

class RulesetForwardingTest : public testing::Test {
 protected:
  // A network behind the node that is nothing to us, and a host in it. Waits in vain, and
  // so only shortly, where silence is expected.
  RulesetForwardingTest() : second_(make_netns()) {}

  void join(const MeshBed& bed) {
    EXPECT_EQ(output_of("ip link add name other0 type veth peer name eth0 netns /proc/" +
                        std::to_string(getpid()) + "/fd/" + std::to_string(second_.fd()) +
                        "; ip addr add 198.51.100.1/24 dev other0;"
                        "ip addr add 2001:db8:2::1/64 dev other0 nodad; ip link set other0 up"),
              "");
    EXPECT_EQ(output_in(second_,
                        "ip link set lo up; ip addr add 198.51.100.2/24 dev eth0;"
                        "ip addr add 2001:db8:2::2/64 dev eth0 nodad; ip link set eth0 up;"
                        "ip route add default via 198.51.100.1;"
                        "ip -6 route add default via 2001:db8:2::1 dev eth0"),
              "");
    EXPECT_EQ(output_in(bed.outside().netns,
                        "ip route add 198.51.100.0/24 via 192.0.2.1;"
                        "ip -6 route add 2001:db8:2::/64 via 2001:db8::1 dev eth0"),
              "");
  }
  [[nodiscard]] Talk across(const MeshBed& bed, Family family, bool expected) const {
    const auto to = ip(family == Family::kV4 ? "198.51.100.2" : "2001:db8:2::2");
    const EchoServer server(second_, to, 80);
    return talk(bed.outside().netns, Proto::kTcp, to, 80, std::nullopt,
                expected ? kPatience : kSilence);
  }

  netlink::Netns second_;
};

// Each family by itself: many a node forwarded one of them before there was a mesh.
TEST_F(RulesetForwardingTest, OthersAreForwardedInTheFamiliesThatWere) {
  for (const bool was4 : {true, false}) {
    for (const bool was6 : {true, false}) {
      SCOPED_TRACE(fmt::format("forwarded before: IPv4 {}, IPv6 {}", was4, was6));
      second_ = make_netns();
      MeshBed bed(2, {.forwarding4_was_off = !was4, .forwarding6_was_off = !was6});
      join(bed);
      EXPECT_EQ(across(bed, Family::kV4, was4), was4 ? Talk::kAnswered : Talk::kSilent);
      EXPECT_EQ(across(bed, Family::kV6, was6), was6 ? Talk::kAnswered : Talk::kSilent);
      if (!was4 || !was6) {
        EXPECT_GT(bed.counter("c_unforwarded"), 0U);
      }
      const EchoServer server(bed[1].netns, bed[1].v4, 80);
      bed.add(MeshBed::allow(bed[0], bed[1], Proto::kTcp, 80));
      EXPECT_EQ(talk(bed[0].netns, Proto::kTcp, bed[1].v4, 80), Talk::kAnswered);
    }
  }
}

// What a node's end of the tunnel hears from a node's address is believed.
TEST_F(RulesetForwardingTest, OnlyNodesSendIntoTheTunnelByThisOne) {
  MeshBed bed(1);
  bed.join_cluster(true);
  join(bed);
  for (const Family family : kFamilies) {
    SCOPED_TRACE(family == Family::kV4 ? "IPv4" : "IPv6");
    const bool is_v4 = family == Family::kV4;
    const auto never = is_v4 ? policy::SetId::kNever4 : policy::SetId::kNever6;
    const auto to = bed.outside().at(family);
    const auto arrived = [&] {
      return output_in(bed.outside().netns,
                       "grep '^Udp: [0-9]' /proc/net/snmp; grep Udp6NoPorts /proc/net/snmp6");
    };
    // As one of the tunnel with our number; whether it was let through.
    const auto passes = [&] {
      const auto dropped = bed.counter("c_foreign");
      const auto before = arrived();
      EXPECT_EQ(output_in(second_, fmt::format(R"(bash -c "printf '\x8\0\0\0\0\0\x58\0' )"
                                               R"(> /dev/udp/{}/8472")",
                                               to.to_string())),
                "");
      const auto limit = std::chrono::steady_clock::now() + kPatience;
      while (std::chrono::steady_clock::now() < limit) {
        if (bed.counter("c_foreign") > dropped) return false;
        if (arrived() != before) return true;
      }
      ADD_FAILURE() << "neither came nor was counted";
      return false;
    };
    bed.add({policy::ElementBuilder(never).addr(to).end().addr(to).build()});
    EXPECT_FALSE(passes());
    // Also who stands among what is never reached, as all of a link's own addresses do.
    const auto from = ip(is_v4 ? "198.51.100.2" : "2001:db8:2::2");
    bed.add({policy::ElementBuilder(never).addr(from).end().addr(from).build(),
             policy::ElementBuilder(is_v4 ? policy::SetId::kOrigin4 : policy::SetId::kOrigin6)
                 .addr(from)
                 .end()
                 .addr(from)
                 .data()
                 .number(0)
                 .build()});
    EXPECT_FALSE(passes());
    bed.add({policy::ElementBuilder(is_v4 ? policy::SetId::kPeers4 : policy::SetId::kPeers6)
                 .number(0)
                 .addr(from)
                 .build()});
    EXPECT_TRUE(passes());
    bed.add({policy::ElementBuilder(is_v4 ? policy::SetId::kEngine4 : policy::SetId::kEngine6)
                 .ifname("other0")
                 .build()});
    EXPECT_FALSE(passes());
  }
}

// What is behind an engine's bridge comes out and is answered, and nobody comes in by himself.
TEST_F(RulesetForwardingTest, EnginesGoOutWhereNobodyWasForwarded) {
  MeshBed bed(1, {.forwarding4_was_off = true, .forwarding6_was_off = true});
  join(bed);
  const auto out = [&](Family family, std::chrono::milliseconds patience) {
    const auto to = family == Family::kV4 ? bed.outside().v4 : bed.outside().v6;
    const EchoServer server(bed.outside().netns, to, 80);
    return talk(second_, Proto::kTcp, to, 80, std::nullopt, patience);
  };
  for (const auto family : kFamilies) EXPECT_EQ(out(family, kSilence), Talk::kSilent);
  bed.add({policy::ElementBuilder(policy::SetId::kEngine4).ifname("other0").build()});
  EXPECT_EQ(out(Family::kV4, kPatience), Talk::kAnswered);
  EXPECT_EQ(out(Family::kV6, kSilence), Talk::kSilent) << "by family";
  bed.add({policy::ElementBuilder(policy::SetId::kEngine6).ifname("other0").build()});
  EXPECT_EQ(out(Family::kV6, kPatience), Talk::kAnswered);
  for (const auto family : kFamilies) EXPECT_EQ(across(bed, family, false), Talk::kSilent);
}

}  // namespace
}  // namespace meshd::test
