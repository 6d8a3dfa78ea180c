// The truth function a second time, written from its definition and from nothing of
// policy/ but the declared values: what the compiler, the views and the packets must match.
//
//   C may reach S on (protocol, port) iff some peer entry of C resolves to S and lists the
//   port or lists none, S serves the port, and S admits C.
//
// C may be S: behind the VIP of its own service, which it names as a peer, it can meet
// itself. By its own address it cannot.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "policy/types.h"

namespace meshd::oracle {

inline bool in(const policy::PortRange& range, Proto proto, int port) {
  return range.proto == proto && port >= range.first && port <= range.last;
}

inline bool peer_means(const policy::Declaration& c, const policy::Peer& peer,
                       const policy::Declaration& s) {
  if (!peer.id.empty()) return peer.id == s.id;
  if (s.name != peer.name) return false;
  if (peer.scope == policy::Scope::kCluster) return s.scope == policy::Scope::kCluster;
  return s.scope == policy::Scope::kWorkflow && s.workflow == c.workflow;
}

inline bool admits(const policy::Declaration& s, const policy::Declaration& c) {
  for (const auto& owner : s.admit_owners) {
    if (owner == c.owner) return true;
  }
  const bool same_owner = s.owner == c.owner;
  const bool same_run = same_owner && !s.workflow.empty() && s.workflow == c.workflow;
  if (s.admit == policy::Admit::kCluster) return true;
  return s.admit == policy::Admit::kOwner ? same_owner : same_run;
}

inline bool may_reach(const policy::Declaration& c, const policy::Declaration& s, Proto proto,
                      int port) {
  bool served = false;
  for (const auto& entry : s.serves) served = served || in(entry.ports, proto, port);
  if (!served || !oracle::admits(s, c)) return false;
  for (const auto& peer : c.peers) {
    if (!peer_means(c, peer, s)) continue;
    bool listed = peer.ports.empty();
    for (const auto& range : peer.ports) listed = listed || in(range, proto, port);
    if (listed) return true;
  }
  return false;
}

inline bool may_reach_address(const policy::Declaration& c, const policy::Declaration& s,
                              Proto proto, int port) {
  return c.id != s.id && may_reach(c, s, proto, port);
}

// Whether C sees S's names: on some port it may reach it.
inline bool sees(const policy::Declaration& c, const policy::Declaration& s) {
  for (const auto& entry : s.serves) {
    for (int port = entry.ports.first; port <= entry.ports.last; ++port) {
      if (may_reach(c, s, entry.ports.proto, port)) return true;
    }
  }
  return false;
}

// Where S is, on this node or another.
inline std::optional<IpAddress> place_of(const policy::Workload& s, Family family) {
  if (s.attachment) return family == Family::kV4 ? s.attachment->v4 : s.attachment->v6;
  if (s.remote) return family == Family::kV4 ? s.remote->v4 : s.remote->v6;
  return std::nullopt;
}

// Whether new connections to the port at its service's VIP can be led to S. (Not for ready:
// HTTP.)
inline bool stands_behind(const policy::Workload& s, Proto proto, int port, Family family) {
  if (!place_of(s, family) || s.drains()) return false;
  for (const auto& entry : s.declaration.serves) {
    if (!in(entry.ports, proto, port)) continue;
    if (s.declaration.ready == policy::ReadyMode::kNone) return true;
    if (proto == Proto::kUdp || entry.ports.first != entry.ports.last) return true;
    const auto seen = s.tcp_ready.find(static_cast<std::uint16_t>(port));
    return seen != s.tcp_ready.end() && (family == Family::kV4 ? seen->second.v4 : seen->second.v6);
  }
  return false;
}

// A service as one that names it meets it.
class NamedService {
 public:
  NamedService(const policy::World& world, const policy::Declaration& c, policy::ServiceKey key)
      : world_(world), c_(c), key_(std::move(key)) {}

  [[nodiscard]] bool named() const {
    for (const auto& peer : c_.peers) {
      if (peer.name != key_.name || peer.scope != key_.scope) continue;
      if (key_.scope == policy::Scope::kCluster || c_.workflow == key_.workflow) return true;
    }
    return false;
  }
  [[nodiscard]] bool granted(Proto proto, int port) const {
    return any_member([&](const auto& s) { return may_reach(c_, s.declaration, proto, port); });
  }
  [[nodiscard]] bool served(Proto proto, int port, Family family) const {
    return any_member([&](const auto& s) { return stands_behind(s, proto, port, family); });
  }
  // Until the first granted port has an endpoint both families are answered, afterwards those
  // on which some granted port has one.
  [[nodiscard]] bool answered(Family family) const {
    const auto other = family == Family::kV4 ? Family::kV6 : Family::kV4;
    return some_granted_served(family) || !some_granted_served(other);
  }
  // Whether a packet to that port waits, in a family that is answered.
  [[nodiscard]] bool held(Proto proto, int port, Family family) const {
    if (!named() || !granted(proto, port) || !answered(family)) return false;
    if (served(proto, port, Family::kV4) || served(proto, port, Family::kV6)) return false;
    const auto& service = world_.services.at(key_);
    const auto since = std::max({world_.workloads.find(c_.id)->second.attachment->attached_at,
                                 service.declared_at, service.endpoint_lost_at});
    return any_member([&](const auto& s) { return world_.now < since + s.declaration.hold; });
  }

 private:
  template <class Test>
  [[nodiscard]] bool any_member(const Test& test) const {
    for (const auto& [id, s] : world_.workloads) {
      if (s.declaration.service() == key_ && test(s)) return true;
    }
    return false;
  }
  [[nodiscard]] bool some_granted_served(Family family) const {
    return any_member([&](const auto& s) {
      for (const auto& entry : s.declaration.serves) {
        for (int port = entry.ports.first; port <= entry.ports.last; ++port) {
          if (granted(entry.ports.proto, port) && served(entry.ports.proto, port, family)) {
            return true;
          }
        }
      }
      return false;
    });
  }

  const policy::World& world_;
  const policy::Declaration& c_;
  policy::ServiceKey key_;
};

}  // namespace meshd::oracle
