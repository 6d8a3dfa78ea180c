#include "dns/reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dns/limits.h"
#include "tests/support/dns_messages.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

Query parsed(const Octets& message) {
  Query query;
  EXPECT_EQ(parse_query(message, query), Parsed::kQuery);
  return query;
}

class ReplyTest : public testing::Test {
 protected:
  ReplyTest() { use({.name = "Example.org", .edns = true}); }

  void use(const Ask& question) {
    client_ = make_query(question);
    query_ = parsed(client_);
    sent_ = upstream_query(query_, 0x4242, coin_);
  }
  std::optional<UpstreamReply> take(const Octets& reply) {
    return digest(reply, sent_, sample_settings()->filtered);
  }
  DnsMessage given(const UpstreamReply& kept, std::uint32_t age = 0, bool stale = false,
                   std::size_t limit = 1232) {
    Octets out(limit);
    out.resize(write_reply(kept, query_, client_, age, stale, limit, out));
    size_ = out.size();
    return read_message(out);
  }

  const Octets coin_ = Octets(32, 0x55);
  const ReplyRecord a_{"example.org", 1, 300, {192, 0, 2, 1}};
  Octets client_, sent_;
  Query query_;
  std::size_t size_ = 0;
};

TEST_F(ReplyTest, TheQueryUpstreamCarriesTheCoinsCaseAndOurOpt) {
  use({.name = "example.org", .type = 28, .flags = 0x0110, .edns = true, .dnssec_ok = true});
  const auto m = read_message(sent_);
  EXPECT_EQ(m.id, 0x4242U);
  EXPECT_EQ(m.flags, 0x0110U) << "RD and the client's CD";
  EXPECT_EQ(m.qname, "ExAmPlE.oRg");
  EXPECT_EQ(m.qtype, 28U);
  EXPECT_EQ(m.payload, 1232U);
  EXPECT_TRUE(m.dnssec_ok);
}

TEST_F(ReplyTest, AGoodReplyReachesTheClientInItsOwnLetters) {
  const auto kept = take(make_reply(sent_, {a_}));
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->ttl, 300U);
  EXPECT_FALSE(kept->negative);
  const auto m = given(*kept);
  EXPECT_EQ(m.id, 0x1234U);
  EXPECT_EQ(m.flags, 0x8180U) << "no AA: it is not ours";
  EXPECT_EQ(m.qname, "Example.org");
  ASSERT_THAT(m.answers, SizeIs(1));
  EXPECT_EQ(m.answers[0].data, "192.0.2.1");
  EXPECT_TRUE(m.edns);
}

TEST_F(ReplyTest, RepliesToOtherQuestionsAreNotTaken) {
  const auto good = make_reply(sent_, {a_});
  ASSERT_TRUE(take(good));
  const auto bad = [&](std::size_t at, unsigned flip) {
    auto copy = good;
    copy[at] = static_cast<std::uint8_t>(copy[at] ^ flip);
    return take(copy);
  };
  EXPECT_FALSE(bad(0, 1)) << "id";
  EXPECT_FALSE(bad(2, 0x80)) << "a query";
  EXPECT_FALSE(bad(2, 0x08)) << "opcode";
  EXPECT_FALSE(bad(5, 3)) << "two questions";
  EXPECT_FALSE(bad(13, 0x20)) << "case";
  EXPECT_FALSE(bad(14, 1)) << "name";
  EXPECT_FALSE(bad(26, 1)) << "type";
  EXPECT_FALSE(bad(28, 2)) << "class";
}

TEST_F(ReplyTest, EveryCutReplyIsRefused) {
  const auto good = make_reply(sent_, {a_, a_}, 0x8180, {}, opt_record(22, "why"), 1);
  ASSERT_TRUE(take(good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(take(Octets(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))))
        << size;
  }
}

