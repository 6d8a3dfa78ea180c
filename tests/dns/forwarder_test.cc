#include "dns/forwarder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "dns/limits.h"
#include "tests/support/dns_messages.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

using std::chrono::milliseconds;
using testing::SizeIs;

// What one upstream was asked and not yet answered.
struct Wire {
  struct Sent {
    Octets query;
    Upstream::Done done;
  };
  std::vector<Sent> sent;
  std::vector<Sent> probes;  // "do you lead back to me?"
  std::size_t asked = 0;
  bool alive = true;
  bool fails_at_once = false;
};

class FakeUpstream final : public Upstream {
 public:
  explicit FakeUpstream(Wire& wire) : wire_(wire) { wire_.alive = true; }
  ~FakeUpstream() override {
    wire_.alive = false;
    for (auto* list : {&wire_.sent, &wire_.probes}) {
      for (auto& sent : std::exchange(*list, {})) sent.done({}, Failure::kGone);
    }
  }
  void ask(Bytes query, Done done) override {
    Query asked;
    EXPECT_EQ(parse_query(query, asked), Parsed::kQuery);
    if (asked.type == type::kHinfo) {
      wire_.probes.push_back({Octets(query.begin(), query.end()), std::move(done)});
      return;
    }
    ++wire_.asked;
    if (wire_.fails_at_once) return done({}, Failure::kUnreachable);
    wire_.sent.push_back({Octets(query.begin(), query.end()), std::move(done)});
  }
  void on_event(int, bool, bool) override {}
  void tick() override {}
  [[nodiscard]] bool busy() const override { return !wire_.sent.empty(); }

 private:
  Wire& wire_;
};

class ForwarderTest : public testing::Test {
 protected:
  void use(const std::vector<std::uint16_t>& ports) {
    std::vector<UpstreamAddress> addresses;
    for (const auto port : ports) addresses.push_back({ip_of("192.0.2.53"), port});
    forwarder_.set_upstreams(addresses, now_);
  }
  bool ask(const std::string& name, std::string_view client = "10.213.0.9", bool edns = true) {
    const auto message = make_query({.name = name, .id = ++id_, .edns = edns});
    Forwarder::Question question;
    question.client = ip_of(client);
    EXPECT_EQ(parse_query(message, question.query), Parsed::kQuery);
    question.message = message;
    question.limit = 1232;
    question.send = [this](Bytes reply) {
      answers_.push_back(read_message(Octets(reply.begin(), reply.end())));
    };
    return forwarder_.ask(std::move(question), {prefix_of("10.213.0.0/16")}, now_);
  }
  // The oldest question of that upstream gets this; an empty one is a failure.
  void reply(std::uint16_t port, const std::function<Octets(const Octets&)>& make,
             Upstream::Failure failure = Upstream::Failure::kSilent) {
    auto& sent = wires_[port].sent;
    ASSERT_FALSE(sent.empty()) << port;
    auto first = std::move(sent.front());
    sent.erase(sent.begin());
    const auto bytes = make(first.query);
    forwarder_.on_event(-1, false, false, now_);  // brings the time
    first.done(bytes, bytes.empty() ? failure : Upstream::Failure::kNone);
  }
  // The upstream's probe is answered; on its way it came by here when it `leads_back`.
  void answer_probe(std::uint16_t port, bool leads_back) {
    auto& probes = wires_[port].probes;
    ASSERT_FALSE(probes.empty()) << port;
    auto first = std::move(probes.front());
    probes.erase(probes.begin());
    Query seen;
    ASSERT_EQ(parse_query(first.query, seen), Parsed::kQuery);
    if (leads_back) {
      EXPECT_TRUE(forwarder_.is_own_probe(seen));
    }
    first.done(make_reply(first.query, {}, 0x8182), Upstream::Failure::kNone);
  }
  static Octets good(const Octets& query) {
    return make_reply(query, {{"example.org", 1, 60, {192, 0, 2, 1}}});
  }
  static Octets servfail(const Octets& query) { return make_reply(query, {}, 0x8182); }
  static Octets nothing(const Octets&) { return {}; }
  void pass(milliseconds time) {
    now_ += time;
    forwarder_.on_time(now_);
  }

