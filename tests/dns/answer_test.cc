#include "dns/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dns/limits.h"
#include "tests/support/dns_messages.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

class AnswerTest : public testing::Test {
 protected:
  AnswerTest() : view_(sample_view()) { publish(); }

  void publish() { snapshot_.set(client_, view_); }
  Outcome run(const Octets& query, bool udp = true) {
    reply_.assign(udp ? kMaxUdpPayload : kMaxMessage, 0xee);
    const auto outcome = answer(snapshot_, client_, query, udp, reply_, scratch_);
    reply_.resize(outcome.length);
    return outcome;
  }
  DnsMessage ask(const Ask& question, bool udp = true) {
    const auto outcome = run(make_query(question), udp);
    EXPECT_EQ(outcome.action, Action::kReply) << question.name;
    auto message = read_message(reply_);
    EXPECT_EQ(message.rcode, static_cast<unsigned>(outcome.rcode));
    return message;
  }
  Action action(const Ask& question) { return run(make_query(question)).action; }
  // Ours, empty, with the SOA that lets it be kept for a second.
  void expect_negative(const DnsMessage& m, unsigned rcode, std::string_view zone) {
    EXPECT_EQ(m.rcode, rcode) << m.qname;
    EXPECT_TRUE(m.aa() && m.ra()) << m.qname;
    EXPECT_THAT(m.answers, IsEmpty()) << m.qname;
    ASSERT_THAT(m.authorities, SizeIs(1)) << m.qname;
    EXPECT_EQ(m.authorities[0].type, 6U);
    EXPECT_EQ(m.authorities[0].name, zone);
    EXPECT_EQ(m.authorities[0].ttl, kNegativeTtl);
    EXPECT_TRUE(m.authorities[0].data.ends_with(" 1")) << "MINIMUM: " << m.authorities[0].data;
  }
  void expect_no_data(const DnsMessage& m) { expect_negative(m, 0, "mesh.internal"); }
  void expect_no_name(const DnsMessage& m, std::string_view zone = "mesh.internal") {
    expect_negative(m, 3, zone);
  }

  std::shared_ptr<View> view_;
  IpAddress client_ = ip_of("10.213.0.9");
  Snapshot snapshot_{sample_settings()};
  Scratch scratch_;
  Octets reply_;
};

// --- existing names ------------------------------------------------------------------

TEST_F(AnswerTest, GivesTheAddressWithAuthorityAndRecursion) {
  const auto m = ask({.name = "db.wf1.wf.mesh.internal", .id = 0xbeef});
  EXPECT_EQ(m.id, 0xbeefU);
  EXPECT_EQ(m.flags, 0x8580U) << "QR AA RD RA, and nothing else";
  ASSERT_THAT(m.answers, SizeIs(1));
  EXPECT_EQ(m.answers[0].name, "db.wf1.wf.mesh.internal");
  EXPECT_EQ(m.answers[0].data, "10.214.0.1");
  EXPECT_EQ(m.answers[0].ttl, kTtl);
  EXPECT_FALSE(m.edns) << "none was asked for";
  const auto v6 = ask({.name = "db.wf1.wf.mesh.internal", .type = 28});
  ASSERT_THAT(v6.answers, SizeIs(1));
  EXPECT_EQ(v6.answers[0].data, "fd00:0001:0000:0000:0000:0000:0000:0001");
}

TEST_F(AnswerTest, CopiesRecursionAndCheckingAndClearsTheRest) {
  EXPECT_FALSE(ask({.name = "db", .flags = 0}).rd());
  EXPECT_EQ(ask({.name = "db", .flags = 0x0170}).flags, 0x8590U) << "Z and AD go, CD stays";
}

TEST_F(AnswerTest, FindsNamesInAnyCaseAndEchoesTheQuestion) {
  const auto query = make_query({.name = "dB.Wf1.WF.meSH.Internal"});
  ASSERT_EQ(run(query).rcode, Rcode::kNoError);
  EXPECT_TRUE(std::equal(query.begin() + 12, query.end(), reply_.begin() + 12));
  EXPECT_THAT(read_message(reply_).answers, SizeIs(1));
}

TEST_F(AnswerTest, BareLabelsOfTheViewAreAnswered) {
  EXPECT_THAT(ask({.name = "DB"}).answers, SizeIs(1));
  expect_negative(ask({.name = "db", .type = 16}), 0, ".");
}

