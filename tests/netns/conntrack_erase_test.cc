#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

#include "netlink/conntrack.h"
#include "tests/support/flows.h"
#include "tests/support/rt_fixture.h"

namespace meshd::netlink {
namespace {

using test::call;
using test::ip;
using test::must;
using test::output_of;
using test::serve;
using ::testing::SizeIs;

// Flows from the node to a container that are tracked on the node; 10.99.0.1 and fd99::1
// are translated to the container, as a VIP would be.
class ConntrackEraseTest : public test::RtFixture {
 protected:
  void SetUp() override {
    RtFixture::SetUp();
    container_.emplace(connected_container());
    ASSERT_EQ(output_of("ip route add 10.99.0.0/24 via 10.88.0.2;"
                        "ip -6 route add fd99::/64 via fd88::2;"
                        "nft -f - <<END\n"
                        "table inet t {\n"
                        " chain o { type nat hook output priority -100;\n"
                        "  ip daddr 10.99.0.1 dnat ip to 10.88.0.2\n"
                        "  ip6 daddr fd99::1 dnat ip6 to fd88::2; }\n"
                        " chain f { type filter hook output priority 0; ct state new accept; }\n"
                        "}\nEND"),
              "");
    conntrack_.emplace(must(Conntrack::open()));
  }
  Conntrack& conntrack() { return *conntrack_; }
  [[nodiscard]] const Netns& container() const { return *container_; }

  std::size_t listed_to(const char* original_destination) {
    const IpAddress address = ip(original_destination);
    return must(conntrack().list([&address](const ConntrackEntry& entry) {
             return entry.original.destination == address;
           }))
        .size();
  }

