#include "controller/outside.h"

#include <algorithm>
#include <map>
#include <set>

namespace meshd::controller {
namespace {

using policy::OutsideKey;

Write put_outside(const OutsideKey& key, const OutsideHolder& holder,
                  const std::optional<TimePoint>& rests_until, const Moment& now) {
  mesh::v1::StoredOutside stored;
  stored.set_service(holder.service);
  stored.set_id(holder.id);
  stored.set_port(holder.port);
  if (rests_until) stored.set_until_ms(now.wall_of(*rests_until));
  return put(kind::ObjectKind::OUTSIDE, policy::outside_key_text(key), stored);
}

// A service that nobody runs just now keeps what it had; one that runs, what it declares.
bool is_held(const Cluster& cluster, const OutsideHolder& holder) {
  if (cluster.raw_published().contains(holder)) return true;
  if (holder.service.empty()) return false;
  const auto key = parse_service_key(holder.service);
  return cluster.world().services.contains(key) && !cluster.index().members.contains(key);
}

const policy::Publication* raw_publication(const policy::Declaration& declaration, Proto proto,
                                           std::uint16_t port) {
  const auto found = std::ranges::find_if(declaration.publish, [&](const auto& p) {
    return !p.http && p.proto == proto && p.port == port;
  });
  return found == declaration.publish.end() ? nullptr : &*found;
}

class Settlement {
 public:
  Settlement(const Cluster& cluster, const policy::PortSpan& range, const Moment& now)
      : cluster_(cluster), range_(range), now_(now) {}

  Writes settle() {
    for (const auto& [key, port] : cluster_.outside()) keep_or_end(key, port);
    // Numbers that are asked for first, so that a choice takes none of them.
    for (const bool asked : {true, false}) {
      for (const auto& [holder, ids] : cluster_.raw_published()) {
        if (served_.contains(holder)) continue;
        const auto port = asked ? asked_for(holder, ids) : first_free(holder.proto);
        if (port == 0) continue;
        taken_.insert({holder.proto, port});
        served_.insert(holder);
        writes_.push_back(put_outside({holder.proto, port}, holder, {}, now_));
      }
    }
    return std::move(writes_);
  }

 private:
  void keep_or_end(const OutsideKey& key, const OutsidePort& port) {
    const bool rested = port.rests_until && *port.rests_until <= now_.steady;
    if (!range_.contains(key.port) || (rested && !is_held(cluster_, port.holder))) {
      writes_.push_back(drop(kind::ObjectKind::OUTSIDE, policy::outside_key_text(key)));
      return;
    }
    taken_.insert(key);
    if (is_held(cluster_, port.holder)) {
      served_.insert(port.holder);
      if (port.rests_until) writes_.push_back(put_outside(key, port.holder, {}, now_));
    } else if (!port.rests_until) {
      writes_.push_back(put_outside(key, port.holder, now_.steady + kOutsideRest, now_));
    }
  }

  // The number that one of them has declared for its node; 0: none, or not to be had.
  [[nodiscard]] std::uint16_t asked_for(const OutsideHolder& holder,
                                        const std::set<std::string>& ids) const {
    for (const auto& id : ids) {
      const auto* publication =
          raw_publication(*cluster_.declaration(id), holder.proto, holder.port);
      if (publication == nullptr || !publication->node_port) continue;
      const auto port = *publication->node_port;
      if (range_.contains(port) && !taken_.contains({holder.proto, port})) return port;
    }
    return 0;
  }

  [[nodiscard]] std::uint16_t first_free(Proto proto) {
    auto& next = next_.try_emplace(proto, range_.first).first->second;
    for (; next <= range_.last; ++next) {
      const auto port = static_cast<std::uint16_t>(next);
      if (!taken_.contains({proto, port})) return port;
    }
    return 0;
  }

  const Cluster& cluster_;
  const policy::PortSpan& range_;
  const Moment& now_;
  std::set<OutsideKey> taken_;
  std::set<OutsideHolder> served_;
  std::map<Proto, std::uint32_t> next_;  // below are none free
  Writes writes_;
};

// What its node has installed of it, at addresses of the node that others are told of: whatever
// else a node says is not where its containers are.
std::optional<mesh::v1::SliceOutside> installed(const Cluster& cluster, const std::string& id,
                                                const OutsideHolder& holder) {
  const auto& workload = cluster.world().workloads.find(id)->second;
  const auto* placement = cluster.placement(id);
  if (!workload.remote || placement == nullptr) return std::nullopt;
  const auto node = cluster.nodes().find(placement->node);
  const auto* publication = raw_publication(workload.declaration, holder.proto, holder.port);
  if (node == cluster.nodes().end() || publication == nullptr) return std::nullopt;
  const auto protocol =
      holder.proto == Proto::kUdp ? mesh::v1::Protocol::UDP : mesh::v1::Protocol::TCP;
  for (const auto& info : placement->reported.published()) {
    if (info.http() || info.port() != holder.port || info.protocol() != protocol) continue;
    if (info.node_port() < 1 || info.node_port() > 65535) continue;
    mesh::v1::SliceOutside item;
    item.set_id(id);
    item.set_port(holder.port);
    item.set_node_port(info.node_port());
    for (const auto family : kFamilies) {
      for (const auto& address : node->second.underlay) {
        const auto text = address.to_string();
        if (address.family() != family) continue;
        if (std::ranges::find(info.node_addresses(), text) == info.node_addresses().end()) continue;
        item.add_node_addresses(text);
        break;
      }
    }
    if (item.node_addresses().empty()) return std::nullopt;
    if (publication->allow_from) {
      for (const auto& prefix : *publication->allow_from) item.add_allow_from(prefix.to_string());
    } else {
      for (const auto& text : info.allow_from()) {  // as the node is configured
        const auto prefix = Prefix::parse(text);
        if (prefix) item.add_allow_from(prefix->to_string());
        if (static_cast<std::size_t>(item.allow_from().size()) == kMaxReportedSources) break;
      }
    }
    return item;
  }
  return std::nullopt;
}

}  // namespace

Writes settle_outside(const Cluster& cluster, const policy::PortSpan& range, const Moment& now) {
  return range.first == 0 ? Writes() : Settlement(cluster, range, now).settle();
}

std::optional<OutsideTarget> outside_target(const Cluster& cluster, const OutsideKey& key) {
  const auto found = cluster.outside().find(key);
  if (found == cluster.outside().end() || found->second.rests_until) return std::nullopt;
  const auto members = cluster.raw_published().find(found->second.holder);
  if (members == cluster.raw_published().end()) return std::nullopt;
  // Of several the first, so that it is always the same; one that drains only when all do.
  for (const bool draining : {false, true}) {
    for (const auto& id : members->second) {
      if (cluster.world().workloads.find(id)->second.drains() != draining) continue;
      if (auto item = installed(cluster, id, members->first)) return {{id, *std::move(item)}};
    }
  }
  return std::nullopt;
}

}  // namespace meshd::controller
