// The decoders on bytes that the test lays out itself: no socket, no privilege.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <linux/inet_diag.h>
#include <linux/neighbour.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/rtnetlink.h>

#include <functional>

#include "netlink/address_route.h"
#include "netlink/conntrack.h"
#include "netlink/link.h"
#include "netlink/link_monitor.h"
#include "netlink/message.h"
#include "netlink/nflog.h"
#include "netlink/sock_diag.h"

namespace meshd::netlink {
namespace {

using ::testing::ElementsAre;

IpAddress ip(const char* text) { return *IpAddress::parse(text); }
Prefix prefix(const char* text) { return *Prefix::parse(text); }

using Store = std::vector<std::byte>;

// What a decoder is given: the message without the netlink header.
Store content_of(Message& message) {
  const ByteView whole = message.seal(1, 0);
  EXPECT_FALSE(whole.empty());
  const ByteView content = after(whole, 16);
  return {content.begin(), content.end()};
}

// Every shorter piece, each in memory of its own size, so that a sanitizer sees a read
// beyond it.
template <class Decode>
void expect_harmless_when_cut(const Store& content, Decode decode) {
  for (std::size_t length = 0; length < content.size(); ++length) {
    const Store piece(content.begin(), content.begin() + static_cast<std::ptrdiff_t>(length));
    (void)decode(ByteView(piece));
  }
}

// And with every byte turned to what makes lengths absurd.
template <class Decode>
void expect_harmless_when_bent(const Store& content, Decode decode) {
  for (std::size_t at = 0; at < content.size(); ++at) {
    for (const int value : {0x00, 0x01, 0x03, 0x7f, 0xff}) {
      Store bent = content;
      bent[at] = static_cast<std::byte>(value);
      (void)decode(ByteView(bent));
    }
  }
}

template <class Decode>
void expect_harmless(const Store& content, Decode decode) {
  expect_harmless_when_cut(content, decode);
  expect_harmless_when_bent(content, decode);
}

Message link_message() {
  ifinfomsg header{};
  header.ifi_index = 7;
  header.ifi_flags = 1 | 0x80 | 0x10000;  // IFF_UP, IFF_NOARP, IFF_LOWER_UP
  Message message(RTM_NEWLINK, 0);
  const std::int32_t settings[] = {1, 64, 1500, 2};  // forwarding, hop limit, mtu, accept_ra
  message.header(header)
      .put_text(IFLA_IFNAME, "v1")
      .put_mac(IFLA_ADDRESS, {{2, 0, 0, 0, 0, 1}})
      .put_u32(IFLA_GROUP, 77)
      .put_u32(IFLA_MTU, 1400)
      .put_u32(IFLA_LINK, 9)
      .put_u32(IFLA_MASTER, 4)
      .put_u32(IFLA_LINK_NETNSID, 3)
      .begin(IFLA_LINKINFO)
      .put_text(IFLA_INFO_KIND, "veth")
      .put_text(IFLA_INFO_SLAVE_KIND, "bridge")
      .begin(IFLA_INFO_SLAVE_DATA)
      .put_u8(IFLA_BRPORT_ISOLATED, 1)
      .end()
      .end()
      .begin(IFLA_AF_SPEC)
      .begin(10)
      .put(IFLA_INET6_CONF, std::as_bytes(std::span(settings)))
      .put_u8(IFLA_INET6_ADDR_GEN_MODE, 1)
      .end()
      .end();
  return message;
}

TEST(RtDecodeTest, LinkHasAllThatWasSaid) {
  Message message = link_message();
  const auto link = decode_link(content_of(message));
  ASSERT_TRUE(link);
  const Link want{.index = 7,
                  .name = "v1",
                  .mac = {{2, 0, 0, 0, 0, 1}},
                  .group = 77,
                  .kind = "veth",
                  .mtu = 1400,
                  .up = true,
                  .running = true,
                  .arp = false,
                  .loopback = false,
                  .peer_index = 9,
                  .peer_netnsid = 3,
                  .master = 4,
                  .bridge_port = true,
                  .isolated = true,
                  .no_link_local = true,
                  .accept_ra = 2,
                  .forwarding6 = 1};
  EXPECT_EQ(*link, want);
  expect_harmless(content_of(message), decode_link);
}

Message route_message() {
  rtmsg header{};
  header.rtm_family = 2;
  header.rtm_dst_len = 24;
  header.rtm_table = 254;
  header.rtm_protocol = kOurProtocol;
  header.rtm_scope = 253;
  header.rtm_type = RTN_UNICAST;
  Message message(RTM_NEWROUTE, 0);
  message.header(header)
      .put_address(RTA_DST, ip("192.0.2.0"))
      .put_u32(RTA_OIF, 4)
      .put_u32(RTA_PRIORITY, 50)
      .put_u32(RTA_TABLE, 7001);
  return message;
}

TEST(RtDecodeTest, RouteReadsItsTableBeyond255) {
  Message message = route_message();
  const auto route = decode_route(content_of(message));
  ASSERT_TRUE(route);
  const Route want{.destination = prefix("192.0.2.0/24"),
                   .ifindex = 4,
                   .scope = Scope::kLink,
                   .metric = 50,
                   .table = 7001};
  EXPECT_EQ(*route, want);
  expect_harmless(content_of(message), decode_route);
}

TEST(RtDecodeTest, MultipathRouteKeepsAllItsLinks) {
  Message message(RTM_NEWROUTE, 0);
  rtmsg header{};
  header.rtm_family = 2;
  header.rtm_type = RTN_UNICAST;
  header.rtm_table = 254;
  const std::uint8_t hops[] = {16, 0, 0,           0, 5,   0, 0, 0,
                               8,  0, RTA_GATEWAY, 0, 192, 0, 2, 1,   // dev 5 via 192.0.2.1
                               8,  0, 0,           0, 6,   0, 0, 0};  // dev 6
  message.header(header).put(RTA_MULTIPATH, std::as_bytes(std::span(hops)));
  const auto route = decode_route(content_of(message));
  ASSERT_TRUE(route);
  EXPECT_EQ(route->ifindex, 5);
  EXPECT_EQ(route->gateway, ip("192.0.2.1"));
  EXPECT_THAT(route->further_links, ElementsAre(6));
  expect_harmless(content_of(message), decode_route);
}

TEST(RtDecodeTest, CachedRoutesAndWrongLengthsAreNoRoutes) {
  rtmsg header{};
  header.rtm_family = 2;
  header.rtm_dst_len = 33;
  Message too_long(RTM_NEWROUTE, 0);
  too_long.header(header).put_address(RTA_DST, ip("192.0.2.0"));
  EXPECT_FALSE(decode_route(content_of(too_long)));
  header.rtm_dst_len = 24;
  header.rtm_flags = RTM_F_CLONED;
  Message cached(RTM_NEWROUTE, 0);
  cached.header(header).put_address(RTA_DST, ip("192.0.2.0"));
  EXPECT_FALSE(decode_route(content_of(cached)));
}

TEST(RtDecodeTest, CanonicalRouteIsAsTheKernelLists) {
  const Route six = canonical(
      {.destination = prefix("fd00::/8"), .ifindex = 1, .scope = Scope::kLink, .metric = 0});
  EXPECT_EQ(six.metric, kDefaultMetric6);
  EXPECT_EQ(six.scope, Scope::kGlobal);
  const Route four{.destination = prefix("10.0.0.0/8"), .ifindex = 1, .scope = Scope::kLink};
  EXPECT_EQ(canonical(four), four);
}

TEST(RtDecodeTest, NeighbourTellsProtocolAndPermanence) {
  ndmsg header{};
  header.ndm_family = 10;
  header.ndm_ifindex = 4;
  header.ndm_state = NUD_REACHABLE;
  Message message(RTM_NEWNEIGH, 0);
  message.header(header)
      .put_address(NDA_DST, ip("fe80::1"))
      .put_mac(NDA_LLADDR, {{2, 0, 0, 0, 0, 1}})
      .put_u8(NDA_PROTOCOL, kOurProtocol);
  const auto neighbour = decode_neighbour(content_of(message));
  ASSERT_TRUE(neighbour);
  EXPECT_EQ(neighbour->address, ip("fe80::1"));
  EXPECT_EQ(neighbour->mac.to_string(), "02:00:00:00:00:01");
  EXPECT_FALSE(neighbour->permanent);
  EXPECT_EQ(neighbour->protocol, kOurProtocol);
  expect_harmless(content_of(message), decode_neighbour);
}

void put_tuple(Message& message, int type, const ConntrackTuple& tuple, std::uint8_t proto) {
  const bool v4 = tuple.source.is_v4();
  message.begin(type)
      .begin(CTA_TUPLE_IP)
      .put_address(v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, tuple.source)
      .put_address(v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, tuple.destination)
      .end()
      .begin(CTA_TUPLE_PROTO)
      .put_u8(CTA_PROTO_NUM, proto)
      .put_be16(CTA_PROTO_SRC_PORT, tuple.source_port)
      .put_be16(CTA_PROTO_DST_PORT, tuple.destination_port)
      .end()
      .end();
}

const ConntrackTuple kOriginal{ip("10.88.0.3"), ip("10.99.0.1"), 40000, 5432};
const ConntrackTuple kReply{ip("10.88.0.2"), ip("10.88.0.3"), 5432, 40000};

Message conntrack_message() {
  Message message((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW, 0);
  message.header(nfgenmsg{.nfgen_family = 2, .version = 0, .res_id = 0});
  put_tuple(message, CTA_TUPLE_ORIG, kOriginal, 6);
  put_tuple(message, CTA_TUPLE_REPLY, kReply, 6);
  message.put_be32(CTA_STATUS, 0x1a6).put_be32(CTA_MARK, 9).put_be32(CTA_ID, 0xdeadbeef);
  message.put_be16(CTA_ZONE, 3);
  return message;
}

TEST(RtDecodeTest, ConntrackEntryHasBothTuples) {
  Message message = conntrack_message();
  const auto entry = decode_conntrack(content_of(message));
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->proto, 6);
  EXPECT_EQ(entry->original, kOriginal);
  EXPECT_EQ(entry->reply, kReply);
  EXPECT_EQ(entry->status, 0x1a6U);
  EXPECT_EQ(entry->mark, 9U);
  EXPECT_EQ(entry->id, 0xdeadbeefU);
  EXPECT_EQ(entry->zone, 3);
  expect_harmless(content_of(message), decode_conntrack);
}

TEST(RtDecodeTest, ConntrackEntryWithoutReplyIsNone) {
  Message message((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW, 0);
  message.header(nfgenmsg{.nfgen_family = 2, .version = 0, .res_id = 0});
  put_tuple(message, CTA_TUPLE_ORIG, kOriginal, 6);
  EXPECT_FALSE(decode_conntrack(content_of(message)));
}

TEST(RtDecodeTest, EraseMatchesByAddressOnAnySide) {
  const ConntrackEntry entry{.proto = 6, .original = kOriginal, .reply = kReply};
  const auto matches = [&entry](const char* address) {
    return EraseMatcher({.addresses = {ip("203.0.113.1"), ip(address)}}).matches(entry);
  };
  EXPECT_TRUE(matches("10.88.0.3"));  // source
  EXPECT_TRUE(matches("10.99.0.1"));  // what was addressed
  EXPECT_TRUE(matches("10.88.0.2"));  // what it was translated to
  EXPECT_FALSE(matches("10.88.0.4"));
  EXPECT_FALSE(EraseMatcher({}).matches(entry));
}

TEST(RtDecodeTest, EraseMatchesTranslationsExactly) {
  constexpr std::uint32_t kSeenReply = 2;  // IPS_SEEN_REPLY
  ConntrackEntry entry{.proto = 6, .original = kOriginal, .reply = kReply};
  const Translation right{.proto = Proto::kTcp,
                          .from = ip("10.99.0.1"),
                          .first_port = 5432,
                          .last_port = 5432,
                          .to = ip("10.88.0.2")};
  const auto matches = [&entry](const Translation& one) {
    return EraseMatcher({.translations = {one}}).matches(entry);
  };
  EXPECT_TRUE(matches(right));
  Translation unanswered = right;
  unanswered.only_unanswered = true;
  EXPECT_TRUE(matches(unanswered));
  entry.status = kSeenReply;
  EXPECT_FALSE(matches(unanswered));
  EXPECT_TRUE(matches(right));
  Translation wrong = right;
  wrong.proto = Proto::kUdp;
  EXPECT_FALSE(matches(wrong));
  wrong = right;
  wrong.first_port = wrong.last_port = 5433;
  EXPECT_FALSE(matches(wrong));
  wrong = right;
  wrong.to = ip("10.88.0.9");
  EXPECT_FALSE(matches(wrong));
  wrong = right;
  wrong.from = ip("10.99.0.2");
  EXPECT_FALSE(matches(wrong));
}

TEST(RtDecodeTest, EraseWalksOneFamilyWhenItCan) {
  EXPECT_EQ(EraseMatcher({.addresses = {ip("10.0.0.1")}}).family(), Family::kV4);
  EXPECT_EQ(EraseMatcher({.addresses = {ip("fd00::1")}}).family(), Family::kV6);
  EXPECT_EQ(EraseMatcher({.addresses = {ip("fd00::1"), ip("10.0.0.1")}}).family(), std::nullopt);
}

Store listener_content(const IpAddress& address, std::uint8_t state, bool v6_only) {
  inet_diag_msg header{};
  header.idiag_family = address.is_v4() ? 2 : 10;
  header.idiag_state = state;
  header.id.idiag_sport = static_cast<std::uint16_t>(std::byteswap(std::uint16_t{5432}));
  std::memcpy(header.id.idiag_src, address.bytes().data(), address.bytes().size());
  Message message(20, 0);
  message.header(header);
  if (address.is_v6()) message.put_u8(INET_DIAG_SKV6ONLY, v6_only ? 1 : 0);
  return content_of(message);
}

TEST(RtDecodeTest, ListenerTellsAddressPortAndFamily) {
  const auto four = decode_listener(listener_content(ip("10.88.0.2"), 10, false));
  EXPECT_EQ(four, (Listener{.address = ip("10.88.0.2"), .port = 5432}));
  const auto six = decode_listener(listener_content(ip("::"), 10, true));
  EXPECT_EQ(six, (Listener{.address = ip("::"), .port = 5432, .v6_only = true}));
  const auto mapped = decode_listener(listener_content(ip("::ffff:10.88.0.2"), 10, false));
  EXPECT_EQ(mapped, four);
  EXPECT_FALSE(decode_listener(listener_content(ip("10.88.0.2"), 1, false)));  // established
  expect_harmless(listener_content(ip("::"), 10, true), decode_listener);
}

TEST(RtDecodeTest, ListenerServesWhatReachesIt) {
  const IpAddress four = ip("10.88.0.2");
  const IpAddress six = ip("fd88::2");
  EXPECT_TRUE(serves({.address = ip("0.0.0.0")}, four));
  EXPECT_FALSE(serves({.address = ip("0.0.0.0")}, six));
  EXPECT_TRUE(serves({.address = ip("::")}, four));
  EXPECT_TRUE(serves({.address = ip("::")}, six));
  EXPECT_FALSE(serves({.address = ip("::"), .v6_only = true}, four));
  EXPECT_TRUE(serves({.address = ip("::"), .v6_only = true}, six));
  EXPECT_FALSE(serves({.address = ip("127.0.0.1")}, four));
  EXPECT_FALSE(serves({.address = ip("::1")}, six));
  EXPECT_TRUE(serves({.address = four}, four));
}

Store log_content(std::span<const std::uint8_t> packet) {
  Message message((NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_PACKET, 0);
  message.header(nfgenmsg{.nfgen_family = 2, .version = 0, .res_id = 0})
      .put_text(NFULA_PREFIX, "t:spoof ")
      .put_be32(NFULA_IFINDEX_INDEV, 7)
      .put(NFULA_PAYLOAD, std::as_bytes(packet));
  return content_of(message);
}

std::vector<std::uint8_t> udp4() {
  return {0x45, 0,  0,  29, 0, 0,    0,    0,    64,   17, 0, 0, 10, 88, 0,
          2,    10, 88, 0,  3, 0x9c, 0x40, 0x15, 0x38, 0,  9, 0, 0,  'x'};
}

TEST(RtDecodeTest, LogPacketTellsTheIpv4Flow) {
  const auto packet = decode_log_packet(log_content(udp4()));
  const LogPacket want{.prefix = "t:spoof ",
                       .in_ifindex = 7,
                       .out_ifindex = 0,
                       .hook = 0,
                       .proto = 17,
                       .source = ip("10.88.0.2"),
                       .destination = ip("10.88.0.3"),
                       .source_port = 40000,
                       .destination_port = 5432};
  EXPECT_EQ(packet, want);
  expect_harmless(log_content(udp4()), decode_log_packet);
}

TEST(RtDecodeTest, LaterFragmentsHaveNoPorts) {
  auto bytes = udp4();
  bytes[7] = 10;  // fragment offset
  const auto packet = decode_log_packet(log_content(bytes));
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->destination_port, 0);
  EXPECT_EQ(packet->proto, 17);
}

TEST(RtDecodeTest, PortsStandBehindIpv4Options) {
  auto bytes = udp4();
  bytes[0] = 0x46;
  bytes.insert(bytes.begin() + 20, {1, 1, 1, 0});
  EXPECT_EQ(decode_log_packet(log_content(bytes))->destination_port, 5432);
  bytes[0] = 0x42;  // a header shorter than the least
  EXPECT_EQ(decode_log_packet(log_content(bytes))->destination_port, 0);
}

// IPv6, hop-by-hop options, fragment header with `offset`, UDP.
std::vector<std::uint8_t> udp6(std::uint8_t offset) {
  std::vector<std::uint8_t> bytes(40, 0);
  bytes[0] = 0x60;
  bytes[6] = 0;  // hop-by-hop
  bytes[8] = 0xfd, bytes[23] = 2;
  bytes[24] = 0xfd, bytes[39] = 3;
  const std::uint8_t rest[] = {44, 0, 1, 4, 0,    0,    0,    0,    17, 0, 0, offset,
                               0,  0, 0, 1, 0x9c, 0x40, 0x15, 0x38, 0,  9, 0, 0};
  bytes.insert(bytes.end(), std::begin(rest), std::end(rest));
  return bytes;
}

TEST(RtDecodeTest, LogPacketWalksIpv6Extensions) {
  const auto first = decode_log_packet(log_content(udp6(1)));  // more fragments follow
  ASSERT_TRUE(first);
  EXPECT_EQ(first->proto, 17);
  EXPECT_EQ(first->source, ip("fd00::2"));
  EXPECT_EQ(first->destination, ip("fd00::3"));
  EXPECT_EQ(first->destination_port, 5432);
  const auto later = decode_log_packet(log_content(udp6(8)));
  ASSERT_TRUE(later);
  EXPECT_EQ(later->destination_port, 0);
  expect_harmless(log_content(udp6(1)), decode_log_packet);
}

TEST(RtDecodeTest, WhatIsNoIpPacketIsNotReported) {
  const std::uint8_t arp[] = {0, 1, 8, 0, 6, 4, 0, 1};
  EXPECT_FALSE(decode_log_packet(log_content(arp)));
}

TEST(RtDecodeTest, LinkEventsTellOurs) {
  Message link = link_message();
  Message route = route_message();
  Store datagram;
  for (Message* message : {&link, &route, &route}) {
    const ByteView bytes = message->seal(0, 0);
    datagram.insert(datagram.end(), bytes.begin(), bytes.end());
    datagram.resize(align4(datagram.size()));
  }
  std::vector<LinkEvent> events;
  decode_link_events(datagram, 77, events);
  ASSERT_EQ(events.size(), 2U);  // of equal ones in a row one
  EXPECT_EQ(events[0].kind, LinkEvent::Kind::kLink);
  EXPECT_TRUE(events[0].ours);
  EXPECT_EQ(events[0].name, "v1");
  EXPECT_FALSE(events[0].open_port_to) << "it is isolated";
  EXPECT_EQ(events[1].kind, LinkEvent::Kind::kRoute);
  EXPECT_TRUE(events[1].ours);
  events.clear();
  decode_link_events(datagram, 78, events);
  EXPECT_FALSE(events[0].ours);
  expect_harmless(datagram, [](ByteView bytes) {
    std::vector<LinkEvent> some;
    decode_link_events(bytes, 77, some);
    return some.size();
  });
}

TEST(RtDecodeTest, MessageRemembersWhatWentWrong) {
  Message open_nest(RTM_NEWLINK, 0);
  open_nest.begin(IFLA_LINKINFO);
  EXPECT_FALSE(open_nest.ok());
  Message closed_too_often(RTM_NEWLINK, 0);
  closed_too_often.end();
  EXPECT_FALSE(closed_too_often.ok());
  Message too_long(RTM_NEWLINK, 0);
  const Store much(Message::kMaxBytes);
  too_long.put(IFLA_ADDRESS, much).put_u8(IFLA_OPERSTATE, 1);
  EXPECT_FALSE(too_long.ok());
  EXPECT_TRUE(too_long.seal(1, 0).empty());
}

TEST(RtDecodeTest, LinkNamesAreWhatTheKernelTakesLiterally) {
  for (const char* name : {"eth0", "v-1", "fifteen-letters"}) EXPECT_TRUE(valid_link_name(name));
  for (const char* name : {"", ".", "..", "a b", "a/b", "a:b", "v%d", "sixteen-letters-"}) {
    EXPECT_FALSE(valid_link_name(name)) << name;
  }
}

}  // namespace
}  // namespace meshd::netlink
