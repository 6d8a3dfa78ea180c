// Thousands of random changes in clusters of some nodes: each node's slice is what a plain look
// at the whole cluster says, the hashes agree, and a flow is confirmed exactly when its
// provider's node has it in force.
#include <random>

#include "policy/truth.h"
#include "tests/controller/cluster_bed.h"

namespace meshd::controller {
namespace {

using KeyKind = mesh::v1::SliceKey::Kind;

class SlicesChurnTest : public testing::TestWithParam<unsigned> {
 protected:
  unsigned draw(unsigned below) { return static_cast<unsigned>(random_() % below); }
  std::string pick(std::initializer_list<const char*> words) {
    return words.begin()[draw(static_cast<unsigned>(words.size()))];
  }
  std::string node() { return fmt::format("n{}", draw(4)); }
  std::string id() { return fmt::format("w{}", draw(9)); }

  std::string declaration(const std::string& id) {
    const auto workflow = pick({"r1", "r1", "r2"});
    auto text = fmt::format("{{id: {}, owner: {}, workflow: {}", id,
                            workflow == "r1" ? "ada" : "bob", workflow);
    text += pick({"", ", name: db", ", name: api", ", name: pub, scope: CLUSTER, admit: CLUSTER"});
    text += pick({"", ", serves: [{port: 80}]", ", serves: [{port: 80}, {port: 7}]",
                  ", serves: [{port: 80}, {port: 90, end_port: 99}]"});
    text += pick({"", ", peers: [{name: db}]", ", peers: [{name: api}, {id: w1}]",
                  ", peers: [{name: db, ports: [{port: 80}]}, {name: pub, scope: CLUSTER}]"});
    return text + "}";
  }

  void step() {
    switch (draw(16)) {
      case 0:
      case 1:
      case 2:
        // Refused when others own the name: nothing changes then.
        if (!bed_.apply(declaration(id()))) ++refused_;
        break;
      case 3: {
        const Author admin{Author::Role::kAdmin, "a"};
        (void)bed_.fold(forget(bed_.cluster, admin, id(), draw(2) == 0, bed_.now));
        break;
      }
      case 4:
      case 5:
      case 6:
      case 10:
      case 11:
      case 12: {
        const auto where = node(), what = id();
        if (!bed_.cluster.nodes().contains(where)) break;
        if (!bed_.fold(start(bed_.cluster, where, what))) break;
        if (draw(8) != 0) bed_.report(where, {bed_.endpoint(where, what, draw(2) == 0)});
        break;
      }
      case 7: {
        const auto where = node();
        if (draw(16) == 0) {
          bed_.report(where, {}, {}, true);
        } else {
          bed_.report(where, {}, {id()});
        }
        break;
      }
      case 8: {
        const auto where = node();
        if (!bed_.join(where, draw(6) != 0 ? "boot-1" : "boot-2")) ++refused_;
        break;
      }
      case 9: {
        const auto where = node();
        if (draw(8) != 0 || !bed_.nodes.contains(where)) break;
        bed_.fold(dismiss(bed_.cluster, where, bed_.now));
        bed_.slices.end(where);
        bed_.nodes.erase(where);
        break;
      }
      default:
        for (auto& [name, fake] : bed_.nodes) {
          if (fake.unanswered && draw(2) == 0) bed_.answer(name);
          if (draw(2) == 0) bed_.send(name);
        }
    }
    bed_.pass(std::chrono::milliseconds(draw(1000)));
  }

  // Written apart from controller/slices.cc: no index, no memory of what was.
  std::set<ItemKey> wanted(const std::string& node) const {
    std::set<ItemKey> keys;
    const auto& workloads = bed_.cluster.world().workloads;
    const auto is_own = [&](const std::string& id) {
      const auto* placement = bed_.cluster.placement(id);
      return placement != nullptr && placement->node == node;
    };
    for (const auto& [id, workload] : workloads) {
      bool needed = is_own(id);
      for (const auto& [other_id, other] : workloads) {
        if (!is_own(other_id)) continue;
        const auto& a = workload.declaration;
        const auto& b = other.declaration;
        needed = needed || !policy::granted_ranges(a, b).empty() ||
                 !policy::granted_ranges(b, a).empty() ||
                 (a.service() && a.service() == b.service());
      }
      if (!needed) continue;
      keys.insert({KeyKind::WORKLOAD, id});
      if (const auto key = workload.declaration.service()) {
        keys.insert({KeyKind::SERVICE, service_key_text(*key)});
      }
    }
    for (const auto& [name, state] : bed_.cluster.nodes()) {
      if (name != node) keys.insert({KeyKind::NODE, name});
    }
    return keys;
  }

