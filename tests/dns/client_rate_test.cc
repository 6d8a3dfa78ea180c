#include "dns/client_rate.h"

#include <gtest/gtest.h>

#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

const TimePoint kNow{std::chrono::hours(1)};
const auto kFirst = ip_of("172.17.0.2"), kSecond = ip_of("172.17.0.3");

int taken(ClientRate& rate, const IpAddress& client, TimePoint now, int tries) {
  int count = 0;
  for (int i = 0; i < tries; ++i) count += rate.take(client, now) ? 1 : 0;
  return count;
}

TEST(ClientRateTest, ABurstThenTheRate) {
  ClientRate rate(100, 2);
  EXPECT_EQ(taken(rate, kFirst, kNow, 1000), 200);
  EXPECT_EQ(taken(rate, kFirst, kNow + std::chrono::milliseconds(500), 1000), 50);
  EXPECT_EQ(taken(rate, kFirst, kNow + std::chrono::hours(1), 1000), 200) << "no more is saved up";
}

TEST(ClientRateTest, EachClientHasItsOwn) {
  ClientRate rate(100, 2);
  EXPECT_EQ(taken(rate, kFirst, kNow, 1000), 200);
  EXPECT_EQ(taken(rate, kSecond, kNow, 1000), 200);
}

TEST(ClientRateTest, ChangingAddressesBringsNoMoreThanThereIsRoomFor) {
  ClientRate rate(100, 2);
  int count = 0;
  for (std::uint32_t i = 0; i < 65'536; ++i) {
    count += taken(rate, IpAddress::v4(0xac110000U + i), kNow, 10);
  }
  // 2048 buckets of 200.
  EXPECT_LE(count, 2048 * 200);
  EXPECT_GT(count, 200'000);
}

}  // namespace
}  // namespace meshd::dns