TEST_F(AnswerTest, MissingTypesOfAnExistingNameAreNoData) {
  expect_no_data(ask({.name = "v4only.svc.mesh.internal", .type = 28}));
  for (const unsigned type : {2U, 5U, 6U, 12U, 15U, 16U, 33U, 43U, 64U, 65U, 257U, 65280U}) {
    expect_no_data(
        ask({.name = "db.wf1.wf.mesh.internal", .type = static_cast<std::uint16_t>(type)}));
  }
}

TEST_F(AnswerTest, ServiceRecordsBringTheirTargetsAddresses) {
  const auto m = ask({.name = "_sql._tcp.db.wf1.wf.mesh.internal", .type = 33, .edns = true});
  ASSERT_THAT(m.answers, SizeIs(1));
  EXPECT_EQ(m.answers[0].data, "0 0 5432 db.wf1.wf.mesh.internal");
  ASSERT_THAT(m.additionals, SizeIs(2));
  EXPECT_EQ(m.additionals[0].name, "db.wf1.wf.mesh.internal");
  EXPECT_EQ(m.additionals[0].data, "10.214.0.1");
  EXPECT_EQ(m.additionals[1].type, 28U);
}

TEST_F(AnswerTest, AnyIsOneSmallRecord) {
  for (const auto* name : {"db.wf1.wf.mesh.internal", "mesh.internal"}) {
    const auto m = ask({.name = name, .type = 255});
    ASSERT_THAT(m.answers, SizeIs(1));
    EXPECT_EQ(m.answers[0].type, 13U);
  }
}

TEST_F(AnswerTest, TheZoneItselfHasSoaAndNameServer) {
  const auto soa = ask({.name = "mesh.internal", .type = 6});
  ASSERT_THAT(soa.answers, SizeIs(1));
  EXPECT_EQ(soa.answers[0].data, "ns.mesh.internal hostmaster.mesh.internal 1 3600 600 86400 1");
  const auto ns = ask({.name = "mesh.internal", .type = 2});
  ASSERT_THAT(ns.answers, SizeIs(1));
  EXPECT_EQ(ns.answers[0].data, "ns.mesh.internal");
  EXPECT_EQ(ask({.name = "ns.mesh.internal"}).answers.at(0).data, "169.254.1.1");
  expect_no_data(ask({.name = "mesh.internal"}));
}

TEST_F(AnswerTest, PointersAreOfTheViewOnly) {
  const auto m = ask({.name = "1.0.214.10.in-addr.arpa", .type = 12});
  ASSERT_THAT(m.answers, SizeIs(1));
  EXPECT_EQ(m.answers[0].data, "db.wf1.wf.mesh.internal");
  expect_no_name(ask({.name = "9.0.214.10.in-addr.arpa", .type = 12}), "214.10.in-addr.arpa");
  expect_negative(ask({.name = "1.0.214.10.in-addr.arpa", .type = 16}), 0, "214.10.in-addr.arpa");
}

TEST_F(AnswerTest, ReverseZonesHaveAnApex) {
  for (const auto* zone :
       {"213.10.in-addr.arpa", "214.10.in-addr.arpa", "0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa"}) {
    const auto soa = ask({.name = zone, .type = 6});
    ASSERT_THAT(soa.answers, SizeIs(1)) << zone;
    EXPECT_EQ(soa.answers[0].name, zone);
    EXPECT_EQ(soa.answers[0].data, "ns.mesh.internal hostmaster.mesh.internal 1 3600 600 86400 1");
    const auto ns = ask({.name = zone, .type = 2});
    ASSERT_THAT(ns.answers, SizeIs(1)) << zone;
    EXPECT_EQ(ns.answers[0].data, "ns.mesh.internal");
    EXPECT_EQ(ask({.name = zone, .type = 255}).answers.at(0).type, 13U);
    expect_negative(ask({.name = zone, .type = 12}), 0, zone);
  }
}

TEST_F(AnswerTest, WhatStandsAboveAVisiblePointerIsNoData) {
  const auto* zone = "214.10.in-addr.arpa";
  expect_negative(ask({.name = "0.214.10.in-addr.arpa", .type = 12}), 0, zone);
  expect_no_name(ask({.name = "1.214.10.in-addr.arpa", .type = 12}), zone);
  expect_no_name(ask({.name = "x.0.214.10.in-addr.arpa", .type = 12}), zone);
  expect_no_name(ask({.name = "1.1.0.214.10.in-addr.arpa", .type = 12}), zone);
  expect_negative(ask({.name = "10.in-addr.arpa", .type = 12}), 0, ".");
}

