// A cluster in memory: commands are decided, folded and turned into slices at once, and nodes
// that take what they are sent, answer when told to, and remember it as a real one does.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <ostream>
#include <set>
#include <string>

#include "controller/cluster.h"
#include "controller/decide.h"
#include "controller/slices.h"
#include "policy/from_proto.h"
#include "policy/slice_hash.h"

namespace meshd::controller {

inline std::ostream& operator<<(std::ostream& out, const ItemKey& key) {
  return out << mesh::v1::SliceKey::Kind::Value_Name(key.kind) << " " << key.key;
}

// The other end of a session.
struct FakeNode {
  std::map<ItemKey, std::string> items;
  std::map<std::pair<std::string, std::string>, mesh::v1::Confirmation> confirmed;
  std::uint64_t revision = 0;
  std::optional<std::uint64_t> unanswered;
  std::set<ItemKey> named;  // by the snapshot that is being sent
  std::size_t changes = 0;  // taken so far
  std::size_t in_sync = 0;

  void take(const Slices::Next& next) {
    const auto& change = next.change;
    ASSERT_GT(change.revision(), revision) << "revisions rise";
    ASSERT_FALSE(unanswered) << "one change on its way at a time";
    ASSERT_LE(static_cast<std::size_t>(change.items_size()), kItemsPerChange + kNodesPerChange);
    revision = change.revision();
    unanswered = revision;
    ++changes;
    for (const auto& item : change.items()) {
      const ItemKey key{item.key().kind(), item.key().key()};
      items[key] = item.value();
      named.insert(key);
    }
    for (const auto& gone : change.gone()) items.erase({gone.kind(), gone.key()});
    for (const auto& c : change.confirmed()) confirmed[{c.consumer(), c.provider()}] = c;
    if (!next.in_sync) return;
    ++in_sync;
    std::erase_if(items, [&](const auto& item) { return !named.contains(item.first); });
  }
  [[nodiscard]] std::uint64_t hash() const {
    std::uint64_t sum = 0;
    for (const auto& [key, value] : items) {
      sum += policy::slice_item_hash(key.kind, key.key, value);
    }
    return sum;
  }
};

class ClusterBed {
 public:
  ClusterBed() {
    mesh::v1::StoredSettings settings;
    settings.set_cluster("test");
    settings.set_zone("mesh.internal");
    settings.set_pool4("10.213.0.0/16");
    settings.set_pool6("fd00:1::/64");
    settings.set_vip4("10.214.0.0/16");
    settings.set_vip6("fd00:2::/64");
    settings.set_block_bits4(24);
    settings.set_block_bits6(112);
    fold({put(kind::ObjectKind::SETTINGS, "", settings)});
  }

  Cluster cluster;
  Slices slices;
  Moment now{TimePoint(std::chrono::hours(1)), 1'000'000'000};
  std::set<std::string> stale;
  std::map<std::string, FakeNode> nodes;
  Writes written;  // all of it, in order

  void pass(Duration time) {
    now.steady += time;
    now.wall_ms += std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
    cluster.set_now(now.steady);
  }

  void fold(const Writes& writes) {
    cluster.set_now(now.steady);
    Touched touched;
    for (const auto& write : writes) {
      const auto status = cluster.fold(write, now, touched);
      ASSERT_TRUE(status) << status.error().what;
      written.push_back(write);
    }
    slices.update(cluster, touched, stale);
  }
  Status fold(Result<Writes> writes) {
    if (!writes) return std::unexpected(std::move(writes).error());
    fold(*writes);
    return {};
  }

  // Workloads in flow style, separated by commas.
  Status apply(const std::string& workloads,
               const Author& author = {Author::Role::kDispatcher, "d"},
               const std::string& pinned = "") {
    cluster.set_now(now.steady);
    auto read = policy::read_declarations("test", "workloads: [" + workloads + "]");
    if (!read) return std::unexpected(read.error());
    return fold(declare(cluster, author, *std::move(read), pinned, {true}, now));
  }

  Status join(const std::string& node, const std::string& boot = "boot-1") {
    std::vector<IpAddress> underlay = {IpAddress::v4(
        0xc0000200U + static_cast<std::uint32_t>(std::hash<std::string>()(node) % 250))};
    CHECK_OK(fold(admit(cluster, node, boot, underlay, now)));
    begin(node);
    return {};
  }
  // A new session: what was on its way to the node before is lost.
  void begin(const std::string& node) {
    auto& fake = nodes[node];
    fake.unanswered.reset();
    fake.named.clear();
    if (slices.begin(cluster, node, fake.revision, fake.hash())) ++fake.in_sync;
  }

  mesh::v1::NodeEndpoint endpoint(const std::string& node, const std::string& id,
                                  bool ready = true) {
    mesh::v1::NodeEndpoint result;
    result.set_id(id);
    const auto number = ++last_address_[node];
    for (const auto& block : cluster.nodes().at(node).blocks) {
      result.add_addresses(block.address().plus(number).to_string());
    }
    result.set_ready(ready);
    return result;
  }
  Judged report(const std::string& node, const std::vector<mesh::v1::NodeEndpoint>& endpoints,
                const std::vector<std::string>& gone = {}, bool all = false) {
    mesh::v1::Report message;
    message.set_all(all);
    for (const auto& entry : endpoints) *message.add_endpoints() = entry;
    for (const auto& id : gone) message.add_gone(id);
    cluster.set_now(now.steady);
    auto judged = controller::report(cluster, node, message, now);
    fold(judged.writes);
    return judged;
  }
  void attach(const std::string& node, const std::string& id) {
    const auto status = fold(start(cluster, node, id));
    ASSERT_TRUE(status) << status.error().what;
    const auto judged = report(node, {endpoint(node, id)});
    ASSERT_TRUE(judged.refused.empty()) << judged.refused.front().second;
  }

  // Sends what there is to send to this node, once; false: nothing.
  bool send(const std::string& node) {
    const auto next = slices.take(cluster, node, now.steady);
    if (next) nodes.at(node).take(*next);
    return next.has_value();
  }
  void answer(const std::string& node) {
    auto& fake = nodes.at(node);
    ASSERT_TRUE(fake.unanswered);
    EXPECT_TRUE(slices.applied(node, *std::exchange(fake.unanswered, std::nullopt)));
  }
  // Until nobody has anything to say; bounded, so that a loop is a failure.
  void settle() {
    for (int round = 0; round < 1000; ++round) {
      bool more = false;
      for (auto& [name, fake] : nodes) {
        more = send(name) || more;
        if (!fake.unanswered) continue;
        answer(name);
        more = true;
      }
      if (!more) return;
    }
    FAIL() << "the controller always has something to say";
  }

 private:
  std::map<std::string, std::uint64_t> last_address_;
};

}  // namespace meshd::controller
