// What one container sees of the zone: names it may use, and nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class ViewTest : public testing::Test {
 protected:
  ViewPlan view(const std::string& client) const {
    Compiler compiler;
    [[maybe_unused]] const auto delta = compiler.rebuild(w_.world);
    for (const auto& view : compiler.views()) {
      if (view->client == client) return *view;
    }
    ADD_FAILURE() << client << " has no view";
    return {};
  }
  std::vector<std::string> names(const std::string& client) const {
    std::vector<std::string> result;
    for (const auto& name : view(client).names) result.push_back(name.fqdn);
    return result;
  }
  VisibleName name(const std::string& client, const std::string& fqdn) const {
    for (const auto& name : view(client).names) {
      if (name.fqdn == fqdn) return name;
    }
    ADD_FAILURE() << client << " does not see " << fqdn;
    return {};
  }
  PolicyWorld w_;
};

const std::string kDb =
    "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80, name: web},"
    "{port: 53, protocol: UDP, name: dns}]}";

TEST_F(ViewTest, OneselfAndWhatOneMayReach) {
  w_.apply(kDb +
           ",{id: c, owner: ada, workflow: r, peers: [{name: db}]},"
           "{id: e, owner: eve, workflow: q, egress: [{cidr: 0.0.0.0/0}]}");
  for (const auto* id : {"s", "c", "e"}) w_.attach(id);
  EXPECT_THAT(names("c"),
              ElementsAre("c.id.mesh.internal", "db.r.wf.mesh.internal", "s.id.mesh.internal"));
  EXPECT_THAT(names("s"), ElementsAre("db.r.wf.mesh.internal", "s.id.mesh.internal"));
  EXPECT_THAT(names("e"), ElementsAre("e.id.mesh.internal"));
  EXPECT_THAT(view("c").search, ElementsAre("r.wf.mesh.internal", "svc.mesh.internal"));
  EXPECT_FALSE(view("c").forward);
  EXPECT_TRUE(view("e").forward);
  w_.world.workloads.at("c").attachment->default_route = false;
  EXPECT_TRUE(view("c").forward) << "it stands beside an engine's network";
  EXPECT_EQ(view("c").addresses.size(), 2U);
}

TEST_F(ViewTest, SrvOnlyOfPortsThatAreGranted) {
  w_.apply(kDb + ",{id: c, owner: ada, workflow: r, peers: [{name: db, ports: [{port: 80}]}]}");
  w_.attach("s");
  w_.attach("c");
  for (const auto* fqdn : {"db.r.wf.mesh.internal", "s.id.mesh.internal"}) {
    EXPECT_THAT(name("c", fqdn).srv, ElementsAre(SrvRecord{"web", Proto::kTcp, 80})) << fqdn;
  }
  EXPECT_EQ(name("s", "s.id.mesh.internal").srv.size(), 2U) << "its own are all there";
}

TEST_F(ViewTest, WithheldSaysTheSameOfWhatIsNotThereAndWhatIsNotAdmitted) {
  w_.apply(
      "{id: h, owner: bob, workflow: q, name: hidden, scope: CLUSTER, serves: [{port: 80}]},"
      "{id: c, owner: ada, workflow: r, peers: [{name: hidden, scope: CLUSTER}, {name: none},"
      "{id: h}, {id: gone}]}");
  w_.attach("c");
  w_.attach("h");
  EXPECT_THAT(names("c"), ElementsAre("c.id.mesh.internal"));
  using Pair = std::pair<std::string, std::string>;
  EXPECT_THAT(view("c").withheld,
              ElementsAre(Pair("gone.id.mesh.internal", "peer gone is not available to you"),
                          Pair("h.id.mesh.internal", "peer h is not available to you"),
                          Pair("hidden", "peer hidden is not available to you"),
                          Pair("hidden.svc.mesh.internal", "peer hidden is not available to you"),
                          Pair("none", "peer none is not available to you"),
                          Pair("none.r.wf.mesh.internal", "peer none is not available to you")));
}

TEST_F(ViewTest, BareLabelIsTheWorkflowsBeforeTheClusters) {
  w_.apply(
      "{id: m, owner: ada, workflow: q, name: db, scope: CLUSTER, serves: [{port: 80}]},"
      "{id: c, owner: ada, workflow: r, peers: [{name: db, scope: CLUSTER}, {name: db}]}");
  w_.attach("c");
  EXPECT_THAT(name("c", "db.svc.mesh.internal").aliases, ElementsAre("db"));
  ASSERT_EQ(view("c").withheld.size(), 1U) << "the bare label is answered";
  EXPECT_EQ(view("c").withheld[0].first, "db.r.wf.mesh.internal");
  w_.apply(kDb);
  EXPECT_THAT(name("c", "db.r.wf.mesh.internal").aliases, ElementsAre("db"));
  EXPECT_THAT(name("c", "db.svc.mesh.internal").aliases, IsEmpty());
  EXPECT_THAT(view("c").withheld, IsEmpty());
}