TEST_F(AnswerTest, NothingOfOurRangesGoesUpstreamWhateverTheyAre) {
  auto settings = sample_settings();
  settings->own_ranges = {prefix_of("198.18.32.0/20"), prefix_of("2620:12::/62")};
  snapshot_ = Snapshot(settings);
  view_->forward = true;
  view_->pointers[ip_of("198.18.33.7")] = wire_of("db.wf1.wf.mesh.internal");
  publish();
  EXPECT_THAT(ask({.name = "7.33.18.198.in-addr.arpa", .type = 12}).answers, SizeIs(1));
  expect_negative(ask({.name = "33.18.198.in-addr.arpa"}), 0, "33.18.198.in-addr.arpa");
  EXPECT_THAT(ask({.name = "47.18.198.in-addr.arpa", .type = 6}).answers, SizeIs(1));
  for (const auto* name : {"8.33.18.198.in-addr.arpa", "a.b.33.18.198.in-addr.arpa",
                           "256.33.18.198.in-addr.arpa", "1.7.33.18.198.in-addr.arpa"}) {
    expect_no_name(ask({.name = name, .type = 12}), "33.18.198.in-addr.arpa");
  }
  expect_no_name(ask({.name = "1.3.0.0.0.0.0.0.0.2.1.0.0.0.2.6.2.ip6.arpa"}),
                 "3.0.0.0.0.0.0.0.2.1.0.0.0.2.6.2.ip6.arpa");
  for (const auto* name :
       {"48.18.198.in-addr.arpa", "1.31.18.198.in-addr.arpa", "18.198.in-addr.arpa",
        "x.18.198.in-addr.arpa", "4.0.0.0.0.0.0.0.2.1.0.0.0.2.6.2.ip6.arpa"}) {
    EXPECT_EQ(action({.name = name}), Action::kForward) << name;
  }
}

TEST_F(AnswerTest, AnInstanceWithoutAddressSaysThatItIsNotReady) {
  view_->add(wire_of("late.id.mesh.internal"), {}, wire_of("mesh.internal"));
  for (const std::uint16_t type : {std::uint16_t{1}, std::uint16_t{28}}) {
    const auto m = ask({.name = "late.id.mesh.internal", .type = type, .edns = true});
    expect_no_data(m);
    EXPECT_EQ(m.ede, 14);
    EXPECT_EQ(m.ede_text, "declared, but it has no address now");
  }
  EXPECT_EQ(ask({.name = "late.id.mesh.internal", .type = 16, .edns = true}).ede, -1);
  EXPECT_EQ(ask({.name = "v4only.svc.mesh.internal", .type = 28, .edns = true}).ede, -1);
  EXPECT_EQ(ask({.name = "_sql._tcp.db.wf1.wf.mesh.internal", .edns = true}).ede, -1);
  EXPECT_EQ(resolve(snapshot_, client_, "late.id.mesh.internal", 1).ede, "Not Ready");
}

TEST_F(AnswerTest, ANameOfANodeThatIsNotHeardOfIsAnsweredAndMarked) {
  NameData data{ip_of("10.213.1.7"), {}, {}, true};
  view_->add(wire_of("far.id.mesh.internal"), data, wire_of("mesh.internal"));
  const auto m = ask({.name = "far.id.mesh.internal", .edns = true});
  ASSERT_THAT(m.answers, SizeIs(1));
  EXPECT_EQ(m.ede, 3);
  EXPECT_EQ(m.ede_text, "its node has not been heard of for a while");
  EXPECT_EQ(ask({.name = "far.id.mesh.internal", .type = 28, .edns = true}).ede, 3);
  EXPECT_EQ(ask({.name = "db.wf1.wf.mesh.internal", .edns = true}).ede, -1);
  EXPECT_EQ(resolve(snapshot_, client_, "far.id.mesh.internal", 1).ede, "Stale Answer");
}

TEST_F(AnswerTest, AReasonThatDoesNotFitGivesWayBeforeTheAnswerDoes) {
  const auto label = std::string(62, '\x01');  // four characters each, when shown
  const auto name =
      label + "." + label + "." + label + "." + std::string(40, 'x') + ".mesh.internal";
  const auto m = ask({.name = name, .edns = true, .payload = 512});
  EXPECT_FALSE(m.tc());
  expect_no_name(m);
  EXPECT_EQ(m.ede, 18);
  EXPECT_EQ(m.ede_text, "");
}