  TimePoint now_{std::chrono::hours(1)};
  std::map<std::uint16_t, Wire> wires_;
  std::vector<DnsMessage> answers_;
  std::uint16_t id_ = 0;
  Forwarder forwarder_{
      1 << 20, [](int, bool, bool) {},
      [this](const UpstreamAddress& address, Upstream::Watch) -> Result<std::unique_ptr<Upstream>> {
        return std::make_unique<FakeUpstream>(wires_[address.port]);
      }};
};

TEST_F(ForwarderTest, EqualQuestionsAreAskedOnceAndEachIsAnswered) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  ASSERT_TRUE(ask("EXAMPLE.org", "10.213.0.10"));
  EXPECT_EQ(wires_[1].asked, 1U);
  reply(1, good);
  ASSERT_THAT(answers_, SizeIs(2));
  EXPECT_EQ(answers_[0].id, 1U);
  EXPECT_EQ(answers_[1].id, 2U);
  EXPECT_EQ(answers_[1].qname, "EXAMPLE.org");
  EXPECT_EQ(answers_[1].answers.at(0).data, "192.0.2.1");
  EXPECT_FALSE(forwarder_.next_time(now_)) << "nothing waits any more";
}

TEST_F(ForwarderTest, KeptAnswersAgeAndAreAskedAgainWhenOver) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  reply(1, good);
  now_ += milliseconds(20'000);
  ASSERT_TRUE(ask("example.org"));
  ASSERT_THAT(answers_, SizeIs(2));
  EXPECT_EQ(answers_[1].answers.at(0).ttl, 40U);
  now_ += milliseconds(40'000);
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 2U);
}

TEST_F(ForwarderTest, ASlowServerIsHelpedByTheNext) {
  use({1, 2});
  ASSERT_TRUE(ask("example.org"));
  pass(kHedgeFloor - milliseconds(1));
  EXPECT_EQ(wires_[2].asked, 0U);
  pass(milliseconds(1));
  EXPECT_EQ(wires_[2].asked, 1U);
  reply(2, good);
  ASSERT_THAT(answers_, SizeIs(1));
  reply(1, good);
  EXPECT_THAT(answers_, SizeIs(1)) << "once only";
}

TEST_F(ForwarderTest, IdAndCaseAreNotTheClientsAndDifferEachTime) {
  use({1});
  std::set<std::string> seen;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(ask("abcdefghijklmnop.example" + std::to_string(i) + ".org"));
    const auto& query = wires_[1].sent.back().query;
    seen.insert(std::string(query.begin(), query.begin() + 2) +
                read_message(query).qname.substr(0, 16));
  }
  EXPECT_GE(seen.size(), 19U);
}

TEST_F(ForwarderTest, AFailedOrForgedReplyBringsTheNextServerAtOnce) {
  use({1, 2, 3});
  ASSERT_TRUE(ask("example.org"));
  reply(1, nothing);
  ASSERT_EQ(wires_[2].asked, 1U);
  reply(2, [](const Octets& query) {
    auto forged = good(query);
    forged[13] ^= 0x20;
    return forged;
  });
  ASSERT_EQ(wires_[3].asked, 1U);
  reply(3, good);
  ASSERT_THAT(answers_, SizeIs(1));
  EXPECT_EQ(answers_[0].rcode, 0U);
}

TEST_F(ForwarderTest, AServersOwnFailureIsPassedOnWhenNobodyKnowsBetter) {
  use({1, 2});
  ASSERT_TRUE(ask("example.org"));
  reply(1, [](const Octets& query) {
    return make_reply(query, {}, 0x8182, {}, opt_record(9, "no key"), 1);
  });
  EXPECT_TRUE(answers_.empty());
  reply(2, nothing);
  ASSERT_THAT(answers_, SizeIs(1));
  EXPECT_EQ(answers_[0].rcode, 2U);
  EXPECT_EQ(answers_[0].ede, 9);
  EXPECT_EQ(answers_[0].ede_text, "no key");
}

