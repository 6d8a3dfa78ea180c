// What is planned, against the oracle and against a plan made from nothing, while commands
// and events come in at random.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "policy/plan.h"
#include "tests/support/node_fixture.h"
#include "tests/support/oracle.h"

namespace meshd {
namespace {

using policy::SetId;
using std::chrono::milliseconds;
using std::chrono::seconds;

class NodePlanTest : public NodeFixture, public testing::WithParamInterface<unsigned> {
 protected:
  static constexpr unsigned kWorkloads = 7;
  static constexpr int kSteps = 150;

  unsigned draw(unsigned below) {
    return std::uniform_int_distribution<unsigned>(0, below - 1)(random_);
  }
  const char* pick(std::initializer_list<const char*> choices) {
    return choices.begin()[draw(static_cast<unsigned>(choices.size()))];
  }
  static std::string id(unsigned n) { return fmt::format("w{}", n); }

  // Small numbers of everything, so that workloads have much to do with each other.
  std::string declaration(unsigned n) {
    const bool cluster = draw(4) == 0;
    auto yaml = fmt::format("{{id: {}, owner: {}, workflow: {}", id(n), n < 5 ? "ada" : "bob",
                            n < 5 ? pick({"wf1", "wf1", "wf2"}) : "wf3");
    if (draw(3) != 0) {
      yaml += fmt::format(", name: {}, scope: {}, admit: {}", pick({"db", "api"}),
                          cluster ? "CLUSTER" : "WORKFLOW",
                          cluster ? pick({"OWNER", "CLUSTER"}) : pick({"WORKFLOW", "OWNER"}));
    }
    yaml += pick({", serves: [{port: 80}]", ", serves: [{port: 80}, {port: 53, protocol: UDP}]",
                  ", serves: [{port: 8000, end_port: 8033}, {port: 80, protocol: UDP}]", ""});
    yaml += pick({", peers: [{name: db}]", ", peers: [{name: db, ports: [{port: 80}]}, {id: w1}]",
                  ", peers: [{name: api, scope: CLUSTER}, {name: db}]",
                  ", peers: [{id: w2, ports: [{port: 8015, end_port: 8020}]}, {name: api}]", ""});
    if (yaml.find(fmt::format("{{id: {}}}", id(n))) != std::string::npos ||
        yaml.find(fmt::format("{{id: {},", id(n)), 5) != std::string::npos) {
      return declaration(n);  // one's own id is refused
    }
    yaml += pick({"", "", ", ready: NONE"});
    yaml += pick({"", ", publish: [{port: 80, allow_from: [192.0.2.0/24]}]"});
    yaml += pick({"",
                  ", egress: [{cidr: 198.51.100.0/24}, {cidr: 198.51.100.0/25, ports: "
                  "[{port: 443}]}]"});
    return yaml + "}";
  }

  void step() {
    const auto n = draw(kWorkloads);
    switch (draw(9)) {
      case 0:
      case 1:
        apply("workloads: [" + declaration(n) + ", " + declaration((n + 1) % kWorkloads) + "]");
        break;
      case 2:
      case 3:
        attach(id(n));
        break;
      case 4:
        draw(2) == 0 ? detach(id(n)) : remove(id(n));
        break;
      case 5:
        drain(id(n));
        break;
      case 6:
        if (attached(id(n))) listens(id(n), 80, {draw(2) == 0, draw(2) == 0});
        break;
      case 7:
        pass(seconds(draw(200)));
        break;
      default:
        pass(milliseconds(draw(50)));
    }
  }

  // --- what should be there -------------------------------------------------------------

  [[nodiscard]] bool planned(SetId single, SetId block, const IpAddress& from, const IpAddress& to,
                             Proto proto, int port) const {
    const auto element = [&](SetId set, int first) {
      return policy::ElementBuilder(set)
          .addr(from)
          .addr(to)
          .proto(proto)
          .port(static_cast<std::uint16_t>(first))
          .build();
    };
    return node_->compiler().contains(element(single, port)) ||
           node_->compiler().contains(element(block, port / policy::kBlock * policy::kBlock));
  }

  template <class Each>
  void for_each_attached(const Each& each) const {
    for (const auto& [name, workload] : node_->world().workloads) {
      if (workload.attachment) each(workload);
    }
  }