TEST_F(AnswerTest, WhySaysTheLastRefusals) {
  expect_no_data(ask({.name = "why.mesh.internal", .type = 16}));
  view_->why = {"to web:80: you declare no peer web", std::string(400, 'x')};
  const auto m = ask({.name = "why.mesh.internal", .type = 16, .edns = true});
  ASSERT_THAT(m.answers, SizeIs(2));
  EXPECT_EQ(m.answers[0].data.substr(1), view_->why[0]);
  EXPECT_EQ(m.answers[1].data.size(), 256U) << "a string of TXT has at most 255 bytes";
  EXPECT_EQ(m.answers[0].ttl, 0U);
  expect_no_data(ask({.name = "why.mesh.internal"}));
}

// --- names that do not exist ---------------------------------------------------------

TEST_F(AnswerTest, EmptyNonTerminalsAreNoDataBelowALeafIsNothing) {
  for (const auto* name : {"wf1.wf.mesh.internal", "_tcp.db.wf1.wf.mesh.internal",
                           "wf.mesh.internal", "svc.mesh.internal", "id.mesh.internal"}) {
    expect_no_data(ask({.name = name}));
  }
  expect_no_name(ask({.name = "x.v4only.svc.mesh.internal"}));
  expect_no_name(ask({.name = "*.svc.mesh.internal"}));
  expect_no_name(ask({.name = "wf2.wf.mesh.internal"}));
}

TEST_F(AnswerTest, WithheldAndUnknownNamesDifferByTheClientsDeclarationOnly) {
  const auto withheld = ask({.name = "web.svc.mesh.internal", .edns = true});
  expect_no_name(withheld);
  EXPECT_EQ(withheld.ede, 18);
  EXPECT_EQ(withheld.ede_text, "peer web is not available to you");
  const auto unknown = ask({.name = "nobody.svc.mesh.internal", .edns = true});
  expect_no_name(unknown);
  EXPECT_EQ(unknown.ede, 18);
  EXPECT_EQ(unknown.ede_text, "you declare no peer nobody");
  EXPECT_EQ(ask({.name = "web", .edns = true}).ede_text, withheld.ede_text);
  EXPECT_EQ(ask({.name = "web.svc.mesh.internal"}).ede, -1) << "without OPT no extended error";
}

TEST_F(AnswerTest, NamesOfOthersAreAsIfTheyWereNot) {
  const Ask question{.name = "other.svc.mesh.internal", .edns = true};
  run(make_query(question));
  const auto before = reply_;
  auto others = std::make_shared<View>();
  others->add(wire_of(question.name), {ip_of("10.214.0.7"), std::nullopt, {}},
              wire_of("mesh.internal"));
  snapshot_.set(ip_of("10.213.0.10"), others);
  run(make_query(question));
  EXPECT_EQ(reply_, before);
}

TEST_F(AnswerTest, TheReasonHoldsNoBytesThatATerminalWouldObey) {
  const Ask question{.name = std::string("\x1b[2J\n\xff") + ".svc.mesh.internal", .edns = true};
  const auto outcome = run(make_query(question));
  EXPECT_EQ(outcome.refused, "you declare no peer \\027[2j\\010\\255");
  EXPECT_EQ(read_message(reply_).ede_text, outcome.refused);
}

TEST_F(AnswerTest, LocalhostIsTheClientItself) {
  EXPECT_EQ(ask({.name = "localhost"}).answers.at(0).data, "127.0.0.1");
  EXPECT_EQ(ask({.name = "x.LOCALHOST"}).answers.at(0).data, "127.0.0.1");
  EXPECT_THAT(ask({.name = "localhost", .type = 28}).answers, SizeIs(1));
  expect_negative(ask({.name = "localhost", .type = 16}), 0, ".");
}