// A program that tries again at once does not make the servers fail again at once (RFC 2308
// section 7.1, RFC 9520 section 3.2).
TEST_F(ForwarderTest, AServersFailureIsKeptForAMoment) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  reply(1, servfail);
  ASSERT_TRUE(ask("example.org"));
  ASSERT_THAT(answers_, SizeIs(2));
  EXPECT_EQ(answers_[1].rcode, 2U);
  EXPECT_EQ(wires_[1].asked, 1U);
  now_ += std::chrono::seconds(kServfailTtl);
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 2U);
  reply(1, good);
  ASSERT_THAT(answers_, SizeIs(3));
  EXPECT_EQ(answers_[2].rcode, 0U);
}

TEST_F(ForwarderTest, SilenceIsNoAnswerAndIsNotKept) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  reply(1, nothing);
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 2U);
}

TEST_F(ForwarderTest, SilenceEndsBeforeTheClientGivesUp) {
  use({1, 2});
  ASSERT_TRUE(ask("example.org"));
  pass(milliseconds(400));
  pass(kForwardBudget - milliseconds(401));
  EXPECT_TRUE(answers_.empty());
  pass(milliseconds(1));
  ASSERT_THAT(answers_, SizeIs(1));
  EXPECT_EQ(answers_[0].rcode, 2U);
  EXPECT_EQ(answers_[0].ede, 22);
  EXPECT_EQ(answers_[0].ede_text, "no upstream resolver answers");
}

TEST_F(ForwarderTest, WithoutServersOrWithDeadOnesTheFailureComesAtOnce) {
  ASSERT_TRUE(ask("example.org"));
  use({1, 2});
  wires_[1].fails_at_once = wires_[2].fails_at_once = true;
  ASSERT_TRUE(ask("example.org"));
  ASSERT_THAT(answers_, SizeIs(2));
  EXPECT_EQ(answers_[0].ede_text, "no upstream resolver is configured");
  EXPECT_EQ(answers_[0].ede, 22);
  EXPECT_EQ(answers_[1].ede_text, "no upstream resolver can be reached");
  EXPECT_EQ(answers_[1].ede, 23);
}

TEST_F(ForwarderTest, SilenceOfOneAndRefusalOfAnotherIsNobodyReachable) {
  use({1, 2});
  ASSERT_TRUE(ask("example.org"));
  reply(1, nothing, Upstream::Failure::kUnreachable);
  reply(2, nothing, Upstream::Failure::kSilent);
  ASSERT_THAT(answers_, SizeIs(1));
  EXPECT_EQ(answers_[0].ede, 22);
}

TEST_F(ForwarderTest, AnOldAnswerIsBetterThanNoneButNeverAnOldRefusal) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  reply(1, good);
  ASSERT_TRUE(ask("missing.org"));
  reply(1, [](const Octets& query) { return make_reply(query, {}, 0x8183); });
  now_ += milliseconds(100'000);
  ASSERT_TRUE(ask("example.org"));
  pass(kStaleAfter);
  ASSERT_THAT(answers_, SizeIs(3));
  EXPECT_EQ(answers_[2].answers.at(0).ttl, kStaleTtl);
  EXPECT_EQ(answers_[2].ede, 3);
  ASSERT_TRUE(ask("missing.org"));
  pass(kForwardBudget);
  ASSERT_THAT(answers_, SizeIs(4));
  EXPECT_EQ(answers_[3].rcode, 2U);
}

TEST_F(ForwarderTest, AServerThatFailsOftenIsAskedLast) {
  use({1, 2});
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(ask("a" + std::to_string(i) + ".org"));
    reply(1, nothing);
    reply(2, servfail);
  }
  const auto states = forwarder_.states();
  EXPECT_FALSE(states.at(0).healthy);
  EXPECT_TRUE(states.at(1).healthy);
  ASSERT_TRUE(ask("b.org"));
  EXPECT_EQ(wires_[2].sent.size(), 1U);
  EXPECT_TRUE(wires_[1].sent.empty());
}

