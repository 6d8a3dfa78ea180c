// Outside ports: who has which and for how long, where they lead, and what gateways are sent.
#include "controller/outside.h"

#include <gmock/gmock.h>

#include "tests/controller/cluster_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using KeyKind = mesh::v1::SliceKey::Kind;

class OutsideTest : public testing::Test {
 protected:
  void SetUp() override {
    ok(bed_.join("n1"));
    ok(bed_.join("n2"));
  }
  static void ok(const Status& status) { ASSERT_TRUE(status) << status.error().what; }
  void settle() { bed_.fold(settle_outside(bed_.cluster, OutsideUse::kGateway, range_, bed_.now)); }
  void declare(const std::string& workloads) {
    ok(bed_.apply(workloads));
    settle();
  }
  void forget(const std::string& id) {
    ok(bed_.fold(
        controller::forget(bed_.cluster, {Author::Role::kAdmin, "a"}, id, true, bed_.now)));
    settle();
  }
  // "tcp-30000 r1/db:5432", "... rests"
  [[nodiscard]] std::vector<std::string> ports() const {
    std::vector<std::string> lines;
    for (const auto& [key, port] : bed_.cluster.outside(OutsideUse::kGateway).given) {
      const auto& holder = port.holder;
      lines.push_back(fmt::format("{} {}:{}{}", policy::outside_key_text(key),
                                  holder.service.empty() ? holder.id : holder.service, holder.port,
                                  port.rests_until ? " rests" : ""));
    }
    return lines;
  }
  // As its node reports it, at its underlay address.
  void install(const std::string& node, const std::string& id, std::uint32_t node_port = 20000,
               const std::string& address = "") {
    ok(bed_.fold(start(bed_.cluster, node, id)));
    auto endpoint = bed_.endpoint(node, id);
    auto& published = *endpoint.add_published();
    published.set_port(5432);
    published.set_node_port(node_port);
    published.add_node_addresses(
        address.empty() ? bed_.cluster.nodes().at(node).underlay[0].to_string() : address);
    published.add_allow_from("198.51.100.0/24");
    ASSERT_THAT(bed_.report(node, {endpoint}).refused, IsEmpty());
  }
  void make_gateway(const std::string& node, bool is_one = true) {
    const auto& state = bed_.cluster.nodes().at(node);
    ok(bed_.fold(admit(bed_.cluster, node, state.boot_id, state.underlay, bed_.now,
                       {is_one, state.underlay})));
  }
  // What a node has been sent of them.
  std::vector<std::string> sent(const std::string& node) {
    bed_.settle();
    std::vector<std::string> lines;
    for (const auto& [key, value] : bed_.nodes.at(node).items) {
      if (key.kind != KeyKind::OUTSIDE) continue;
      mesh::v1::SliceOutside item;
      EXPECT_TRUE(item.ParseFromString(value));
      lines.push_back(fmt::format("{} {} {}:{} {}", key.key, item.id(),
                                  fmt::join(item.node_addresses(), ","), item.node_port(),
                                  fmt::join(item.allow_from(), ",")));
    }
    EXPECT_EQ(bed_.nodes.at(node).hash(), bed_.slices.hash(node)) << node;
    return lines;
  }
  std::string underlay(const std::string& node) {
    return bed_.cluster.nodes().at(node).underlay[0].to_string();
  }

  static constexpr const char* kDb =
      "{id: db-1, owner: ada, workflow: r1, name: db, publish: [{port: 5432}]}";

  ClusterBed bed_;
  policy::PortSpan range_{30000, 30003};
};

// --- whose they are ----------------------------------------------------------------------

TEST_F(OutsideTest, EachRawPublicationHasOne) {
  declare(
      "{id: a, owner: ada, publish: [{port: 80, http: true}, {port: 22}, {port: 53, protocol: "
      "UDP}]},"
      "{id: db-1, owner: ada, workflow: r1, name: db, publish: [{port: 5432}]}");
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 a:22", "tcp-30001 r1/db:5432", "udp-30000 a:53"));
  settle();
  EXPECT_THAT(settle_outside(bed_.cluster, OutsideUse::kGateway, range_, bed_.now), IsEmpty())
      << "that is all";
}