TEST_F(AnswerTest, SpecialNamesNeverGoUpstream) {
  view_->forward = true;
  for (const auto* name : {"invalid",
                           "x.invalid",
                           "abc.onion",
                           "printer.local",
                           "x.test",
                           "router.home.arpa",
                           "1.0.0.10.in-addr.arpa",
                           "1.1.168.192.in-addr.arpa",
                           "1.1.16.172.in-addr.arpa",
                           "1.1.31.172.in-addr.arpa",
                           "4.3.254.169.in-addr.arpa",
                           "1.0.0.127.in-addr.arpa",
                           "0.8.e.f.ip6.arpa",
                           "com",
                           "singlelabel",
                           "1.64.100.in-addr.arpa",
                           "127.100.in-addr.arpa",
                           "4.3.2.0.192.in-addr.arpa",
                           "1.100.51.198.in-addr.arpa",
                           "113.0.203.in-addr.arpa",
                           "255.255.255.255.in-addr.arpa",
                           "f.8.b.d.0.1.0.0.2.ip6.arpa",
                           "x.d.f.ip6.arpa"}) {
    expect_no_name(ask({.name = name}), ".");
  }
  expect_no_name(ask({.name = "1.d.f.ip6.arpa"}), ".");
  for (const auto* name :
       {"example.org", "1.1.15.172.in-addr.arpa", "1.1.32.172.in-addr.arpa", "63.100.in-addr.arpa",
        "128.100.in-addr.arpa", "100.in-addr.arpa", "172.in-addr.arpa", "8.8.8.8.in-addr.arpa",
        "mesh.internal.example.org", "local.org", ""}) {
    EXPECT_EQ(action({.name = name}), Action::kForward) << name;
  }
}

TEST_F(AnswerTest, WithoutEgressForeignNamesAreNothingAndTheReasonIsGiven) {
  const auto m = ask({.name = "example.org", .edns = true});
  expect_no_name(m, ".");
  EXPECT_EQ(m.ede_text, "you declare no egress, so foreign names are not looked up");
}

// --- who asks ------------------------------------------------------------------------

TEST_F(AnswerTest, UnknownSourcesGetNothing) {
  client_ = ip_of("10.213.0.77");
  for (const auto* name : {"db.wf1.wf.mesh.internal", "example.org", "localhost"}) {
    EXPECT_EQ(action({.name = name}), Action::kDrop) << name;
  }
  EXPECT_EQ(run(Octets(12, 0)).action, Action::kDrop) << "no FORMERR either";
}

TEST_F(AnswerTest, PlainClientsSeeNoNamesOfOursAndAllElseIsForwarded) {
  client_ = ip_of("172.17.0.5");
  expect_no_name(ask({.name = "db.wf1.wf.mesh.internal"}));
  expect_no_name(ask({.name = "mesh.internal", .type = 6}));
  expect_no_name(ask({.name = "why.mesh.internal", .type = 16}));
  expect_no_name(ask({.name = "db"}), ".");
  for (const auto* name :
       {"1.0.214.10.in-addr.arpa", "0.214.10.in-addr.arpa", "214.10.in-addr.arpa"}) {
    expect_no_name(ask({.name = name, .type = 12}), "214.10.in-addr.arpa");
  }
  EXPECT_EQ(action({.name = "example.org"}), Action::kForward);
}

// --- the protocol --------------------------------------------------------------------

TEST_F(AnswerTest, OtherOpcodesClassesAndTransfersAreRefused) {
  EXPECT_EQ(ask({.name = "db", .flags = 0x1100}).rcode, 4U);
  EXPECT_EQ(ask({.name = "db", .flags = 0x2000}).flags & 0x7800U, 0x2000U) << "the opcode stays";
  EXPECT_EQ(ask({.name = "version.bind", .type = 16, .klass = 3}).rcode, 5U);
  EXPECT_EQ(ask({.name = "mesh.internal", .type = 252}).rcode, 5U);
  EXPECT_EQ(ask({.name = "mesh.internal", .type = 251}).rcode, 5U);
  EXPECT_EQ(ask({.name = "db", .type = 254}).rcode, 4U);
  EXPECT_THAT(ask({.name = "db", .klass = 255}).answers, SizeIs(1));
}

TEST_F(AnswerTest, MalformedQueriesGetAFormatErrorWithoutTheQuestion) {
  auto query = make_query({.name = "db"});
  query[5] = 2;
  EXPECT_EQ(run(query).rcode, Rcode::kFormErr);
  const auto m = read_message(reply_);
  EXPECT_EQ(m.questions, 0U);
  EXPECT_EQ(m.id, 0x1234U);
  query[2] |= 0x80;
  EXPECT_EQ(run(query).action, Action::kDrop) << "an answer is never answered";
}

