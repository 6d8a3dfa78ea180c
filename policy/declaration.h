// What was declared, as values: one Declaration per workload.
//
// Invariants: a Declaration has passed from_proto(), which is the only place that makes
//             one: every string in it is checked, every default filled in. Ports are
//             1-65535, ranges are ordered.
// Units:      ports in host order.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"

namespace meshd::policy {

enum class Scope : std::uint8_t { kWorkflow, kCluster };
enum class Admit : std::uint8_t { kWorkflow, kOwner, kCluster };
enum class Access : std::uint8_t { kOwner, kCanManage, kCanWrite, kCanRead, kPublic };
enum class ReadyMode : std::uint8_t { kListening, kNone, kHttp };

struct PortRange {
  Proto proto = Proto::kTcp;
  std::uint16_t first = 0;
  std::uint16_t last = 0;
  [[nodiscard]] bool single() const { return first == last; }
  [[nodiscard]] bool contains(Proto p, std::uint16_t port) const {
    return proto == p && first <= port && port <= last;
  }
  auto operator<=>(const PortRange&) const = default;
};

struct ServedPort {
  PortRange ports;
  std::string name;  // empty: no SRV record
  auto operator<=>(const ServedPort&) const = default;
};

// Exactly one of id and name is set.
struct Peer {
  std::string id;
  std::string name;
  Scope scope = Scope::kWorkflow;  // of name
  std::vector<PortRange> ports;    // empty: all that the peer serves
  auto operator<=>(const Peer&) const = default;
};

struct Publication {
  Proto proto = Proto::kTcp;
  std::uint16_t port = 0;
  bool http = false;
  std::optional<std::uint16_t> node_port;         // as declared; absent: chosen
  std::optional<std::vector<Prefix>> allow_from;  // absent: Settings::publish_allow_from
  std::string label, path;
  Access access = Access::kOwner;
  bool on_demand = false;  // of no declaration: see publications_of()
  auto operator<=>(const Publication&) const = default;
};

struct EgressRule {
  Prefix cidr;
  std::vector<PortRange> ports;  // empty: all TCP and UDP, and ping
  auto operator<=>(const EgressRule&) const = default;
};

// What a service name is unique by. Its owner is an attribute: a workflow, and a CLUSTER
// name, belong to the first owner that declares there.
struct ServiceKey {
  Scope scope = Scope::kWorkflow;
  std::string workflow;  // empty in scope CLUSTER
  std::string name;
  auto operator<=>(const ServiceKey&) const = default;
};

struct Declaration {
  std::string id, owner;
  std::string workflow;  // empty: part of no run
  std::string name;      // empty: not a service
  Scope scope = Scope::kWorkflow;
  std::vector<ServedPort> serves;
  Admit admit = Admit::kWorkflow;
  std::vector<std::string> admit_owners;
  std::vector<Peer> peers;
  std::vector<Publication> publish;
  std::vector<EgressRule> egress;
  ReadyMode ready = ReadyMode::kListening;
  std::uint16_t ready_http_port = 0;
  std::string ready_http_path;
  std::chrono::seconds hold{120};

  [[nodiscard]] std::optional<ServiceKey> service() const {
    if (name.empty()) return std::nullopt;
    return ServiceKey{scope, scope == Scope::kWorkflow ? workflow : std::string(), name};
  }
  auto operator<=>(const Declaration&) const = default;
};

}  // namespace meshd::policy
