// What each node needs of the cluster, kept up change by change, and which flows between nodes
// are confirmed (docs/decisions/0005-slices-and-confirmations.md). Pure.
//
// A node needs its own workloads (attached or started there), those that theirs may call or
// that may call theirs, the other replicas of their services, the services of all of these,
// and every node's prefixes. A gateway needs all outside ports that lead somewhere, too.
//
// Threads:   not thread-safe; one owner (the controller's loop).
// Invariant: what a node is sent depends on the cluster alone, never on the way there: a change
//            costs the nodes that it concerns. Between two messages to a node, changes of one
//            item become one (a slow node is sent the newest, and memory is bounded by the
//            slice). At most one change to a node is on its way.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "controller/cluster.h"
#include "controller/node_list.h"
#include "policy/types.h"
#include "proto/controller.pb.h"

namespace meshd::controller {

// Of a SliceChange at most: far below gRPC's 4 MiB also with the largest declarations. Of nodes,
// which are small and which all are told of, more at a time.
inline constexpr std::size_t kItemsPerChange = 32;
inline constexpr std::size_t kNodesPerChange = 1024;
inline constexpr std::size_t kConfirmationsPerChange = 1024;
// Versions of a slice that another controller's word is understood of.
inline constexpr std::size_t kMaxPast = 64;

struct ItemKey {
  mesh::v1::SliceKey::Kind::Value kind{};
  std::string key;
  auto operator<=>(const ItemKey&) const = default;
};

class Slices {
 public:
  // After the cluster folded what `touched` names. `stale` are nodes not heard of for a while.
  void update(const Cluster& cluster, const Touched& touched, const std::set<std::string>& stale);

  // A session begins. True: the node has its slice already; then nothing is to be sent but
  // InSync, else the whole slice comes by take().
  bool begin(const Cluster& cluster, const std::string& node, std::uint64_t revision,
             std::uint64_t hash);
  void end(const std::string& node);
  // What is to be sent next; nothing while the change before is not answered. With
  // `in_sync` set it is the last of a snapshot, and InSync follows.
  struct Next {
    mesh::v1::SliceChange change;
    bool in_sync = false;
  };
  [[nodiscard]] std::optional<Next> take(const Cluster& cluster, const std::string& node,
                                         TimePoint now);
  // The node has it in force. Flows that wait for it are confirmed; false: no such revision is
  // on its way.
  bool applied(const std::string& node, std::uint64_t revision);
  // The hash of the slice that is in force on the node, as of its last answer; nothing: none yet,
  // or no session.
  [[nodiscard]] std::optional<std::uint64_t> in_force(const std::string& node) const;
  // Another controller has heard from the node that this slice is in force there. What it is not
  // known to hold yet is confirmed by a later word, which comes.
  void heard_in_force(const std::string& node, std::uint64_t hash);
  // The node could not: all of the slice is to be sent again.
  bool refused(const Cluster& cluster, const std::string& node, std::uint64_t revision);

  [[nodiscard]] std::uint64_t hash(const std::string& node) const;
  [[nodiscard]] std::uint64_t revision(const std::string& node) const;
  // The first revision that will hold all of the slice as it is now.
  [[nodiscard]] std::uint64_t revision_with_all(const std::string& node) const;
  // Nodes with something to send and nothing on its way, since the last call. That a node has
  // come or gone is told to those whom nothing else concerns one after the other: after
  // next_news() there are some.
  [[nodiscard]] std::set<std::string> take_ready(TimePoint now);
  [[nodiscard]] std::optional<TimePoint> next_news() const;
  // The keys of a node's slice, sorted: for tests and for people.
  [[nodiscard]] std::vector<ItemKey> keys(const std::string& node) const;
  [[nodiscard]] bool is_confirmed(const std::string& consumer, const std::string& provider) const;

