// What of the cluster may be opened from outside, as it comes to the proxy's directory.
#include "controller/openings.h"

#include <gmock/gmock.h>

#include "controller/controller_types.h"
#include "controller/opened.h"
#include "controller/outside.h"
#include "tests/controller/cluster_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using State = proxy::Opening::State;

class OpeningsTest : public testing::Test {
 protected:
  void SetUp() override {
    ok(bed_.join("n1"));
    ok(bed_.join("n2"));
  }
  static void ok(const Status& status) { ASSERT_TRUE(status) << status.error().what; }

  // As the controller does after each fold.
  void update(std::size_t written_before) {
    Touched touched;
    Cluster again;
    for (std::size_t i = 0; i < bed_.written.size(); ++i) {
      Touched before;
      ASSERT_TRUE(again.fold(bed_.written[i], bed_.now, i < written_before ? before : touched));
    }
    openings_.update(bed_.cluster, touched, bed_.stale, bed_.now.steady);
  }
  template <class Change>
  void after(Change change) {
    const auto before = bed_.written.size();
    change();
    update(before);
  }
  void declare(const std::string& workloads) {
    after([&] { ok(bed_.apply(workloads)); });
  }
  void forget(const std::string& id) {
    after([&] {
      ok(bed_.fold(
          controller::forget(bed_.cluster, {Author::Role::kAdmin, "a"}, id, true, bed_.now)));
    });
  }
  struct Reported {
    bool ready = true, http = true;
    std::uint32_t node_port = 20000;
    std::string address = {};  // empty: the node's
    bool draining = false;
  };
  // It runs there, and the node has its port 8888 in force.
  void install(const std::string& node, const std::string& id) { install(node, id, Reported()); }
  void install(const std::string& node, const std::string& id, const Reported& how,
               std::uint32_t port = 8888) {
    after([&] {
      ok(bed_.fold(start(bed_.cluster, node, id)));
      auto endpoint = bed_.endpoint(node, id, how.ready);
      endpoint.set_draining(how.draining);
      auto& published = *endpoint.add_published();
      published.set_port(port);
      published.set_http(how.http);
      published.set_node_port(how.node_port);
      published.set_ready(how.ready);
      published.add_node_addresses("203.0.113.9");  // of no interest to anybody
      published.add_node_addresses(how.address.empty() ? underlay(node) : how.address);
      ASSERT_THAT(bed_.report(node, {endpoint}).refused, IsEmpty());
    });
  }
  void settle() {
    after([&] { bed_.fold(settle_outside(bed_.cluster, OutsideUse::kWeb, range_, bed_.now)); });
  }
  std::string underlay(const std::string& node) {
    return bed_.cluster.nodes().at(node).underlay[0].to_string();
  }
  proxy::Opening opening(const std::string& id) {
    const auto directory = openings_.directory();
    const auto* found = directory->by_id(id);
    EXPECT_NE(found, nullptr) << id;
    return found == nullptr ? proxy::Opening() : *found;
  }
  proxy::OpenPort port(const std::string& id, std::uint16_t number = 8888) {
    const auto all = opening(id);
    const auto* found = all.open_port(number);
    EXPECT_NE(found, nullptr) << id << " " << number;
    return found == nullptr ? proxy::OpenPort() : *found;
  }
  std::vector<std::string> served(const std::string& name) {
    std::vector<std::string> ids;
    const auto directory = openings_.directory();
    for (const auto& one : directory->of_service(name)) {
      if (one->state != State::kEnded) ids.push_back(one->id);
    }
    return ids;
  }
  std::string behind(std::uint16_t outside) {
    const auto directory = openings_.directory();
    const auto* target = directory->by_port(outside);
    return target == nullptr ? "nobody" : target_text(*target);
  }

  static constexpr const char* kLab =
      "{id: lab-1, owner: ada, name: lab, scope: CLUSTER, publish: [{port: 8888, http: true, "
      "label: Notebook, path: /lab, access: CAN_READ, allow_from: [198.51.100.0/24]}]}";

  ClusterBed bed_;
  Openings openings_;
  policy::PortSpan range_{8400, 8402};
};

