#include <gtest/gtest.h>

#include "netlink/nflog.h"
#include "tests/support/flows.h"
#include "tests/support/rt_fixture.h"

namespace meshd::netlink {
namespace {

using test::ip;
using test::must;
using test::output_of;

class NflogReaderTest : public test::RtFixture {
 protected:
  static constexpr std::uint16_t kLogGroup = 88;

  void SetUp() override {
    RtFixture::SetUp();
    ASSERT_EQ(
        output_of("nft -f - <<END\n"
                  "table inet t { chain o { type filter hook output priority 0;\n"
                  " udp dport 4000-4999 log prefix \"t:refused \" group 88 snaplen 128 drop;\n"
                  "}\n}\nEND"),
        "");
  }
  // Sends to lo; what the rule drops the sender hears as EPERM.
  static void send_refused(const char* address, std::uint16_t port, int times = 1) {
    const UniqueFd fd = test::make_socket(ip(address), SOCK_DGRAM);
    const auto remote = test::endpoint(ip(address), port);
    for (int i = 0; i < times; ++i) {
      ASSERT_EQ(sendto(fd.get(), "x", 1, 0, remote.get(), remote.length), -1);
      ASSERT_EQ(errno, EPERM);
    }
  }
  static std::vector<LogPacket> read_some(NflogReader& reader) {
    if (!test::readable(reader.fd())) return {};
    return must(reader.read());
  }
};

TEST_F(NflogReaderTest, TellsPrefixLinkAndFlow) {
  NflogReader reader = must(NflogReader::open(kLogGroup));
  EXPECT_TRUE(must(reader.read()).empty());
  send_refused("127.0.0.1", 4001);
  const auto packets = read_some(reader);
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].prefix, "t:refused ");
  EXPECT_EQ(packets[0].out_ifindex, kLoopbackIndex);
  EXPECT_EQ(packets[0].in_ifindex, 0);
  EXPECT_EQ(packets[0].hook, 3);  // NF_INET_LOCAL_OUT
  EXPECT_EQ(packets[0].proto, IPPROTO_UDP);
  EXPECT_EQ(packets[0].source, ip("127.0.0.1"));
  EXPECT_EQ(packets[0].destination, ip("127.0.0.1"));
  EXPECT_EQ(packets[0].destination_port, 4001);
  EXPECT_NE(packets[0].source_port, 0);
}

TEST_F(NflogReaderTest, TellsIpv6Flows) {
  NflogReader reader = must(NflogReader::open(kLogGroup));
  send_refused("::1", 4002);
  const auto packets = read_some(reader);
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].destination, ip("::1"));
  EXPECT_EQ(packets[0].destination_port, 4002);
}

TEST_F(NflogReaderTest, SecondReaderOfAGroupIsAConflict) {
  const NflogReader first = must(NflogReader::open(kLogGroup));
  const auto second = NflogReader::open(kLogGroup);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
  EXPECT_TRUE(NflogReader::open(kLogGroup + 1));
}

TEST_F(NflogReaderTest, GroupIsFreeAgainWhenTheReaderIsGone) {
  {
    const NflogReader first = must(NflogReader::open(kLogGroup));
  }
  EXPECT_TRUE(NflogReader::open(kLogGroup));
}

TEST_F(NflogReaderTest, OtherNamespaceHasItsOwnGroup) {
  const NflogReader first = must(NflogReader::open(kLogGroup));
  const Netns container = test::make_netns();
  EXPECT_TRUE(call_in_netns(container.fd(), [] { return NflogReader::open(kLogGroup); }));
}

TEST_F(NflogReaderTest, LossIsCountedAndReadingGoesOn) {
  NflogReader reader = must(NflogReader::open(kLogGroup));
  reader.set_receive_queue_for_test(4096);
  send_refused("127.0.0.1", 4003, 2000);
  std::size_t got = 0;
  for (int i = 0; i < 100 && test::readable(reader.fd(), std::chrono::milliseconds(200)); ++i) {
    got += must(reader.read()).size();
  }
  EXPECT_GT(reader.overruns(), 0U);
  EXPECT_LT(got, 2000U);
  const auto overruns = reader.overruns();
  send_refused("127.0.0.1", 4004);
  const auto packets = read_some(reader);
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].destination_port, 4004);
  EXPECT_EQ(reader.overruns(), overruns);
}

}  // namespace
}  // namespace meshd::netlink
