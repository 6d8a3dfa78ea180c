// Limits per container, and the log that says who was refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "netlink/nflog.h"
#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"

namespace meshd::test {
namespace {

std::vector<RawDatagram> flood(const BedHost& from, const IpAddress& to, std::uint16_t port,
                               std::uint16_t count) {
  std::vector<RawDatagram> datagrams;
  for (std::uint16_t i = 0; i < count; ++i) {
    datagrams.push_back(
        {from.mac, from.at(to.family()), to, port, static_cast<std::uint16_t>(20'000 + i)});
  }
  return datagrams;
}

TEST(RulesetLimitsTest, OneContainerHoldsSoManyConnectionsOnly) {
  MeshBed bed(3);
  const EchoServer server(bed[1].netns, bed[1].v4, 5432);
  for (const Proto proto : kProtos) {
    bed.add(MeshBed::allow(bed[0], bed[1], proto, 5432));
    bed.add(MeshBed::allow(bed[2], bed[1], proto, 5432));
  }
  Conversation open(bed[0].netns, Proto::kTcp, bed[1].v4, 5432);
  ASSERT_EQ(open.ask(), Talk::kAnswered);
  send_raw(bed[0].netns, flood(bed[0], bed[1].v4, 5432, policy::kMaxConnections + 300));
  EXPECT_GE(bed.counter("c_conn"), 250U);
  EXPECT_LE(std::stoi(output_of("cat /proc/sys/net/netfilter/nf_conntrack_count")),
            static_cast<int>(policy::kMaxConnections) + 1);
  EXPECT_EQ(talk(bed[0].netns, Proto::kTcp, bed[1].v4, 5432), Talk::kRefused);
  EXPECT_EQ(open.ask(), Talk::kAnswered) << "what is open goes on";
  EXPECT_EQ(talk(bed[2].netns, Proto::kTcp, bed[1].v4, 5432), Talk::kAnswered)
      << "others have limits of their own";
}

TEST(RulesetLimitsTest, RefusedFlowsLeaveNoConnection) {
  MeshBed bed(2);
  send_raw(bed[0].netns, flood(bed[0], bed[1].v4, 5432, 5000));
  EXPECT_EQ(bed.counter("c_refused"), 5000U);
  EXPECT_EQ(bed.counter("c_conn"), 0U);
  EXPECT_EQ(output_of("cat /proc/sys/net/netfilter/nf_conntrack_count"), "0\n");
}

TEST(RulesetLimitsTest, QueriesAreLimitedPerContainer) {
  MeshBed bed(2, {}, 5);
  for (const Family family : kFamilies) {
    const auto& resolver =
        family == Family::kV4 ? bed.settings().resolver4[0] : bed.settings().resolver6[0];
    const EchoServer dns(bed.node(), resolver, 53);
    const auto before = bed.counter("c_dnsq");
    send_raw(bed[0].netns, flood(bed[0], resolver, 53, 100));
    EXPECT_GE(bed.counter("c_dnsq") - before, 80U);
    EXPECT_EQ(talk(bed[1].netns, Proto::kUdp, resolver, 53), Talk::kAnswered);
  }
}

class RulesetLogTest : public testing::Test {
 protected:
  static constexpr std::uint16_t kGroup = 91;

  // Entries by prefix and source, until there are `least` in all and one of these. On a busy
  // machine a loud sender is slow, and its limit lets more of it through before the others.
  std::map<std::string, int> entries(int least, const std::string& wanted = {}) {
    std::map<std::string, int> counts;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(3);
    const auto is_enough = [&](int all) {
      return all >= least && (wanted.empty() || counts.contains(wanted));
    };
    for (int all = 0; !is_enough(all) && std::chrono::steady_clock::now() < limit;) {
      if (!readable(reader_.fd(), std::chrono::milliseconds(200))) continue;
      for (const auto& packet : must(reader_.read())) {
        ++counts[packet.prefix + packet.source.to_string()];
        ++all;
      }
    }
    return counts;
  }

  MeshBed bed_{3, {.log_group = kGroup}};
  netlink::NflogReader reader_ = must(netlink::NflogReader::open(kGroup));
};

// The limit would otherwise let the loud one's entries take the quiet one's place.
TEST_F(RulesetLogTest, QuietContainerIsLoggedBesideALoudOne) {
  send_raw(bed_[0].netns, flood(bed_[0], bed_[1].v4, 5432, 3000));
  EXPECT_EQ(talk(bed_[2].netns, Proto::kUdp, bed_[1].v4, 5432), Talk::kRefused);
  const auto quiet = "meshd:refused " + bed_[2].v4.to_string();
  const auto counts = entries(policy::kLogBurst + 1, quiet);
  const auto loud = "meshd:refused " + bed_[0].v4.to_string();
  ASSERT_TRUE(counts.contains(loud));
  EXPECT_GE(counts.at(loud), static_cast<int>(policy::kLogBurst));
  EXPECT_LT(counts.at(loud), 100);
  ASSERT_TRUE(counts.contains(quiet));
  EXPECT_EQ(counts.at(quiet), 1);
}

TEST_F(RulesetLogTest, SpoofedSourcesAreLoggedPerInterface) {
  auto spoofed = flood(bed_[0], bed_[1].v4, 5432, 1000);
  for (std::size_t i = 0; i < spoofed.size(); ++i) spoofed[i].from = ip("198.18.0.0").plus(i);
  send_raw(bed_[0].netns, spoofed);
  send_raw(bed_[2].netns, {bed_[2].mac, ip("203.0.113.9"), bed_[1].v4, 5432});
  const auto counts = entries(policy::kLogBurst + 1, "meshd:spoof 203.0.113.9");
  EXPECT_TRUE(counts.contains("meshd:spoof 203.0.113.9"));
  EXPECT_LT(counts.size(), 100U);
}

TEST_F(RulesetLogTest, RefusalsOfTheNodeAndOfOutsideAreLogged) {
  EXPECT_EQ(talk(bed_.outside().netns, Proto::kTcp, bed_[1].v4, 5432), Talk::kRefused);
  EXPECT_TRUE(entries(1).contains("meshd:refused 192.0.2.100"));
}

}  // namespace
}  // namespace meshd::test
