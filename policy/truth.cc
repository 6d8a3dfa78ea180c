#include "policy/truth.h"

#include <fmt/format.h>

#include <algorithm>

#include "policy/interval.h"

namespace meshd::policy {
namespace {

bool lists(const Peer& peer, Proto proto, std::uint16_t port) {
  return peer.ports.empty() || std::ranges::any_of(peer.ports, [&](const PortRange& range) {
           return range.contains(proto, port);
         });
}

bool serves(const Declaration& provider, Proto proto, std::uint16_t port) {
  return std::ranges::any_of(provider.serves, [&](const ServedPort& served) {
    return served.ports.contains(proto, port);
  });
}

std::string_view admit_text(Admit admit) {
  switch (admit) {
    case Admit::kWorkflow:
      return "admits its own workflow and owner only";
    case Admit::kOwner:
      return "admits its own owner only";
    case Admit::kCluster:
      return "admits everybody";
  }
  return {};
}

}  // namespace

std::optional<ServiceKey> peer_service(const Declaration& consumer, const Peer& peer) {
  if (peer.name.empty()) return std::nullopt;
  if (peer.scope == Scope::kCluster) return ServiceKey{peer.scope, {}, peer.name};
  return ServiceKey{peer.scope, consumer.workflow, peer.name};
}

bool resolves_to(const Declaration& consumer, const Peer& peer, const Declaration& provider) {
  if (!peer.id.empty()) return peer.id == provider.id;
  // Compared field by field: this runs for every pair, and a ServiceKey would copy strings.
  if (provider.name != peer.name || provider.scope != peer.scope) return false;
  return peer.scope == Scope::kCluster || provider.workflow == consumer.workflow;
}

bool admits(const Declaration& provider, const Declaration& consumer) {
  if (std::ranges::find(provider.admit_owners, consumer.owner) != provider.admit_owners.end()) {
    return true;
  }
  switch (provider.admit) {
    case Admit::kWorkflow:
      return !provider.workflow.empty() && provider.workflow == consumer.workflow &&
             provider.owner == consumer.owner;
    case Admit::kOwner:
      return provider.owner == consumer.owner;
    case Admit::kCluster:
      return true;
  }
  return false;
}

std::vector<PortRange> normalise(std::vector<PortRange> ranges) {
  std::ranges::sort(ranges);
  std::vector<PortRange> result;
  for (const auto& range : ranges) {
    // 65535 + 1 must not wrap: compare in int.
    if (!result.empty() && result.back().proto == range.proto &&
        int{range.first} <= int{result.back().last} + 1) {
      result.back().last = std::max(result.back().last, range.last);
    } else {
      result.push_back(range);
    }
  }
  return result;
}

std::vector<PortRange> without(const std::vector<PortRange>& from,
                               const std::vector<PortRange>& minus) {
  std::vector<PortRange> result;
  for (const auto& range : from) {
    std::vector<Interval> holes;
    for (const auto& other : minus) {
      if (other.proto == range.proto) holes.push_back({other.first, other.last});
    }
    for (const auto& rest : subtract({{range.first, range.last}}, holes)) {
      result.push_back({range.proto, static_cast<std::uint16_t>(rest.first),
                        static_cast<std::uint16_t>(rest.last)});
    }
  }
  return result;
}

std::vector<PortRange> granted_ranges(const Declaration& consumer, const Declaration& provider) {
  std::vector<const Peer*> peers;
  for (const auto& peer : consumer.peers) {
    if (resolves_to(consumer, peer, provider)) peers.push_back(&peer);
  }
  return granted_ranges(consumer, peers, provider);
}

std::vector<PortRange> granted_ranges(const Declaration& consumer,
                                      std::span<const Peer* const> peers,
                                      const Declaration& provider) {
  std::vector<PortRange> granted;
  for (const auto* peer : peers) {
    for (const auto& served : provider.serves) {
      if (peer->ports.empty()) granted.push_back(served.ports);
      for (const auto& wanted : peer->ports) {
        if (wanted.proto != served.ports.proto) continue;
        const PortRange both{wanted.proto, std::max(wanted.first, served.ports.first),
                             std::min(wanted.last, served.ports.last)};
        if (both.first <= both.last) granted.push_back(both);
      }
    }
  }
  if (granted.empty() || !admits(provider, consumer)) return {};
  return normalise(std::move(granted));
}

Decision decide(const Declaration& consumer, const Declaration& provider, Proto proto,
                std::uint16_t port) {
  Decision decision;
  const auto what = provider.name.empty() ? provider.id : provider.name;
  decision.reason = fmt::format("{} declares no peer {}", consumer.id, what);
  for (std::size_t i = 0; i < consumer.peers.size(); ++i) {
    const auto& peer = consumer.peers[i];
    if (!resolves_to(consumer, peer, provider)) continue;
    if (lists(peer, proto, port)) {
      decision.ruling = Ruling::kAllowed;
      decision.peer = i;
      decision.reason = fmt::format("{} declares the peer {} (peers[{}])", consumer.id, what, i);
      break;
    }
    decision.ruling = Ruling::kPortNotListed;
    decision.peer = i;
    decision.reason = fmt::format("{} declares the peer {} (peers[{}]) without {}/{}", consumer.id,
                                  what, i, proto_name(proto), port);
  }
  if (decision.ruling != Ruling::kAllowed) return decision;
  if (!serves(provider, proto, port)) {
    decision.ruling = Ruling::kNotServed;
    decision.reason = fmt::format("{} does not serve {}/{}", provider.id, proto_name(proto), port);
  } else if (!admits(provider, consumer)) {
    decision.ruling = Ruling::kNotAdmitted;
    decision.reason = fmt::format("{} {}", provider.id, admit_text(provider.admit));
  }
  return decision;
}

}  // namespace meshd::policy
