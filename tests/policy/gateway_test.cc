// Outside ports on a gateway, and gateways as a node admits them.
#include <gmock/gmock.h>

#include "policy/base_table.h"
#include "policy/explain.h"
#include "policy/outside_ports.h"
#include "policy/profile.h"
#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const IpAddress kNode4 = IpAddress::parse("192.0.2.2").value();
const IpAddress kNode6 = IpAddress::parse("2001:db8::2").value();

class GatewayTest : public testing::Test {
 protected:
  void SetUp() override {
    w_.world.settings.gateway = true;
    [[maybe_unused]] const auto first = compiler_.rebuild(w_.world);
  }
  PlanDelta lead(std::uint16_t port, std::vector<Prefix> sources, std::uint16_t node_port = 25432) {
    const OutsideKey key{Proto::kTcp, port};
    w_.world.outside[key] = {"db", 5432, kNode4, kNode6, node_port, std::move(sources)};
    return update(key);
  }
  PlanDelta update(const OutsideKey& key) {
    Touched touched;
    touched.outside.insert(key);
    return compiler_.update(w_.world, touched);
  }
  void expect_as_from_nothing() {
    Compiler fresh;
    [[maybe_unused]] const auto all = fresh.rebuild(w_.world);
    EXPECT_EQ(compiler_.elements(), fresh.elements());
  }
  std::vector<std::string> elements(std::string_view set) {
    return PolicyWorld::texts(compiler_.elements(), set);
  }
  static std::vector<Prefix> prefixes(const std::vector<std::string>& texts) {
    std::vector<Prefix> all;
    for (const auto& text : texts) all.push_back(Prefix::parse(text).value());
    return all;
  }

  PolicyWorld w_;
  Compiler compiler_;
};

TEST_F(GatewayTest, AnOutsidePortLeadsToTheNodePortOfAnotherNode) {
  lead(30000, prefixes({"198.51.100.0/24"}));
  EXPECT_THAT(elements("gate4"), ElementsAre("gate4 192.0.2.1 . tcp . 30000 : 192.0.2.2 . 25432"));
  EXPECT_THAT(elements("gate6"), SizeIs(1));
  EXPECT_THAT(elements("gated4"), ElementsAre("gated4 192.0.2.2 . tcp . 25432"));
  EXPECT_THAT(elements("src4"), SizeIs(1));
  EXPECT_THAT(elements("pubp4"), SizeIs(1));
  EXPECT_THAT(elements("pubc6"), SizeIs(1));
  EXPECT_THAT(elements("pub4"), IsEmpty());
  expect_as_from_nothing();
}

TEST_F(GatewayTest, GoneItLeavesNothing) {
  const auto before = compiler_.elements();
  const auto made = lead(30000, prefixes({"198.51.100.0/24"}));
  w_.world.outside.clear();
  const auto gone = update({Proto::kTcp, 30000});
  EXPECT_EQ(gone.elements.remove, made.elements.add);
  EXPECT_EQ(compiler_.elements(), before);
}

TEST_F(GatewayTest, EqualSourcesAreOneProfileAndChangesCostTheOnePort) {
  lead(30000, prefixes({"198.51.100.0/24"}));
  lead(30001, prefixes({"198.51.100.0/24"}), 25433);
  EXPECT_THAT(elements("src4"), SizeIs(1));
  const auto delta = lead(30001, prefixes({"203.0.113.0/24"}), 25433).elements;
  EXPECT_THAT(PolicyWorld::texts(delta.remove), SizeIs(2)) << "two families' profiles";
  EXPECT_THAT(elements("src4"), SizeIs(2));
  expect_as_from_nothing();
}

TEST_F(GatewayTest, NodesThatAreNoGatewayHaveNothingOfIt) {
  PolicyWorld other;
  other.world.outside[{Proto::kTcp, 30000}] = {"db", 5432, kNode4, kNode6, 25432, {}};
  EXPECT_THAT(other.elements("gate"), IsEmpty());
  const auto table = base_table(other.world.settings, {});
  auto gateway = other.world.settings;
  gateway.gateway = true;
  EXPECT_NE(base_table(gateway, {}), table);
  for (const auto& chain : table.chains) {
    for (const auto& rule : chain.rules) {
      for (const auto& part : rule) {
        const auto* in = std::get_if<InSet>(&part);
        EXPECT_FALSE(in != nullptr && in->set.starts_with("gate"));
      }
    }
  }
}