  // Each edge of every served range, and its neighbours.
  [[nodiscard]] std::set<std::pair<Proto, int>> interesting_ports() const {
    std::set<std::pair<Proto, int>> ports;
    for (const int port : {52, 53, 54, 79, 80, 81, 7999, 8000, 8001, 8014, 8015, 8016, 8020, 8021,
                           8031, 8032, 8033, 8034}) {
      for (const auto proto : {Proto::kTcp, Proto::kUdp}) ports.emplace(proto, port);
    }
    return ports;
  }

  void check_flows() const {
    const auto ports = interesting_ports();
    for_each_attached([&](const policy::Workload& c) {
      for_each_attached([&](const policy::Workload& s) {
        if (&c == &s) return;
        bool any = false;
        for (const auto& [proto, port] : ports) {
          const bool may = oracle::may_reach(c.declaration, s.declaration, proto, port);
          any = any || may;
          EXPECT_EQ(planned(SetId::kAllow4, SetId::kAllow4Block, *c.attachment->v4,
                            *s.attachment->v4, proto, port),
                    may)
              << c.declaration.id << " -> " << s.declaration.id << " " << port;
          EXPECT_EQ(planned(SetId::kAllow6, SetId::kAllow6Block, *c.attachment->v6,
                            *s.attachment->v6, proto, port),
                    may);
        }
        EXPECT_EQ(node_->compiler().contains(policy::ElementBuilder(SetId::kPair4)
                                                 .addr(*c.attachment->v4)
                                                 .addr(*s.attachment->v4)
                                                 .build()),
                  any)
            << "ping and errors";
      });
    });
  }

  [[nodiscard]] std::set<IpAddress> endpoints(const policy::ServiceKey& key, Proto proto, int port,
                                              Family family) const {
    std::set<IpAddress> result;
    for_each_attached([&](const policy::Workload& s) {
      if (s.declaration.service() != key || s.draining) return;
      for (const auto& entry : s.declaration.serves) {
        if (!oracle::in(entry.ports, proto, port)) continue;
        const bool listed = proto == Proto::kTcp && entry.ports.single();
        const auto seen = s.tcp_ready.find(static_cast<std::uint16_t>(port));
        const bool ready = s.declaration.ready == policy::ReadyMode::kNone || !listed ||
                           (seen != s.tcp_ready.end() && seen->second.on(family));
        if (ready) result.insert(*s.attachment->address(family));
      }
    });
    return result;
  }

  void check_service(const policy::ServiceKey& key, const policy::Service& service) const {
    for (const auto& [proto, port] : interesting_ports()) {
      for (const auto family : kFamilies) {
        std::set<IpAddress> there;
        for (const auto& candidate : all_addresses(family)) {
          if (leads_to(*service.vip(family), proto, port, candidate)) there.insert(candidate);
        }
        EXPECT_EQ(there, endpoints(key, proto, port, family)) << key.name << " " << port;
      }
      for_each_attached([&](const policy::Workload& c) { check_hold(c, key, proto, port); });
    }
  }

  [[nodiscard]] std::set<IpAddress> all_addresses(Family family) const {
    std::set<IpAddress> all;
    for_each_attached(
        [&](const policy::Workload& w) { all.insert(*w.attachment->address(family)); });
    return all;
  }

  [[nodiscard]] bool leads_to(const IpAddress& vip, Proto proto, int port,
                              const IpAddress& endpoint) const {
    const auto slot = [&](SetId set, int first, std::uint32_t number) {
      return node_->compiler().contains(policy::ElementBuilder(set)
                                            .addr(vip)
                                            .proto(proto)
                                            .port(static_cast<std::uint16_t>(first))
                                            .number(number)
                                            .data()
                                            .addr(endpoint)
                                            .build());
    };
    for (std::uint32_t number = 0; number < policy::kSlots; ++number) {
      const bool v4 = vip.is_v4();
      if (slot(v4 ? SetId::kVip4 : SetId::kVip6, port, number) ||
          slot(v4 ? SetId::kVip4Block : SetId::kVip6Block, port / policy::kBlock * policy::kBlock,
               number)) {
        return true;
      }
    }
    return false;
  }

