// Reading what the kernel says: values of elements, and bytes that make no sense.
#include "netlink/nft_decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "netlink/nft_batch.h"
#include "netlink/nft_monitor.h"
#include "netlink/nft_numbers.h"
#include "tests/support/nft_samples.h"

extern "C" {
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
}

namespace meshd::netlink {
namespace {

using test::bytes;

class IntervalTest : public ::testing::Test {
 protected:
  void add(Bytes key, bool end) { list_.add({.key = key}, end); }
  // The list as "first-last" pairs of its last bytes.
  std::string joined() {
    halves_ = list_.finish({.name = "s", .key = {KeyType::kIpv4}, .interval = true});
    std::string text;
    for (std::size_t i = 0; i < list_.size(); ++i) {
      text += std::to_string(list_[i].key[3]) + "-" + std::to_string(list_[i].key_end[3]) + " ";
    }
    return text;
  }

  ElementList list_;
  std::size_t halves_ = 0;
};

TEST_F(IntervalTest, AdjacentIntervalsStayTwo) {
  add(bytes({1, 0, 0, 9}), true);
  add(bytes({1, 0, 0, 5}), false);
  add(bytes({1, 0, 0, 5}), true);
  add(bytes({1, 0, 0, 1}), false);
  EXPECT_EQ(joined(), "1-4 5-8 ");
  EXPECT_EQ(halves_, 0U);
}

TEST_F(IntervalTest, EndAtZeroIsNftsMarkAndNoHalf) {
  add(bytes({0, 0, 0, 0}), true);
  add(bytes({1, 0, 0, 1}), false);
  add(bytes({1, 0, 1, 0}), true);
  EXPECT_EQ(joined(), "1-255 ");
  EXPECT_EQ(halves_, 0U);
}

TEST_F(IntervalTest, OpenEndGoesToTheLastKey) {
  add(bytes({240, 0, 0, 0}), false);
  EXPECT_EQ(joined(), "0-255 ");
}

TEST_F(IntervalTest, HalvesAreCounted) {
  add(bytes({1, 0, 0, 1}), false);
  add(bytes({1, 0, 0, 2}), false);
  add(bytes({1, 0, 0, 5}), true);
  add(bytes({1, 0, 0, 7}), true);
  EXPECT_EQ(joined(), "2-4 ");
  EXPECT_EQ(halves_, 2U);
}

TEST(ElementListTest, SortsByKeyAndKeepsWhatBelongsToIt) {
  ElementList list;
  const Bytes high = {9, 0, 0, 0}, low = {1, 0, 0, 0}, five = {5, 0, 0, 0}, six = {6, 0, 0, 0};
  ElementView view{.key = high, .data = five};
  view.packets = 3;
  list.add(view);
  list.add({.key = low, .data = six, .timeout = std::chrono::seconds(2)});
  list.finish({.name = "m", .key = {KeyType::kIpv4}, .data = {KeyType::kMark}});
  EXPECT_TRUE(std::ranges::equal(list[0].key, low));
  EXPECT_TRUE(std::ranges::equal(list[0].data, six));
  EXPECT_EQ(list[0].timeout, std::chrono::seconds(2));
  EXPECT_EQ(list[1].packets, 3U);
}

TEST(NftDecodeTest, SingleKeyOfAConcatenatedIntervalIsAnIntervalOfOne) {
  ElementList list;
  const Bytes key(8, 1);
  list.add({.key = key});
  list.finish({.name = "s", .key = {KeyType::kMark, KeyType::kIpv4}, .interval = true});
  EXPECT_TRUE(std::ranges::equal(list[0].key_end, key));
}

TEST(NftDecodeTest, CutOffMessagesAreHarmless) {
  NftBatch batch("t");
  ASSERT_TRUE(test::put_samples(batch));
  const auto whole = batch.bytes();
  TableEventDecoder monitor("t");
  std::vector<TableEvent> events;
  for (std::size_t length = 0; length < whole.size(); length += 7) {
    // A copy of its own, so that a sanitizer sees every byte read beyond it.
    const std::vector<std::byte> part(whole.begin(),
                                      whole.begin() + static_cast<std::ptrdiff_t>(length));
    for_each_message(part, [](const MessageView& view) {
      ElementList elements;
      (void)decode_nft_table(view.payload);
      (void)decode_nft_chain(view.payload);
      (void)decode_nft_rule(view.payload);
      (void)decode_nft_set(view.payload);
      (void)decode_nft_object(view.payload);
      (void)decode_nft_generation(view.payload);
      EXPECT_TRUE(decode_nft_elements(view.payload, elements));
    });
    monitor.feed(part, events);
  }
  EXPECT_TRUE(events.empty()) << "no transaction was finished";
}

TEST(NftDecodeTest, AnythingForeignIsNeverTakenForOurs) {
  // Each case flips what distinguishes a foreign expression from ours.
  NftBatch batch("t");
  ASSERT_TRUE(batch.put_rule("c", {Reject{RejectKind::kPortUnreachable}}));
  std::vector<std::byte> raw;
  for_each_message(batch.bytes(), [&](const MessageView& view) {
    if ((view.type & 0xff) == NFT_MSG_NEWRULE && view.type >> 8 == NFNL_SUBSYS_NFTABLES) {
      raw.assign(view.payload.begin(), view.payload.end());
    }
  });
  ASSERT_FALSE(raw.empty());
  const std::string_view name = "reject";
  const auto at = std::search(raw.begin(), raw.end(), name.begin(), name.end(),
                              [](std::byte a, char b) { return static_cast<char>(a) == b; });
  ASSERT_NE(at, raw.end());
  *at = std::byte{'x'};
  const auto info = decode_nft_rule(raw);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->rule.exprs, Exprs{UnknownExpr{"xeject"}});
}

// A message as the kernel sends it to listeners.
std::vector<std::byte> event(std::uint16_t type, std::uint8_t family, std::string_view table,
                             std::uint32_t port_id) {
  std::vector<std::byte> out;
  const auto put = [&out](const void* data, std::size_t size) {
    const auto* begin = static_cast<const std::byte*>(data);
    out.insert(out.end(), begin, begin + size);
    out.resize(align4(out.size()));
  };
  nlmsghdr header{};
  header.nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type);
  header.nlmsg_pid = port_id;
  nfgenmsg extra{};
  extra.nfgen_family = family;
  nlattr attribute{};
  const bool ends = type == NFT_MSG_NEWGEN;
  const Bytes generation = {0, 0, 0, 42};
  const std::string name = std::string(table) + '\0';
  attribute.nla_type = ends ? +NFTA_GEN_ID : +NFTA_TABLE_NAME;
  attribute.nla_len = static_cast<std::uint16_t>(4 + (ends ? 4 : name.size()));
  header.nlmsg_len =
      static_cast<std::uint32_t>(sizeof header + sizeof extra + align4(attribute.nla_len));
  put(&header, sizeof header);
  put(&extra, sizeof extra);
  put(&attribute, sizeof attribute);
  if (ends) {
    put(generation.data(), generation.size());
  } else {
    put(name.data(), name.size());
  }
  return out;
}