 private:
  struct Item {
    std::string own, other;  // values; only one of them for what is no workload
  };
  struct Pair {  // a flow between two nodes
    std::vector<policy::PortRange> ranges;
    std::optional<IpAddress> from4, from6, to4, to6;
    std::string consumer_node, provider_node;
    // The provider's node has it in force from this version of its slice on.
    std::uint64_t version = 0;
    bool confirmed = false;
    // What was confirmed before the ranges grew.
    std::vector<policy::PortRange> confirmed_ranges;
    [[nodiscard]] bool same_ends(const Pair& other) const;
  };
  using PairKey = std::pair<std::string, std::string>;  // consumer, provider
  struct Session {
    std::uint64_t revision = 0;
    bool on_its_way = false;
    bool snapshot = false;         // still being sent
    std::set<ItemKey> dirty;       // to be sent, or to be said gone: all but nodes
    NodeList::Place nodes;         // told of them so far
    bool more_nodes = false;       // than went with the one on its way
    std::set<PairKey> to_confirm;  // of consumers here: to be said
    std::set<PairKey> waiting;     // of providers here: go with the next change
    std::set<PairKey> sent;        // went with the one on its way
    // Of the slice when that went, if it was all of it; and once it was answered.
    std::optional<std::uint64_t> sent_hash, in_force;
  };
  struct Use {
    std::int32_t reasons = 0;  // why it is here: so many
    std::uint64_t hash = 0;    // of the item as this node gets it
  };
  struct Slice {  // without the nodes
    std::map<ItemKey, Use> uses;
    std::uint64_t hash = 0;
    std::optional<Session> session;
    // The hashes of its last versions; the newest is that of `version`.
    std::deque<std::uint64_t> past;
    std::uint64_t version = 0;
    std::set<PairKey> open;  // of providers here, to be confirmed, while there is no session
  };
  struct Relations {  // of one workload, as they were at the last update
    std::string node;
    std::optional<policy::ServiceKey> service;
    std::set<std::string> related;
  };

  void relate(const Cluster& cluster, const std::string& id);
  [[nodiscard]] static std::set<std::string> related_to(const Cluster& cluster,
                                                        const std::string& id);
  void use(const std::string& node, const std::string& id, int by);
  void use_item(const std::string& node, const ItemKey& key, int by);
  void rename(const std::string& id, const std::optional<policy::ServiceKey>& service);
  void refresh(const ItemKey& key, std::optional<Item> item);
  void refresh_workload(const Cluster& cluster, const std::string& id,
                        const std::set<std::string>& stale);
  void refresh_service(const Cluster& cluster, const policy::ServiceKey& key);
  void refresh_node(const Cluster& cluster, const std::string& name);
  void refresh_gateway(const std::string& name, bool is_one);
  void refresh_outside(const Cluster& cluster, const Touched& touched);
  void refresh_outside(const Cluster& cluster, const policy::OutsideKey& key);
  void refresh_pairs(const Cluster& cluster, const std::string& id);
  void refresh_pair(const Cluster& cluster, const std::string& consumer,
                    const std::string& provider);
  void forget_pair(const PairKey& key);
  void confirm(const PairKey& key);
  void mark(const std::string& node, const ItemKey& key);
  [[nodiscard]] const std::string* value_for(const std::string& node, const ItemKey& key) const;
  void wait_for_provider(const PairKey& key, const Pair& pair);
  void note_versions();
  void note_pairs(const Cluster& cluster, const std::string& node, Session& session);
  void start_over(const std::string& node);
  void tell_nodes(TimePoint now);
  // Without news of nodes, and with them.
  [[nodiscard]] static bool has_more(const Session& session);
  [[nodiscard]] bool has_more(const std::string& node, const Session& session) const;
  void add_items(const Cluster& cluster, const std::string& node, TimePoint now,
                 mesh::v1::SliceChange& change);
  void add_nodes(const std::string& node, Session& session, mesh::v1::SliceChange& change) const;
  void add_confirmations(Session& session, mesh::v1::SliceChange& change) const;

  std::map<std::string, Slice> slices_;
  std::set<std::string> gateways_;  // nodes that have all items of outside ports
  std::map<policy::OutsideKey, std::string> outside_ids_;           // whom they lead to
  std::map<std::string, std::set<policy::OutsideKey>> outside_of_;  // the same by id
  NodeList nodes_;
  bool nodes_changed_ = false;          // since the last round of news began
  std::optional<std::string> telling_;  // of a round, who was told last
  TimePoint told_until_{};              // each telling moves it on by its share of the time
  std::map<ItemKey, Item> items_;
  std::map<ItemKey, std::set<std::string>> holders_;  // nodes whose slice has it
  std::map<std::string, Relations> relations_;
  std::map<PairKey, Pair> pairs_;
  std::map<std::string, std::set<PairKey>> pairs_of_;  // by workload id
  std::set<std::string> ready_;
  std::set<std::string> changed_;  // nodes whose slice's hash is not in its past yet
};

}  // namespace meshd::controller
