// Random clusters: each node compiles its own world, and what the nodes have of a flow is what
// the oracle and the confirmations say, after every change, however it came.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/oracle.h"
#include "tests/support/policy_world.h"
#include "tests/support/random_declarations.h"

namespace meshd::policy {
namespace {

constexpr int kPorts[] = {16, 17, 29, 31, 32, 40, 47, 48, 50, 51, 80, 81, 82};

class ClusterTest : public testing::TestWithParam<unsigned> {
 protected:
  struct Place {
    unsigned node, number;
    bool stale = false;
  };
  struct Node {
    Compiler compiler;
    World world;
  };

  ClusterTest() : nodes_(2 + draw(3)) {
    for (unsigned n = 0; n < nodes_.size(); ++n) known_.insert(n);
    for (int i = 0; i < 30; ++i) [[maybe_unused]]
      const auto touched = redeclare();
    for (const auto& [id, workload] : w_.world.workloads) move(id);
    for (unsigned n = 0; n < nodes_.size(); ++n) {
      nodes_[n].world = world_of(n);
      [[maybe_unused]] const auto all = nodes_[n].compiler.rebuild(nodes_[n].world);
    }
  }

  unsigned draw(unsigned below) { return random_.draw(below); }
  static std::string node_name(unsigned node) { return fmt::format("n{}", node); }

  static IpAddress address(const Place& place, Family family) {
    if (family == Family::kV4) {
      return IpAddress::v4(0x0ad50000U + ((place.node + 1) << 8) + place.number);
    }
    return IpAddress::parse(fmt::format("fd00::{:x}:{:x}", place.node + 1, place.number)).value();
  }

  // As the controller would tell it, and more: of everybody.
  [[nodiscard]] World world_of(unsigned node) const {
    auto world = w_.world;
    world.settings.node_name = node_name(node);
    world.settings.in_cluster = true;
    world.settings.trunks = {"mesh0"};
    for (const auto& [id, place] : places_) {
      auto& workload = world.workloads.find(id)->second;
      const auto v4 = address(place, Family::kV4), v6 = address(place, Family::kV6);
      if (place.node != node) {
        workload.remote = Remote{node_name(place.node), v4, v6, place.stale};
        continue;
      }
      auto& attachment = workload.attachment.emplace();
      attachment.v4 = v4;
      attachment.v6 = v6;
      attachment.host_ifname = fmt::format("m{}", place.number);
      attachment.attached_at = TimePoint(std::chrono::seconds(1000));
    }
    world.confirmed = confirmed_;
    for (const auto other : known_) {
      if (other == node) continue;
      const auto block = Prefix::parse(fmt::format("10.213.{}.0/24", other + 1)).value();
      const auto underlay = IpAddress::parse(fmt::format("192.0.2.{}", other + 1)).value();
      world.nodes[node_name(other)] = {node_name(other), {block}, {underlay}};
    }
    return world;
  }

  std::optional<std::string> anybody() {
    if (w_.world.workloads.empty()) return std::nullopt;
    auto at = w_.world.workloads.begin();
    std::advance(at, draw(static_cast<unsigned>(w_.world.workloads.size())));
    return at->first;
  }

  Touched step() {
    const auto id = anybody();
    const auto action = draw(14);
    if (!id || action < 3) return redeclare();
    if (action == 3) return places_.contains(*id) ? Touched() : w_.forget(*id);
    if (action == 4) return move(*id);
    if (action < 11) return confirm(*id);
    if (action == 11) return others();
    auto& workload = w_.workload(*id);
    if (action == 12) {
      workload.draining = !workload.draining && draw(3) == 0;
      if (const auto place = places_.find(*id); place != places_.end()) {
        place->second.stale = draw(2) == 0;
      }
      return w_.touch(*id);
    }
    return w_.listens(*id, draw(2) == 0 ? 80 : 81, {draw(4) != 0, draw(4) != 0});
  }

  Touched redeclare() {
    const auto text = random_.declaration(fmt::format("w{}", draw(8)));
    return w_.plan(text) ? w_.apply(text) : Touched();
  }