TEST_F(ViewTest, FamiliesUntilTheFirstEndpointAndAfter) {
  w_.apply(
      "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}]},"
      "{id: c, owner: ada, workflow: r, peers: [{name: db}]}");
  w_.attach("c");
  const std::string fqdn = "db.r.wf.mesh.internal";
  const auto& vip = w_.world.services.begin()->second;
  EXPECT_EQ(name("c", fqdn).v4, vip.vip4) << "held, so answered";
  EXPECT_EQ(name("c", fqdn).v6, vip.vip6);
  EXPECT_FALSE(name("c", "s.id.mesh.internal").v4) << "not attached: NODATA";
  w_.attach("s");
  EXPECT_EQ(name("c", "s.id.mesh.internal").v4, w_.workload("s").attachment->v4)
      << "instance names do not wait for readiness";
  w_.listens("s", 80, {false, true});
  EXPECT_FALSE(name("c", fqdn).v4) << "nobody listens there";
  EXPECT_EQ(name("c", fqdn).v6, vip.vip6);
  w_.drain("s");
  EXPECT_FALSE(name("c", "s.id.mesh.internal").v6) << "draining takes the name out";
  EXPECT_EQ(name("c", fqdn).v4, vip.vip4) << "waiting for the next one";
}

// Two ports: what counts is what stands behind any of them, family by family; the names and
// the packets that wait say the same.
class TwoPortsTest : public ViewTest {
 protected:
  TwoPortsTest() {
    w_.apply(
        "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}, {port: 90}]},"
        "{id: c, owner: ada, workflow: r, peers: [{name: db}]},"
        "{id: one, owner: ada, workflow: r, peers: [{name: db, ports: [{port: 80}]}]}");
    for (const auto* id : {"c", "one", "s"}) w_.attach(id);
  }
  // "46" and what is held: "46: v4/80 v4/90 v6/80 v6/90"
  [[nodiscard]] std::string seen(const std::string& client) const {
    const auto db = name(client, "db.r.wf.mesh.internal");
    auto text = std::string(db.v4 ? "4" : "") + (db.v6 ? "6" : "") + ":";
    const auto& attachment = *w_.world.workloads.at(client).attachment;
    for (const auto family : kFamilies) {
      for (const auto& line : w_.elements(family == Family::kV4 ? "hold4" : "hold6")) {
        if (line.find(" " + attachment.address(family)->to_string() + " ") == std::string::npos) {
          continue;
        }
        text +=
            fmt::format(" v{}/{}", family == Family::kV4 ? 4 : 6, line.substr(line.rfind(' ') + 1));
      }
    }
    return text;
  }
};

TEST_F(TwoPortsTest, NoneIsReady) {
  EXPECT_EQ(seen("c"), "46: v4/80 v4/90 v6/80 v6/90");
  EXPECT_EQ(seen("one"), "46: v4/80 v6/80");
}

// The port that never opens does not keep the family that nobody serves.
TEST_F(TwoPortsTest, OneOnOneFamilyAndTheOtherNotAtAll) {
  w_.listens("s", 80, {true, false});
  EXPECT_EQ(seen("c"), "4: v4/90") << "over IPv6 there is nothing to wait for";
  EXPECT_EQ(seen("one"), "4:");
  w_.listens("s", 90, {false, true});
  EXPECT_EQ(seen("c"), "46:") << "it came after all; each port where it listens";
  EXPECT_EQ(seen("one"), "4:") << "and is not one's own affair";
}

TEST_F(TwoPortsTest, APortThatIsNotGrantedDoesNotCount) {
  w_.listens("s", 90, {false, true});
  EXPECT_EQ(seen("c"), "6: v6/80");
  EXPECT_EQ(seen("one"), "46: v4/80 v6/80") << "of its own port nothing is known yet";
}

TEST_F(TwoPortsTest, OneOnBothFamilies) {
  w_.listens("s", 80);
  EXPECT_EQ(seen("c"), "46: v4/90 v6/90");
  w_.listens("s", 90, {true, false});
  EXPECT_EQ(seen("c"), "46:") << "IPv6 of port 90 is refused, the name stays for port 80";
  w_.detach("s");
  EXPECT_EQ(seen("c"), "46: v4/80 v4/90 v6/80 v6/90") << "waiting for the next one";
}

TEST_F(TwoPortsTest, ReplicasTogether) {
  w_.listens("s", 80, {true, false});
  w_.apply("{id: s2, owner: ada, workflow: r, name: db, serves: [{port: 80}, {port: 90}]}");
  w_.attach("s2");
  EXPECT_EQ(seen("c"), "4: v4/90") << "the second is not there yet";
  w_.listens("s2", 80, {false, true});
  EXPECT_EQ(seen("c"), "46: v4/90 v6/90");
}

// The members see their own name without being granted anything.
TEST_F(TwoPortsTest, OnesOwnName) {
  EXPECT_EQ(seen("s"), "46:");
  w_.listens("s", 90, {false, true});
  EXPECT_EQ(seen("s"), "6:");
}

// UDP and ranges are ready at attach, on every family: they keep both.
TEST_F(TwoPortsTest, WhatIsReadyAtAttach) {
  w_.apply(
      "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80},"
      " {port: 53, protocol: UDP}]}");
  EXPECT_EQ(seen("c"), "46: v4/80 v6/80");
  w_.listens("s", 80, {true, false});
  EXPECT_EQ(seen("c"), "46:");
  EXPECT_EQ(seen("one"), "4:");
}

TEST_F(ViewTest, DeclaredAndNotAttachedSeesNothing) {
  w_.apply(kDb);
  Compiler compiler;
  EXPECT_TRUE(compiler.rebuild(w_.world).views.empty());
  EXPECT_EQ(compiler.update(w_.world, w_.attach("s")).views.size(), 1U);
  EXPECT_TRUE(compiler.update(w_.world, w_.touch("s")).views.empty()) << "unchanged is not sent";
}

}  // namespace
}  // namespace meshd::policy
