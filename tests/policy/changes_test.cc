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
  EXPECT_THAT(of(kPortPublished, open),
              ElementsAre("p tcp/80: node port 25000, from 198.51.100.0/24"));
  w_.apply(open);
  EXPECT_THAT(of(kPortPublished, open), IsEmpty());
  EXPECT_THAT(of(kPortWithdrawn, "{id: p, owner: ada, scope: CLUSTER}"), ElementsAre("p tcp/80"));
}

// A range that changes at its end is not closed and opened again.
TEST_F(ChangesTest, PortsThatDifferAndNoOthers) {
  const auto serving = [](std::string_view ports) {
    return fmt::format("{{id: s, owner: ada, workflow: r, name: db, serves: [{}]}}", ports);
  };
  w_.apply(serving("{port: 80, end_port: 90}") + "," + kUser);
  const auto wider = serving("{port: 80, end_port: 95}");
  EXPECT_THAT(of(kFlowAdded, wider), ElementsAre("c -> s tcp/91-95"));
  EXPECT_THAT(of(kFlowRemoved, wider), IsEmpty());
  const auto holed = serving("{port: 80, end_port: 84}, {port: 86, end_port: 90}");
  EXPECT_THAT(of(kFlowRemoved, holed), ElementsAre("c -> s tcp/85"));
  EXPECT_THAT(of(kFlowAdded, holed), IsEmpty());
  const auto split = serving("{port: 80, end_port: 84}, {port: 85, end_port: 90}");
  EXPECT_THAT(of(kWorkloadChanged, split), ElementsAre("s"));
  EXPECT_THAT(of(kFlowRemoved, split), IsEmpty()) << "written otherwise, and the same";
  EXPECT_THAT(of(kFlowAdded, split), IsEmpty());
  const auto other = serving("{port: 80, end_port: 90, protocol: UDP}");
  EXPECT_THAT(of(kFlowAdded, other), ElementsAre("c -> s udp/80-90"));
  EXPECT_THAT(of(kFlowRemoved, other), ElementsAre("c -> s tcp/80-90"));
}

std::string going_to(std::string_view egress) {
  return fmt::format("{{id: e, owner: ada, scope: CLUSTER, egress: [{}]}}", egress);
}

TEST_F(ChangesTest, EgressOpensAndCloses) {
  const auto web = going_to("{cidr: 10.0.0.0/8, ports: [{port: 443}, {port: 53, protocol: UDP}]}");
  EXPECT_THAT(of(kFlowAdded, web),
              ElementsAre("e -> 10.0.0.0/8 tcp/443", "e -> 10.0.0.0/8 udp/53"));
  w_.apply(web);
  EXPECT_THAT(of(kFlowAdded, web), IsEmpty());
  EXPECT_THAT(of(kFlowRemoved, going_to("")),
              ElementsAre("e -> 10.0.0.0/8 tcp/443", "e -> 10.0.0.0/8 udp/53"));
  const auto all = going_to("{cidr: 0.0.0.0/0}, {cidr: \"::/0\", ports: [{port: 443}]}");
  EXPECT_THAT(of(kFlowAdded, all),
              ElementsAre("e -> 0.0.0.0/0 all TCP, UDP and ping: was open to 10.0.0.0/8",
                          "e -> ::/0 tcp/443"));
  EXPECT_THAT(of(kFlowRemoved, all), IsEmpty()) << "the wider one covers it";
  w_.apply(all);
  EXPECT_THAT(of(kFlowRemoved, web),
              ElementsAre("e -> 0.0.0.0/0 all TCP, UDP and ping: stays open to 10.0.0.0/8",
                          "e -> ::/0 tcp/443"));
  EXPECT_THAT(of(kFlowAdded, web), IsEmpty());
  const auto without_web = going_to(
      "{cidr: 0.0.0.0/0, ports: [{port: 1, end_port: 442}, {port: 444, end_port: 65535},"
      " {port: 1, end_port: 65535, protocol: UDP}]}, {cidr: \"::/0\", ports: [{port: 443}]}");
  EXPECT_THAT(of(kFlowRemoved, without_web),
              ElementsAre("e -> 0.0.0.0/0 ping", "e -> 0.0.0.0/0 tcp/443"));
}

TEST_F(ChangesTest, EgressWrittenOtherwiseIsTheSame) {
  w_.apply(going_to("{cidr: 10.0.0.0/8}"));
  const auto again = going_to("{cidr: 10.0.0.0/8}, {cidr: 10.1.0.0/16, ports: [{port: 22}]}");
  EXPECT_THAT(of(kWorkloadChanged, again), ElementsAre("e"));
  EXPECT_THAT(of(kFlowAdded, again), IsEmpty());
  EXPECT_THAT(of(kFlowRemoved, again), IsEmpty());
}

