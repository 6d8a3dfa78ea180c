// Which open connections an outcome ends: each is judged by the world before and by the one
// after, as the rules would judge its next packet.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "policy/changes.h"
#include "policy/fragment.h"
#include "policy/profile.h"
#include "policy/truth.h"

namespace meshd::policy {
namespace {

template <class T>
bool keeps_all(const std::vector<T>& old, const std::vector<T>& now) {
  return std::ranges::all_of(
      old, [&](const T& entry) { return std::ranges::find(now, entry) != now.end(); });
}

// Whether everything that an open connection may rest on is still there, word for word.
bool only_adds(const Declaration& old, const Declaration& now) {
  return old.owner == now.owner && old.workflow == now.workflow && old.service() == now.service() &&
         old.admit == now.admit && keeps_all(old.admit_owners, now.admit_owners) &&
         keeps_all(old.serves, now.serves) && keeps_all(old.peers, now.peers) &&
         keeps_all(old.publish, now.publish) && keeps_all(old.egress, now.egress);
}

enum class Way { kForeign, kFlow, kEgress, kPublication, kNode };

// One of the two worlds. Places are those of the world before in both: an apply
// attaches nobody.
class Side {
 public:
  Side(const World& world, const Outcome* outcome) : world_(world), outcome_(outcome) {
    for (const auto& [id, workload] : world.workloads) {
      for (const auto family : kFamilies) {
        const auto& address = workload.address(family);
        if (address) by_address_[*address] = &workload;
      }
    }
    for (const auto& [key, service] : world.services) add_vips(key, service);
    if (outcome == nullptr) return;
    for (const auto& key : outcome->services_gone) {
      for (const auto family : kFamilies) {
        const auto& vip = world.services.at(key).vip(family);
        if (vip) by_vip_.erase(*vip);
      }
    }
    for (const auto& [key, service] : outcome->services) add_vips(key, service);
  }

  [[nodiscard]] const Workload* at(const IpAddress& address) const {
    const auto found = by_address_.find(address);
    return found == by_address_.end() ? nullptr : found->second;
  }

  [[nodiscard]] bool is_vip(const IpAddress& address) const { return by_vip_.contains(address); }

  [[nodiscard]] const Declaration& declaration(const Workload& workload) const {
    if (outcome_ != nullptr) {
      const auto found = outcome_->declarations.find(workload.declaration.id);
      if (found != outcome_->declarations.end()) return found->second;
    }
    return workload.declaration;
  }

  [[nodiscard]] std::optional<std::uint16_t> node_port(const PublishKey& key) const {
    if (outcome_ != nullptr) {
      if (std::ranges::find(outcome_->node_ports_gone, key) != outcome_->node_ports_gone.end()) {
        return std::nullopt;
      }
      const auto found = outcome_->node_ports.find(key);
      if (found != outcome_->node_ports.end()) return found->second;
    }
    const auto found = world_.node_ports.find(key);
    return found == world_.node_ports.end() ? std::nullopt : std::optional(found->second);
  }

  // As long as the server is that service and serves the port: that it is not ready any
  // more, or draining, ends no open connection.
  [[nodiscard]] bool leads_to(const LiveConnection& live, const Workload& server) const {
    const auto found = by_vip_.find(live.asked);
    const auto& declared = declaration(server);
    return found != by_vip_.end() && declared.service() == found->second &&
           std::ranges::any_of(declared.serves, [&](const ServedPort& served) {
             return served.ports.contains(live.proto, live.asked_port);
           });
  }

 private:
  void add_vips(const ServiceKey& key, const Service& service) {
    for (const auto family : kFamilies) {
      if (service.vip(family)) by_vip_[*service.vip(family)] = key;
    }
  }

  const World& world_;
  const Outcome* outcome_;  // null: before it
  std::unordered_map<IpAddress, const Workload*> by_address_;
  std::unordered_map<IpAddress, ServiceKey> by_vip_;
};

class Judge {
 public:
  Judge(const World& before, const Outcome& outcome)
      : settings_(before.settings),
        outcome_(outcome),
        before_(before, nullptr),
        after_(before, &outcome) {}

  [[nodiscard]] Way way_of(const LiveConnection& live) const {
    const bool from = before_.at(live.source) != nullptr, to = before_.at(live.server) != nullptr;
    if (from && to) return Way::kFlow;
    if (from) return Way::kEgress;
    if (!to) return Way::kForeign;
    return is_node(settings_, live.source) ? Way::kNode : Way::kPublication;
  }

  [[nodiscard]] bool is_cut(const LiveConnection& live, Way way) const {
    if (way == Way::kForeign) return false;
    // Most have nothing to do with what changes.
    const bool moved = !translates(after_, live);
    if (!moved && !concerns(live.source) && !concerns(live.server)) return false;
    if (!translates(before_, live) || !permits(before_, live, way)) return false;
    return moved || !permits(after_, live, way);
  }

