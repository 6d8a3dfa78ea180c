// What a world comes to in the kernel: small worlds spelled out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/fragment.h"
#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using Texts = std::vector<std::string>;

class CompileTest : public testing::Test {
 protected:
  Texts elements(std::string_view sets) const { return w_.elements(sets); }
  PolicyWorld w_;
};

TEST_F(CompileTest, ConsumerAndProvider) {
  w_.apply(
      "{id: c, owner: ada, workflow: r, peers: [{name: db}]},"
      "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}]}");
  w_.attach("c");
  w_.attach("s");
  EXPECT_THAT(elements("allow"), ElementsAre("allow4 10.213.0.1 . 10.213.0.2 . tcp . 80",
                                             "allow6 fd00::1 . fd00::2 . tcp . 80"));
  EXPECT_THAT(elements("pair4"), ElementsAre("pair4 10.213.0.1 . 10.213.0.2"));
  EXPECT_THAT(elements("bind4"), ElementsAre("bind4 \"m1\" . 02:00:00:00:00:01 . 10.213.0.1",
                                             "bind4 \"m2\" . 02:00:00:00:00:02 . 10.213.0.2"));
  EXPECT_THAT(elements("self6"), ElementsAre("self6 fd00::1 . fd00::1", "self6 fd00::2 . fd00::2"));
  EXPECT_THAT(elements("vip"), IsEmpty()) << "nobody is ready";
  EXPECT_THAT(elements("hold4"), ElementsAre("hold4 10.213.0.1 . 10.214.0.1 . tcp . 80"));
  w_.listens("s", 80, {true, false});
  EXPECT_EQ(elements("vip4").size(), kSlots);
  EXPECT_THAT(elements("vip4"), Contains("vip4 10.214.0.1 . tcp . 80 . 0 : 10.213.0.2"));
  EXPECT_THAT(elements("vip6"), IsEmpty()) << "it does not listen there";
  EXPECT_THAT(elements("hold"), IsEmpty()) << "so the other family is refused, not held";
}

TEST_F(CompileTest, NothingWithoutBothSides) {
  w_.apply(
      "{id: c, owner: ada, workflow: r},"
      "{id: e, owner: bob, workflow: q, peers: [{id: s}, {name: db}]},"
      "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}]}");
  for (const auto* id : {"c", "e", "s"}) w_.attach(id);
  for (const auto* set : {"allow", "pair", "hold"}) EXPECT_THAT(elements(set), IsEmpty()) << set;
}

TEST_F(CompileTest, RangesInBlocks) {
  w_.apply(
      "{id: c, owner: ada, workflow: r, peers: [{name: db}]},"
      "{id: s, owner: ada, workflow: r, name: db, ready: NONE, serves: [{port: 30, end_port: "
      "48}]}");
  w_.attach("c");
  w_.attach("s");
  EXPECT_THAT(elements("allow4"), ElementsAre("allow4 10.213.0.1 . 10.213.0.2 . tcp . 30",
                                              "allow4 10.213.0.1 . 10.213.0.2 . tcp . 31",
                                              "allow4 10.213.0.1 . 10.213.0.2 . tcp . 48",
                                              "allow4_b16 10.213.0.1 . 10.213.0.2 . tcp . 32"));
  EXPECT_EQ(elements("vip4").size(), 4 * kSlots);
}

TEST_F(CompileTest, UnitsCoverARangeOnce) {
  for (int first : {1, 15, 16, 17, 65519, 65520, 65521}) {
    for (int last = first; last <= std::min(first + 50, 65535); ++last) {
      int next = first;
      for (const auto& unit : units_of({Proto::kTcp, static_cast<std::uint16_t>(first),
                                        static_cast<std::uint16_t>(last)})) {
        EXPECT_EQ(unit.first, next);
        EXPECT_TRUE(!unit.block || unit.first % kBlock == 0);
        next = unit.last() + 1;
      }
      EXPECT_EQ(next, last + 1);
    }
  }
}

TEST_F(CompileTest, SlotsAreSharedByTheReplicasThatAreReady) {
  const std::string s = "owner: ada, workflow: r, name: db, serves: [{port: 80}]}";
  w_.apply("{id: s1, " + s + ",{id: s2, " + s + ",{id: s3, " + s);
  for (const auto* id : {"s1", "s2", "s3"}) w_.attach(id);
  w_.listens("s1", 80);
  w_.listens("s3", 80);
  const auto to = [&](const std::string& address) {
    return std::ranges::count_if(elements("vip4"),
                                 [&](const auto& text) { return text.ends_with(": " + address); });
  };
  EXPECT_EQ(to("10.213.0.1"), 8);
  EXPECT_EQ(to("10.213.0.2"), 0);
  EXPECT_EQ(to("10.213.0.3"), 8);
  w_.drain("s1");
  EXPECT_EQ(to("10.213.0.1"), 0);
  EXPECT_EQ(to("10.213.0.3"), 16);
  EXPECT_THAT(elements("drain4"), ElementsAre("drain4 10.213.0.1"));
}

