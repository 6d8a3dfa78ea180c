#include "dns/cache.h"

#include <gtest/gtest.h>

#include "dns/limits.h"
#include "tests/support/dns_messages.h"

namespace meshd::dns {
namespace {

std::shared_ptr<const UpstreamReply> reply_of(std::size_t bytes, std::uint32_t ttl = 60,
                                              bool truncated = false) {
  auto reply = std::make_shared<UpstreamReply>();
  reply->message.assign(bytes, 1);
  reply->ttl = ttl;
  reply->truncated = truncated;
  return reply;
}
std::string key_of(const Ask& question) {
  Query query;
  EXPECT_EQ(parse_query(make_query(question), query), Parsed::kQuery);
  return Cache::key_of(query);
}

const TimePoint kNow{std::chrono::hours(1)};

TEST(CacheTest, KeepsWhatItWasGivenUntilItsTime) {
  Cache cache(10'000);
  EXPECT_EQ(cache.find("k"), nullptr);
  const auto reply = reply_of(100);
  cache.store("k", reply, kNow);
  const auto* found = cache.find("k");
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->reply, reply);
  EXPECT_EQ(found->stored_at, kNow);
  EXPECT_EQ(found->fresh_until, kNow + std::chrono::seconds(60));
}

TEST(CacheTest, ANewReplyReplacesTheOldOneAndItsBytes) {
  Cache cache(10'000);
  cache.store("k", reply_of(1000), kNow);
  const auto before = cache.bytes();
  cache.store("k", reply_of(100), kNow);
  EXPECT_EQ(cache.size(), 1U);
  EXPECT_EQ(cache.bytes(), before - 900);
}

TEST(CacheTest, TheLeastRecentlyUsedGoesFirst) {
  Cache one(100'000);
  one.store("a", reply_of(1000), kNow);
  Cache cache(3 * one.bytes());
  for (const auto* key : {"a", "b", "c"}) cache.store(key, reply_of(1000), kNow);
  ASSERT_NE(cache.find("a"), nullptr);  // used: b is the oldest now
  cache.store("d", reply_of(1000), kNow);
  EXPECT_EQ(cache.find("b"), nullptr);
  for (const auto* key : {"a", "c", "d"}) EXPECT_NE(cache.find(key), nullptr) << key;
}

TEST(CacheTest, IsBoundedInBytesWhateverComes) {
  Cache cache(20'000);
  for (int i = 0; i < 1000; ++i) {
    cache.store(std::to_string(i), reply_of(static_cast<std::size_t>(i) * 7 % 3000), kNow);
    EXPECT_LE(cache.bytes(), 20'000U);
  }
  EXPECT_GT(cache.size(), 1U);
  Cache none(0);
  none.store("k", reply_of(10), kNow);
  EXPECT_EQ(none.size(), 0U);
  EXPECT_EQ(none.bytes(), 0U);
}

TEST(CacheTest, HugeAndCutRepliesAreNotKept) {
  Cache cache(1'000'000);
  cache.store("huge", reply_of(kMaxCached + 1), kNow);
  cache.store("cut", reply_of(100, 60, /*truncated=*/true), kNow);
  EXPECT_EQ(cache.size(), 0U);
}

TEST(CacheTest, TheKeyIsAllThatMakesAnswersDiffer) {
  const auto base = key_of({.name = "example.org"});
  EXPECT_EQ(key_of({.name = "EXAMPLE.org", .id = 9, .edns = true}), base);
  EXPECT_NE(key_of({.name = "example.com"}), base);
  EXPECT_NE(key_of({.name = "example.org", .type = 28}), base);
  EXPECT_NE(key_of({.name = "example.org", .klass = 255}), base);
  EXPECT_NE(key_of({.name = "example.org", .flags = 0x0110}), base);
  EXPECT_NE(key_of({.name = "example.org", .edns = true, .dnssec_ok = true}), base);
}

}  // namespace
}  // namespace meshd::dns