TEST_F(ReplyTest, OptIsOfOneHopItsExtendedErrorIsPassedOn) {
  const auto kept =
      take(make_reply(sent_, {}, 0x8182, {}, opt_record(22, "no authority answers"), 1));
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->rcode, Rcode::kServFail);
  const auto m = given(*kept);
  EXPECT_EQ(m.rcode, 2U);
  EXPECT_EQ(m.ede, 22);
  EXPECT_EQ(m.ede_text, "no authority answers");
  use({.name = "Example.org"});
  EXPECT_FALSE(given(*kept).edns) << "this client asked without";
}

TEST_F(ReplyTest, OptAmongTheAnswersIsRefusedAndOneInTheMiddleOfAdditionalsEndsThem) {
  auto misplaced = make_reply(sent_, {}, 0x8180, {}, opt_record(), 0);
  misplaced[7] = 1;
  EXPECT_FALSE(take(misplaced));
  auto after = opt_record();
  after.insert(after.end(), {0, 0, 16, 0, 1, 0, 0, 0, 9, 0, 1, 0});  // a TXT at the root
  const auto m = given(take(make_reply(sent_, {a_}, 0x8180, {}, after, 2)).value());
  EXPECT_THAT(m.answers, SizeIs(1));
  EXPECT_THAT(m.additionals, IsEmpty());
}

TEST_F(ReplyTest, TheLeastTtlOfTheAnswerDecidesWithinLimits) {
  auto short_lived = a_, long_lived = a_;
  short_lived.ttl = 7;
  long_lived.ttl = 1'000'000;
  EXPECT_EQ(take(make_reply(sent_, {a_, short_lived}))->ttl, 7U);
  EXPECT_EQ(take(make_reply(sent_, {long_lived}))->ttl, kMaxTtl);
  EXPECT_EQ(take(make_reply(sent_, {a_}, 0x8185))->ttl, kServfailTtl);
}

TEST_F(ReplyTest, NegativeAnswersAreKeptAsTheirSoaSays) {
  const auto soa = [](std::uint32_t ttl, std::uint32_t minimum) {
    return ReplyRecord{"org", 6, ttl, soa_data(minimum)};
  };
  const auto ttl_of = [&](unsigned flags, const std::vector<ReplyRecord>& authority) {
    const auto kept = take(make_reply(sent_, {}, flags, authority));
    EXPECT_TRUE(kept && kept->negative);
    return kept ? kept->ttl : 0;
  };
  EXPECT_EQ(ttl_of(0x8183, {soa(20, 10)}), 10U);
  EXPECT_EQ(ttl_of(0x8180, {soa(4, 10)}), 4U);
  EXPECT_EQ(ttl_of(0x8183, {soa(9000, 9000)}), kMaxNegativeTtl);
  EXPECT_EQ(ttl_of(0x8183, {}), kNoSoaTtl);
}

TEST_F(ReplyTest, AddressesOfTheNodeAndItsContainersAreNotLetThrough) {
  Octets mapped(16, 0);
  mapped[10] = mapped[11] = 0xff;
  mapped[12] = 10;
  mapped[13] = 213;
  Octets ours6{0xfd, 0, 0, 1};
  ours6.resize(16);
  const Octets hint4{0, 1, 0, 0, 4, 0, 4, 127, 0, 0, 1};
  Octets hint6{0, 1, 0, 0, 1, 0, 3, 2, 'h', '2', 0, 6, 0, 16};
  hint6.insert(hint6.end(), ours6.begin(), ours6.end());
  const std::vector<ReplyRecord> bad = {
      {"example.org", 1, 300, {127, 0, 0, 1}}, {"x.org", 1, 300, {10, 213, 1, 1}},
      {"example.org", 28, 300, ours6},         {"example.org", 28, 300, mapped},
      {"example.org", 65, 300, hint4},         {"example.org", 64, 300, hint6}};
  for (const auto& record : bad) {
    const auto kept = take(make_reply(sent_, {a_, record}));
    ASSERT_TRUE(kept);
    EXPECT_TRUE(kept->negative) << record.type;
    const auto m = given(*kept);
    EXPECT_THAT(m.answers, IsEmpty()) << record.type;
    EXPECT_EQ(m.rcode, 0U);
    EXPECT_EQ(m.ede, 17);
  }
  const Octets harmless{0, 1, 0, 0, 4, 0, 4, 192, 0, 2, 1};
  EXPECT_FALSE(take(make_reply(sent_, {{"example.org", 65, 300, harmless}}))->negative);
}