TEST_F(OpeningsTest, WhatIsDeclaredWaits) {
  declare(kLab);
  const auto lab = opening("lab-1");
  EXPECT_EQ(lab.state, State::kWaiting);
  EXPECT_EQ(lab.owner, "ada");
  EXPECT_EQ(lab.service, "lab");
  EXPECT_THAT(lab.request, IsEmpty());
  const auto open = port("lab-1");
  EXPECT_TRUE(open.http);
  EXPECT_FALSE(open.ready);
  EXPECT_THAT(open.addresses, IsEmpty());
  EXPECT_EQ(open.access, policy::Access::kCanRead);
  EXPECT_EQ(open.label, "Notebook");
  EXPECT_EQ(open.path, "/lab");
  ASSERT_TRUE(open.allow_from);
  EXPECT_THAT(*open.allow_from, ElementsAre(Prefix::parse("198.51.100.0/24").value()));
}

TEST_F(OpeningsTest, WhatItsNodeHasInForceIsReachedAtTheNode) {
  declare(kLab);
  install("n1", "lab-1");
  EXPECT_EQ(opening("lab-1").state, State::kReady);
  const auto open = port("lab-1");
  EXPECT_TRUE(open.ready);
  EXPECT_EQ(open.upstream_port, 20000);
  EXPECT_THAT(open.addresses, ElementsAre(IpAddress::parse(underlay("n1")).value()))
      << "no other address that a node names";
}

TEST_F(OpeningsTest, BesideTheProxyItIsReachedAtItsOwnAddress) {
  openings_ = Openings("n1");
  declare(kLab);
  declare(
      "{id: far-1, owner: ada, name: far, scope: CLUSTER, publish: [{port: 8888, http: true}]}");
  install("n2", "far-1");
  EXPECT_EQ(port("far-1").upstream_port, 20000);
  EXPECT_THAT(port("far-1").addresses, ElementsAre(IpAddress::parse(underlay("n2")).value()));
  after([&] { ok(bed_.fold(start(bed_.cluster, "n1", "lab-1"))); });
  EXPECT_THAT(port("lab-1").addresses, IsEmpty()) << "not before it is in force";
  install("n1", "lab-1");
  const auto open = port("lab-1");
  EXPECT_TRUE(open.ready);
  EXPECT_EQ(open.upstream_port, 8888);
  const auto& own = bed_.cluster.world().workloads.at("lab-1").remote;
  ASSERT_TRUE(own && own->v4);
  EXPECT_EQ(open.addresses.front(), *own->v4);
  EXPECT_NE(open.addresses.front(), IpAddress::parse(underlay("n1")).value());
}

