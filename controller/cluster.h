// The cluster as values, folded from what is stored: declarations, services, nodes, and where
// each workload is. Two controllers that have folded the same writes hold the same.
//
// Threads:   not thread-safe; one owner (the controller's loop).
// Invariant: changes only by fold(); commands (controller/decide.h) read it and return writes.
//            world() holds every workload of the cluster, those that are attached as placed
//            on another node.
// Errors:    fold() refuses an object that this program cannot read: a damaged or newer store.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "controller/record.h"
#include "controller/token.h"
#include "policy/allocate.h"
#include "policy/fragment.h"
#include "policy/types.h"

namespace meshd::controller {

struct NodeState {
  std::vector<Prefix> blocks;
  std::vector<IpAddress> underlay;
  std::string boot_id;
  bool gateway = false;
  std::vector<IpAddress> gateway_addresses;  // where it is reached, for people
};

// Whose an outside port is (controller/outside.h): a publication of a service, by its key as text,
// or of a workload without a name.
struct OutsideHolder {
  std::string service, id;  // one of them
  Proto proto = Proto::kTcp;
  std::uint16_t port = 0;  // of the container
  auto operator<=>(const OutsideHolder&) const = default;
};
struct OutsidePort {
  OutsideHolder holder;
  std::optional<TimePoint> rests_until;  // it is nobody's
};
enum class OutsideUse : std::uint8_t {
  kGateway,  // raw publications, on every gateway
  kWeb,      // http publications, at the proxy of a site without wildcard names
};
struct OutsidePorts {
  std::map<policy::OutsideKey, OutsidePort> given;
  std::map<OutsideHolder, policy::OutsideKey> of;
  std::map<OutsideHolder, std::set<std::string>> published;  // ids of who declares what
  [[nodiscard]] std::optional<policy::OutsideKey> find(const OutsideHolder& holder) const;
};

// What is said of a workload beside its declaration by whoever declares it for its author.
struct Launch {
  bool drained = false;     // its author gave it up: nothing new, what is open stays
  std::string request;      // the container request that speaks for it; empty: none
  bool is_service = false;  // which calls it one: shown, and decides nothing
  bool operator==(const Launch&) const = default;
};

struct Placement {
  std::string node;
  mesh::v1::NodeEndpoint reported;  // without addresses: assigned, not attached
};

// What a fold has changed.
struct Touched {
  std::set<std::string> workloads;
  std::set<policy::ServiceKey> services;
  std::set<std::string> nodes;
  std::set<policy::OutsideKey> outside;    // of gateways
  std::set<policy::OutsideKey> web_ports;  // of the proxy
};

class Cluster {
 public:
  [[nodiscard]] Status fold(const Write& write, const Moment& now, Touched& touched);

  [[nodiscard]] const policy::World& world() const { return world_; }
  [[nodiscard]] const policy::Index& index() const { return index_; }
  [[nodiscard]] policy::Directory directory() const { return {index_.members, workflows_, vips_}; }
  [[nodiscard]] const policy::Quarantine& resting() const { return resting_; }
  [[nodiscard]] const std::map<Prefix, TimePoint>& resting_blocks() const {
    return resting_blocks_;
  }
  [[nodiscard]] const std::map<std::string, NodeState>& nodes() const { return nodes_; }
  // Blocks that nodes have, and whose an address of the underlay is (empty: nobody's).
  [[nodiscard]] const std::set<Prefix>& blocks() const { return blocks_; }
  [[nodiscard]] const std::string& underlay_owner(const IpAddress& address) const;
  [[nodiscard]] const std::map<std::string, Token>& tokens() const { return tokens_; }
  [[nodiscard]] const mesh::v1::StoredSettings& settings() const { return settings_; }
  [[nodiscard]] const policy::Declaration* declaration(const std::string& id) const;
  [[nodiscard]] const std::string& author(const std::string& id) const;  // empty: undeclared
  [[nodiscard]] const std::string& pinned(const std::string& id) const;
  [[nodiscard]] const Launch& launch(const std::string& id) const;
  // Where it is attached or assigned; null: nowhere.
  [[nodiscard]] const Placement* placement(const std::string& id) const;
  [[nodiscard]] const std::set<std::string>& placed_on(const std::string& node) const;
  // Whose address it is now; empty, absent: nobody's.
  [[nodiscard]] const std::string& id_at(const IpAddress& address) const;
  [[nodiscard]] std::optional<policy::ServiceKey> service_at(const IpAddress& address) const;
  // Ports that are published on demand (controller/opened.h); those of a workload are its
  // `opened`, too.
  struct Opened {
    std::string by;
    TimePoint used_at{};
  };
  [[nodiscard]] const std::map<policy::PublishKey, Opened>& opened() const { return opened_; }
  [[nodiscard]] const OutsidePorts& outside(OutsideUse use) const {
    return use == OutsideUse::kWeb ? web_ports_ : outside_;
  }
  // Nodes that were dismissed, and who has enrolled under their names since.
  struct Dismissal {
    std::int64_t at_ms = 0;
    std::string enrolled_key;  // a digest; empty: nobody has
  };
  [[nodiscard]] const std::map<std::string, Dismissal>& dismissals() const { return dismissals_; }
  // Times of the world are compared to this.
  void set_now(TimePoint now) { world_.now = now; }

 private:
  struct Origin {
    std::string author, pinned;
    Launch launch;
  };
  [[nodiscard]] Status fold_settings(const Write& write);
  [[nodiscard]] Status fold_declaration(const Write& write, Touched& touched);
  [[nodiscard]] Status fold_service(const Write& write, const Moment& now, Touched& touched);
  [[nodiscard]] Status fold_node(const Write& write, Touched& touched);
  [[nodiscard]] Status fold_endpoint(const Write& write, Touched& touched);
  [[nodiscard]] Status fold_resting(const Write& write, const Moment& now);
  [[nodiscard]] Status fold_token(const Write& write);
  [[nodiscard]] Status fold_dismissal(const Write& write);
  [[nodiscard]] static Status fold_outside(const Write& write, const Moment& now,
                                           OutsidePorts& ports,
                                           std::set<policy::OutsideKey>& touched);
  [[nodiscard]] Status fold_opened(const Write& write, const Moment& now, Touched& touched);
  void place(const std::string& id);
  void displace(policy::Workload& workload);
  void forget_node(const std::string& name);
  void index(const policy::Declaration& declaration);
  void unindex(const policy::Declaration& declaration);

  policy::World world_;
  policy::Index index_;
  std::map<std::string, std::set<std::string>> workflows_;  // ids by workflow
  policy::AddressRuns vips_;
  policy::Quarantine resting_;
  std::map<Prefix, TimePoint> resting_blocks_;
  std::map<std::string, NodeState> nodes_;
  std::set<Prefix> blocks_;
  std::map<IpAddress, std::string> underlay_;
  std::map<std::string, Token> tokens_;
  std::map<std::string, Origin> origins_;
  std::map<std::string, Placement> placements_;  // also of ids whose declaration is gone
  std::map<std::string, std::set<std::string>> on_node_;
  std::map<IpAddress, std::string> ids_;                 // of those with a placement
  std::map<IpAddress, policy::ServiceKey> services_at_;  // by VIP
  std::map<std::string, Dismissal> dismissals_;          // by node
  std::map<policy::PublishKey, Opened> opened_;
  OutsidePorts outside_, web_ports_;
  mesh::v1::StoredSettings settings_;
};

// Of what a declaration publishes raw, or http.
[[nodiscard]] std::vector<OutsideHolder> holders_of(const policy::Declaration& declaration,
                                                    OutsideUse use);

}  // namespace meshd::controller
