// The bytes of a batch, without a socket and without privilege.
#include "netlink/nft_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "netlink/nft_decode.h"
#include "netlink/nft_numbers.h"
#include "tests/support/nft_samples.h"

extern "C" {
#include <libnftnl/rule.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
}

namespace meshd::netlink {
namespace {

using test::bytes;
using test::flow_key;
using test::flow_set;
using test::reg;
using ::testing::HasSubstr;

std::vector<MessageView> messages_of(const NftBatch& batch) {
  std::vector<MessageView> views;
  for_each_message(batch.bytes(), [&](const MessageView& view) { views.push_back(view); });
  return views;
}

int kind(const MessageView& view) { return view.type & 0xff; }

std::vector<MessageView> messages_of(const NftBatch& batch, int wanted) {
  auto views = messages_of(batch);
  std::erase_if(views, [wanted](const MessageView& view) {
    return view.type >> 8 != NFNL_SUBSYS_NFTABLES || kind(view) != wanted;
  });
  return views;
}

// libnftnl's own reading of a rule message.
std::string libnftnl_text(const MessageView& view) {
  nftnl_rule* rule = nftnl_rule_alloc();
  EXPECT_EQ(nftnl_rule_nlmsg_parse(reinterpret_cast<const nlmsghdr*>(view.whole.data()), rule), 0);
  char text[4096];
  nftnl_rule_snprintf(text, sizeof text, rule, NFTNL_OUTPUT_DEFAULT, 0);
  nftnl_rule_free(rule);
  return text;
}

std::vector<Bytes> many_keys(std::uint32_t count) {
  std::vector<Bytes> keys;
  for (std::uint32_t i = 0; i < count; ++i) keys.push_back(flow_key(i, 1, 6, 80));
  return keys;
}

std::vector<ElementView> views_of(const std::vector<Bytes>& keys) {
  std::vector<ElementView> views;
  for (const auto& key : keys) views.push_back({.key = key});
  return views;
}

TEST(NftBatchTest, EmptyBatchIsBeginAndEnd) {
  const NftBatch batch("t");
  const auto views = messages_of(batch);
  ASSERT_EQ(views.size(), 2U);
  EXPECT_EQ(views[0].type, NFNL_MSG_BATCH_BEGIN);
  EXPECT_EQ(views[1].type, NFNL_MSG_BATCH_END);
  EXPECT_TRUE(batch.empty());
}

TEST(NftBatchTest, SequenceNumbersRiseByOneAndOnlyTheLastObjectIsAcknowledged) {
  NftBatch batch("t");
  ASSERT_TRUE(test::put_samples(batch));
  const auto views = messages_of(batch);
  ASSERT_EQ(views.size(), batch.message_count() + 2);
  for (std::size_t i = 0; i < views.size(); ++i) {
    EXPECT_EQ(views[i].sequence, i + 1);
    EXPECT_EQ((views[i].flags & NLM_F_ACK) != 0, i == views.size() - 2) << i;
    EXPECT_NE(views[i].flags & NLM_F_REQUEST, 0);
  }
}

TEST(NftBatchTest, GenerationTravelsInTheBeginMessage) {
  const NftBatch batch("t", 0x01020304);
  const auto views = messages_of(batch);
  const Attributes<2> a(views[0].payload.subspan(sizeof(nfgenmsg)));
  EXPECT_EQ(a.be32(NFNL_BATCH_GENID), 0x01020304U);
}

TEST(NftBatchTest, DecodedRulesAreTheRulesThatWerePut) {
  NftBatch batch("t");
  ASSERT_TRUE(test::put_samples(batch));
  const auto rules = messages_of(batch, NFT_MSG_NEWRULE);
  const auto wanted = test::sample_rules();
  ASSERT_EQ(rules.size(), wanted.size());
  for (std::size_t i = 0; i < rules.size(); ++i) {
    auto info = decode_nft_rule(rules[i].payload);
    ASSERT_TRUE(info);
    EXPECT_EQ(info->table, "t");
    EXPECT_EQ(info->rule.chain, wanted[i].chain);
    EXPECT_EQ(info->rule.comment, wanted[i].comment);
    ASSERT_EQ(info->rule.exprs.size(), wanted[i].exprs.size());
    for (std::size_t j = 0; j < wanted[i].exprs.size(); ++j) {
      // The keys written in a rule are a set of their own on the wire.
      if (std::holds_alternative<InSet>(wanted[i].exprs[j])) continue;
      EXPECT_EQ(info->rule.exprs[j], wanted[i].exprs[j]) << exprs_text({wanted[i].exprs[j]});
    }
  }
}

TEST(NftBatchTest, LibnftnlReadsTheRuleAsWritten) {
  NftBatch batch("t");
  const Exprs exprs = {MetaLoad{MetaKey::kNfproto, reg(0)},
                       Compare{reg(0), CompareOp::kEqual, bytes({2})},
                       PayloadLoad{PayloadBase::kNetwork, 12, 4, reg(0)},
                       PayloadLoad{PayloadBase::kNetwork, 16, 4, reg(1)},
                       MetaLoad{MetaKey::kL4proto, reg(2)},
                       PayloadLoad{PayloadBase::kTransport, 2, 2, reg(3)},
                       Bitwise{reg(3), reg(3), bytes({0xff, 0xf0}), bytes({0, 0})},
                       Lookup{.set = "allow4", .from = reg(0)},
                       CounterRef{"c_spoof"},
                       Verdict{VerdictKind::kGoto, "refuse"}};
  ASSERT_TRUE(batch.put_rule("decide", exprs));
  EXPECT_EQ(libnftnl_text(messages_of(batch, NFT_MSG_NEWRULE)[0]),
            "inet t decide\n"
            "  [ meta load nfproto => reg 8 ]\n"
            "  [ cmp eq reg 8 0x00000002 ]\n"
            "  [ payload load 4b @ network header + 12 => reg 8 ]\n"
            "  [ payload load 4b @ network header + 16 => reg 9 ]\n"
            "  [ meta load l4proto => reg 10 ]\n"
            "  [ payload load 2b @ transport header + 2 => reg 11 ]\n"
            "  [ bitwise reg 11 = ( reg 11 & 0x0000f0ff ) ^ 0x00000000 ]\n"
            "  [ lookup reg 8 set allow4 ]\n"
            "  [ objref type 1 name c_spoof ]\n"
            "  [ immediate reg 0 goto -> refuse ]\n");
}

TEST(NftBatchTest, TextOfExpressionsIsTheByteCode) {
  EXPECT_EQ(
      exprs_text(
          {MetaLoad{MetaKey::kIifgroup, reg(0)}, Compare{reg(0), CompareOp::kEqual, host_bytes(77)},
           InSet{reg(1), {KeyType::kProto}, {bytes({6}), bytes({17})}, true}, UnknownExpr{"fib"}}),
      "[ meta load iifgroup => reg 8 ]\n"
      "[ cmp eq reg 8 0x0000004d ]\n"
      "[ lookup reg 9 set __set%d 0x1 ]\n"
      "  { 6 }\n"
      "  { 17 }\n"
      "[ unknown fib ]\n");
}

TEST(NftBatchTest, DecodedSetsAreTheSetsThatWerePut) {
  NftBatch batch("t");
  const auto wanted = test::sample_sets();
  for (const auto& set : wanted) ASSERT_TRUE(batch.put_set(set));
  const auto sets = messages_of(batch, NFT_MSG_NEWSET);
  ASSERT_EQ(sets.size(), wanted.size());
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const auto info = decode_nft_set(sets[i].payload);
    ASSERT_TRUE(info);
    EXPECT_EQ(info->spec, wanted[i]) << wanted[i].name;
    EXPECT_EQ(info->foreign, "");
    EXPECT_FALSE(info->anonymous);
  }
}

TEST(NftBatchTest, SetsAreMadeNoLargerThanTheLimit) {
  NftBatch batch("t");
  batch.limit_sets(64);
  for (const auto& set : test::sample_sets()) ASSERT_TRUE(batch.put_set(set));
  std::vector<std::uint32_t> sizes;
  for (const auto& set : messages_of(batch, NFT_MSG_NEWSET)) {
    sizes.push_back(decode_nft_set(set.payload)->spec.size);
  }
  EXPECT_EQ(std::ranges::max(sizes), 64U);
}

TEST(NftBatchTest, KeysInARuleBecomeAnAnonymousConstantSet) {
  NftBatch batch("t");
  ASSERT_TRUE(batch.put_rule(
      "c", {InSet{reg(0), {KeyType::kPort}, {bytes({0, 53}), bytes({0, 80})}, false}}));
  const auto set = decode_nft_set(messages_of(batch, NFT_MSG_NEWSET).at(0).payload);
  ASSERT_TRUE(set);
  EXPECT_TRUE(set->anonymous);
  EXPECT_EQ(set->spec.size, 2U);
  ElementList elements;
  EXPECT_TRUE(decode_nft_elements(messages_of(batch, NFT_MSG_NEWSETELEM).at(0).payload, elements));
  ASSERT_EQ(elements.size(), 2U);
  EXPECT_TRUE(std::ranges::equal(elements[1].key, bytes({0, 80})));
}

TEST(NftBatchTest, ElementsAreSplitBelow64KiBPerMessage) {
  NftBatch batch("t");
  const auto keys = many_keys(20'000);
  ASSERT_TRUE(batch.put_elements(flow_set(), views_of(keys)));
  const auto views = messages_of(batch, NFT_MSG_NEWSETELEM);
  EXPECT_GT(views.size(), 1U);
  ElementList elements;
  for (const auto& view : views) {
    EXPECT_LT(view.whole.size(), 65'536U);
    ASSERT_TRUE(decode_nft_elements(view.payload, elements));
  }
  ASSERT_EQ(elements.size(), keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    ASSERT_TRUE(std::ranges::equal(elements[i].key, keys[i])) << i;
  }
}

TEST(NftBatchTest, EqualInputGivesEqualBytes) {
  NftBatch a("t"), b("t");
  ASSERT_TRUE(test::put_samples(a));
  ASSERT_TRUE(test::put_samples(b));
  EXPECT_TRUE(std::ranges::equal(a.bytes(), b.bytes()));
}

struct BadSet {
  SetSpec set;
  const char* why;
};

TEST(NftBatchTest, SetsThatTheKernelOrNftCouldNotKeepAreRefused) {
  using enum KeyType;
  const std::vector<BadSet> cases = {
      {{.name = "", .key = {kIpv4}}, "name"},
      {{.name = "a b", .key = {kIpv4}}, "name"},
      {{.name = std::string(129, 'x'), .key = {kIpv4}}, "name"},
      {{.name = "s", .key = {}}, "components"},
      {{.name = "s", .key = {kPort, kPort, kPort, kPort, kPort, kPort}}, "components"},
      {{.name = "s", .key = {kIpv6, kIpv6, kIpv6, kIpv6, kPort}}, "at most 64 bytes"},
      {{.name = "s", .key = {static_cast<KeyType>(63)}}, "not known"},
      {{.name = "s", .key = {kIpv4}, .data = {kVerdict}}, "verdict"},
      {{.name = "s", .key = {kMark}, .interval = true}, "host-order"},
      {{.name = "s", .key = {kIpv4}, .interval = true, .dynamic = true}, "dynamic"},
      {{.name = "s", .key = {kIpv4}, .timeout = std::chrono::seconds(1)}, "timeout"},
  };
  for (const auto& [set, why] : cases) {
    NftBatch batch("t");
    const auto refused = batch.put_set(set);
    ASSERT_FALSE(refused) << why;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(refused.error().what, HasSubstr(why));
    EXPECT_TRUE(batch.empty());
  }
}

TEST(NftBatchTest, ElementsThatDoNotFitTheirSetAreRefusedByName) {
  const SetSpec plain = flow_set();
  const SetSpec ranges{.name = "mesh4", .key = {KeyType::kIpv4}, .interval = true};
  const Bytes key = flow_key(0x0a000001, 0x0a000002, 6, 80), four = {1, 2, 3, 4},
              low = {1, 2, 3, 3};
  const std::vector<std::pair<SetSpec, ElementView>> cases = {
      {plain, {.key = four}},
      {plain, {.key = key, .key_end = key}},
      {plain, {.key = key, .data = four}},
      {plain, {.key = key, .timeout = std::chrono::seconds(1)}},
      {ranges, {.key = four, .key_end = low}},
      {ranges, {.key = four, .key_end = key}},
  };
  for (const auto& [set, element] : cases) {
    NftBatch batch("t");
    const auto refused = batch.put_elements(set, std::span(&element, 1));
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().what, HasSubstr("set " + set.name + ", element"));
  }
}

TEST(NftBatchTest, ExpressionsThatCannotBeWrittenAreRefused) {
  const std::vector<Exprs> cases = {
      Exprs(kMaxExprs + 1, Counter{}),
      {UnknownExpr{"fib"}},
      {MetaLoad{MetaKey::kMark, reg(16)}},
      {PayloadLoad{PayloadBase::kNetwork, 8, 16, reg(13)}},
      {SegmentLoad{reg(16)}},
      {TcpOptionStore{.option = 2, .offset = 2, .length = 3}},
      {TcpOptionStore{.option = 2, .offset = 2, .length = 4, .from = reg(16)}},
      {Compare{reg(0), CompareOp::kEqual, {}}},
      {Compare{reg(0), CompareOp::kEqual, Bytes(65)}},
      {Range{reg(0), false, bytes({1}), bytes({1, 2})}},
      {Bitwise{reg(0), reg(0), bytes({1}), bytes({1, 2})}},
      {NumgenRandom{reg(0), 0, 0}},
      {Limit{10, 1, 0, false}},
      {Log{1, std::string(128, 'x'), 0, 0}},
      {Log{1, "line\nbreak", 0, 0}},
      {Verdict{VerdictKind::kJump, ""}},
      {Verdict{VerdictKind::kAccept, "c"}},
      {Nat{}},
      {InSet{reg(0), {KeyType::kProto}, {bytes({17}), bytes({6})}, false}},
      {InSet{reg(0), {KeyType::kProto}, {}, false}},
      {InSet{reg(0), {KeyType::kPort}, {bytes({6})}, false}},
      {Dynset{.set = "s", .exprs = {Limit{1, 1, 0, false}}}},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    NftBatch batch("t");
    const auto refused = batch.put_rule("c", cases[i]);
    ASSERT_FALSE(refused) << i;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(refused.error().what, HasSubstr("rule in chain c: ")) << i;
    EXPECT_TRUE(batch.empty()) << i;
  }
}

TEST(NftBatchTest, LongestRuleFitsItsMessage) {
  const Bytes longest(kMaxKeyBytes, 0xff);
  Exprs exprs;
  for (std::size_t i = 0; i < kMaxExprs; i += 2) {
    exprs.push_back(Range{reg(0), false, longest, longest});
    exprs.push_back(Dynset{.set = std::string(kMaxNameBytes, 's'),
                           .exprs = {Limit{1, 1, 1, false}, Connlimit{1, true}}});
  }
  NftBatch batch(std::string(kMaxNameBytes, 't'));
  ASSERT_TRUE(batch.put_rule(std::string(kMaxNameBytes, 'c'), exprs, std::string(128, 'x')));
  const auto info = decode_nft_rule(messages_of(batch, NFT_MSG_NEWRULE).at(0).payload);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->rule.exprs, exprs);
}

TEST(NftBatchTest, HalfABatchIsNeverSent) {
  auto socket = Socket::open();
  ASSERT_TRUE(socket) << socket.error().what;
  NftBatch batch("t");
  EXPECT_FALSE(batch.put_counter("no name"));
  EXPECT_FALSE(batch.put_chain({.name = "c"})) << "the batch is spoilt";
  const auto refused = std::move(batch).commit(*socket);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("counter name \"no name\""));
}