  void check_slices() {
    for (const auto& [name, fake] : bed_.nodes) {
      const auto keys = bed_.slices.keys(name);
      const auto want = wanted(name);
      ASSERT_EQ(std::set<ItemKey>(keys.begin(), keys.end()), want) << name;
    }
  }

  // What is kept so that nobody walks through the cluster is what such a walk finds.
  void check_directory() const {
    const auto& world = bed_.cluster.world();
    policy::Members members;
    std::map<std::string, std::set<std::string>> workflows;
    for (const auto& [id, workload] : world.workloads) {
      const auto& declaration = workload.declaration;
      if (const auto key = declaration.service()) members[*key].insert(id);
      if (!declaration.workflow.empty()) workflows[declaration.workflow].insert(id);
    }
    policy::AddressRuns vips;
    for (const auto& [key, service] : world.services) {
      for (const auto family : kFamilies) vips.add(service.vip(family).value());
    }
    const auto directory = bed_.cluster.directory();
    ASSERT_EQ(directory.members, members);
    ASSERT_EQ(directory.workflows, workflows);
    ASSERT_EQ(directory.vips, vips);
    std::set<Prefix> blocks;
    for (const auto& [name, state] : bed_.cluster.nodes()) {
      blocks.insert(state.blocks.begin(), state.blocks.end());
      for (const auto& address : state.underlay) {
        ASSERT_EQ(bed_.cluster.underlay_owner(address), name);
      }
    }
    ASSERT_EQ(bed_.cluster.blocks(), blocks);
  }

  // After everything was said and answered.
  void check_settled() {
    for (const auto& [name, fake] : bed_.nodes) {
      std::set<ItemKey> have;
      for (const auto& [key, value] : fake.items) have.insert(key);
      ASSERT_EQ(have, wanted(name)) << name;
      ASSERT_EQ(fake.hash(), bed_.slices.hash(name)) << name;
    }
    const auto& workloads = bed_.cluster.world().workloads;
    for (const auto& [from_id, from] : workloads) {
      for (const auto& [to_id, to] : workloads) {
        const bool across = from.remote && to.remote && from.remote->node != to.remote->node;
        const auto granted = policy::granted_ranges(from.declaration, to.declaration);
        ASSERT_EQ(bed_.slices.is_confirmed(from_id, to_id), across && !granted.empty())
            << from_id << " -> " << to_id;
        if (!across || granted.empty()) continue;
        const auto& said = bed_.nodes.at(from.remote->node).confirmed;
        const auto found = said.find({from_id, to_id});
        ASSERT_NE(found, said.end()) << from_id << " -> " << to_id;
        // More, where it has shrunk since: a node looks at what is granted too.
        std::vector<policy::PortRange> ranges;
        for (const auto& port : found->second.ports()) {
          const auto first = static_cast<std::uint16_t>(port.port());
          const auto last = static_cast<std::uint16_t>(port.end_port());
          ranges.push_back({Proto::kTcp, first, last == 0 ? first : last});
        }
        ASSERT_TRUE(policy::without(granted, policy::normalise(ranges)).empty());
        ASSERT_EQ(found->second.from(0), from.remote->v4->to_string());
        ASSERT_EQ(found->second.to(0), to.remote->v4->to_string());
        ++confirmed_;
      }
    }
  }

  ClusterBed bed_;
  std::mt19937 random_{GetParam()};
  int refused_ = 0, confirmed_ = 0;
};

TEST_P(SlicesChurnTest, SlicesAreWhatAPlainLookSays) {
  for (int i = 0; i < 900; ++i) {
    ASSERT_NO_FATAL_FAILURE(step()) << i;
    ASSERT_NO_FATAL_FAILURE(check_slices()) << i;
    ASSERT_NO_FATAL_FAILURE(check_directory()) << i;
    if (i % 20 != 19) continue;
    // A node that left with its session comes again, so that all can settle.
    for (const auto& [name, state] : bed_.cluster.nodes()) {
      if (!bed_.nodes.contains(name)) bed_.begin(name);
    }
    bed_.settle();
    ASSERT_NO_FATAL_FAILURE(check_settled()) << i;
  }
  EXPECT_GT(confirmed_, 20) << "void: hardly any flow between nodes";

  // All of it folded at once by another controller comes to the same.
  ClusterBed other;
  other.fold(bed_.written);
  for (const auto& [name, fake] : bed_.nodes) {
    EXPECT_EQ(other.slices.hash(name), bed_.slices.hash(name)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, SlicesChurnTest, testing::Range(1U, 9U));

}  // namespace
}  // namespace meshd::controller
