// Explanations say what the kernel does and what would change it.
#include "policy/explain.h"

#include <gtest/gtest.h>

#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using namespace std::chrono_literals;
using enum FlowVerdict;

class ExplainTest : public testing::Test {
 protected:
  ExplainTest() {
    w_.apply(
        "{id: c, owner: ada, workflow: r, peers: [{name: db, ports: [{port: 80}]}, {id: i}],"
        " egress: [{cidr: 0.0.0.0/0, ports: [{port: 443}]}]},"
        "{id: s, owner: ada, workflow: r, name: db, hold: 60s, serves: [{port: 80},"
        " {port: 90, end_port: 99}], publish: [{port: 80, node_port: 25000}]},"
        "{id: i, owner: ada, workflow: r, name: api, admit: OWNER, serves: [{port: 22}]},"
        "{id: e, owner: eve, workflow: q}");
    for (const auto* id : {"c", "s", "i", "e"}) w_.attach(id);
  }
  [[nodiscard]] Explanation ask(std::string_view source, std::string_view destination,
                                std::uint16_t port, Proto proto = Proto::kTcp) const {
    const auto result = explain(w_.world, source, destination, proto, port);
    if (!result) return {kRefused, "error: " + result.error().what, {}, {}};
    return *result;
  }
  PolicyWorld w_;
};

TEST_F(ExplainTest, ServiceIsHeldThenAllowed) {
  EXPECT_EQ(ask("c", "db", 80).verdict, kHeld);
  EXPECT_EQ(ask("c", "db", 80).reason,
            "no endpoint of db of workflow r is ready: held for another 60 s");
  w_.world.now += 59500ms;
  EXPECT_EQ(ask("c", "db", 80).reason,
            "no endpoint of db of workflow r is ready: held for another 1 s");
  w_.world.now += 500ms;
  EXPECT_EQ(ask("c", "db", 80).verdict, kRefused);
  w_.listens("s", 80);
  for (const auto* name : {"db", "db.r.wf.mesh.internal", "10.214.0.2", "s", "10.213.0.2",
                           "fd00::2", "s.id.mesh.internal."}) {
    const auto answer = ask("c", name, 80);
    EXPECT_EQ(answer.verdict, kAllowed) << name << ": " << answer.reason;
    EXPECT_EQ(answer.reason, "c declares the peer db (peers[0])");
    EXPECT_EQ(answer.lines.size(), 3U);
  }
  w_.drain("s");
  EXPECT_EQ(ask("c", "s", 80).reason, "s is draining: open connections only");
}

// Ports become ready one by one: what the kernel leads on is what is called allowed.
TEST_F(ExplainTest, RangesAreReadyAtAttach) {
  w_.apply("{id: c, owner: ada, workflow: r, peers: [{name: db}]}");
  EXPECT_EQ(ask("c", "db", 95).verdict, kAllowed);
  EXPECT_EQ(ask("c", "db", 80).verdict, kHeld) << "the single port is not";
}

TEST_F(ExplainTest, WhoDoesNotNameAServiceDoesNotWaitForIt) {
  EXPECT_EQ(w_.elements("hold4").size(), 1U) << "db, not api";
  const auto answer = ask("c", "api", 22);
  EXPECT_EQ(answer.verdict, kRefused) << answer.reason;
  EXPECT_EQ(ask("c", "i", 22).verdict, kAllowed) << "the instance itself is open";
}

TEST_F(ExplainTest, RefusalSaysWhatIsMissing) {
  EXPECT_EQ(ask("e", "s", 80).missing, "in e: peers: [{name: db}]");
  EXPECT_EQ(ask("c", "s", 95).missing, "in c: peers[0].ports: [{port: 95}]");
  EXPECT_EQ(ask("c", "s", 80, Proto::kUdp).missing,
            "in c: peers[0].ports: [{port: 80, protocol: UDP}]");
  EXPECT_EQ(ask("c", "i", 23).missing, "in i: serves: [{port: 23}]");
  w_.apply("{id: f, owner: eve, workflow: q, peers: [{id: s}]}");
  EXPECT_EQ(ask("f", "s", 80).missing, "in s: admit_owners: [eve]");
  EXPECT_EQ(ask("f", "s", 80).reason, "s admits its own workflow and owner only");
  w_.detach("s");
  EXPECT_EQ(ask("c", "s", 80).reason, "s is not attached");
}

TEST_F(ExplainTest, OutsideGoesByEgress) {
  EXPECT_EQ(ask("c", "198.51.100.9", 443).verdict, kAllowed);
  EXPECT_EQ(ask("c", "198.51.100.9", 80).missing, "in c: egress: [{cidr: 198.51.100.9}]");
  EXPECT_EQ(ask("e", "198.51.100.9", 443).verdict, kRefused);
  EXPECT_EQ(ask("c", "10.213.9.9", 443).reason, "10.213.9.9 is nobody's address");
  EXPECT_EQ(ask("c", "192.0.2.1", 443).reason,
            "192.0.2.1 is the node's own: egress never includes it");
  EXPECT_EQ(ask("c", "169.254.169.254", 443).reason,
            "169.254.169.254 is in 169.254.0.0/16: egress never includes it");
  EXPECT_EQ(ask("e", "169.254.1.1", 53, Proto::kUdp).verdict, kAllowed);
}

TEST_F(ExplainTest, PublishedPortsByTheirSources) {
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.1", 25000).verdict, kAllowed);
  EXPECT_EQ(ask("203.0.113.1", "192.0.2.1", 25000).missing,
            "in s: publish: allow_from: [\"203.0.113.1\"]");
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.1", 25001).reason,
            "no container publishes node port tcp/25001");
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.77", 25000).reason,
            "192.0.2.77 is no address where published ports answer");
  EXPECT_EQ(ask("198.51.100.7", "s", 80).verdict, kRefused);
  w_.drain("s");
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.1", 25000).reason, "s is draining: open connections only");
  w_.detach("s");
  EXPECT_EQ(ask("198.51.100.7", "192.0.2.1", 25000).reason, "s is not attached");
}

TEST_F(ExplainTest, UnknownIsNoVerdict) {
  EXPECT_EQ(explain(w_.world, "nobody", "s", Proto::kTcp, 80).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(ask("c", "nobody", 80).reason, "nobody declares nobody");
}

}  // namespace
}  // namespace meshd::policy