TEST_F(ForwarderTest, OneClientCannotUseUpTheOthersPlaces) {
  use({1});
  for (std::size_t i = 0; i < kMaxForwardsPerClient; ++i) {
    ASSERT_TRUE(ask("n" + std::to_string(i) + ".org"));
  }
  EXPECT_FALSE(ask("more.org"));
  EXPECT_TRUE(ask("more.org", "10.213.0.10"));
  reply(1, good);
  EXPECT_TRUE(ask("again.org")) << "a place came free";
}

TEST_F(ForwarderTest, NewServersTakeOverWhatTheOldOnesWereAsked) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  pass(kHedgeFloor);  // there was nobody to help
  use({2});
  EXPECT_FALSE(wires_[1].alive);
  ASSERT_EQ(wires_[2].asked, 1U);
  reply(2, good);
  EXPECT_THAT(answers_, SizeIs(1));
  use({});
  ASSERT_TRUE(ask("other.org"));
  EXPECT_THAT(answers_, SizeIs(2));
}

TEST_F(ForwarderTest, ServersThatStayKeepTheirQuestions) {
  use({1, 2});
  ASSERT_TRUE(ask("example.org"));
  use({3, 1});
  EXPECT_TRUE(wires_[1].alive);
  reply(1, good);
  EXPECT_THAT(answers_, SizeIs(1));
}

// --- what comes back -----------------------------------------------------------------

TEST_F(ForwarderTest, AFailedServerIsTriedAgainBesideAnother) {
  use({1, 2});
  for (int i = 0; i < kUnhealthy; ++i) {
    ASSERT_TRUE(ask("a" + std::to_string(i) + ".org"));
    reply(1, nothing);
    reply(2, good);
  }
  ASSERT_FALSE(forwarder_.states().at(0).healthy);
  const auto asked = wires_[1].asked;
  now_ += kFirstRetry - milliseconds(1);
  ASSERT_TRUE(ask("b.org"));
  EXPECT_EQ(wires_[1].asked, asked) << "too early";
  reply(2, good);
  now_ += milliseconds(1);
  ASSERT_TRUE(ask("c.org"));
  EXPECT_EQ(wires_[1].asked, asked + 1);
  EXPECT_EQ(wires_[2].sent.size(), 1U) << "nobody waits for the trial";
  reply(1, nothing);  // twice as long now
  reply(2, good);
  now_ += kFirstRetry;
  ASSERT_TRUE(ask("d.org"));
  EXPECT_EQ(wires_[1].asked, asked + 1);
  reply(2, good);
  now_ += kFirstRetry;
  ASSERT_TRUE(ask("e.org"));
  ASSERT_EQ(wires_[1].asked, asked + 2);
  reply(1, good);
  EXPECT_TRUE(forwarder_.states().at(0).healthy);
}

TEST_F(ForwarderTest, AServerThatRefusesUsIsAskedLast) {
  use({1, 2});
  for (int i = 0; i < kUnhealthy; ++i) {
    ASSERT_TRUE(ask("a" + std::to_string(i) + ".org"));
    reply(1, [](const Octets& query) { return make_reply(query, {}, 0x8185); });
    reply(2, good);
  }
  EXPECT_FALSE(forwarder_.states().at(0).healthy);
}

TEST_F(ForwarderTest, OurOwnAddressIsNotAsked) {
  forwarder_.set_own({{ip_of("192.0.2.53"), 1}});
  use({1});
  EXPECT_FALSE(wires_.contains(1));
  EXPECT_TRUE(forwarder_.states().at(0).leads_back);
  EXPECT_FALSE(forwarder_.states().at(0).healthy);
  ASSERT_TRUE(ask("example.org"));
  ASSERT_THAT(answers_, SizeIs(1));
  EXPECT_EQ(answers_[0].ede_text, "the upstream resolvers lead back to this one");
  forwarder_.set_upstreams({{ip_of("::ffff:192.0.2.53"), 1}}, now_);
  EXPECT_TRUE(forwarder_.states().at(0).leads_back) << "in another spelling";
}