  // What it goes by, not which connection it is: a crawler has thousands.
  [[nodiscard]] std::string subject(const LiveConnection& live, Way way) const {
    const auto name = [&](const IpAddress& address) { return before_.at(address)->declaration.id; };
    const auto port = fmt::format("{}/{}", proto_name(live.proto), live.port);
    switch (way) {
      case Way::kFlow:
        return fmt::format("{} -> {} {}", name(live.source), name(live.server), port);
      case Way::kEgress:
        return fmt::format("{} -> outside {}", name(live.source), port);
      case Way::kPublication:
        return fmt::format("outside -> {} {}", name(live.server), port);
      case Way::kNode:
        return fmt::format("node -> {} {}", name(live.server), port);
      case Way::kForeign:
        break;
    }
    return {};
  }

 private:
  [[nodiscard]] bool concerns(const IpAddress& address) const {
    const auto* workload = before_.at(address);
    return workload != nullptr && outcome_.declarations.contains(workload->declaration.id);
  }

  // An entry that leads to a place where it would not be led today is erased.
  [[nodiscard]] bool translates(const Side& side, const LiveConnection& live) const {
    const auto* server = side.at(live.server);
    if (server == nullptr || live.asked == live.server) return true;
    if (side.is_vip(live.asked)) return side.leads_to(live, *server);
    const auto& answering = settings_.publish_addresses;
    return std::ranges::find(answering, live.asked) != answering.end() &&
           side.node_port({server->declaration.id, live.proto, live.port}) == live.asked_port;
  }

  [[nodiscard]] bool permits(const Side& side, const LiveConnection& live, Way way) const {
    switch (way) {
      case Way::kFlow:
        return grants(side, live);
      case Way::kEgress:
        return goes_out(side.declaration(*side.at(live.source)), live);
      case Way::kPublication:
        return live.asked != live.server && lets_in(side.declaration(*side.at(live.server)), live);
      default:
        return true;  // what the node's own processes may is no declaration's business
    }
  }

  [[nodiscard]] static bool grants(const Side& side, const LiveConnection& live) {
    const auto& consumer = side.declaration(*side.at(live.source));
    const auto& provider = side.declaration(*side.at(live.server));
    return decide(consumer, provider, live.proto, live.port).ruling == Ruling::kAllowed;
  }

  [[nodiscard]] static bool goes_out(const Declaration& declaration, const LiveConnection& live) {
    // Port 53 goes to the node's resolver: that ends with no declaration.
    if (live.asked != live.server) return true;
    return std::ranges::any_of(declaration.egress, [&](const EgressRule& rule) {
      return rule.cidr.contains(live.server) &&
             (rule.ports.empty() || std::ranges::any_of(rule.ports, [&](const PortRange& range) {
                return range.contains(live.proto, live.port);
              }));
    });
  }

  [[nodiscard]] bool lets_in(const Declaration& declaration, const LiveConnection& live) const {
    return std::ranges::any_of(declaration.publish, [&](const Publication& publication) {
      return publication.proto == live.proto && publication.port == live.port &&
             std::ranges::any_of(sources_of(settings_, publication), [&](const Prefix& source) {
               return source.contains(live.source);
             });
    });
  }

  const Settings& settings_;
  const Outcome& outcome_;
  Side before_, after_;
};

}  // namespace

bool may_cut(const World& before, const Outcome& outcome) {
  if (!outcome.services_gone.empty() || !outcome.node_ports_gone.empty()) return true;
  const bool moved = std::ranges::any_of(
      outcome.node_ports, [&](const auto& port) { return before.node_ports.contains(port.first); });
  return moved || std::ranges::any_of(outcome.declarations, [&](const auto& changed) {
           const auto found = before.workloads.find(changed.first);
           return found != before.workloads.end() && found->second.is_placed() &&
                  !only_adds(found->second.declaration, changed.second);
         });
}

std::vector<Change> cut_connections(const World& before, const Outcome& outcome,
                                    std::span<const LiveConnection> live) {
  std::map<std::string, std::size_t> counts;
  if (!live.empty() && may_cut(before, outcome)) {
    const Judge judge(before, outcome);
    for (const auto& connection : live) {
      const auto way = judge.way_of(connection);
      if (judge.is_cut(connection, way)) ++counts[judge.subject(connection, way)];
    }
  }
  std::vector<Change> changes;
  for (const auto& [subject, count] : counts) {
    changes.push_back({Change::Kind::kConnectionCut, subject,
                       count == 1 ? std::string("1 open connection ends")
                                  : fmt::format("{} open connections end", count)});
  }
  return changes;
}

}  // namespace meshd::policy
