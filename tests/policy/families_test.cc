// In which families a name is answered and a packet waits: the views, the rules and the
// oracle agree, whatever a service's replicas listen on.
#include <gtest/gtest.h>

#include <random>

#include "policy/name.h"
#include "tests/support/oracle.h"
#include "tests/support/policy_world.h"

namespace meshd::policy {
namespace {

class FamiliesTest : public testing::TestWithParam<unsigned> {
 protected:
  unsigned draw(unsigned below) { return static_cast<unsigned>(random_() % below); }
  const char* pick(std::initializer_list<const char*> words) {
    return words.begin()[draw(static_cast<unsigned>(words.size()))];
  }

  void make_world() {
    w_ = PolicyWorld();
    const auto* hold = pick({"", "", ", hold: 0s"});
    for (const auto* id : {"s1", "s2"}) {
      w_.apply(fmt::format("{{id: {}, owner: ada, workflow: r, name: db{}{}{}{}}}", id, hold,
                           pick({", serves: [{port: 80}]", ", serves: [{port: 80}, {port: 81}]",
                                 ", serves: [{port: 80}, {port: 82}]", "",
                                 ", serves: [{port: 80}, {port: 53, protocol: UDP}]",
                                 ", serves: [{port: 81}, {port: 20, end_port: 40}]"}),
                           pick({"", "", "", ", ready: NONE"}),
                           pick({"", ", peers: [{name: db}]"})));
    }
    for (const auto* id : {"c1", "c2", "c3"}) {
      w_.apply(fmt::format(
          "{{id: {}, owner: {}, peers: [{}]}}", id,
          pick({"ada, workflow: r", "ada, workflow: r", "bob, workflow: q"}),
          pick({"{name: db}", "{name: db, ports: [{port: 80}]}",
                "{name: db, ports: [{port: 81, end_port: 82}]}",
                "{name: db, ports: [{port: 30, end_port: 80}]}, {id: s1}", "{id: s1}"})));
    }
    for (const auto* id : {"s1", "s2", "c1", "c2", "c3"}) {
      if (draw(5) == 0) continue;
      w_.attach(id);
      if (id[0] == 'c') continue;
      for (const auto port : {std::uint16_t{80}, std::uint16_t{81}, std::uint16_t{82}}) {
        w_.listens(id, port, {draw(3) == 0, draw(3) == 0});
      }
      if (draw(8) == 0) w_.drain(id);
    }
    if (draw(5) == 0) w_.world.now += std::chrono::seconds(200);
    [[maybe_unused]] const auto delta = compiler_.rebuild(w_.world);
  }

  void check(const Workload& c) {
    const ServiceKey key{Scope::kWorkflow, "r", "db"};
    const auto& service = w_.world.services.at(key);
    const oracle::NamedService named(w_.world, c.declaration, key);
    for (const auto family : kFamilies) {
      for (const int port : {19, 20, 31, 32, 40, 41, 53, 80, 81, 82}) {
        for (const auto proto : {Proto::kTcp, Proto::kUdp}) {
          const bool held = named.held(proto, port, family);
          EXPECT_EQ(waits(*c.attachment->address(family), *service.vip(family), proto, port), held)
              << c.declaration.id << " " << service.vip(family)->to_string() << " " << port;
          held_ += held ? 1 : 0;
        }
      }
      const auto answer = answered(c.declaration.id, key, family);
      if (!answer || c.declaration.service() == key) continue;
      EXPECT_EQ(*answer, named.answered(family)) << c.declaration.id << (family == Family::kV4);
      nodata_ += *answer ? 0 : 1;
    }
  }

  // Absent: it does not see the name.
  [[nodiscard]] std::optional<bool> answered(const std::string& client, const ServiceKey& key,
                                             Family family) const {
    const auto fqdn = service_fqdn(w_.world.settings.zone, key);
    for (const auto& view : compiler_.views()) {
      if (view->client != client) continue;
      for (const auto& name : view->names) {
        if (name.fqdn == fqdn) return (family == Family::kV4 ? name.v4 : name.v6).has_value();
      }
    }
    return std::nullopt;
  }

  [[nodiscard]] bool waits(const IpAddress& from, const IpAddress& vip, Proto proto,
                           int port) const {
    const auto has = [&](SetId set, int first) {
      return compiler_.contains(ElementBuilder(set)
                                    .addr(from)
                                    .addr(vip)
                                    .proto(proto)
                                    .port(static_cast<std::uint16_t>(first))
                                    .build());
    };
    const bool v4 = from.is_v4();
    return has(v4 ? SetId::kHold4 : SetId::kHold6, port) ||
           has(v4 ? SetId::kHold4Block : SetId::kHold6Block, port / kBlock * kBlock);
  }

  PolicyWorld w_;
  Compiler compiler_;
  std::mt19937 random_{GetParam()};
  int held_ = 0, nodata_ = 0;
};

TEST_P(FamiliesTest, NamesPacketsAndOracleAgree) {
  for (int i = 0; i < 500 && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    make_world();
    for (const auto& [id, workload] : w_.world.workloads) {
      if (workload.attachment) check(workload);
    }
  }
  EXPECT_GT(held_, 100);
  EXPECT_GT(nodata_, 50);
}

INSTANTIATE_TEST_SUITE_P(Seeds, FamiliesTest, testing::Range(1U, 5U));

}  // namespace
}  // namespace meshd::policy