TEST_F(OutsideTest, ReplicasOfAServiceShareIt) {
  declare(std::string(kDb) +
          ",{id: db-2, owner: ada, workflow: r1, name: db, publish: [{port: 5432}]}");
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 r1/db:5432"));
}

TEST_F(OutsideTest, TheNodePortsNumberIsTakenWhereItIsFree) {
  declare(
      "{id: a, owner: ada, publish: [{port: 1}]},"
      "{id: b, owner: ada, publish: [{port: 1, node_port: 30000}]},"
      "{id: c, owner: ada, publish: [{port: 1, node_port: 30000}]},"
      "{id: d, owner: ada, publish: [{port: 1, node_port: 25000}]}");
  EXPECT_THAT(ports(),
              ElementsAre("tcp-30000 b:1", "tcp-30001 a:1", "tcp-30002 c:1", "tcp-30003 d:1"));
}

TEST_F(OutsideTest, ItStaysWithTheServiceOverRestarts) {
  declare("{id: x, owner: ada, publish: [{port: 1}]}");
  declare("{id: db-1, owner: ada, name: db, scope: CLUSTER, publish: [{port: 5432}]}");
  ASSERT_THAT(ports(), ElementsAre("tcp-30000 x:1", "tcp-30001 db:5432"));
  forget("db-1");
  bed_.pass(48h);
  settle();
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 x:1", "tcp-30001 db:5432"))
      << "the name is its owner's still";
  declare("{id: db-9, owner: ada, name: db, scope: CLUSTER, publish: [{port: 5432}]}");
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 x:1", "tcp-30001 db:5432"));
}

TEST_F(OutsideTest, ItRestsBeforeItIsAnothers) {
  declare("{id: a, owner: ada, publish: [{port: 1}]}");
  forget("a");
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 a:1 rests"));
  declare("{id: b, owner: ada, publish: [{port: 1}]}");
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 a:1 rests", "tcp-30001 b:1"));
  bed_.pass(kOutsideRest);
  settle();
  EXPECT_THAT(ports(), ElementsAre("tcp-30001 b:1"));
  declare("{id: c, owner: ada, publish: [{port: 1}]}");
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 c:1", "tcp-30001 b:1"));
}

TEST_F(OutsideTest, WhoComesBackWhileItRestsHasItAgain) {
  declare("{id: a, owner: ada, publish: [{port: 1}]}");
  forget("a");
  bed_.pass(kOutsideRest - 1s);
  declare("{id: a, owner: ada, publish: [{port: 1}]}");
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 a:1"));
}

TEST_F(OutsideTest, WhatIsDeclaredRawNoLongerGivesItUp) {
  declare(kDb);
  declare("{id: db-1, owner: ada, workflow: r1, name: db, publish: [{port: 5432, http: true}]}");
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 r1/db:5432 rests"));
}

TEST_F(OutsideTest, BeyondTheRangeSomeHaveNoneUntilOneIsFree) {
  declare("{id: a, owner: ada, publish: [{port: 1}, {port: 2}, {port: 3}, {port: 4}]}");
  declare("{id: b, owner: ada, publish: [{port: 1}]}");
  EXPECT_THAT(ports(), SizeIs(4));
  forget("a");
  bed_.pass(kOutsideRest);
  settle();
  settle();
  EXPECT_THAT(ports(), ElementsAre("tcp-30000 b:1"));
}

TEST_F(OutsideTest, AnotherRangeMovesWhatIsNotInIt) {
  declare("{id: a, owner: ada, publish: [{port: 1}, {port: 2}]}");
  range_ = {30001, 30005};
  settle();
  EXPECT_THAT(ports(), ElementsAre("tcp-30001 a:2", "tcp-30002 a:1"));
  range_ = {};
  settle();
  EXPECT_THAT(ports(), SizeIs(2)) << "a controller without a range changes nothing";
}

