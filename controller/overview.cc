#include "controller/overview.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "controller/openings.h"
#include "controller/outside.h"
#include "controller/refused.h"
#include "policy/fragment.h"
#include "policy/name.h"
#include "policy/truth.h"

namespace meshd::controller {
namespace {

// Each costs some microseconds; nobody reads more.
constexpr std::size_t kMaxExplained = 256;

using proxy::Shown;
using proxy::ShownRefusal;

std::string served_text(const policy::ServedPort& served) {
  auto text = proxy::port_text(served.ports.proto, served.ports.first, served.ports.last);
  if (!served.name.empty()) text.append(" ") += served.name;
  return text;
}

std::string at_text(const IpAddress& address, std::uint16_t port) {
  return address.is_v4() ? fmt::format("{}:{}", address.to_string(), port)
                         : fmt::format("[{}]:{}", address.to_string(), port);
}

// Raw publications that gateways take connections to.
std::vector<std::string> outside_of(const Cluster& cluster,
                                    const policy::Declaration& declaration) {
  std::vector<std::string> texts;
  for (const auto& holder : holders_of(declaration, OutsideUse::kGateway)) {
    const auto key = cluster.outside(OutsideUse::kGateway).find(holder);
    if (!key || !outside_target(cluster, *key)) continue;
    std::string where;
    for (const auto& [name, node] : cluster.nodes()) {
      if (!node.gateway) continue;
      for (const auto& address : node.gateway_addresses) {
        where.append(where.empty() ? "" : ", ") += at_text(address, key->port);
      }
    }
    if (where.empty()) continue;
    texts.push_back(
        fmt::format("{} at {}", proxy::port_text(holder.proto, holder.port, holder.port), where));
  }
  return texts;
}

class Shaping {
 public:
  Shaping(const Cluster& cluster, const std::set<std::string>& stale, const proxy::Site& site)
      : cluster_(cluster), stale_(stale), site_(site) {}

  proxy::Shape shape() {
    const auto& workloads = cluster_.world().workloads;
    shape_.workloads.reserve(workloads.size());
    for (const auto& [id, workload] : workloads) {
      places_.emplace(id, static_cast<std::uint32_t>(shape_.workloads.size()));
      shape_.workloads.push_back(shown(id, workload));
    }
    for (const auto& [id, workload] : workloads) peers(places_.at(id), workload.declaration);
    return std::move(shape_);
  }

 private:
  Shown shown(const std::string& id, const policy::Workload& workload) const {
    const auto& declaration = workload.declaration;
    Shown result;
    result.id = id;
    result.owner = declaration.owner;
    result.workflow = declaration.workflow;
    result.service = declaration.name;
    result.scope = declaration.scope;
    for (const auto& served : declaration.serves) result.serves.push_back(served_text(served));
    result.outside = outside_of(cluster_, declaration);
    const auto opening = opening_of(cluster_, id, stale_);
    if (!opening) return result;
    result.state = opening->state;
    result.stale = opening->stale;
    if (workload.remote) result.node = workload.remote->node;
    for (const auto& open : opening->ports) {
      if (!open.http) continue;
      for (auto& target : web_targets(cluster_, id, open.port)) {
        if (proxy::url_of(site_, target, open.path).empty()) continue;
        result.links.push_back(
            {open.port, std::move(target), open.label, open.path, open.access, open.ready});
        break;
      }
    }
    return result;
  }

  void peers(std::uint32_t place, const policy::Declaration& consumer) {
    if (consumer.peers.empty()) return;
    std::vector<bool> granted(consumer.peers.size(), false);
    for (const auto& [provider, ranges] :
         policy::providers_of(cluster_.world(), cluster_.index(), consumer)) {
      const auto& declaration = provider->declaration;
      const policy::Peer* by = nullptr;
      for (std::size_t i = 0; i < consumer.peers.size(); ++i) {
        if (!policy::resolves_to(consumer, consumer.peers[i], declaration)) continue;
        granted[i] = true;
        if (by == nullptr) by = &consumer.peers[i];
      }
      const auto found = places_.find(declaration.id);
      if (by == nullptr || found == places_.end()) continue;
      const auto& named = declaration.admit_owners;
      shape_.edges.push_back({place, found->second, by->name,
                              std::ranges::find(named, consumer.owner) != named.end(), ranges});
    }
    for (std::size_t i = 0; i < consumer.peers.size(); ++i) {
      if (!granted[i])
        shape_.wishes.push_back({place, consumer.peers[i].name, consumer.peers[i].id});
    }
  }

