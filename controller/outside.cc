#include "controller/outside.h"

#include <algorithm>
#include <map>
#include <set>

#include "controller/installed.h"

namespace meshd::controller {
namespace {

using policy::OutsideKey;

Kind kind_of(OutsideUse use) {
  return use == OutsideUse::kWeb ? kind::ObjectKind::WEB_PORT : kind::ObjectKind::OUTSIDE;
}

Write put_outside(OutsideUse use, const OutsideKey& key, const OutsideHolder& holder,
                  const std::optional<TimePoint>& rests_until, const Moment& now) {
  mesh::v1::StoredOutside stored;
  stored.set_service(holder.service);
  stored.set_id(holder.id);
  stored.set_port(holder.port);
  if (rests_until) stored.set_until_ms(now.wall_of(*rests_until));
  return put(kind_of(use), policy::outside_key_text(key), stored);
}

// A service that nobody runs just now keeps what it had; one that runs, what it declares.
bool is_held(const Cluster& cluster, const OutsidePorts& ports, const OutsideHolder& holder) {
  if (ports.published.contains(holder)) return true;
  if (holder.service.empty()) return false;
  const auto key = parse_service_key(holder.service);
  return cluster.world().services.contains(key) && !cluster.index().members.contains(key);
}

const policy::Publication* publication_of(const policy::Declaration& declaration, bool http,
                                          Proto proto, std::uint16_t port) {
  const auto found = std::ranges::find_if(declaration.publish, [&](const auto& p) {
    return p.http == http && p.proto == proto && p.port == port;
  });
  return found == declaration.publish.end() ? nullptr : &*found;
}

class Settlement {
 public:
  Settlement(const Cluster& cluster, OutsideUse use, const policy::PortSpan& range,
             const Moment& now)
      : cluster_(cluster), ports_(cluster.outside(use)), use_(use), range_(range), now_(now) {}

  Writes settle() {
    for (const auto& [key, port] : ports_.given) keep_or_end(key, port);
    // Numbers that are asked for first, so that a choice takes none of them.
    for (const bool asked : {true, false}) {
      for (const auto& [holder, ids] : ports_.published) {
        if (served_.contains(holder)) continue;
        const auto port = asked ? asked_for(holder, ids) : first_free(holder.proto);
        if (port == 0) continue;
        taken_.insert({holder.proto, port});
        served_.insert(holder);
        writes_.push_back(put_outside(use_, {holder.proto, port}, holder, {}, now_));
      }
    }
    return std::move(writes_);
  }

 private:
  void keep_or_end(const OutsideKey& key, const OutsidePort& port) {
    const bool rested = port.rests_until && *port.rests_until <= now_.steady;
    const bool held = is_held(cluster_, ports_, port.holder);
    if (!range_.contains(key.port) || (rested && !held)) {
      writes_.push_back(drop(kind_of(use_), policy::outside_key_text(key)));
      return;
    }
    taken_.insert(key);
    if (held) {
      served_.insert(port.holder);
      if (port.rests_until) writes_.push_back(put_outside(use_, key, port.holder, {}, now_));
    } else if (!port.rests_until) {
      writes_.push_back(put_outside(use_, key, port.holder, now_.steady + kOutsideRest, now_));
    }
  }

  // The number that one of them has declared for its node; 0: none, or not to be had.
  [[nodiscard]] std::uint16_t asked_for(const OutsideHolder& holder,
                                        const std::set<std::string>& ids) const {
    for (const auto& id : ids) {
      const auto* publication = publication_of(*cluster_.declaration(id), use_ == OutsideUse::kWeb,
                                               holder.proto, holder.port);
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
  const OutsidePorts& ports_;
  const OutsideUse use_;
  const policy::PortSpan& range_;
  const Moment& now_;
  std::set<OutsideKey> taken_;
  std::set<OutsideHolder> served_;
  std::map<Proto, std::uint32_t> next_;  // below are none free
  Writes writes_;
};

// What a gateway is told, once it is installed where it leads to.
std::optional<mesh::v1::SliceOutside> item_of(const Cluster& cluster, const std::string& id,
                                              const OutsideHolder& holder) {
  const auto found = installed(cluster, id, holder.proto, holder.port, false);
  const auto* declared = publication_of(*cluster.declaration(id), false, holder.proto, holder.port);
  if (!found || declared == nullptr) return std::nullopt;
  mesh::v1::SliceOutside item;
  item.set_id(id);
  item.set_port(holder.port);
  item.set_node_port(found->node_port);
  for (const auto& address : found->addresses) item.add_node_addresses(address.to_string());
  if (declared->allow_from) {
    for (const auto& prefix : *declared->allow_from) item.add_allow_from(prefix.to_string());
    return item;
  }
  for (const auto& text : found->info->allow_from()) {  // as the node is configured
    const auto prefix = Prefix::parse(text);
    if (prefix) item.add_allow_from(prefix->to_string());
    if (static_cast<std::size_t>(item.allow_from().size()) == kMaxReportedSources) break;
  }
  return item;
}

}  // namespace

Writes settle_outside(const Cluster& cluster, OutsideUse use, const policy::PortSpan& range,
                      const Moment& now) {
  return range.first == 0 ? Writes() : Settlement(cluster, use, range, now).settle();
}

std::optional<OutsideTarget> outside_target(const Cluster& cluster, const OutsideKey& key) {
  const auto& ports = cluster.outside(OutsideUse::kGateway);
  const auto found = ports.given.find(key);
  if (found == ports.given.end() || found->second.rests_until) return std::nullopt;
  const auto members = ports.published.find(found->second.holder);
  if (members == ports.published.end()) return std::nullopt;
  // Of several the first, so that it is always the same; one that drains only when all do.
  for (const bool draining : {false, true}) {
    for (const auto& id : members->second) {
      if (cluster.world().workloads.find(id)->second.drains() != draining) continue;
      if (auto item = item_of(cluster, id, members->first)) return {{id, *std::move(item)}};
    }
  }
  return std::nullopt;
}

}  // namespace meshd::controller
