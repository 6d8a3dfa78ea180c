// Flows between containers, as real packets see the table.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>
#include <string>

#include "dns/socket_address.h"
#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"

namespace meshd::test {
namespace {

class RulesetFlowsTest : public testing::Test {
 protected:
  [[nodiscard]] Talk ask(int from, int to, Family family, Proto proto, std::uint16_t port = 5432) {
    return talk(bed_[static_cast<std::size_t>(from)].netns, proto,
                bed_[static_cast<std::size_t>(to)].at(family), port);
  }
  void allow(int from, int to, std::uint16_t port = 5432) {
    for (const Proto proto : kProtos) {
      bed_.add(MeshBed::allow(bed_[static_cast<std::size_t>(from)],
                              bed_[static_cast<std::size_t>(to)], proto, port));
    }
  }

  MeshBed bed_{3};
  EchoServer v4_{bed_[1].netns, bed_[1].v4, 5432};
  EchoServer v6_{bed_[1].netns, bed_[1].v6, 5432};
};

TEST_F(RulesetFlowsTest, NothingPassesUndeclaredAndTheRefusalIsFast) {
  for_each_kind([this](Family family, Proto proto) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(ask(0, 1, family, proto), Talk::kRefused);
    // Within the first second: before any retry of the sender's.
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(900));
  });
  EXPECT_EQ(v4_.questions() + v6_.questions(), 0U);
}

TEST_F(RulesetFlowsTest, DeclaredFlowPassesAndNoOther) {
  allow(0, 1);
  const EchoServer reverse4(bed_[0].netns, bed_[0].v4, 5432);
  const EchoServer reverse6(bed_[0].netns, bed_[0].v6, 5432);
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(ask(0, 1, family, proto), Talk::kAnswered);
    EXPECT_EQ((family == Family::kV4 ? v4_ : v6_).last_peer(), bed_[0].at(family));
    EXPECT_EQ(ask(0, 1, family, proto, 5433), Talk::kRefused) << "another port";
    EXPECT_EQ(ask(1, 0, family, proto), Talk::kRefused) << "the reverse";
    EXPECT_EQ(ask(2, 1, family, proto), Talk::kRefused) << "another container";
  });
}