TEST(NftBatchTest, TableNameIsCheckedBeforeAnythingIsWritten) {
  auto socket = Socket::open();
  ASSERT_TRUE(socket) << socket.error().what;
  NftBatch batch(std::string(1'000'000, 't'));
  EXPECT_FALSE(batch.put_table());
  const auto refused = std::move(batch).commit(*socket);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("table name"));
}

TEST(NftBatchTest, TooLargeABatchIsExhausted) {
  NftBatch batch("t");
  const auto keys = many_keys(100'000);
  const auto views = views_of(keys);
  Status status;
  for (int i = 0; i < 40 && status; ++i) status = batch.put_elements(flow_set(), views);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kExhausted);
}

TEST(NftSpecTest, KeysAreNamedByTheirTypes) {
  using enum KeyType;
  EXPECT_EQ(
      key_text(flow_key(0x0a000001, 0xc0000201, 17, 53), std::vector{kIpv4, kIpv4, kProto, kPort}),
      "10.0.0.1 . 192.0.2.1 . 17 . 53");
  auto bind = ifname_bytes("v1");
  for (const int byte : {2, 0, 0, 0, 0, 0xab, 0, 0})
    bind.push_back(static_cast<std::uint8_t>(byte));
  EXPECT_EQ(key_text(bind, std::vector{kIfname, kEther}), "\"v1\" . 02:00:00:00:00:ab");
  EXPECT_EQ(key_text(host_bytes(77), std::vector{kMark}), "77");
  EXPECT_EQ(key_text(bytes({1, 2}), std::vector{kIpv4}), "0x0102");
}

}  // namespace
}  // namespace meshd::netlink
