// What the events of refusals name: whose address it was, and the declaration that lacks.
#include "meshd/refusal_text.h"

#include <gtest/gtest.h>

#include "tests/support/policy_world.h"

namespace meshd {
namespace {

using policy::PolicyWorld;

class RefusalTextTest : public testing::Test {
 protected:
  [[nodiscard]] std::string missing(std::string_view name) const {
    return missing_for_name(bed_.world, "worker", name);
  }
  PolicyWorld bed_;
};

TEST_F(RefusalTextTest, AddressIsAWorkloadsOrAServices) {
  bed_.apply(
      "{id: db-1, owner: ada, workflow: wf1, name: db, serves: [{port: 80}]}, "
      "{id: m, owner: ada, name: ollama, scope: CLUSTER, serves: [{port: 80}]}");
  bed_.attach("db-1");
  const auto& services = bed_.world.services;
  const auto vip = *services.at({policy::Scope::kWorkflow, "wf1", "db"}).vip4;
  const auto vip6 = *services.at({policy::Scope::kCluster, {}, "ollama"}).vip6;
  EXPECT_EQ(who_is(bed_.world, *bed_.workload("db-1").attachment->v6), "db-1");
  EXPECT_EQ(who_is(bed_.world, vip), "db.wf1.wf.mesh.internal");
  EXPECT_EQ(who_is(bed_.world, vip6), "ollama.svc.mesh.internal");
  EXPECT_EQ(who_is(bed_.world, IpAddress::parse("192.0.2.77").value()), "");
}

TEST_F(RefusalTextTest, NameThatIsNoPeerLacksThePeer) {
  bed_.apply(
      "{id: worker, owner: ada, workflow: wf1}, "
      "{id: db-1, owner: ada, workflow: wf1, name: db, serves: [{port: 80}]}, "
      "{id: m, owner: ada, name: ollama, scope: CLUSTER, serves: [{port: 80}]}");
  EXPECT_EQ(missing("db"), "in worker: peers: [{name: db}]");
  EXPECT_EQ(missing("db.wf1.wf.mesh.internal"), "in worker: peers: [{name: db}]");
  EXPECT_EQ(missing("db-1.id.mesh.internal"), "in worker: peers: [{name: db}]");
  EXPECT_EQ(missing("ollama"), "in worker: peers: [{name: ollama, scope: CLUSTER}]");
}

TEST_F(RefusalTextTest, PeerThatDoesNotAdmitLacksThat) {
  bed_.apply(
      "{id: worker, owner: ada, workflow: wf1, peers: [{name: ollama, scope: CLUSTER}]}, "
      "{id: m, owner: bob, name: ollama, scope: CLUSTER, serves: [{port: 80}]}");
  EXPECT_EQ(missing("ollama.svc.mesh.internal"), "in m: admit_owners: [ada]");
}

TEST_F(RefusalTextTest, NameThatNobodyDeclares) {
  bed_.apply("{id: worker, owner: ada, workflow: wf1, peers: [{name: cache}]}");
  EXPECT_EQ(missing("cache"), "a workload with name: cache");
  EXPECT_EQ(missing("db"), "in worker: peers: [{name: db}]");
  EXPECT_EQ(missing("x.svc.mesh.internal"), "in worker: peers: [{name: x, scope: CLUSTER}]");
  EXPECT_EQ(missing("x-1.id.mesh.internal"), "in worker: peers: [{id: x-1}]");
  EXPECT_EQ(missing("db.wf2.wf.mesh.internal"), "") << "another workflow's is no peer of anybody's";
  EXPECT_EQ(missing("www.example.org"), "");
  EXPECT_EQ(missing("a.b.c.mesh.internal"), "");
  EXPECT_EQ(missing_for_name(bed_.world, "nobody", "db"), "");
}

}  // namespace
}  // namespace meshd