// A provider must not reach its consumer by using the served port as its source.
TEST_F(RulesetFlowsTest, ServedPortAsSourceOpensNothing) {
  allow(0, 1, 6000);
  const EchoServer victim(bed_[0].netns, bed_[0].v4, 7000);
  const auto attempt = output_in(bed_[1].netns, R"(python3 -c '
import socket
s = socket.socket()
s.bind(("10.213.0.2", 6000))
s.settimeout(1)
try:
    s.connect(("10.213.0.1", 7000)); print("connected")
except ConnectionRefusedError: print("refused")
')");
  EXPECT_EQ(attempt, "refused\n");
  EXPECT_EQ(victim.questions(), 0U);
}

TEST_F(RulesetFlowsTest, BlockOfPortsPassesWhole) {
  for (const Family family : kFamilies) {
    const auto set =
        family == Family::kV4 ? policy::SetId::kAllow4Block : policy::SetId::kAllow6Block;
    bed_.add({policy::ElementBuilder(set)
                  .addr(bed_[0].at(family))
                  .addr(bed_[1].at(family))
                  .proto(Proto::kTcp)
                  .port(8000)
                  .build()});
    const EchoServer first(bed_[1].netns, bed_[1].at(family), 8000);
    const EchoServer last(bed_[1].netns, bed_[1].at(family), 8015);
    const EchoServer beyond(bed_[1].netns, bed_[1].at(family), 8016);
    EXPECT_EQ(ask(0, 1, family, Proto::kTcp, 8000), Talk::kAnswered);
    EXPECT_EQ(ask(0, 1, family, Proto::kTcp, 8015), Talk::kAnswered);
    EXPECT_EQ(ask(0, 1, family, Proto::kTcp, 8016), Talk::kRefused);
    EXPECT_EQ(ask(0, 1, family, Proto::kUdp, 8000), Talk::kRefused);
  }
}

// The consumer has all of the outside as egress: replies of a revoked flow must not go on by it.
TEST_F(RulesetFlowsTest, RevokingCutsOpenFlowsAndLeavesOthers) {
  allow(0, 1);
  allow(2, 1);
  bed_.add(MeshBed::egress_profile(bed_[0], 9));
  bed_.add(MeshBed::egress(9, prefix("0.0.0.0/0")));
  bed_.add(MeshBed::egress(9, prefix("::/0")));
  for_each_kind([this](Family family, Proto proto) {
    Conversation cut(bed_[0].netns, proto, bed_[1].at(family), 5432);
    Conversation kept(bed_[2].netns, proto, bed_[1].at(family), 5432);
    ASSERT_EQ(cut.ask(), Talk::kAnswered);
    ASSERT_EQ(kept.ask(), Talk::kAnswered);
    const auto element = MeshBed::allow(bed_[0], bed_[1], proto, 5432);
    bed_.remove(element);
    const auto served = v4_.questions() + v6_.questions();
    EXPECT_EQ(cut.ask(), Talk::kRefused);
    EXPECT_EQ(v4_.questions() + v6_.questions(), served);
    EXPECT_EQ(kept.ask(), Talk::kAnswered);
    bed_.add(element);
  });
}

TEST_F(RulesetFlowsTest, DrainingTakesNoNewConnectionsAndKeepsOpenOnes) {
  allow(0, 1);
  for_each_kind([this](Family family, Proto proto) {
    Conversation open(bed_[0].netns, proto, bed_[1].at(family), 5432);
    ASSERT_EQ(open.ask(), Talk::kAnswered);
    const auto drain = MeshBed::draining(bed_[1].at(family));
    bed_.add({drain});
    EXPECT_EQ(ask(0, 1, family, proto), Talk::kRefused);
    EXPECT_EQ(open.ask(), Talk::kAnswered);
    bed_.remove({drain});
    EXPECT_EQ(ask(0, 1, family, proto), Talk::kAnswered);
  });
}

TEST_F(RulesetFlowsTest, WhatADrainingContainerRefusesDoesNotCount) {
  allow(0, 1);
  for_each_kind([this](Family family, Proto proto) {
    const bool v4 = family == Family::kV4;
    const auto drain = MeshBed::draining(bed_[1].at(family));
    const auto counted = [&] {
      return bed_.counted(v4 ? policy::SetId::kAllow4 : policy::SetId::kAllow6);
    };
    const auto before = counted();
    bed_.add({drain});
    EXPECT_EQ(ask(0, 1, family, proto), Talk::kRefused);
    EXPECT_EQ(counted(), before);
    bed_.remove({drain});
  });
}

TEST_F(RulesetFlowsTest, PairsMayPing) {
  for (const Family family : kFamilies) {
    EXPECT_NE(ping(bed_[0].netns, bed_[1].at(family)), Talk::kAnswered);
  }
  bed_.add(MeshBed::pair(bed_[0], bed_[1]));
  for (const Family family : kFamilies) {
    EXPECT_EQ(ping(bed_[0].netns, bed_[1].at(family)), Talk::kAnswered);
    EXPECT_EQ(ping(bed_[1].netns, bed_[0].at(family)), Talk::kAnswered);
    EXPECT_NE(ping(bed_[2].netns, bed_[1].at(family)), Talk::kAnswered);
  }
}

// A UDP socket that takes what comes and never answers: its senders' flows stay new.
UniqueFd silent_listener(const BedHost& host, Family family, std::uint16_t port) {
  UniqueFd fd;
  must(netlink::run_in_netns(host.netns.fd(), [&] {
    fd.reset(socket(family == Family::kV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const auto own = dns::to_sockaddr(host.at(family), port);
    EXPECT_EQ(bind(fd.get(), own.get(), own.size()), 0);
  }));
  return fd;
}

TEST_F(RulesetFlowsTest, OneConnectionTooManyIsRefusedAndOpenOnesGoOn) {
  allow(0, 1, 9);
  constexpr const char* kScript = R"(python3 -c '
import socket, sys
to = sys.argv[1]
def sender(port):
    s = socket.socket(socket.AF_INET if "." in to else socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("", port)); s.connect((to, 9)); s.settimeout(0.5)
    return s
def refused(s):
    try: s.send(b"x"); s.recv(1)
    except ConnectionRefusedError: return True
    except TimeoutError: return False
for port in range(20000, 20000 + int(sys.argv[2])):
    with sender(port) as s: s.send(b"x")
print(refused(sender(20000)), refused(sender(30000)))
' )";
  for (const Family family : kFamilies) {
    const auto silent = silent_listener(bed_[1], family, 9);
    const auto command =
        kScript + bed_[1].at(family).to_string() + " " + std::to_string(policy::kMaxConnections);
    EXPECT_EQ(output_in(bed_[0].netns, command), "False True\n");
  }
}

// 3,000 bytes are three fragments: the policy judges the whole.
TEST_F(RulesetFlowsTest, FragmentedDatagramsAreJudgedWhole) {
  allow(0, 1);
  const auto send_to = [this](int port) {
    return output_in(bed_[0].netns,
                     "python3 -c '\nimport socket\n"
                     "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                     "s.settimeout(1)\ns.connect((\"10.213.0.2\", " +
                         std::to_string(port) +
                         "))\ns.send(b\"x\" * 3000)\n"
                         "try: print(len(s.recv(4000)) > 0)\n"
                         "except ConnectionRefusedError: print(\"refused\")\n'");
  };
  EXPECT_EQ(send_to(5432), "True\n");
  EXPECT_EQ(send_to(5433), "refused\n");
}

TEST_F(RulesetFlowsTest, OutsideReachesNoContainerByItsAddress) {
  for_each_kind([this](Family family, Proto proto) {
    EXPECT_EQ(talk(bed_.outside().netns, proto, bed_[1].at(family), 5432), Talk::kRefused);
  });
  EXPECT_EQ(v4_.questions() + v6_.questions(), 0U);
}

TEST_F(RulesetFlowsTest, DetachedAddressIsRefusedAtOnce) {
  allow(0, 1);
  for (const Family family : kFamilies) {
    const auto set = family == Family::kV4 ? policy::SetId::kLocal4 : policy::SetId::kLocal6;
    bed_.remove({policy::ElementBuilder(set).addr(bed_[1].at(family)).build()});
    for (const Proto proto : kProtos) {
      EXPECT_EQ(ask(0, 1, family, proto), Talk::kRefused);
    }
  }
}

}  // namespace
}  // namespace meshd::test