// --- where they lead ---------------------------------------------------------------------

TEST_F(OutsideTest, AGatewayIsSentItOnceItIsInstalledAndNobodyElse) {
  make_gateway("n1");
  declare(kDb);
  EXPECT_THAT(sent("n1"), IsEmpty());
  install("n2", "db-1");
  EXPECT_THAT(sent("n1"),
              ElementsAre(fmt::format("tcp-30000 db-1 {}:20000 198.51.100.0/24", underlay("n2"))));
  EXPECT_THAT(sent("n2"), IsEmpty());
  bed_.report("n2", {}, {"db-1"});
  EXPECT_THAT(sent("n1"), IsEmpty());
}

TEST_F(OutsideTest, DeclaredSourcesAreTheDeclarations) {
  make_gateway("n1");
  declare(
      "{id: db-1, owner: ada, workflow: r1, name: db,"
      " publish: [{port: 5432, allow_from: [203.0.113.0/24]}]}");
  install("n2", "db-1");
  EXPECT_THAT(sent("n1"),
              ElementsAre(fmt::format("tcp-30000 db-1 {}:20000 203.0.113.0/24", underlay("n2"))));
}

TEST_F(OutsideTest, ANodeIsNotBelievedAboutAddressesOfOthers) {
  make_gateway("n1");
  declare(kDb);
  install("n2", "db-1", 22, underlay("n1"));
  EXPECT_THAT(sent("n1"), IsEmpty());
}

TEST_F(OutsideTest, ItFollowsTheContainer) {
  make_gateway("n1");
  declare(kDb);
  install("n2", "db-1");
  bed_.report("n2", {}, {"db-1"});
  install("n1", "db-1", 20007);
  EXPECT_THAT(sent("n1"),
              ElementsAre(fmt::format("tcp-30000 db-1 {}:20007 198.51.100.0/24", underlay("n1"))));
}

TEST_F(OutsideTest, OfReplicasItLeadsToTheFirstThatDoesNotDrain) {
  make_gateway("n1");
  declare(std::string(kDb) +
          ",{id: db-2, owner: ada, workflow: r1, name: db, publish: [{port: 5432}]}");
  install("n1", "db-1");
  install("n2", "db-2");
  ASSERT_THAT(sent("n1"), SizeIs(1));
  EXPECT_TRUE(sent("n1")[0].starts_with("tcp-30000 db-1 "));
  bed_.report("n1", {}, {"db-1"});
  EXPECT_TRUE(sent("n1")[0].starts_with("tcp-30000 db-2 "));
}

TEST_F(OutsideTest, WhoBecomesAGatewayLaterHasAllAndWhoIsNoneAnyMoreNothing) {
  declare(kDb);
  install("n2", "db-1");
  EXPECT_THAT(sent("n1"), IsEmpty());
  make_gateway("n1");
  EXPECT_THAT(sent("n1"), SizeIs(1));
  make_gateway("n1", false);
  EXPECT_THAT(sent("n1"), IsEmpty());
}

TEST_F(OutsideTest, WhatRestsLeadsNowhere) {
  make_gateway("n1");
  declare(kDb);
  install("n2", "db-1");
  ASSERT_THAT(sent("n1"), SizeIs(1));
  forget("db-1");
  EXPECT_THAT(sent("n1"), IsEmpty());
}

TEST_F(OutsideTest, NodesAreToldWhichOthersAreGateways) {
  make_gateway("n1");
  bed_.settle();
  mesh::v1::SliceNode node;
  ASSERT_TRUE(node.ParseFromString(bed_.nodes.at("n2").items.at({KeyKind::NODE, "n1"})));
  EXPECT_TRUE(node.gateway());
  ASSERT_TRUE(node.ParseFromString(bed_.nodes.at("n1").items.at({KeyKind::NODE, "n2"})));
  EXPECT_FALSE(node.gateway());
}

}  // namespace
}  // namespace meshd::controller