  Touched move(const std::string& id) {
    auto& workload = w_.workload(id);
    workload.tcp_ready.clear();
    workload.draining = false;
    if (draw(5) == 0) {
      places_.erase(id);
    } else {
      const auto nodes = static_cast<unsigned>(nodes_.size());
      places_[id] = {.node = draw(nodes), .number = 1 + ++moves_ % 250};
    }
    return w_.touch(id);
  }

  // All that is granted, some of it, some more, nothing, or what was true once.
  Touched confirm(const std::string& consumer) {
    Touched touched;
    touched.workloads.insert(consumer);
    for (const auto& [provider, workload] : w_.world.workloads) {
      if (draw(3) == 0) continue;
      if (draw(6) == 0) {
        confirmed_[consumer].erase(provider);
        continue;
      }
      const auto from = places_.find(consumer), to = places_.find(provider);
      if (from == places_.end() || to == places_.end()) continue;
      Confirmation said{address(from->second, Family::kV4),
                        address(from->second, Family::kV6),
                        address(to->second, Family::kV4),
                        address(to->second, Family::kV6),
                        {}};
      if (draw(5) == 0) said.from6.reset();
      if (draw(5) == 0) said.to4 = IpAddress::parse("10.213.99.99").value();
      const auto what = draw(4);
      if (what == 0) said.ranges = {{Proto::kTcp, 1, 65535}, {Proto::kUdp, 1, 65535}};
      if (what == 1) said.ranges = {{Proto::kTcp, 20, 47}, {Proto::kTcp, 80, 80}};
      if (what == 2) said.ranges = {{Proto::kTcp, 81, 81}, {Proto::kUdp, 33, 40}};
      if (what == 3) said.ranges = {{Proto::kTcp, 17, 80}, {Proto::kUdp, 32, 47}};
      confirmed_[consumer][provider] = std::move(said);
    }
    return touched;
  }

  Touched others() {
    const auto node = draw(static_cast<unsigned>(nodes_.size()));
    if (known_.erase(node) == 0) known_.insert(node);
    Touched touched;
    touched.nodes = true;
    return touched;
  }

  // Looked up in what was said, and not by policy/.
  [[nodiscard]] bool is_confirmed(const std::string& consumer, const std::string& provider,
                                  Family family, Proto proto, int port) const {
    const auto by_consumer = confirmed_.find(consumer);
    if (by_consumer == confirmed_.end() || !by_consumer->second.contains(provider)) return false;
    const auto& said = by_consumer->second.find(provider)->second;
    const bool v4 = family == Family::kV4;
    if ((v4 ? said.from4 : said.from6) != address(places_.at(consumer), family)) return false;
    if ((v4 ? said.to4 : said.to6) != address(places_.at(provider), family)) return false;
    for (const auto& range : said.ranges) {
      if (oracle::in(range, proto, port)) return true;
    }
    return false;
  }

  struct Key {
    IpAddress from, to;
    Proto proto;
    int port;
  };
  static bool has(const Compiler& compiler, SetId v4, SetId v4_block, const Key& key) {
    const int offset = key.from.is_v4() ? 0 : 1;
    const auto in = [&](SetId set, int port) {
      return compiler.contains(ElementBuilder(static_cast<SetId>(static_cast<int>(set) + offset))
                                   .addr(key.from)
                                   .addr(key.to)
                                   .proto(key.proto)
                                   .port(static_cast<std::uint16_t>(port))
                                   .build());
    };
    return in(v4, key.port) || in(v4_block, key.port / kBlock * kBlock);
  }
  static bool paired(const Compiler& compiler, const Key& key) {
    const auto set = key.from.is_v4() ? SetId::kPair4 : SetId::kPair6;
    return compiler.contains(ElementBuilder(set).addr(key.from).addr(key.to).build()) ||
           compiler.contains(ElementBuilder(set).addr(key.to).addr(key.from).build());
  }