  const Cluster& cluster_;
  const std::set<std::string>& stale_;
  const proxy::Site& site_;
  proxy::Shape shape_;
  std::unordered_map<std::string_view, std::uint32_t> places_;
};

// --- refusals ------------------------------------------------------------------------

// Whom a refusal was by: a container, or the name or address that was asked for.
struct RefusedBy {
  std::string text, owner;
  const policy::Declaration* declaration = nullptr;  // absent: nobody's, or nobody's now
};

RefusedBy refused_by(const Cluster& cluster, const std::string& text) {
  RefusedBy by{text, {}, cluster.declaration(text)};
  if (by.declaration == nullptr) {
    const auto& world = cluster.world();
    const auto name = policy::parse_fqdn(world.settings.zone, text);
    if (name && !name->id.empty()) by.declaration = cluster.declaration(name->id);
    if (name && name->service) {
      by.text = policy::service_text(*name->service);
      const auto service = world.services.find(*name->service);
      if (service != world.services.end()) by.owner = service->second.owner;
      const auto members = cluster.index().members.find(*name->service);
      if (members != cluster.index().members.end() && !members->second.empty()) {
        by.declaration = cluster.declaration(*members->second.begin());
      }
    }
  }
  if (by.declaration != nullptr) {
    by.text = by.declaration->id;
    by.owner = by.declaration->owner;
  }
  return by;
}

// Somebody has added what was missing.
bool is_over(const policy::RefusedPair& pair, const policy::Declaration& consumer,
             const policy::Declaration* provider) {
  if (provider == nullptr) return false;
  if (pair.port == 0) return !policy::granted_ranges(consumer, *provider).empty();
  return policy::decide(consumer, *provider, pair.proto, pair.port).ruling ==
         policy::Ruling::kAllowed;
}

// One of the two may have added their part since: what is missing now is the other's.
void refresh_missing(const Cluster& cluster, ShownRefusal& refusal) {
  if (refusal.port == 0 || cluster.declaration(refusal.provider) == nullptr) return;
  const auto why =
      explained(cluster, {refusal.consumer, refusal.provider, refusal.proto, refusal.port});
  if (why && !why->missing.empty()) refusal.missing = why->missing;
}

// As policy/explain and meshd/refusal_text write it: "in ID: ...", or what nobody declares.
ShownRefusal::Whose whose(const std::string& missing, const std::string& consumer) {
  if (missing.starts_with("in " + consumer + ":")) return ShownRefusal::Whose::kConsumer;
  return missing.starts_with("in ") ? ShownRefusal::Whose::kProvider : ShownRefusal::Whose::kNobody;
}

}  // namespace

proxy::Shape shape_of(const Cluster& cluster, const std::set<std::string>& stale,
                      const proxy::Site& site) {
  return Shaping(cluster, stale, site).shape();
}

std::vector<ShownRefusal> refusals_of(const Cluster& cluster, const policy::RefusedPairs& pairs) {
  std::vector<ShownRefusal> shown;
  for (const auto& [pair, entry] : pairs.all()) {
    const auto* const consumer = cluster.declaration(pair.consumer);
    if (consumer == nullptr) continue;
    auto by = refused_by(cluster, pair.provider);
    if (is_over(pair, *consumer, by.declaration)) continue;
    shown.push_back({pair.consumer,
                     consumer->owner,
                     std::move(by.text),
                     std::move(by.owner),
                     pair.proto,
                     pair.port,
                     entry.count,
                     entry.last_ms,
                     entry.missing,
                     {}});
  }
  // The latest first: of many those are shown.
  std::ranges::sort(shown, [](const ShownRefusal& a, const ShownRefusal& b) {
    return std::tie(b.last_ms, a.consumer, a.provider, a.proto, a.port) <
           std::tie(a.last_ms, b.consumer, b.provider, b.proto, b.port);
  });
  for (std::size_t i = 0; i < shown.size(); ++i) {
    auto& one = shown[i];
    if (i < kMaxExplained) refresh_missing(cluster, one);
    one.whose = whose(one.missing, one.consumer);
  }
  return shown;
}

std::shared_ptr<const proxy::Overview> Overviews::make(Facts facts, const Moment& now) {
  bool changed = last_.version == 0;
  const auto replace = [&changed](auto& old, auto value) {
    if (old != nullptr && *old == value) return;
    old = std::make_shared<const decltype(value)>(std::move(value));
    changed = true;
  };
  const bool moved = last_.shape == nullptr || facts.revision != revision_ || facts.stale != stale_;
  if (moved) replace(last_.shape, shape_of(facts.cluster, facts.stale, facts.site));
  if (moved || last_.refusals == nullptr || facts.refused != refused_) {
    replace(last_.refusals, refusals_of(facts.cluster, facts.pairs));
  }
  replace(last_.traffic, std::move(facts.traffic));
  revision_ = facts.revision;
  refused_ = facts.refused;
  stale_ = facts.stale;
  // Of no other process's versions: those of one that ran before began earlier.
  if (last_.version == 0) last_.version = static_cast<std::uint64_t>(now.wall_ms) << 16U;
  if (changed) ++last_.version;
  last_.made_at = now.steady;
  last_.wall_ms = now.wall_ms;
  return std::make_shared<const proxy::Overview>(last_);
}

void Overviews::forget() {
  last_.shape = nullptr;
  last_.traffic = nullptr;
  last_.refusals = nullptr;
}

}  // namespace meshd::controller
