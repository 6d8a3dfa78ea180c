// Explanations of flows to and from other nodes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/explain.h"
#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using enum FlowVerdict;

class ExplainRemoteTest : public testing::Test {
 protected:
  ExplainRemoteTest() {
    w_.apply(
        "{id: c, owner: ada, workflow: r, peers: [{name: db}]},"
        "{id: s, owner: ada, workflow: r, name: db, hold: 60s, serves: [{port: 80}, {port: 81}]},"
        "{id: e, owner: eve, workflow: q}");
    w_.attach("c");
    w_.place("s", "n2", 2);
  }
  [[nodiscard]] Explanation ask(std::string_view source, std::string_view destination,
                                std::uint16_t port) const {
    const auto result = explain(w_.world, source, destination, Proto::kTcp, port);
    if (!result) return {kRefused, "error: " + result.error().what, {}, {}};
    return *result;
  }
  void confirm() { w_.confirm("c", "s", {{Proto::kTcp, 80, 80}}); }

  PolicyWorld w_;
};

constexpr auto kWaits = "node n2 has not confirmed it yet";

TEST_F(ExplainRemoteTest, FlowIsHeldUntilItsNodeHasConfirmedIt) {
  for (const auto* name : {"s", "10.213.200.2", "fd00::200:2", "s.id.mesh.internal"}) {
    const auto answer = ask("c", name, 80);
    EXPECT_EQ(answer.verdict, kHeld) << name;
    EXPECT_EQ(answer.reason, kWaits);
    EXPECT_THAT(answer.lines, Contains(kWaits));
    EXPECT_THAT(answer.lines, Contains("s is on node n2"));
  }
  confirm();
  EXPECT_EQ(ask("c", "s", 80).verdict, kAllowed);
  EXPECT_THAT(ask("c", "s", 80).lines, Contains("s is on node n2"));
  EXPECT_EQ(ask("c", "s", 81).verdict, kHeld) << "confirmed for another port";
  EXPECT_EQ(ask("c", "s", 82).verdict, kRefused);
  EXPECT_EQ(ask("c", "s", 82).reason, "s does not serve tcp/82");
  EXPECT_EQ(ask("e", "s", 80).verdict, kRefused);
  w_.drain("s");
  EXPECT_EQ(ask("c", "s", 80).reason, "s is draining: open connections only");
}

TEST_F(ExplainRemoteTest, FamiliesWaitEachByItself) {
  confirm();
  w_.world.confirmed["c"]["s"].from6.reset();
  EXPECT_EQ(ask("c", "s", 80).verdict, kAllowed);
  EXPECT_THAT(ask("c", "s", 80).lines, Contains("node n2 has not confirmed it over IPv6 yet"));
  EXPECT_EQ(ask("c", "10.213.200.2", 80).verdict, kAllowed);
  EXPECT_THAT(ask("c", "10.213.200.2", 80).lines, Not(Contains(HasSubstr("confirmed"))));
  EXPECT_EQ(ask("c", "fd00::200:2", 80).verdict, kHeld);
}

TEST_F(ExplainRemoteTest, ServiceIsHeldByReadinessThenByItsNode) {
  EXPECT_EQ(ask("c", "db", 80).reason,
            "no endpoint of db of workflow r is ready: held for another 60 s");
  w_.listens("s", 80);
  EXPECT_EQ(ask("c", "db", 80).verdict, kHeld);
  EXPECT_EQ(ask("c", "db", 80).reason, kWaits);
  w_.apply("{id: t, owner: ada, workflow: r, name: db, hold: 60s, serves: [{port: 80}]}");
  w_.attach("t");
  w_.listens("t", 80);
  EXPECT_EQ(ask("c", "db", 80).verdict, kAllowed) << "the other replica is here";
  w_.detach("t");
  confirm();
  EXPECT_EQ(ask("c", "db", 80).verdict, kAllowed);
  w_.world.confirmed["c"]["s"].to4.reset();
  EXPECT_EQ(ask("c", "10.214.0.1", 80).verdict, kHeld);
  EXPECT_EQ(ask("c", "fd01::1", 80).verdict, kAllowed);
}

TEST_F(ExplainRemoteTest, SaysWhereTheSourceIs) {
  w_.detach("c");
  w_.place("c", "n3", 1);
  EXPECT_EQ(ask("c", "s", 80).verdict, kAllowed) << "neither is here: what is declared";
  EXPECT_THAT(ask("c", "s", 80).lines, Contains("c is on node n3"));
  w_.workload("s").remote.reset();
  w_.attach("s");
  EXPECT_EQ(ask("c", "s", 80).verdict, kAllowed);
  EXPECT_EQ(ask("10.213.200.1", "s", 80).verdict, kAllowed) << "by address, as the log has it";
  EXPECT_EQ(ask("c", "203.0.113.9", 443).reason,
            "error: explain: c is on node n3: what it sends out of the mesh is judged there");
}

TEST_F(ExplainRemoteTest, StaleNodeIsCalledThat) {
  w_.workload("s").remote->stale = true;
  EXPECT_THAT(ask("c", "s", 80).lines,
              Contains("s is on node n2, which has not been heard of for a while"));
}

TEST_F(ExplainRemoteTest, NodeItselfReachesItsOwnContainersOnly) {
  confirm();
  w_.listens("s", 80);
  const auto* const refusal =
      "s is on node n2: from a node itself only its own containers are reached";
  EXPECT_EQ(ask("192.0.2.1", "s", 80).reason, refusal);
  EXPECT_EQ(ask("192.0.2.1", "db", 80).reason, refusal);
  w_.apply("{id: t, owner: ada, workflow: r, name: db, hold: 60s, serves: [{port: 80}]}");
  w_.attach("t");
  w_.listens("t", 80);
  EXPECT_EQ(ask("192.0.2.1", "db", 80).verdict, kAllowed);
  EXPECT_THAT(ask("192.0.2.1", "db", 80).lines, Contains(refusal));
}

TEST_F(ExplainRemoteTest, AddressOfAnotherNodesBlock) {
  w_.world.nodes["n4"] = {
      "n4", {Prefix::parse("10.213.77.0/24").value()}, {IpAddress::parse("192.0.2.4").value()}};
  EXPECT_EQ(ask("c", "10.213.77.9", 80).reason,
            "10.213.77.9 is node n4's, and of nobody that this node has to do with");
  w_.apply("{id: c, owner: ada, workflow: r, egress: [{cidr: 0.0.0.0/0}]}");
  EXPECT_EQ(ask("c", "192.0.2.4", 22).reason,
            "192.0.2.4 is in 192.0.2.4/32: egress never includes it");
}

}  // namespace
}  // namespace meshd::policy