  void check_hold(const policy::Workload& c, const policy::ServiceKey& key, Proto proto,
                  int port) const {
    bool wanted = false;
    const auto& service = node_->world().services.at(key);
    auto hold = seconds(0);
    for (const auto& [name, s] : node_->world().workloads) {
      if (s.declaration.service() != key) continue;
      hold = s.declaration.hold;
      for (const auto& peer : c.declaration.peers) {
        if (peer.name == key.name && oracle::peer_means(c.declaration, peer, s.declaration)) {
          wanted = wanted || oracle::may_reach(c.declaration, s.declaration, proto, port);
        }
      }
    }
    const bool nobody = endpoints(key, proto, port, Family::kV4).empty() &&
                        endpoints(key, proto, port, Family::kV6).empty();
    const auto since =
        std::max({c.attachment->attached_at, service.declared_at, service.endpoint_lost_at});
    // Over a family that the name is not answered in there is nothing to wait for.
    const oracle::NamedService named(node_->world(), c.declaration, key);
    const bool waits = wanted && nobody && now_ < since + hold;
    EXPECT_EQ(
        planned(SetId::kHold4, SetId::kHold4Block, *c.attachment->v4, *service.vip4, proto, port),
        waits && named.answered(Family::kV4))
        << c.declaration.id << " waits for " << key.name << " " << port;
    EXPECT_EQ(
        planned(SetId::kHold6, SetId::kHold6Block, *c.attachment->v6, *service.vip6, proto, port),
        waits && named.answered(Family::kV6))
        << c.declaration.id << " waits for " << key.name << " " << port;
  }

  void check_names() const {
    for_each_attached([&](const policy::Workload& c) {
      const auto& client = *c.attachment->v4;
      for (const auto& [name, s] : node_->world().workloads) {
        const bool visible = &c == &s || oracle::sees(c.declaration, s.declaration);
        const auto seen = name_seen_by(client, name + ".id.mesh.internal");
        if (!visible) {
          EXPECT_EQ(seen, "NXDOMAIN") << c.declaration.id << " asks for " << name;
        } else {
          EXPECT_EQ(seen, s.attachment && !s.draining ? s.attachment->v4->to_string() : "NOERROR");
        }
      }
      for (const auto& [key, service] : node_->world().services)
        check_service_name(c, key, service);
    });
  }

  // A peer by id is that instance; the VIP may lead to others.
  static bool names(const policy::Declaration& c, const policy::ServiceKey& key) {
    return std::ranges::any_of(c.peers, [&](const policy::Peer& peer) {
      return peer.name == key.name && peer.scope == key.scope &&
             (key.scope == policy::Scope::kCluster || c.workflow == key.workflow);
    });
  }

  void check_service_name(const policy::Workload& c, const policy::ServiceKey& key,
                          const policy::Service& service) const {
    bool visible = false;
    for (const auto& [name, s] : node_->world().workloads) {
      if (s.declaration.service() != key) continue;
      visible = visible || name == c.declaration.id ||
                (oracle::sees(c.declaration, s.declaration) && names(c.declaration, key));
    }
    const auto fqdn = key.scope == policy::Scope::kCluster
                          ? key.name + ".svc.mesh.internal"
                          : fmt::format("{}.{}.wf.mesh.internal", key.name, key.workflow);
    const auto seen = name_seen_by(*c.attachment->v4, fqdn);
    if (!visible) {
      EXPECT_EQ(seen, "NXDOMAIN") << c.declaration.id << " asks for " << fqdn;
    } else {
      EXPECT_THAT(seen, testing::AnyOf(service.vip4->to_string(), "NOERROR")) << fqdn;
    }
  }

  void check_against_plan_from_nothing() const {
    policy::Compiler fresh;
    [[maybe_unused]] const auto all = fresh.rebuild(node_->world());
    EXPECT_EQ(texts(fresh.elements()), elements_planned());
    const auto expected = fresh.views(), actual = node_->compiler().views();
    ASSERT_EQ(expected.size(), actual.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(*expected[i], *actual[i]) << expected[i]->client;
    }
  }

  std::mt19937 random_{GetParam()};
};

TEST_P(NodePlanTest, AgreesWithTheOracleAndWithItself) {
  for (int i = 0; i < kSteps && !HasFailure(); ++i) {
    SCOPED_TRACE(fmt::format("step {}", i));
    step();
    check_flows();
    for (const auto& [key, service] : node_->world().services) check_service(key, service);
    check_names();
    check_against_plan_from_nothing();
    expect_kernel_is_as_planned();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, NodePlanTest, testing::Range(1U, 9U));

}  // namespace
}  // namespace meshd