TEST_F(AnswerTest, EdnsIsAnsweredWhenAsked) {
  const auto m = ask({.name = "db", .edns = true, .payload = 4096, .dnssec_ok = true});
  EXPECT_TRUE(m.edns);
  EXPECT_TRUE(m.dnssec_ok);
  EXPECT_EQ(m.payload, 1232U);
  EXPECT_EQ(m.ede, -1);
  const auto bad = ask({.name = "db", .edns = true, .version = 1});
  EXPECT_EQ(bad.rcode, 16U);
  EXPECT_THAT(bad.answers, IsEmpty());
}

TEST_F(AnswerTest, DatagramsAreCutToWhatTheClientTakes) {
  view_->why.assign(10, std::string(200, 'y'));
  const struct {
    bool edns;
    std::uint16_t payload;
    std::size_t limit;
  } cases[] = {{false, 0, 512}, {true, 100, 512}, {true, 800, 800}, {true, 65535, 1232}};
  for (const auto& c : cases) {
    const auto cut =
        ask({.name = "why.mesh.internal", .type = 16, .edns = c.edns, .payload = c.payload});
    EXPECT_TRUE(cut.tc());
    EXPECT_LE(reply_.size(), c.limit);
    EXPECT_EQ(cut.edns, c.edns);
  }
  const auto whole = ask({.name = "why.mesh.internal", .type = 16}, /*udp=*/false);
  EXPECT_FALSE(whole.tc());
  EXPECT_THAT(whole.answers, SizeIs(10));
}

TEST_F(AnswerTest, PayloadDecidesToTheByte) {
  view_->why = {std::string(255, 'y'), std::string(255, 'y'), std::string(100, 'y')};
  const Ask whole{.name = "why.mesh.internal", .type = 16, .edns = true};
  EXPECT_FALSE(ask(whole).tc());
  const auto size = static_cast<std::uint16_t>(reply_.size());
  auto exact = whole, less = whole;
  exact.payload = size;
  less.payload = static_cast<std::uint16_t>(size - 1);
  EXPECT_FALSE(ask(exact).tc());
  EXPECT_TRUE(ask(less).tc());
}

TEST_F(AnswerTest, ManyServiceRecordsStayWellFormedBehindWhereNamesCanPoint) {
  const auto long_name = std::string(63, 'a') + "." + std::string(63, 'b') + "." +
                         std::string(63, 'c') + "." + std::string(30, 'd') + ".svc.mesh.internal";
  NameData many;
  for (std::uint16_t port = 1; port <= 64; ++port) {
    many.srv.push_back({port, wire_of(long_name), ip_of("10.214.0.1"), std::nullopt});
  }
  view_->add(wire_of("_x._tcp.db.wf1.wf.mesh.internal"), many, wire_of("mesh.internal"));
  const auto m = ask({.name = "_x._tcp.db.wf1.wf.mesh.internal", .type = 33}, /*udp=*/false);
  EXPECT_THAT(m.answers, SizeIs(64));
  EXPECT_GE(m.additionals.size(), 50U);
  for (const auto& record : m.additionals) EXPECT_EQ(record.name, long_name);
}

TEST_F(AnswerTest, PeopleAreToldTheSame) {
  const auto found = resolve(snapshot_, client_, "db.wf1.wf.mesh.internal", 1);
  EXPECT_EQ(found.rcode, "NOERROR");
  ASSERT_THAT(found.answers, SizeIs(1));
  EXPECT_EQ(found.answers[0].data, "10.214.0.1");
  EXPECT_EQ(found.answers[0].type, "A");
  const auto srv = resolve(snapshot_, client_, "_sql._tcp.db.wf1.wf.mesh.internal", 33);
  EXPECT_EQ(srv.answers.at(0).data, "0 0 5432 db.wf1.wf.mesh.internal");
  const auto withheld = resolve(snapshot_, client_, "web", 1);
  EXPECT_EQ(withheld.rcode, "NXDOMAIN");
  EXPECT_EQ(withheld.ede, "Prohibited");
  EXPECT_EQ(withheld.reason, "peer web is not available to you");
  EXPECT_EQ(resolve(snapshot_, client_, "a..b", 1).rcode, "FORMERR");
  EXPECT_EQ(resolve(snapshot_, ip_of("192.0.2.1"), "db", 1).rcode, "DROPPED");
}

}  // namespace
}  // namespace meshd::dns
