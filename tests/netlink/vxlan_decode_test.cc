// What is said of tunnels, on bytes: no socket, no privilege.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include "netlink/vxlan.h"

namespace meshd::netlink {
namespace {

using Store = std::vector<std::byte>;

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

Store content_of(Message message) {
  const ByteView content = after(message.seal(1, 0), 16);
  EXPECT_FALSE(content.empty());
  return {content.begin(), content.end()};
}

// Cut anywhere, and with every byte turned to what makes lengths absurd; in memory of its own
// size, so that a sanitizer sees a read beyond it.
template <class Decode>
void expect_harmless(const Store& content, Decode decode) {
  for (std::size_t length = 0; length < content.size(); ++length) {
    const Store piece(content.begin(), content.begin() + static_cast<std::ptrdiff_t>(length));
    (void)decode(ByteView(piece));
  }
  for (std::size_t at = 0; at < content.size(); ++at) {
    for (const int value : {0x00, 0x01, 0x03, 0x7f, 0xff}) {
      Store bent = content;
      bent[at] = static_cast<std::byte>(value);
      (void)decode(ByteView(bent));
    }
  }
}

VxlanSpec spec(const char* local) {
  return {.name = "mesh0",
          .mac = {{2, 0x6d, 192, 0, 2, 1}},
          .group = 78,
          .mtu = 1430,
          .tunnel = {.id = 88, .port = 8472, .local = ip(local)}};
}

TEST(VxlanDecodeTest, RequestSaysAllThatIsReadBack) {
  for (const char* local : {"192.0.2.1", "2001:db8::1"}) {
    const auto content = content_of(vxlan_message(spec(local)));
    const auto link = decode_link(content);
    ASSERT_TRUE(link);
    EXPECT_EQ(link->name, "mesh0");
    EXPECT_EQ(link->kind, "vxlan");
    EXPECT_EQ(link->group, 78U);
    EXPECT_EQ(link->mtu, 1430U);
    EXPECT_EQ(link->mac, spec(local).mac);
    EXPECT_EQ(link->vxlan, spec(local).tunnel);
    expect_harmless(content, decode_link);
  }
}

TEST(VxlanDecodeTest, DefaultDestinationAndLearningAreSeen) {
  auto other = spec("192.0.2.1");
  other.tunnel.remote = ip("192.0.2.9");
  other.tunnel.learning = true;
  EXPECT_EQ(decode_link(content_of(vxlan_message(other)))->vxlan, other.tunnel);
}

TEST(VxlanDecodeTest, ForwardingEntryIsReadAsWritten) {
  for (const char* remote : {"198.51.100.3", "2001:db8::3"}) {
    const FdbEntry entry{7, {{2, 0x6d, 198, 51, 100, 3}}, ip(remote)};
    const auto content = content_of(fdb_message(entry));
    EXPECT_EQ(decode_fdb(content), entry);
    expect_harmless(content, decode_fdb);
  }
}

TEST(VxlanDecodeTest, EntryThatLeadsElsewhereIsNotPlain) {
  Message message = fdb_message({7, {{2, 0, 0, 0, 0, 3}}, ip("198.51.100.3")});
  message.put_be16(NDA_PORT, 4789);
  EXPECT_FALSE(decode_fdb(content_of(std::move(message)))->plain);
}

TEST(VxlanDecodeTest, NeighboursAreNoForwardingEntries) {
  ndmsg header{};
  header.ndm_family = 2;
  Message message(RTM_NEWNEIGH, 0);
  message.header(header).put_address(NDA_DST, ip("192.0.2.1")).put_mac(NDA_LLADDR, {{2}});
  EXPECT_FALSE(decode_fdb(content_of(std::move(message))));
}

}  // namespace
}  // namespace meshd::netlink
