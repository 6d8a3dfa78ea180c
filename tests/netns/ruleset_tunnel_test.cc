// What a VXLAN device of ours unpacks, as real packets see the table: the outside host plays two
// other nodes and a stranger, and says of a frame inside whatever it likes.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "policy/plan.h"
#include "tests/support/flows.h"
#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/ruleset_samples.h"

namespace meshd::test {
namespace {

using policy::Element;
using policy::ElementBuilder;
using policy::SetId;
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint16_t kPort = 5432;
constexpr Mac kTunnelMac{{2, 0, 0, 0, 0x78, 1}};

void append(Bytes& out, const Bytes& more) { out.insert(out.end(), more.begin(), more.end()); }

class RulesetTunnelTest : public testing::TestWithParam<Family> {
 protected:
  // The outer packets are of the parameter's family.
  void SetUp() override {
    [[maybe_unused]] const auto& waited_for = bed_.outside();
    bed_.join_cluster(true);
    EXPECT_EQ(
        output_of("ip link add tunnel0 address " + kTunnelMac.to_string() +
                  " group 78 type vxlan id 88 dstport 8472 nolearning local " +
                  bed_.node_address(outer()).to_string() + " && ip link set tunnel0 arp off up"),
        "");
    EXPECT_EQ(output_in(bed_.outside().netns, R"(ip -batch - <<END
      addr add 192.0.2.102/24 dev eth0
      addr add 2001:db8::101/64 dev eth0 nodad
      addr add 2001:db8::102/64 dev eth0 nodad
END)"),
              "");
    policy::World world;
    world.settings = bed_.settings();
    for (const int n : {100, 101}) {
      const auto number = std::to_string(n);
      world.nodes[number] = {number,
                             {prefix(("10.213." + number + ".0/24").c_str()),
                              prefix(("fd5a:1:2:1:" + number + "::/80").c_str())},
                             {node(Family::kV4, n), node(Family::kV6, n)}};
    }
    policy::Compiler compiler;
    [[maybe_unused]] const auto plan = compiler.rebuild(world);
    auto elements = compiler.elements();
    std::erase_if(elements, [](const Element& element) {
      return element.set < SetId::kRemote4 || element.set > SetId::kPeers6;
    });
    elements.push_back(ElementBuilder(SetId::kTrunk).ifname("tunnel0").build());
    bed_.add(elements);
  }

  static Family outer() { return GetParam(); }
  static IpAddress node(Family family, int n) {
    return ip(((family == Family::kV4 ? "192.0.2." : "2001:db8::") + std::to_string(n)).c_str());
  }
  // A container of it.
  static IpAddress of_node(Family family, int n) {
    const auto number = std::to_string(n);
    return ip((family == Family::kV4 ? "10.213." + number + ".1" : "fd5a:1:2:1:" + number + "::1")
                  .c_str());
  }