  void check_flow(const std::string& c, const std::string& s, Family family, Proto proto,
                  int port) {
    const auto& from = places_.at(c);
    const auto& to = places_.at(s);
    const Key key{address(from, family), address(to, family), proto, port};
    const bool truth =
        oracle::may_reach(w_.workload(c).declaration, w_.workload(s).declaration, proto, port);
    const bool far = from.node != to.node;
    const bool confirmed = !far || is_confirmed(c, s, family, proto, port);
    if (truth && far) ++(confirmed ? open_ : waiting_);
    for (unsigned n = 0; n < nodes_.size(); ++n) {
      const auto& compiler = nodes_[n].compiler;
      const bool consumers = n == from.node, providers = n == to.node;
      const bool open = truth && (consumers ? confirmed : providers);
      const bool held = truth && consumers && !confirmed;
      ASSERT_EQ(has(compiler, SetId::kAllow4, SetId::kAllow4Block, key), open)
          << c << " -> " << s << " " << port << " on node " << n;
      ASSERT_EQ(has(compiler, SetId::kHold4, SetId::kHold4Block, key), held)
          << c << " -> " << s << " " << port << " on node " << n;
      const bool pair = paired(compiler, key);
      ASSERT_TRUE(pair || !open) << c << " -> " << s << " on node " << n;
      ASSERT_TRUE(!pair || consumers || providers) << c << " -> " << s << " on node " << n;
    }
  }

  void check_flows() {
    for (const auto& [c, from] : places_) {
      for (const auto& [s, to] : places_) {
        for (const auto family : kFamilies) {
          for (const auto proto : {Proto::kTcp, Proto::kUdp}) {
            for (const int port : kPorts) check_flow(c, s, family, proto, port);
          }
        }
      }
    }
  }

  // Where a replica is does not matter to who stands behind a VIP.
  void check_vips() {
    const auto first = PolicyWorld::texts(nodes_[0].compiler.elements(), "vip");
    for (const auto& node : nodes_) {
      ASSERT_EQ(PolicyWorld::texts(node.compiler.elements(), "vip"), first);
    }
    slots_ += first.size();
  }

  void check_against_plans_from_nothing() const {
    for (const auto& node : nodes_) {
      Compiler fresh;
      [[maybe_unused]] const auto all = fresh.rebuild(node.world);
      ASSERT_EQ(PolicyWorld::texts(node.compiler.elements()), PolicyWorld::texts(fresh.elements()));
      ASSERT_EQ(node.compiler.next_deadline(), fresh.next_deadline());
      const auto followed = node.compiler.views(), made = fresh.views();
      ASSERT_EQ(followed.size(), made.size());
      for (std::size_t i = 0; i < made.size(); ++i) ASSERT_EQ(*followed[i], *made[i]);
      for (std::size_t i = 0; i < kSetCount; ++i) {
        const auto set = static_cast<SetId>(i);
        ASSERT_EQ(node.compiler.worst_case_count(set), fresh.worst_case_count(set));
        ASSERT_GE(node.compiler.worst_case_count(set), node.compiler.element_count(set));
      }
    }
  }

  RandomDeclarations random_{GetParam()};
  PolicyWorld w_;  // what is declared, ready and draining; nobody is attached in it
  std::map<std::string, Place> places_;
  Confirmations confirmed_;
  std::set<unsigned> known_;  // nodes that the others know of
  std::vector<Node> nodes_;
  unsigned moves_ = 0;
  std::size_t open_ = 0, waiting_ = 0, slots_ = 0;
};

TEST_P(ClusterTest, EveryNodeHasItsPartOfEveryFlow) {
  const auto is_void = [&] { return open_ <= 30 || waiting_ <= 30 || slots_ <= 100; };
  for (int i = 0; (i < 150 || (i < 1500 && is_void())) && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    const auto touched = step();
    for (unsigned n = 0; n < nodes_.size(); ++n) {
      nodes_[n].world = world_of(n);
      [[maybe_unused]] const auto delta = nodes_[n].compiler.update(nodes_[n].world, touched);
    }
    check_flows();
    check_vips();
    if (i % 4 == 0) check_against_plans_from_nothing();
  }
  EXPECT_GT(open_, 30U) << "a cluster without flows shows nothing";
  EXPECT_GT(waiting_, 30U);
  EXPECT_GT(slots_, 100U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ClusterTest, testing::Range(1U, 11U));

}  // namespace
}  // namespace meshd::policy