TEST_F(CompileTest, HoldEndsInTime) {
  w_.apply(
      "{id: c, owner: ada, workflow: r, peers: [{name: db}]},"
      "{id: s, owner: ada, workflow: r, name: db, hold: 10s, serves: [{port: 80}]}");
  w_.world.now += 3s;
  w_.attach("c");
  Compiler compiler;
  [[maybe_unused]] const auto first = compiler.rebuild(w_.world);
  const auto until = w_.world.now + 10s;
  EXPECT_EQ(compiler.next_deadline(), until) << "the attach came last";
  w_.world.now = until - 1ms;
  EXPECT_TRUE(compiler.due(w_.world.now).workloads.empty());
  EXPECT_TRUE(compiler.update(w_.world, w_.touch("c")).elements.empty());
  w_.world.now = until;
  const auto due = compiler.due(until);
  EXPECT_THAT(due.workloads, ElementsAre("c"));
  const auto delta = compiler.update(w_.world, due);
  EXPECT_THAT(PolicyWorld::texts(delta.elements.remove),
              ElementsAre("hold4 10.213.0.1 . 10.214.0.1 . tcp . 80",
                          "hold6 fd00::1 . fd01::1 . tcp . 80"));
  EXPECT_FALSE(compiler.next_deadline());
}

TEST_F(CompileTest, HoldZeroNeverHolds) {
  w_.apply(
      "{id: c, owner: ada, workflow: r, peers: [{name: db}]},"
      "{id: s, owner: ada, workflow: r, name: db, hold: 0s, serves: [{port: 80}]}");
  w_.attach("c");
  EXPECT_THAT(elements("hold"), IsEmpty());
}

// Sixteen single ports make up a block; each becomes ready by itself all the same.
TEST_F(CompileTest, NeighbouringSinglePortsAreHeldOneByOne) {
  std::string ports;
  for (int port = 8000; port < 8016; ++port) ports += fmt::format("{{port: {}}},", port);
  w_.apply(
      "{id: c, owner: ada, workflow: r, peers: [{name: db}]},"
      "{id: s, owner: ada, workflow: r, name: db, serves: [" +
      ports + "]}");
  w_.attach("c");
  w_.attach("s");
  EXPECT_EQ(elements("hold4").size(), 16U);
  w_.listens("s", 8000);
  EXPECT_EQ(elements("hold4").size(), 15U);
  EXPECT_THAT(elements("hold4"), Contains("hold4 10.213.0.1 . 10.214.0.1 . tcp . 8005"));
}

// What fills and empties without a command is counted before: all ready, or none.
TEST_F(CompileTest, RoomForWhatReadinessBrings) {
  const auto room = [&](SetId set) {
    Compiler compiler;
    [[maybe_unused]] const auto delta = compiler.rebuild(w_.world);
    EXPECT_LE(compiler.element_count(set), compiler.worst_case_count(set));
    return compiler.worst_case_count(set);
  };
  w_.apply(
      "{id: c, owner: ada, workflow: r, peers: [{name: db}, {id: s}]},"
      "{id: d, owner: ada, workflow: r, peers: [{name: db, ports: [{port: 80}]}]},"
      "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}, {port: 81},"
      " {port: 32, end_port: 48}]}");
  EXPECT_EQ(room(SetId::kVip4) + room(SetId::kHold4), 0U) << "nobody is attached";
  w_.attach("c");
  EXPECT_EQ(room(SetId::kHold4), 3U) << "80, 81 and 48";
  EXPECT_EQ(room(SetId::kHold6Block), 1U) << "32-47";
  EXPECT_EQ(room(SetId::kVip4), 0U);
  w_.attach("d");
  w_.attach("s");
  EXPECT_EQ(room(SetId::kHold4), 4U);
  EXPECT_EQ(room(SetId::kVip4), 3 * kSlots) << "whether ready or not";
  EXPECT_EQ(room(SetId::kVip6Block), kSlots);
  w_.listens("s", 80);
  w_.listens("s", 81, {true, false});
  w_.world.now += 1h;
  EXPECT_EQ(elements("hold4"), std::vector<std::string>()) << "holds are over";
  EXPECT_EQ(room(SetId::kHold4), 4U) << "and begin again when the last endpoint goes";
  w_.detach("s");
  EXPECT_EQ(elements("hold4").size(), 5U) << "4 and one block";
  EXPECT_EQ(room(SetId::kVip4), 0U);
  EXPECT_EQ(room(SetId::kBind4), 2U) << "of the others what is there";
  w_.apply("{id: s, owner: ada, workflow: r, name: db, hold: 0s, serves: [{port: 80}]}");
  EXPECT_EQ(room(SetId::kHold4), 0U) << "who never waits needs no room";
}