  // A frame as it stands behind the outer UDP header, with `tag` between its addresses and type.
  Bytes frame(const IpAddress& source, const Bytes& tag = {}, std::uint8_t network = 88) {
    Bytes bytes = {8, 0, 0, 0, 0, 0, network, 0};
    append(bytes, {kTunnelMac.bytes.begin(), kTunnelMac.bytes.end()});
    append(bytes, {2, 0, 0, 0, 0x78, 2});
    append(bytes, tag);
    append(bytes, source.is_v4() ? Bytes{0x08, 0x00} : Bytes{0x86, 0xdd});
    append(bytes, raw_packet({{}, source, bed_[0].at(source.family()), kPort}));
    return bytes;
  }
  void send(int from, const Bytes& payload) {
    UniqueFd fd;
    must(netlink::run_in_netns(bed_.outside().netns.fd(), [&] {
      fd.reset(socket(outer() == Family::kV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    }));
    const auto local = endpoint(node(outer(), from), 0);
    const auto to = endpoint(bed_.node_address(outer()), 8472);
    ASSERT_EQ(bind(fd.get(), local.get(), local.length), 0);
    ASSERT_EQ(sendto(fd.get(), payload.data(), payload.size(), 0, to.get(), to.length),
              static_cast<ssize_t>(payload.size()));
  }

  // Whether it came to the container; if not it was counted.
  bool arrives(int from, const Bytes& payload) {
    const auto asked = questions(), dropped = bed_.counter("c_foreign");
    send(from, payload);
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < limit) {
      if (questions() > asked) return true;
      if (bed_.counter("c_foreign") > dropped) return questions() > asked;
    }
    ADD_FAILURE() << "neither came nor was counted";
    return false;
  }
  std::uint64_t questions() const { return v4_.questions() + v6_.questions(); }
  void allow(const IpAddress& from) {
    bed_.add({ElementBuilder(from.is_v4() ? SetId::kAllow4 : SetId::kAllow6)
                  .addr(from)
                  .addr(bed_[0].at(from.family()))
                  .proto(Proto::kUdp)
                  .port(kPort)
                  .build()});
  }

  MeshBed bed_{2};
  EchoServer v4_{bed_[0].netns, bed_[0].v4, kPort}, v6_{bed_[0].netns, bed_[0].v6, kPort};
};

TEST_P(RulesetTunnelTest, EachNodeSpeaksForItsOwnContainers) {
  for (const auto family : kFamilies) {
    for (const int n : {100, 101}) {
      SCOPED_TRACE(of_node(family, n).to_string());
      allow(of_node(family, n));
      EXPECT_TRUE(arrives(n, frame(of_node(family, n))));
      EXPECT_FALSE(arrives(n == 100 ? 101 : 100, frame(of_node(family, n)))) << "another node";
      EXPECT_FALSE(arrives(102, frame(of_node(family, n)))) << "no node at all";
      EXPECT_TRUE(arrives(n, frame(of_node(family, n)))) << "again";
    }
  }
}

TEST_P(RulesetTunnelTest, NothingElseComesOutOfATunnel) {
  for (const auto family : kFamilies) {
    const auto good = of_node(family, 100);
    const auto nobody = ip(family == Family::kV4 ? "10.213.77.1" : "fd5a:1:2:1:77::1");
    // Of a container here, of a VIP, of nobody's block, of an address outside the mesh.
    for (const auto& source :
         {bed_[1].at(family), bed_.vip(family), nobody, node(family, 100), good}) {
      allow(source);
      EXPECT_EQ(arrives(100, frame(source)), source == good) << source.to_string();
    }
    // Priority tags are taken off by the kernel; what a tag hides is not looked for.
    EXPECT_FALSE(arrives(100, frame(good, {0x81, 0x00, 0x00, 0x00})));
    auto other_type = frame(good);
    std::ranges::copy(Bytes{0x08, 0x06}, other_type.begin() + 8 + 12);
    EXPECT_FALSE(arrives(100, other_type));
  }
  EXPECT_FALSE(arrives(100, {8, 0, 0, 0, 0, 0, 88, 0, 1, 2, 3})) << "cut short";
}

// What comes in pieces is looked at whole.
TEST_P(RulesetTunnelTest, FragmentsDoNotSlipBy) {
  allow(of_node(Family::kV4, 100));
  auto payload = frame(of_node(Family::kV4, 100));
  payload.resize(4'000);
  EXPECT_TRUE(arrives(100, payload));
  EXPECT_FALSE(arrives(101, payload));
  EXPECT_FALSE(arrives(102, payload));
}

TEST_P(RulesetTunnelTest, OtherTunnelsOnThatPortAreNotOurs) {
  const auto before = bed_.counter("c_foreign");
  send(102, frame(of_node(Family::kV4, 100), {}, 1));
  EXPECT_FALSE(arrives(102, frame(of_node(Family::kV4, 100))));
  EXPECT_EQ(bed_.counter("c_foreign"), before + 1);
}

INSTANTIATE_TEST_SUITE_P(Outer, RulesetTunnelTest, testing::ValuesIn(kFamilies),
                         [](const auto& tested) {
                           return tested.param == Family::kV4 ? "IPv4" : "IPv6";
                         });

}  // namespace
}  // namespace meshd::test