TEST_F(GatewayTest, WhatRunsOnTheGatewayIsReachedWithoutAWayRound) {
  w_.apply("{id: db, owner: ada, publish: [{port: 5432, node_port: 25432}]}");
  lead(30000, prefixes({"198.51.100.0/24"}));
  EXPECT_THAT(elements("gated4"), SizeIs(1)) << "not attached here";
  [[maybe_unused]] const auto attached = compiler_.update(w_.world, w_.attach("db"));
  EXPECT_THAT(elements("gate4"), ElementsAre("gate4 192.0.2.1 . tcp . 30000 : 10.213.0.1 . 5432"));
  EXPECT_THAT(elements("gated"), IsEmpty());
  expect_as_from_nothing();
  [[maybe_unused]] const auto detached = compiler_.update(w_.world, w_.detach("db"));
  EXPECT_THAT(elements("gated4"), SizeIs(1));
  expect_as_from_nothing();
}

TEST_F(GatewayTest, ExplainSaysWhereItLeadsAndWhoMayCome) {
  lead(30000, prefixes({"198.51.100.0/24"}));
  const auto asked = [&](std::string_view source) {
    return explain(w_.world, source, "192.0.2.1", Proto::kTcp, 30000).value();
  };
  EXPECT_EQ(asked("198.51.100.7").verdict, FlowVerdict::kAllowed);
  EXPECT_THAT(asked("198.51.100.7").lines, ElementsAre("outside port tcp/30000 leads to db's "
                                                       "tcp/5432"));
  EXPECT_EQ(asked("203.0.113.9").verdict, FlowVerdict::kRefused);
  EXPECT_THAT(asked("203.0.113.9").missing, HasSubstr("in db: allow_from"));
}

TEST_F(GatewayTest, ExplainTellsOfARefusedPacketAsTheLogHasItTranslated) {
  lead(30000, prefixes({"198.51.100.0/24"}));
  const auto refused =
      explain(w_.world, "203.0.113.9", kNode4.to_string(), Proto::kTcp, 25432).value();
  EXPECT_EQ(refused.reason, "203.0.113.9 is not among the sources db admits");
  const auto other = explain(w_.world, "203.0.113.9", kNode4.to_string(), Proto::kTcp, 25433);
  EXPECT_THAT(other.value().reason, HasSubstr("is no address where published ports answer"));
}

TEST(GatewayAdmittedTest, ANodeLetsGatewaysInToWhatIsRawOnly) {
  PolicyWorld w;
  w.apply("{id: p, owner: ada, publish: [{port: 80, http: true}, {port: 5432}]}");
  w.attach("p");
  const auto before = w.elements("src");
  w.world.nodes["g"] = {"g", {}, {kNode4, kNode6}, false};
  EXPECT_EQ(w.elements("src"), before);
  w.world.nodes["g"].gateway = true;
  EXPECT_THAT(w.elements("src4"), SizeIs(before.size() + 1));
  EXPECT_THAT(w.elements("src6"), SizeIs(1));
  const auto& publish = w.workload("p").declaration.publish;
  EXPECT_THAT(admitted_to(w.world, publish[0]), ElementsAre(Prefix::parse("203.0.113.7").value()));
  EXPECT_THAT(admitted_to(w.world, publish[1]), Contains(Prefix::of(kNode6, 128)));
}

TEST(OutsidePortsTest, TextsAreExact) {
  for (const auto& key : {OutsideKey{Proto::kTcp, 1}, OutsideKey{Proto::kUdp, 65535}}) {
    EXPECT_EQ(parse_outside_key(outside_key_text(key)), key);
  }
  for (const auto* text : {"", "tcp", "tcp-", "tcp-0", "tcp-01", "tcp-65536", "tcp-1 ", "sctp-1"}) {
    EXPECT_EQ(parse_outside_key(text), std::nullopt) << text;
  }
  EXPECT_EQ(parse_port_span("30000-32767").value(), (PortSpan{30000, 32767}));
  for (const auto* text : {"", "1", "30000", "30000-", "-2", "30000-29999", "80-90", "a-b"}) {
    EXPECT_FALSE(parse_port_span(text)) << text;
  }
}

}  // namespace
}  // namespace meshd::policy