TEST_F(CompileTest, WhereEgressNeverLeads) {
  const auto never4 = elements("never4"), never6 = elements("never6");
  const auto has = [](const std::vector<std::string>& lines, std::string_view address) {
    return std::ranges::any_of(
        lines, [&](const std::string& line) { return line.find(address) != std::string::npos; });
  };
  for (const auto* metadata : {"100.100.100.200", "168.63.129.16", "192.0.0.192", "169.254.0.0"}) {
    EXPECT_TRUE(has(never4, metadata)) << metadata;
  }
  for (const auto* metadata : {"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "::ffff:0.0.0.0"}) {
    EXPECT_TRUE(has(never6, metadata)) << metadata;
  }
  for (const auto& pool : {w_.world.settings.pool4, w_.world.settings.vip_pool4,
                           w_.world.settings.pool6, w_.world.settings.vip_pool6}) {
    for (const auto& prefix : never_reached(w_.world)) {
      EXPECT_FALSE(prefix.overlaps(*pool)) << prefix.to_string();
    }
  }
}

TEST_F(CompileTest, PublicationsForTheirSources) {
  w_.apply(
      "{id: s, owner: ada, scope: CLUSTER, publish: [{port: 80, node_port: 25000},"
      "{port: 81, node_port: 25001, http: true},"
      "{port: 53, protocol: UDP, node_port: 25002, allow_from: [10.0.0.0/8, 10.1.0.0/16]}]}");
  w_.attach("s");
  EXPECT_THAT(elements("pub4"), ElementsAre("pub4 192.0.2.1 . tcp . 25000 : 10.213.0.1 . 80",
                                            "pub4 192.0.2.1 . tcp . 25001 : 10.213.0.1 . 81",
                                            "pub4 192.0.2.1 . udp . 25002 : 10.213.0.1 . 53"));
  EXPECT_EQ(elements("pub6").size(), 3U);
  EXPECT_EQ(elements("src4").size(), 3U) << "a source within another one goes";
  const auto sources = elements("src4");
  for (const std::string_view range : {"198.51.100.0-198.51.100.255", "10.0.0.0-10.255.255.255"}) {
    EXPECT_TRUE(std::ranges::any_of(
        sources, [&](const auto& text) { return text.find(range) != std::string::npos; }))
        << range << " in " << testing::PrintToString(sources);
  }
}

TEST_F(CompileTest, EqualProfilesAreKeptOnce) {
  w_.apply(
      "{id: a, owner: ada, scope: CLUSTER, egress: [{cidr: 0.0.0.0/0}]},"
      "{id: b, owner: bob, scope: CLUSTER, egress: [{cidr: 0.0.0.0/0}, {cidr: 10.0.0.0/8}]}");
  w_.attach("a");
  w_.attach("b");
  EXPECT_EQ(elements("eg4").size(), 3U) << "TCP, UDP and ping";
  EXPECT_EQ(elements("egp4").size(), 2U);
  EXPECT_EQ(elements("egc4").size(), 6U) << "but each counts for itself";
}

TEST_F(CompileTest, RowsOfEgressAndPublicationsCountByElementsThatStay) {
  w_.apply(
      "{id: a, owner: ada, scope: CLUSTER, publish: [{port: 80, node_port: 25000}], egress: ["
      "{cidr: 192.0.2.0/24, ports: [{port: 443}]}, {cidr: 10.0.0.0/8, ports: [{port: 53}]}]}");
  w_.attach("a");
  EXPECT_THAT(elements("pubc4"), ElementsAre("pubc4 10.213.0.1 . tcp . 80"));
  EXPECT_THAT(elements("pubc6"), ElementsAre("pubc6 fd00::1 . tcp . 80"));
  EXPECT_TRUE(elements("egc6").empty());
  const auto rows = elements("egc4");
  ASSERT_EQ(rows.size(), 2U);
  w_.apply(
      "{id: a, owner: ada, scope: CLUSTER, publish: [{port: 80, allow_from: [10.0.0.0/8]}], "
      "egress: [{cidr: 10.0.0.0/8, ports: [{port: 53}]}]}");
  EXPECT_THAT(elements("pubc4"), ElementsAre("pubc4 10.213.0.1 . tcp . 80"));
  ASSERT_EQ(elements("egc4").size(), 1U);
  EXPECT_THAT(rows, testing::Contains(elements("egc4")[0])) << "the one that is left";
}

TEST_F(CompileTest, DetachedIsNowhere) {
  w_.apply(
      "{id: c, owner: ada, workflow: r, peers: [{name: db}], publish: [{port: 80}],"
      "egress: [{cidr: 0.0.0.0/0}]},"
      "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}], ready: NONE}");
  const auto before = elements("");
  w_.attach("c");
  w_.attach("s");
  Compiler compiler;
  [[maybe_unused]] const auto all = compiler.rebuild(w_.world);
  [[maybe_unused]] const auto one = compiler.update(w_.world, w_.detach("s"));
  const auto delta = compiler.update(w_.world, w_.detach("c"));
  EXPECT_EQ(PolicyWorld::texts(compiler.elements()), before);
  EXPECT_EQ(delta.views_gone.size(), 2U);
  EXPECT_TRUE(compiler.views().empty());
  for (const auto& element : compiler.elements()) EXPECT_TRUE(is_well_formed(element));
}

}  // namespace
}  // namespace meshd::policy
