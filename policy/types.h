// The domain as values: what was declared, what is attached, and what the node is.
// A World is everything that the compiler needs to know; nothing here does I/O.
//
// Invariants: a Declaration has passed from_proto(), which is the only place that makes
//             one: every string in it is checked, every default filled in. Ports are
//             1-65535, ranges are ordered.
// Units:      ports in host order; times as base/clock.h counts them.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
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

// A network namespace is recognised by its inode on nsfs, never by path or pid.
struct Netns {
  std::uint64_t dev = 0, ino = 0;
  auto operator<=>(const Netns&) const = default;
};

struct Attachment {
  Netns netns;
  std::string netns_path;  // as the client named it, for people only
  std::string ifname;      // inside the container
  std::string host_ifname;
  Mac mac;
  std::optional<IpAddress> v4, v6;
  bool default_route = true;
  bool prepared = false;  // `meshctl prepare` made the namespace
  TimePoint attached_at{};

  [[nodiscard]] const std::optional<IpAddress>& address(Family family) const {
    return family == Family::kV4 ? v4 : v6;
  }
};

struct FamilyReady {
  bool v4 = false, v6 = false;
  [[nodiscard]] bool on(Family family) const { return family == Family::kV4 ? v4 : v6; }
  [[nodiscard]] bool any() const { return v4 || v6; }
  bool operator==(const FamilyReady&) const = default;
};

struct Workload {
  Declaration declaration;
  std::optional<Attachment> attachment;
  bool draining = false;
  // Single TCP ports of serves and publish that have been seen ready since the attach.
  // Ranges, UDP and ReadyMode::kNone are ready at attach and do not stand here.
  std::map<std::uint16_t, FamilyReady> tcp_ready;
  bool ready = false;  // sticky until detach
};

struct Service {
  std::string owner;
  std::optional<IpAddress> vip4, vip6;
  TimePoint declared_at{};
  TimePoint endpoint_lost_at{};  // when its last endpoint went; zero: never had one

  [[nodiscard]] const std::optional<IpAddress>& vip(Family family) const {
    return family == Family::kV4 ? vip4 : vip6;
  }
  bool operator==(const Service&) const = default;
};

struct PublishKey {
  std::string id;
  Proto proto = Proto::kTcp;
  std::uint16_t port = 0;
  auto operator<=>(const PublishKey&) const = default;
};

// What the node is: configuration and facts that change rarely.
struct Settings {
  std::string node_name;
  std::string zone = "mesh.internal";                        // lower case, no final dot
  std::optional<Prefix> pool4, pool6, vip_pool4, vip_pool6;  // absent: family is off
  // The resolver's addresses: [0] is asked directly, [1] is where redirected port 53 goes.
  IpAddress resolver4[2], resolver6[2];
  std::vector<std::uint32_t> allow_uids;                      // beside 0
  std::vector<IpAddress> publish_addresses;                   // where node ports answer
  std::uint16_t publish_first = 20000, publish_last = 29999;  // node ports to choose from
  std::vector<Prefix> publish_allow_from;                     // default sources of raw publications
  std::vector<Prefix> proxies;                                // sources of http publications
  std::vector<IpAddress> node_addresses;                      // never reached by egress
  std::vector<std::string> reserved_names;
  std::uint32_t dns_client_rate = 2000;  // packets a second and container

  [[nodiscard]] const std::optional<Prefix>& pool(Family f) const {
    return f == Family::kV4 ? pool4 : pool6;
  }
  [[nodiscard]] const std::optional<Prefix>& vip_pool(Family f) const {
    return f == Family::kV4 ? vip_pool4 : vip_pool6;
  }
};

// Addresses that rest after their last use, and until when.
using Quarantine = std::map<IpAddress, TimePoint>;

struct World {
  Settings settings;
  std::map<std::string, Workload, std::less<>> workloads;  // by id
  std::map<ServiceKey, Service> services;                  // also those nobody runs now
  std::map<PublishKey, std::uint16_t> node_ports;          // chosen or declared
  TimePoint now{};                                         // decides which holds are over
};

}  // namespace meshd::policy
