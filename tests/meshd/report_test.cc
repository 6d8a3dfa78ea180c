// The world as the local API shows it.
#include "meshd/report.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "policy/profile.h"
#include "policy/ruleset.h"
#include "tests/support/policy_world.h"

namespace meshd {
namespace {

namespace pb = mesh::v1;
using policy::ElementBuilder;
using policy::PolicyWorld;
using policy::SetId;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ReportTest : public testing::Test {
 protected:
  void declare(const std::string& workloads) { bed_.apply(workloads); }
  // "worker -> db tcp/80-95 3/300"
  static std::vector<std::string> texts(const pb::FlowList& list) {
    std::vector<std::string> lines;
    for (const auto& flow : list.flows()) {
      auto line = fmt::format("{} -> {} {}/{}", flow.src(), flow.dst(),
                              flow.protocol() == pb::Protocol::UDP ? "udp" : "tcp", flow.port());
      if (flow.end_port() != 0) line += fmt::format("-{}", flow.end_port());
      lines.push_back(line + fmt::format(" {}/{}", flow.packets(), flow.bytes()));
    }
    return lines;
  }
  [[nodiscard]] const policy::Attachment& at(const std::string& id) const {
    return *bed_.world.workloads.find(id)->second.attachment;
  }
  [[nodiscard]] pb::PublishedInfo published() const {
    const auto list = published_list(bed_.world);
    EXPECT_EQ(list.published_size(), 1);
    return list.published_size() == 1 ? list.published(0) : pb::PublishedInfo();
  }

  PolicyWorld bed_;
};

TEST_F(ReportTest, StateFollowsAttachmentReadinessAndDrain) {
  policy::Workload workload;
  EXPECT_EQ(state_of(workload), pb::WorkloadState::DECLARED);
  workload.attachment.emplace();
  EXPECT_EQ(state_of(workload), pb::WorkloadState::ATTACHED);
  workload.ready = true;
  EXPECT_EQ(state_of(workload), pb::WorkloadState::READY);
  workload.draining = true;
  EXPECT_EQ(state_of(workload), pb::WorkloadState::DRAINING);
}

TEST_F(ReportTest, ServicesAreThereWithoutEndpoints) {
  declare("{id: db-1, owner: ada, workflow: wf1, name: db, serves: [{port: 80}]}");
  declare("{id: db-2, owner: ada, workflow: wf1, name: db, serves: [{port: 80}]}");
  auto list = service_list(bed_.world);
  ASSERT_EQ(list.services_size(), 1);
  EXPECT_EQ(list.services(0).name(), "db");
  EXPECT_EQ(list.services(0).scope(), pb::Scope::WORKFLOW);
  EXPECT_EQ(list.services(0).workflow(), "wf1");
  EXPECT_EQ(list.services(0).owner(), "ada");
  EXPECT_EQ(list.services(0).vips_size(), 2);
  EXPECT_TRUE(list.services(0).endpoints().empty());
  bed_.attach("db-2");
  bed_.workload("db-2").ready = true;
  bed_.attach("db-1");
  list = service_list(bed_.world);
  ASSERT_EQ(list.services(0).endpoints_size(), 2);
  EXPECT_EQ(list.services(0).endpoints(0).id(), "db-1");
  EXPECT_FALSE(list.services(0).endpoints(0).ready());
  EXPECT_TRUE(list.services(0).endpoints(1).ready());
  EXPECT_THAT(list.services(0).endpoints(1).addresses(), ElementsAre("10.213.0.1", "fd00::1"));
  bed_.drain("db-2");
  EXPECT_FALSE(service_list(bed_.world).services(0).endpoints(1).ready());
}

TEST_F(ReportTest, EndpointsOfANodeThatIsMissedAreMarked) {
  declare("{id: db-1, owner: ada, workflow: wf1, name: db, serves: [{port: 80}]}");
  bed_.place("db-1", "n2", 2);
  EXPECT_FALSE(service_list(bed_.world).services(0).endpoints(0).stale());
  bed_.workload("db-1").remote->stale = true;
  EXPECT_TRUE(service_list(bed_.world).services(0).endpoints(0).stale());
}

TEST_F(ReportTest, FlowsSumWhatTheirElementsCounted) {
  declare(
      "{id: db, owner: ada, workflow: wf1, serves: [{port: 80, end_port: 100}, {port: 443}]}, "
      "{id: worker, owner: ada, workflow: wf1, peers: [{id: db}]}, "
      "{id: other, owner: ada, workflow: wf1, peers: [{id: db}]}");
  for (const auto* id : {"db", "worker", "other"}) bed_.attach(id);
  const auto count = [&](SetId set, const IpAddress& from, const IpAddress& to, std::uint16_t port,
                         std::uint64_t packets) {
    return ElementCount{
        ElementBuilder(set).addr(from).addr(to).proto(Proto::kTcp).port(port).build(), packets,
        packets * 100};
  };
  const auto &db = at("db"), &worker = at("worker");
  const std::vector<ElementCount> counts = {
      count(SetId::kAllow4Block, *worker.v4, *db.v4, 80, 3),  // the block 80-95
      count(SetId::kAllow4, *worker.v4, *db.v4, 96, 10),      // of the range's rest
      count(SetId::kAllow6, *worker.v6, *db.v6, 100, 100),
      count(SetId::kAllow4, *worker.v4, *db.v4, 443, 1000),
      count(SetId::kAllow4, *worker.v4, *db.v4, 101, 7),  // nobody's
  };
  EXPECT_THAT(texts(flow_list(bed_.world, counts)),
              ElementsAre("other -> db tcp/80-100 0/0", "other -> db tcp/443 0/0",
                          "worker -> db tcp/80-100 113/11300", "worker -> db tcp/443 1000/100000"));
}

TEST_F(ReportTest, FlowsAreThoseBetweenAttachedWorkloadsAndNeverToOneself) {
  declare(
      "{id: db-1, owner: ada, workflow: wf1, name: db, serves: [{port: 80}], "
      "peers: [{name: db}]}, "
      "{id: db-2, owner: ada, workflow: wf1, name: db, serves: [{port: 80}]}");
  bed_.attach("db-1");
  EXPECT_THAT(texts(flow_list(bed_.world, {})), IsEmpty());
  bed_.attach("db-2");
  EXPECT_THAT(texts(flow_list(bed_.world, {})), ElementsAre("db-1 -> db-2 tcp/80 0/0"));
}

TEST_F(ReportTest, EgressWithoutPortsIsARowForEachProtocol) {
  declare(
      "{id: a, owner: ada, workflow: wf1, egress: [{cidr: 0.0.0.0/0}, "
      "{cidr: 198.51.100.0/24, ports: [{port: 53, protocol: UDP}]}]}");
  EXPECT_THAT(texts(flow_list(bed_.world, {})), IsEmpty()) << "not attached";
  bed_.attach("a");
  EXPECT_THAT(texts(flow_list(bed_.world, {})),
              ElementsAre("a -> 0.0.0.0/0 tcp/0-65535 0/0", "a -> 0.0.0.0/0 udp/0-65535 0/0",
                          "a -> 198.51.100.0/24 udp/53 0/0"));
}

TEST_F(ReportTest, RowsOfTheOutsideShowWhatTheirElementsCounted) {
  const std::string egress =
      "egress: [{cidr: 0.0.0.0/0, ports: [{port: 443}]}, "
      "{cidr: 198.51.100.0/24, ports: [{port: 443}]}, {cidr: \"::/0\"}]";
  declare("{id: a, owner: ada, workflow: wf1, " + egress +
          "}, {id: b, owner: ada, workflow: wf1, publish: [{port: 80}, {port: 81, http: true}], " +
          egress + "}");
  for (const auto* id : {"a", "b"}) bed_.attach(id);
  const auto row = [](std::string_view text, std::uint8_t proto, std::uint16_t first,
                      std::uint16_t last) {
    return policy::row_number({Prefix::parse(text).value(), proto, first, last});
  };
  const auto &a = at("a"), &b = at("b");
  const std::vector<ElementCount> counts = {
      {policy::egress_count(*a.v4, row("0.0.0.0/0", 6, 443, 443)), 1, 100},
      {policy::egress_count(*a.v6, row("::/0", 17, 0, 65535)), 2, 200},
      {policy::egress_count(*a.v6, row("::/0", 58, 0, 65535)), 9, 900},  // ping
      {policy::egress_count(*b.v4, row("0.0.0.0/0", 6, 443, 443)), 3, 300},
      {policy::publication_count(*b.v4, Proto::kTcp, 80), 10, 1000},
      {policy::publication_count(*b.v6, Proto::kTcp, 80), 20, 2000},
      {policy::publication_count(*b.v4, Proto::kTcp, 81), 4, 400},
      {policy::publication_count(*a.v4, Proto::kTcp, 80), 7, 700},  // nobody's
  };
  EXPECT_THAT(texts(flow_list(bed_.world, counts)),
              ElementsAre("a -> 0.0.0.0/0 tcp/443 1/100", "a -> 198.51.100.0/24 tcp/443 0/0",
                          "a -> ::/0 tcp/0-65535 0/0", "a -> ::/0 udp/0-65535 2/200",
                          "b -> 0.0.0.0/0 tcp/443 3/300", "b -> 198.51.100.0/24 tcp/443 0/0",
                          "b -> ::/0 tcp/0-65535 0/0", "b -> ::/0 udp/0-65535 0/0",
                          "outside -> b tcp/80 30/3000", "proxies -> b tcp/81 4/400"));
}

TEST_F(ReportTest, PublishedPortsShowWhatTheDeclarationSays) {
  declare(
      "{id: web, owner: ada, workflow: wf1, publish: [{port: 8888, http: true, label: Notebook, "
      "path: /lab, access: CAN_READ}]}");
  auto info = published();
  EXPECT_TRUE(info.http());
  EXPECT_THAT(info.allow_from(), IsEmpty()) << "the proxies are the node's configuration";
  EXPECT_EQ(info.access(), pb::Access::CAN_READ);
  EXPECT_EQ(info.label(), "Notebook");
  EXPECT_EQ(info.path(), "/lab");
  EXPECT_EQ(info.node_port(), 20000U);
  EXPECT_THAT(info.node_addresses(), ElementsAre("192.0.2.1", "2001:db8::1"));
  declare(
      "{id: web, owner: ada, workflow: wf1, publish: [{port: 8888, http: true, "
      "allow_from: [203.0.113.0/24]}]}");
  EXPECT_THAT(published().allow_from(), ElementsAre("203.0.113.0/24"));
  declare("{id: web, owner: ada, workflow: wf1, publish: [{port: 8888}]}");
  EXPECT_THAT(published().allow_from(), ElementsAre("198.51.100.0/24"))
      << "the default of raw ones";
}

TEST_F(ReportTest, PublishedPortsAppearOnAddressesOfTheMeshsFamiliesOnly) {
  declare("{id: web, owner: ada, workflow: wf1, publish: [{port: 8888}]}");
  const auto all = bed_.world.settings;
  bed_.world.settings.pool6.reset();
  EXPECT_THAT(published().node_addresses(), ElementsAre("192.0.2.1"));
  bed_.world.settings = all;
  bed_.world.settings.pool4.reset();
  EXPECT_THAT(published().node_addresses(), ElementsAre("2001:db8::1"));
}

TEST_F(ReportTest, PublishedPortIsReadyWhileItListensAndIsNotDraining) {
  declare("{id: web, owner: ada, workflow: wf1, publish: [{port: 80}, {port: 81}]}");
  const auto ready = [&](int index) { return published_list(bed_.world).published(index).ready(); };
  EXPECT_FALSE(ready(0));
  bed_.attach("web");
  EXPECT_FALSE(ready(0));
  bed_.listens("web", 80);
  EXPECT_TRUE(ready(0));
  EXPECT_FALSE(ready(1));
  bed_.drain("web");
  EXPECT_FALSE(ready(0));
}

TEST_F(ReportTest, AttachmentIsToldWithWhatAContainerNeeds) {
  declare("{id: worker, owner: ada, workflow: wf1}");
  bed_.attach("worker");
  bed_.workload("worker").attachment->ifname = "eth0";
  bed_.workload("worker").attachment->netns_path = "/run/netns/worker";
  const auto reply = attach_reply(bed_.world, "worker", 1400);
  EXPECT_EQ(reply.id(), "worker");
  EXPECT_EQ(reply.netns(), "/run/netns/worker");
  EXPECT_EQ(reply.ifname(), "eth0");
  EXPECT_EQ(reply.host_ifname(), "m1");
  EXPECT_EQ(reply.mac(), "02:00:00:00:00:01");
  EXPECT_THAT(reply.addresses(), ElementsAre("10.213.0.1", "fd00::1"));
  EXPECT_THAT(reply.gateways(), ElementsAre("169.254.1.1", "fe80::1"));
  EXPECT_THAT(reply.resolvers(), ElementsAre("169.254.1.1", "fd02::1"));
  EXPECT_THAT(reply.search(), ElementsAre("wf1.wf.mesh.internal", "svc.mesh.internal"));
  EXPECT_EQ(reply.mtu(), 1400U);
}

TEST_F(ReportTest, FamilyThatIsOffIsNotTold) {
  declare("{id: worker, owner: ada}");
  bed_.attach("worker");
  bed_.workload("worker").attachment->v6.reset();
  const auto reply = attach_reply(bed_.world, "worker", 1500);
  EXPECT_THAT(reply.addresses(), ElementsAre("10.213.0.1"));
  EXPECT_THAT(reply.gateways(), ElementsAre("169.254.1.1"));
  EXPECT_THAT(reply.resolvers(), ElementsAre("169.254.1.1"));
  EXPECT_THAT(reply.search(), ElementsAre("svc.mesh.internal"));
}

TEST_F(ReportTest, WorkloadsShowDeclarationStateAndProblems) {
  declare("{id: db, owner: ada, workflow: wf1, serves: [{port: 80}]}");
  bed_.attach("db");
  const auto list = workload_list(bed_.world, {{"db", {"80/tcp listens on 127.0.0.1 only"}}});
  ASSERT_EQ(list.workloads_size(), 1);
  const auto& info = list.workloads(0);
  EXPECT_EQ(info.declaration().id(), "db");
  EXPECT_EQ(info.declaration().serves(0).port(), 80U);
  EXPECT_EQ(info.state(), pb::WorkloadState::ATTACHED);
  EXPECT_EQ(info.attachment().host_ifname(), "m1");
  EXPECT_THAT(info.problems(), ElementsAre("80/tcp listens on 127.0.0.1 only"));
}

TEST_F(ReportTest, LimitsAreWhatNoRuleSeesTo) {
  policy::World world;
  EXPECT_THAT(limits_of(world), IsEmpty());
  const auto put = [&world](const std::string& id, bool default_route) {
    auto& attachment = world.workloads[id].attachment.emplace();
    attachment.default_route = default_route;
  };
  put("own", true);
  put("a1", false);
  const std::string what = "what passes interfaces that engines have given is not controlled: ";
  EXPECT_THAT(limits_of(world), ElementsAre(what + "a1"));
  for (int i = 2; i <= 7; ++i) put(fmt::format("a{}", i), false);
  world.settings.in_cluster = true;
  EXPECT_THAT(limits_of(world),
              ElementsAre(what + "a1, a2, a3, a4, a5 and 2 more", HasSubstr("are not encrypted")));
}

TEST_F(ReportTest, AnUpstreamThatLeadsBackIsAProblemAndAnotherThatFailsIsNot) {
  pb::StatusReply reply;
  dns::UpstreamState good{{IpAddress::parse("192.0.2.53").value(), 53}, true, 1200, false};
  auto failing = good, own = good;
  failing.healthy = own.healthy = false;
  own.address.address = IpAddress::parse("192.0.2.54").value();
  own.leads_back = true;
  add_upstreams({good, failing}, reply);
  EXPECT_THAT(reply.problems(), IsEmpty());
  add_upstreams({own}, reply);
  ASSERT_EQ(reply.upstreams_size(), 3);
  EXPECT_EQ(reply.upstreams(0).rtt_us(), 1200U);
  EXPECT_FALSE(reply.upstreams(1).leads_back());
  EXPECT_TRUE(reply.upstreams(2).leads_back());
  ASSERT_EQ(reply.problems_size(), 1);
  EXPECT_EQ(reply.problems(0).subject(), "dns");
  EXPECT_EQ(reply.problems(0).detail(), "upstream " + own.address.to_string() +
                                            " leads back to this resolver: it is not asked");
}

TEST_F(ReportTest, ChangesKeepTheirKindAndWords) {
  using Kind = policy::Change::Kind;
  const auto message = change_message({Kind::kConnectionCut, "worker -> db tcp/80", "2 end"});
  EXPECT_EQ(message.kind(), pb::Change::Kind::CONNECTION_CUT);
  EXPECT_EQ(message.subject(), "worker -> db tcp/80");
  EXPECT_EQ(message.detail(), "2 end");
  EXPECT_EQ(change_message({Kind::kPeerUndeclared, {}, {}}).kind(),
            pb::Change::Kind::PEER_UNDECLARED);
}

}  // namespace
}  // namespace meshd