TEST_F(ReplyTest, AnAddressInAdditionalsIsNotLetThroughEither) {
  Octets glue{0};
  put16(glue, 1);
  put16(glue, 1);
  put32(glue, 60);
  put16(glue, 4);
  glue.insert(glue.end(), {10, 213, 0, 1});
  EXPECT_TRUE(take(make_reply(sent_, {a_}, 0x8180, {}, glue, 1))->negative);
}

TEST_F(ReplyTest, TtlsAgeAndStaleOnesAreShort) {
  auto second = a_;
  second.ttl = 10;
  const auto kept = take(make_reply(sent_, {a_, second}));
  const auto aged = given(*kept, 30);
  EXPECT_EQ(aged.answers.at(0).ttl, 270U);
  EXPECT_EQ(aged.answers.at(1).ttl, 0U);
  const auto stale = given(*kept, 9999, true);
  EXPECT_EQ(stale.answers.at(0).ttl, kStaleTtl);
  EXPECT_EQ(stale.ede, 3);
}

TEST_F(ReplyTest, WhatDoesNotFitIsCutAndSaysSo) {
  const std::vector<ReplyRecord> many(40, {"example.org", 16, 300, Octets(20, 1)});
  const auto kept = take(make_reply(sent_, many));
  ASSERT_TRUE(kept);
  const auto cut = given(*kept, 0, false, 512);
  EXPECT_TRUE(cut.tc());
  EXPECT_THAT(cut.answers, IsEmpty());
  EXPECT_LE(size_, 512U);
  const auto whole = given(*kept, 0, false, 65535);
  EXPECT_FALSE(whole.tc());
  EXPECT_THAT(whole.answers, SizeIs(40));
  const auto full = size_;
  EXPECT_FALSE(given(*kept, 0, false, full).tc());
  EXPECT_TRUE(given(*kept, 0, false, full - 1).tc());
  Octets tiny(10);
  EXPECT_EQ(write_reply(*kept, query_, client_, 0, false, 512, tiny), 0U);
}

TEST_F(ReplyTest, TheTextOfAnErrorGivesWayBeforeTheAnswerAndItsCodeStays) {
  const std::vector<ReplyRecord> some(11, {"example.org", 16, 300, Octets(6, 1)});
  const auto kept =
      take(make_reply(sent_, some, 0x8180, {}, opt_record(9, std::string(150, 'x')), 1));
  ASSERT_TRUE(kept);
  const auto bare = given(*kept, 0, false, 512);
  EXPECT_FALSE(bare.tc());
  EXPECT_THAT(bare.answers, SizeIs(11));
  EXPECT_EQ(bare.ede, 9);
  EXPECT_EQ(bare.ede_text, "");
  const std::vector<ReplyRecord> many(40, {"example.org", 16, 300, Octets(20, 1)});
  const auto cut =
      given(*take(make_reply(sent_, many, 0x8180, {}, opt_record(9, "no key"), 1)), 0, false, 512);
  EXPECT_TRUE(cut.tc());
  EXPECT_EQ(cut.ede, 9);
}

TEST_F(ReplyTest, TheErrorOfNumberZeroIsPassedOnToo) {
  const auto m = given(*take(make_reply(sent_, {}, 0x8182, {}, opt_record(0, "broken"), 1)));
  EXPECT_EQ(m.ede, 0);
  EXPECT_EQ(m.ede_text, "broken");
}

TEST_F(ReplyTest, UnknownTypesPassByteForByte) {
  const ReplyRecord strange{"example.org", 65280, 60, {0, 0xff, 0xc0, 0x0c, 7}};
  const auto m = given(*take(make_reply(sent_, {strange})));
  ASSERT_THAT(m.answers, SizeIs(1));
  EXPECT_EQ(m.answers[0].data, std::string("\0\xff\xc0\x0c\7", 5));
}

}  // namespace
}  // namespace meshd::dns