TEST_F(OpeningsTest, ANodeSendsNobodyElsewhere) {
  declare(kLab);
  install("n1", "lab-1", {.address = underlay("n2")});
  EXPECT_THAT(port("lab-1").addresses, IsEmpty());
  EXPECT_FALSE(port("lab-1").ready);
  install("n1", "lab-1", {.node_port = 0});
  EXPECT_THAT(port("lab-1").addresses, IsEmpty());
  install("n1", "lab-1", {.node_port = 70'000});
  EXPECT_THAT(port("lab-1").addresses, IsEmpty());
  install("n1", "lab-1", {.http = false});
  EXPECT_THAT(port("lab-1").addresses, IsEmpty()) << "the node's old word about a raw one";
}

TEST_F(OpeningsTest, ItsStateFollows) {
  declare(kLab);
  install("n1", "lab-1", {.ready = false});
  EXPECT_EQ(opening("lab-1").state, State::kAttached);
  EXPECT_FALSE(port("lab-1").ready);
  install("n1", "lab-1");
  EXPECT_EQ(opening("lab-1").state, State::kReady);
  install("n1", "lab-1", {.draining = true});
  EXPECT_EQ(opening("lab-1").state, State::kDraining);
  after([&] { bed_.report("n1", {}, {"lab-1"}); });
  EXPECT_EQ(opening("lab-1").state, State::kWaiting) << "declared still: it may come again";
  EXPECT_THAT(port("lab-1").addresses, IsEmpty());
}

TEST_F(OpeningsTest, ANameFollowsTheContainerThatHasIt) {
  declare(kLab);
  install("n1", "lab-1");
  forget("lab-1");
  EXPECT_EQ(opening("lab-1").state, State::kEnded);
  EXPECT_THAT(served("lab"), IsEmpty());
  declare(
      "{id: lab-2, owner: ada, name: lab, scope: CLUSTER, publish: [{port: 8888, http: true}]}");
  install("n2", "lab-2");
  EXPECT_THAT(served("lab"), ElementsAre("lab-2"));
  EXPECT_THAT(port("lab-2").addresses, ElementsAre(IpAddress::parse(underlay("n2")).value()));
  declare("{id: lab-2, owner: ada, publish: [{port: 8888, http: true}]}");
  EXPECT_THAT(served("lab"), IsEmpty()) << "given up by its declaration";
}

TEST_F(OpeningsTest, WhoHasEndedIsForgottenInTheEnd) {
  declare(kLab);
  forget("lab-1");
  bed_.pass(proxy::kRemembered);
  openings_.forget_ended(bed_.now.steady);
  EXPECT_EQ(openings_.directory()->by_id("lab-1"), nullptr);
}

TEST_F(OpeningsTest, AWorkflowsNameIsNobodysFromOutside) {
  declare("{id: db-1, owner: ada, workflow: r1, name: db, publish: [{port: 8888, http: true}]}");
  EXPECT_THAT(opening("db-1").service, IsEmpty());
}

TEST_F(OpeningsTest, PortsStandAsDeclaredThenOnDemand) {
  declare(
      "{id: a, owner: ada, publish: [{port: 9000, http: true}, {port: 53, protocol: UDP}, "
      "{port: 8888, http: true}, {port: 22}]}");
  install("n1", "a");
  after([&] { ok(bed_.fold(open_port(bed_.cluster, "a", 6006, "ada", bed_.now))); });
  std::vector<std::string> ports;
  for (const auto& open : opening("a").ports) {
    ports.push_back(
        fmt::format("{}{}{}", open.port, open.http ? " http" : "", open.ready ? " ready" : ""));
  }
  EXPECT_THAT(ports, ElementsAre("9000 http", "8888 http ready", "22", "6006 http"));
  EXPECT_EQ(port("a", 6006).access, policy::Access::kOwner);
  auto endpoint = bed_.cluster.placement("a")->reported;
  endpoint.mutable_published(0)->set_port(6006);
  after([&] { bed_.report("n1", {endpoint}); });
  EXPECT_TRUE(port("a", 6006).ready);
  for (std::uint16_t more = 1; more < kMaxOpenedPorts; ++more) {
    EXPECT_FALSE(opening("a").full);
    after([&] {
      ok(bed_.fold(open_port(bed_.cluster, "a", static_cast<std::uint16_t>(10'000 + more), "ada",
                             bed_.now)));
    });
  }
  EXPECT_TRUE(opening("a").full);
  bed_.pass(kOpenIdle + use_stored(kOpenIdle));
  after([&] { bed_.fold(shut_idle(bed_.cluster, kOpenIdle, bed_.now)); });
  EXPECT_EQ(opening("a").open_port(6006), nullptr);
  EXPECT_FALSE(opening("a").full);
}

TEST_F(OpeningsTest, OfANodeThatIsNotHeardOfItIsSaid) {
  declare(kLab);
  install("n1", "lab-1");
  EXPECT_FALSE(opening("lab-1").stale);
  bed_.stale = {"n1"};
  Touched touched;
  touched.workloads = {"lab-1"};
  openings_.update(bed_.cluster, touched, bed_.stale, bed_.now.steady);
  EXPECT_TRUE(opening("lab-1").stale);
  EXPECT_TRUE(port("lab-1").ready) << "it goes on alone";
}

TEST_F(OpeningsTest, ANodesNewAddressIsTaken) {
  declare(kLab);
  install("n1", "lab-1");
  after([&] {
    ok(bed_.fold(
        admit(bed_.cluster, "n1", "boot-1", {IpAddress::parse("203.0.113.9").value()}, bed_.now)));
  });
  EXPECT_THAT(port("lab-1").addresses, ElementsAre(IpAddress::parse("203.0.113.9").value()));
}

TEST_F(OpeningsTest, WhatConcernsNobodyChangesNothing) {
  declare(kLab);
  install("n1", "lab-1");
  const auto before = openings_.changes();
  after([&] {
    auto same = bed_.cluster.placement("lab-1")->reported;
    auto& listens = *same.add_ready_ports();
    listens.set_port(5432);
    listens.set_v4(true);
    bed_.report("n1", {same});
  });
  EXPECT_EQ(openings_.changes(), before);
}

// --- sites without wildcard names --------------------------------------------------------

TEST_F(OpeningsTest, EachHttpPublicationHasAPortOfItsOwn) {
  declare(std::string(kLab) +
          ",{id: a, owner: ada, publish: [{port: 80, http: true}, {port: 22}]}");
  settle();
  EXPECT_EQ(behind(8400), "workload a port 80");
  EXPECT_EQ(behind(8401), "service lab port 8888");
  EXPECT_EQ(behind(8402), "nobody");
  EXPECT_THAT(bed_.cluster.outside(OutsideUse::kGateway).given, IsEmpty());
}

TEST_F(OpeningsTest, AServicesPortStaysWhileItsNameIsHeld) {
  declare(std::string(kLab) + ",{id: a, owner: ada, publish: [{port: 80, http: true}]}");
  settle();
  forget("lab-1");
  settle();
  EXPECT_EQ(behind(8401), "service lab port 8888");
  forget("a");
  settle();
  EXPECT_EQ(behind(8400), "nobody") << "it rests";
  declare("{id: a, owner: ada, publish: [{port: 80, http: true}]}");
  settle();
  EXPECT_EQ(behind(8400), "workload a port 80");
}

TEST_F(OpeningsTest, GatewaysAndTheProxyHaveTheSameNumbersApart) {
  declare("{id: a, owner: ada, publish: [{port: 80, http: true}, {port: 22}]}");
  settle();
  after([&] { bed_.fold(settle_outside(bed_.cluster, OutsideUse::kGateway, range_, bed_.now)); });
  settle();
  EXPECT_EQ(behind(8400), "workload a port 80");
  EXPECT_THAT(bed_.cluster.outside(OutsideUse::kGateway).given, SizeIs(1));
  EXPECT_EQ(bed_.cluster.outside(OutsideUse::kGateway).given.begin()->second.holder.port, 22);
}

// --- what people are told ----------------------------------------------------------------

TEST_F(OpeningsTest, UrlsAreByNameByContainerAndByPort) {
  declare(
      "{id: lab-1, owner: ada, name: lab, scope: CLUSTER, publish: [{port: 22}, {port: 8888, http: "
      "true, path: /lab}, {port: 80, http: true}]},"
      "{id: a, owner: ada, workflow: r1, name: a, publish: [{port: 80, http: true}]}");
  settle();
  const auto urls = [&](const proxy::Site& site, const std::string& id, std::uint16_t number) {
    return web_urls(bed_.cluster, site, id, number);
  };
  const proxy::Site names{"example.org", 443, "", 0, 0};
  EXPECT_THAT(urls(names, "lab-1", 8888), ElementsAre("https://lab.svc.example.org/lab",
                                                      "https://lab-1--8888.example.org/lab"));
  EXPECT_THAT(urls(names, "lab-1", 80),
              ElementsAre("https://lab--80.svc.example.org/", "https://lab-1--80.example.org/"));
  EXPECT_THAT(urls(names, "a", 80), ElementsAre("https://a--80.example.org/"));
  EXPECT_THAT(urls(names, "lab-1", 22), IsEmpty());
  EXPECT_THAT(urls(names, "lab-1", 81), IsEmpty());
  EXPECT_THAT(urls(names, "nobody", 80), IsEmpty());
  const proxy::Site ports{"", 443, "mesh.example.org", 8400, 8402};
  EXPECT_THAT(urls(ports, "lab-1", 8888), ElementsAre("https://mesh.example.org:8402/lab"));
  EXPECT_THAT(urls(ports, "a", 80), ElementsAre("https://mesh.example.org:8400/"));
  const proxy::Site both{"example.org", 8443, "mesh.example.org", 8400, 8402};
  EXPECT_THAT(urls(both, "a", 80),
              ElementsAre("https://a--80.example.org:8443/", "https://mesh.example.org:8400/"));
}

}  // namespace
}  // namespace meshd::controller