 private:
  std::optional<Netns> container_;
  std::optional<Conntrack> conntrack_;
};

TEST_F(ConntrackEraseTest, TellsTheStateOfTcp) {
  const UniqueFd stream = serve(container(), "0.0.0.0", 5432, SOCK_STREAM);
  const UniqueFd datagrams = serve(container(), "0.0.0.0", 5353, SOCK_DGRAM);
  const UniqueFd connected = call("10.99.0.1", 5432, SOCK_STREAM);
  const UniqueFd asked = call("10.99.0.1", 5353, SOCK_DGRAM);
  const auto entries = must(conntrack().list(nullptr));
  ASSERT_THAT(entries, SizeIs(2));
  for (const auto& entry : entries) {
    EXPECT_EQ(entry.tcp_state, entry.proto == IPPROTO_TCP ? TCP_CONNTRACK_ESTABLISHED : 0);
  }
}

TEST_F(ConntrackEraseTest, ListsFlowsWithBothDirections) {
  const UniqueFd server = serve(container(), "0.0.0.0", 5353, SOCK_DGRAM);
  const UniqueFd client = call("10.99.0.1", 5353, SOCK_DGRAM);
  const auto entries = must(conntrack().list(nullptr));
  ASSERT_THAT(entries, SizeIs(1));
  EXPECT_EQ(entries[0].proto, IPPROTO_UDP);
  EXPECT_EQ(entries[0].original.source, ip("10.88.0.1"));
  EXPECT_EQ(entries[0].original.destination, ip("10.99.0.1"));
  EXPECT_EQ(entries[0].original.destination_port, 5353);
  EXPECT_EQ(entries[0].reply.source, ip("10.88.0.2"));
  EXPECT_EQ(entries[0].reply.source_port, 5353);
  EXPECT_NE(entries[0].id, 0U);
  constexpr std::uint32_t kDstNat = 1 << 5;  // IPS_DST_NAT
  EXPECT_NE(entries[0].status & kDstNat, 0U);
  EXPECT_EQ(must(conntrack().count()), 1U);
}

TEST_F(ConntrackEraseTest, ErasesWhatTouchesAnAddressAndNothingElse) {
  const UniqueFd server4 = serve(container(), "0.0.0.0", 5353, SOCK_DGRAM);
  const UniqueFd server6 = serve(container(), "::", 5354, SOCK_DGRAM);
  const UniqueFd direct = call("10.88.0.2", 5353, SOCK_DGRAM);
  const UniqueFd translated = call("10.99.0.1", 5353, SOCK_DGRAM);
  const UniqueFd other = call("127.0.0.1", 9, SOCK_DGRAM);
  const UniqueFd six = call("fd88::2", 5354, SOCK_DGRAM);
  const std::size_t before = must(conntrack().list(nullptr)).size();
  EXPECT_EQ(must(conntrack().erase({.addresses = {ip("10.88.0.2")}})), 2U);
  EXPECT_EQ(listed_to("10.88.0.2"), 0U);
  EXPECT_EQ(listed_to("10.99.0.1"), 0U);
  EXPECT_EQ(listed_to("127.0.0.1"), 1U);
  EXPECT_EQ(must(conntrack().list(nullptr)).size(), before - 2);
  EXPECT_EQ(must(conntrack().erase({.addresses = {ip("10.88.0.2")}})), 0U);
}

TEST_F(ConntrackEraseTest, ErasesTranslationsByWhatTheyTranslate) {
  const UniqueFd server = serve(container(), "0.0.0.0", 5353, SOCK_DGRAM);
  const UniqueFd tcp = serve(container(), "0.0.0.0", 5353, SOCK_STREAM);
  const UniqueFd tcp6 = serve(container(), "::", 5354, SOCK_STREAM, true);
  const UniqueFd direct = call("10.88.0.2", 5353, SOCK_STREAM);
  const UniqueFd translated = call("10.99.0.1", 5353, SOCK_STREAM);
  const UniqueFd translated6 = call("fd99::1", 5354, SOCK_STREAM);
  const UniqueFd datagram = call("10.99.0.1", 5353, SOCK_DGRAM);
  Translation one{.proto = Proto::kTcp,
                  .from = ip("10.99.0.1"),
                  .first_port = 5000,
                  .last_port = 5352,
                  .to = ip("10.88.0.2")};
  EXPECT_EQ(must(conntrack().erase({.translations = {one}})), 0U);  // the port lies outside
  one.last_port = 5353;
  one.to = ip("10.88.0.3");
  EXPECT_EQ(must(conntrack().erase({.translations = {one}})), 0U);  // to another endpoint
  one.to = ip("10.88.0.2");
  const Translation six{.proto = Proto::kTcp,
                        .from = ip("fd99::1"),
                        .first_port = 5354,
                        .last_port = 5354,
                        .to = ip("fd88::2")};
  EXPECT_EQ(must(conntrack().erase({.translations = {one, six}})), 2U);
  EXPECT_EQ(listed_to("10.99.0.1"), 1U);  // the datagram's
  EXPECT_EQ(listed_to("fd99::1"), 0U);
  EXPECT_EQ(listed_to("10.88.0.2"), 1U);
}

TEST_F(ConntrackEraseTest, EmptyWishAsksNothingOfTheKernel) {
  const UniqueFd other = call("127.0.0.1", 9, SOCK_DGRAM);
  EXPECT_EQ(must(conntrack().erase({})), 0U);
  EXPECT_EQ(must(conntrack().count()), 1U);
}

TEST_F(ConntrackEraseTest, ErasesThousandsInBatches) {
  const UniqueFd server = serve(container(), "0.0.0.0", 5353, SOCK_DGRAM);
  const UniqueFd client = test::make_socket(ip("10.88.0.1"), SOCK_DGRAM);
  constexpr std::uint16_t kFlows = 3000;
  for (std::uint16_t i = 0; i < kFlows; ++i) {
    const auto remote = test::endpoint(ip("10.88.0.2"), static_cast<std::uint16_t>(10'000 + i));
    // A port nobody serves answers with an ICMP error, which the next send reports.
    while (sendto(client.get(), "x", 1, 0, remote.get(), remote.length) < 0) {
      ASSERT_EQ(errno, ECONNREFUSED);
    }
  }
  const UniqueFd other = call("127.0.0.1", 9, SOCK_DGRAM);
  EXPECT_EQ(must(conntrack().erase({.addresses = {ip("10.88.0.2")}})), kFlows);
  EXPECT_EQ(must(conntrack().count()), 1U);
}

TEST_F(ConntrackEraseTest, NamespacesAreApart) {
  const UniqueFd other = call("127.0.0.1", 9, SOCK_DGRAM);
  Conntrack inside(must(open_channel_in(container().fd(), Channel::Protocol::kNetfilter)));
  EXPECT_EQ(must(inside.erase({.addresses = {ip("127.0.0.1")}})), 0U);
  EXPECT_EQ(must(conntrack().count()), 1U);
}

}  // namespace
}  // namespace meshd::netlink