TEST_F(ForwarderTest, AServerThatLeadsBackIsFoundAndLeftUntilItDoesNot) {
  use({1, 2});
  answer_probe(1, true);
  answer_probe(2, false);
  EXPECT_TRUE(forwarder_.states().at(0).leads_back);
  EXPECT_FALSE(forwarder_.states().at(1).leads_back);
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 0U);
  reply(2, good);
  now_ += kLoopRecheck;
  ASSERT_TRUE(ask("example.com"));
  EXPECT_TRUE(wires_[2].probes.empty()) << "that one is known to lead away";
  answer_probe(1, false);
  EXPECT_FALSE(forwarder_.states().at(0).leads_back);
}

TEST_F(ForwarderTest, ProbesDifferAndOthersQuestionsAreNone) {
  use({1, 2});
  EXPECT_NE(read_message(wires_[1].probes.at(0).query).qname,
            read_message(wires_[2].probes.at(0).query).qname);
  Query query;
  auto probe = wires_[1].probes.at(0).query;
  probe[probe.size() - 20] ^= 1;  // in the second label
  ASSERT_EQ(parse_query(probe, query), Parsed::kQuery);
  EXPECT_FALSE(forwarder_.is_own_probe(query));
}

TEST_F(ForwarderTest, WhatIsAskedOftenIsAskedAgainBeforeItEnds) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  reply(1, good);
  now_ += milliseconds(54'001);  // of 60 s
  for (std::uint32_t i = 1; i < kPrefetchHits; ++i) ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 1U);
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 2U);
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 2U) << "once";
  EXPECT_THAT(answers_, SizeIs(1 + kPrefetchHits + 1)) << "nobody waits for it";
  reply(1, good);
  now_ += milliseconds(10'000);
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 2U);
  EXPECT_EQ(answers_.back().answers.at(0).ttl, 50U);
}

TEST_F(ForwarderTest, WhatHasTimeLeftIsNotAskedAgain) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  reply(1, good);
  now_ += milliseconds(53'000);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 1U);
}

TEST_F(ForwarderTest, AFailureAheadOfTimeLeavesTheAnswerThatIsThere) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  reply(1, good);
  now_ += milliseconds(55'000);
  for (std::uint32_t i = 0; i < kPrefetchHits; ++i) ASSERT_TRUE(ask("example.org"));
  reply(1, servfail);
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(answers_.back().rcode, 0U);
}

TEST_F(ForwarderTest, NewServersAreAskedForWhatTheOldOnesSaid) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  reply(1, good);
  use({1});
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(wires_[1].asked, 1U) << "the same servers: nothing changed";
  use({2});
  ASSERT_TRUE(ask("example.org"));
  ASSERT_EQ(wires_[2].asked, 1U);
  reply(2, nothing);
  ASSERT_THAT(answers_, SizeIs(3));
  EXPECT_EQ(answers_[2].ede, 3) << "what the old ones said is better than nothing";
}

TEST_F(ForwarderTest, WhileServersFailAnOldAnswerComesAtOnceAndALateOneIsKept) {
  use({1});
  ASSERT_TRUE(ask("example.org"));
  reply(1, good);
  now_ += milliseconds(100'000);
  ASSERT_TRUE(ask("example.org"));
  pass(kStaleAfter);
  ASSERT_THAT(answers_, SizeIs(2));
  ASSERT_TRUE(ask("example.org"));
  ASSERT_THAT(answers_, SizeIs(3)) << "no second wait";
  EXPECT_EQ(answers_[2].ede, 3);
  EXPECT_EQ(answers_[2].answers.at(0).ttl, kStaleTtl);
  reply(1, good);
  EXPECT_THAT(answers_, SizeIs(3)) << "nobody waits any more";
  ASSERT_TRUE(ask("example.org"));
  EXPECT_EQ(answers_.back().ede, -1);
  EXPECT_EQ(answers_.back().answers.at(0).ttl, 60U);
  EXPECT_EQ(wires_[1].asked, 2U);
}

}  // namespace
}  // namespace meshd::dns
