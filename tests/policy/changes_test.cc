// What `plan` and `apply` tell people about to change things.
#include "policy/changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using enum Change::Kind;

class ChangesTest : public testing::Test {
 protected:
  // Subjects of one kind, with their details.
  std::vector<std::string> of(Change::Kind kind, const std::string& workloads) const {
    const auto outcome = w_.plan(workloads);
    if (!outcome) return {"refused: " + outcome.error().what};
    const auto changes = describe(w_.world, *outcome);
    EXPECT_TRUE(std::ranges::is_sorted(changes));
    std::vector<std::string> lines;
    for (const auto& change : changes) {
      if (change.kind != kind) continue;
      lines.push_back(change.detail.empty() ? change.subject
                                            : change.subject + ": " + change.detail);
    }
    return lines;
  }
  PolicyWorld w_;
};

const std::string kDb = "{id: s, owner: ada, workflow: r, name: db, serves: [{port: 80}]}";
const std::string kUser = "{id: c, owner: ada, workflow: r, peers: [{name: db}]}";

TEST_F(ChangesTest, BothSidesInOneApply) {
  const auto both = kDb + "," + kUser;
  EXPECT_THAT(of(kWorkloadAdded, both), ElementsAre("c", "s"));
  EXPECT_THAT(of(kFlowAdded, both), ElementsAre("c -> s tcp/80"));
  EXPECT_THAT(of(kNameAdded, both), ElementsAre("db.r.wf.mesh.internal"));
  EXPECT_THAT(of(kPeerUndeclared, both), IsEmpty());
  w_.apply(both);
  EXPECT_THAT(of(kWorkloadUnchanged, both), ElementsAre("c", "s"));
  EXPECT_THAT(of(kWorkloadChanged, both), IsEmpty());
  EXPECT_THAT(of(kFlowAdded, both), IsEmpty());
}

TEST_F(ChangesTest, EachSideAlone) {
  EXPECT_THAT(of(kPeerUndeclared, kUser), ElementsAre("c: db of workflow r"));
  w_.apply(kUser);
  EXPECT_THAT(of(kFlowAdded, kDb), ElementsAre("c -> s tcp/80")) << "the consumer was there";
  w_.apply(kDb);
  const std::string mute = "{id: s, owner: ada, workflow: r, name: db}";
  EXPECT_THAT(of(kFlowRemoved, mute), ElementsAre("c -> s tcp/80"));
  EXPECT_THAT(of(kWorkloadChanged, mute), ElementsAre("s"));
  const std::string renamed = "{id: s, owner: ada, workflow: r, name: api, serves: [{port: 80}]}";
  EXPECT_THAT(of(kNameRemoved, renamed), ElementsAre("db.r.wf.mesh.internal"));
  EXPECT_THAT(of(kNameAdded, renamed), ElementsAre("api.r.wf.mesh.internal"));
  EXPECT_THAT(of(kFlowRemoved, renamed), ElementsAre("c -> s tcp/80"));
}

TEST_F(ChangesTest, PublishedPorts) {
  const std::string open =
      "{id: p, owner: ada, scope: CLUSTER, publish: [{port: 80, node_port: "
      "25000}]}";
  EXPECT_THAT(of(kPortPublished, open), ElementsAre("p tcp/80: node port 25000"));
  w_.apply(open);
  EXPECT_THAT(of(kPortWithdrawn, "{id: p, owner: ada, scope: CLUSTER}"), ElementsAre("p tcp/80"));
}

TEST_F(ChangesTest, PlanChangesNothing) {
  const auto services = w_.world.services.size(), workloads = w_.world.workloads.size();
  EXPECT_THAT(of(kWorkloadAdded, kDb), ElementsAre("s"));
  EXPECT_EQ(w_.world.services.size(), services);
  EXPECT_EQ(w_.world.workloads.size(), workloads);
}

}  // namespace
}  // namespace meshd::policy