TEST_F(ChangesTest, NarrowedEgressSaysWhatIsLeft) {
  w_.apply(going_to("{cidr: 10.0.0.0/8, ports: [{port: 443}]}"));
  const auto narrow = going_to(
      "{cidr: 10.1.0.0/16, ports: [{port: 443}]}, {cidr: 10.2.0.0/16, ports: [{port: 80}]}");
  EXPECT_THAT(of(kFlowRemoved, narrow),
              ElementsAre("e -> 10.0.0.0/8 tcp/443: stays open to 10.1.0.0/16"));
  EXPECT_THAT(of(kFlowAdded, narrow), ElementsAre("e -> 10.2.0.0/16 tcp/80"));
}

std::string publishing(std::string_view fields) {
  return fmt::format("{{id: p, owner: ada, scope: CLUSTER, publish: [{{port: 80{}}}]}}", fields);
}

TEST_F(ChangesTest, PublicationThatAdmitsOthers) {
  w_.apply(publishing(", node_port: 25000, allow_from: [10.0.0.0/8, 192.0.2.0/24]"));
  const auto wider =
      publishing(", node_port: 25000, allow_from: [10.0.0.0/8, 192.0.2.0/24, \"::/0\"]");
  EXPECT_THAT(of(kPortPublished, wider), ElementsAre("p tcp/80: also from ::/0"));
  EXPECT_THAT(of(kPortWithdrawn, wider), IsEmpty());
  const auto narrower = publishing(", node_port: 25000, allow_from: [10.1.0.0/16, 192.0.2.0/24]");
  EXPECT_THAT(of(kPortWithdrawn, narrower),
              ElementsAre("p tcp/80: no longer from 10.0.0.0/8, still from 10.1.0.0/16"));
  EXPECT_THAT(of(kPortPublished, narrower), IsEmpty());
  const auto defaults = publishing(", node_port: 25000");
  EXPECT_THAT(of(kPortPublished, defaults), ElementsAre("p tcp/80: also from 198.51.100.0/24"));
  EXPECT_THAT(of(kPortWithdrawn, defaults),
              ElementsAre("p tcp/80: no longer from 10.0.0.0/8, 192.0.2.0/24"));
  const auto moved = publishing(", node_port: 25001, allow_from: [10.0.0.0/8, 192.0.2.0/24]");
  EXPECT_THAT(of(kPortPublished, moved), ElementsAre("p tcp/80: node port 25001, was 25000"));
  const auto labelled =
      publishing(", node_port: 25000, allow_from: [10.0.0.0/8, 192.0.2.0/24], label: L");
  EXPECT_THAT(of(kWorkloadChanged, labelled), ElementsAre("p"));
  EXPECT_THAT(of(kPortPublished, labelled), IsEmpty());
}

TEST_F(ChangesTest, PublicationForTheProxies) {
  const auto http = publishing(", node_port: 25000, http: true");
  EXPECT_THAT(of(kPortPublished, http),
              ElementsAre("p tcp/80: node port 25000, from the proxies, access OWNER"));
  w_.apply(http);
  const auto shared = publishing(", node_port: 25000, http: true, access: PUBLIC");
  EXPECT_THAT(of(kPortPublished, shared), ElementsAre("p tcp/80: access PUBLIC, was OWNER"));
  const auto raw = publishing(", node_port: 25000");
  EXPECT_THAT(of(kPortPublished, raw), ElementsAre("p tcp/80: now raw, from 198.51.100.0/24"));
  EXPECT_THAT(of(kPortWithdrawn, raw), ElementsAre("p tcp/80: no longer from the proxies"));
  w_.apply(shared);
  EXPECT_THAT(of(kPortWithdrawn, http), ElementsAre("p tcp/80: access OWNER, was PUBLIC"));
  w_.world.settings.proxies.clear();
  w_.apply(raw);
  EXPECT_THAT(of(kPortPublished, http),
              ElementsAre("p tcp/80: now http, from nobody, since publish.proxies is empty"));
}

TEST_F(ChangesTest, LongListsAreCut) {
  EXPECT_THAT(of(kPortPublished, publishing(", node_port: 25000, allow_from: [10.0.0.1, 10.0.0.3,"
                                            " 10.0.0.5, 10.0.0.7, 10.0.0.9, 10.0.0.11]")),
              ElementsAre("p tcp/80: node port 25000, from 10.0.0.1/32, 10.0.0.3/32, "
                          "10.0.0.5/32, 10.0.0.7/32 and 2 more"));
}

TEST_F(ChangesTest, PlanChangesNothing) {
  const auto services = w_.world.services.size(), workloads = w_.world.workloads.size();
  EXPECT_THAT(of(kWorkloadAdded, kDb), ElementsAre("s"));
  EXPECT_EQ(w_.world.services.size(), services);
  EXPECT_EQ(w_.world.workloads.size(), workloads);
}

}  // namespace
}  // namespace meshd::policy