class TableEventTest : public ::testing::Test {
 protected:
  void feed(std::uint16_t type, std::string_view table = "t", std::uint8_t family = NFPROTO_INET) {
    decoder_.feed(event(type, family, table, 7), events_);
  }
  TableEventDecoder decoder_{"t"};
  std::vector<TableEvent> events_;
};

TEST_F(TableEventTest, OneEventPerTransactionHoweverManyObjects) {
  for (int i = 0; i < 5; ++i) feed(NFT_MSG_NEWSETELEM);
  EXPECT_TRUE(events_.empty());
  feed(NFT_MSG_NEWGEN, "");
  ASSERT_EQ(events_.size(), 1U);
  EXPECT_EQ(events_[0].kind, TableEvent::Kind::kChanged);
  EXPECT_EQ(events_[0].generation, 42U);
  EXPECT_EQ(events_[0].port_id, 7U);
  feed(NFT_MSG_NEWGEN, "");
  EXPECT_EQ(events_.size(), 1U);
}

TEST_F(TableEventTest, OtherTablesAndFamiliesAreNobodysBusiness) {
  feed(NFT_MSG_NEWRULE, "other");
  feed(NFT_MSG_NEWRULE, "t", NFPROTO_IPV4);
  EXPECT_FALSE(decoder_.generation());
  feed(NFT_MSG_NEWGEN, "");
  EXPECT_TRUE(events_.empty());
  EXPECT_EQ(decoder_.generation(), 42U);
}

TEST_F(TableEventTest, RemovalOfTheTableIsSaid) {
  feed(NFT_MSG_DELTABLE);
  feed(NFT_MSG_NEWGEN, "");
  feed(NFT_MSG_DELTABLE);
  feed(NFT_MSG_NEWTABLE);
  feed(NFT_MSG_NEWGEN, "");
  ASSERT_EQ(events_.size(), 2U);
  EXPECT_TRUE(events_[0].deleted);
  EXPECT_FALSE(events_[1].deleted);
}

TEST_F(TableEventTest, LossIsUnknown) {
  feed(NFT_MSG_NEWGEN, "");
  feed(NFT_MSG_NEWRULE);
  decoder_.lost(events_);
  EXPECT_FALSE(decoder_.generation());
  ASSERT_EQ(events_.size(), 1U);
  EXPECT_EQ(events_[0].kind, TableEvent::Kind::kUnknown);
}

}  // namespace
}  // namespace meshd::netlink
