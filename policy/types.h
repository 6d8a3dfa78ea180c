// The domain as values: what was declared, what is attached here and elsewhere, and what the
// node is. A World is everything that the compiler needs to know; nothing here does I/O.
//
// Units: ports in host order; times as base/clock.h counts them.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "policy/declaration.h"

namespace meshd::policy {

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

// Where a workload is that another node has attached.
struct Remote {
  std::string node;
  std::optional<IpAddress> v4, v6;
  bool stale = false;  // that node has not been heard of for a while

  [[nodiscard]] const std::optional<IpAddress>& address(Family family) const {
    return family == Family::kV4 ? v4 : v6;
  }
  bool operator==(const Remote&) const = default;
};

struct FamilyReady {
  bool v4 = false, v6 = false;
  [[nodiscard]] bool on(Family family) const { return family == Family::kV4 ? v4 : v6; }
  [[nodiscard]] bool any() const { return v4 || v6; }
  bool operator==(const FamilyReady&) const = default;
};

struct Workload {
  Declaration declaration;
  std::optional<Attachment> attachment;  // here
  std::optional<Remote> remote;          // on another node; never both
  bool draining = false;                 // until detach
  bool drained = false;                  // by whoever declared it, attached or not
  // Single TCP ports of serves and publish that have been seen ready since the attach.
  // Ranges, UDP and ReadyMode::kNone are ready at attach and do not stand here.
  std::map<std::uint16_t, FamilyReady> tcp_ready;
  bool ready = false;              // sticky until detach
  std::set<std::uint16_t> opened;  // TCP ports for the proxies on demand. Here alone
  [[nodiscard]] bool drains() const { return draining || drained; }  // nothing new is let in
  [[nodiscard]] bool is_placed() const { return attachment || remote; }
  // Wherever it is.
  [[nodiscard]] const std::optional<IpAddress>& address(Family family) const {
    static const std::optional<IpAddress> kNowhere;
    if (attachment) return attachment->address(family);
    return remote ? remote->address(family) : kNowhere;
  }
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

// The provider's node has said that these ranges are in force there between these addresses.
// Once an address is another, it says nothing about that family any more.
struct Confirmation {
  std::optional<IpAddress> from4, from6, to4, to6;
  std::vector<PortRange> ranges;  // normalised

  [[nodiscard]] const std::optional<IpAddress>& from(Family family) const {
    return family == Family::kV4 ? from4 : from6;
  }
  [[nodiscard]] const std::optional<IpAddress>& to(Family family) const {
    return family == Family::kV4 ? to4 : to6;
  }
  bool operator==(const Confirmation&) const = default;
};
// By consumer, then provider.
using Confirmations =
    std::map<std::string, std::map<std::string, Confirmation, std::less<>>, std::less<>>;

// Another node of the cluster.
struct RemoteNode {
  std::string name;
  std::vector<Prefix> blocks;       // where its containers have their addresses
  std::vector<IpAddress> underlay;  // of the node itself
  bool gateway = false;             // connections to raw publications come from it
  bool operator==(const RemoteNode&) const = default;
};

// A port of a gateway, as those outside use it.
struct OutsideKey {
  Proto proto = Proto::kTcp;
  std::uint16_t port = 0;
  auto operator<=>(const OutsideKey&) const = default;
};

// Where a gateway takes it to: a raw publication, by a node port of the workload's node.
struct Outside {
  std::string id;                   // the workload's
  std::uint16_t port = 0;           // of the container
  std::optional<IpAddress> v4, v6;  // of its node
  std::uint16_t node_port = 0;
  std::vector<Prefix> allow_from;
  [[nodiscard]] const std::optional<IpAddress>& address(Family family) const {
    return family == Family::kV4 ? v4 : v6;
  }
  bool operator==(const Outside&) const = default;
};

// What the node is: configuration and facts that change rarely.
struct Settings {
  std::string node_name;
  std::string zone = "mesh.internal";                        // lower case, no final dot
  std::optional<Prefix> pool4, pool6, vip_pool4, vip_pool6;  // absent: family is off
  // Where this node's own containers get their addresses; absent: the whole pool.
  std::optional<Prefix> block4, block6;
  bool in_cluster = false;
  std::vector<std::string> trunks;              // interfaces by which other nodes' packets come
  std::vector<std::string> engines4, engines6;  // bridges of container engines
  std::optional<std::string> tunnel;            // one of them, when that is our VXLAN device
  // The resolver's addresses: [0] is asked directly, [1] is where redirected port 53 goes.
  IpAddress resolver4[2], resolver6[2];
  std::vector<std::uint32_t> allow_uids;                      // beside 0
  std::vector<IpAddress> publish_addresses;                   // where node ports answer
  std::uint16_t publish_first = 20000, publish_last = 29999;  // node ports to choose from
  std::vector<Prefix> publish_allow_from;                     // default sources of raw publications
  std::vector<Prefix> proxies, cluster_proxies;       // sources of http publications; of all nodes
  bool gateway = false;                               // for raw publications of all the cluster
  std::uint16_t gateway_first = 0, gateway_last = 0;  // its outside ports; 0: none
  std::vector<IpAddress> node_addresses;              // never reached by egress
  std::vector<std::string> reserved_names;
  std::uint32_t dns_client_rate = 2000;  // packets a second and container

  [[nodiscard]] const std::optional<Prefix>& pool(Family f) const {
    return f == Family::kV4 ? pool4 : pool6;
  }
  // Of the pool, this node's share. Of a family that is off there is none.
  [[nodiscard]] const std::optional<Prefix>& block(Family f) const {
    const auto& share = f == Family::kV4 ? block4 : block6;
    return share && pool(f) ? share : pool(f);
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
  Confirmations confirmed;                                 // of consumers here
  std::map<std::string, RemoteNode> nodes;                 // the others, by name
  std::map<OutsideKey, Outside> outside;                   // of a gateway
  TimePoint now{};                                         // decides which holds are over
};

}  // namespace meshd::policy
