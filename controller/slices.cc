#include "controller/slices.h"

#include <utility>

#include "policy/from_proto.h"
#include "policy/slice_hash.h"
#include "policy/truth.h"

namespace meshd::controller {
namespace {

using KeyKind = mesh::v1::SliceKey::Kind;

ItemKey workload_key(const std::string& id) { return {KeyKind::WORKLOAD, id}; }
ItemKey service_key(const policy::ServiceKey& key) {
  return {KeyKind::SERVICE, service_key_text(key)};
}

// What others than its own node need of a declaration: what the truth function and the names
// ask for.
mesh::v1::Workload face_of(const policy::Declaration& declaration) {
  auto face = declaration;
  face.egress.clear();
  face.publish.clear();
  return policy::to_proto(face);
}

}  // namespace

bool Slices::Pair::same_ends(const Pair& other) const {
  return from4 == other.from4 && from6 == other.from6 && to4 == other.to4 && to6 == other.to6 &&
         consumer_node == other.consumer_node && provider_node == other.provider_node;
}

void Slices::update(const Cluster& cluster, const Touched& touched,
                    const std::set<std::string>& stale) {
  for (const auto& name : touched.nodes) refresh_node(cluster, name);
  for (const auto& id : touched.workloads) relate(cluster, id);
  for (const auto& id : touched.workloads) refresh_workload(cluster, id, stale);
  for (const auto& key : touched.services) refresh_service(cluster, key);
  refresh_outside(cluster, touched);
  note_versions();
  for (const auto& id : touched.workloads) refresh_pairs(cluster, id);
}

void Slices::note_versions() {
  for (const auto& node : std::exchange(changed_, {})) {
    auto& slice = slices_[node];
    if (!slice.past.empty() && slice.past.back() == slice.hash) continue;
    slice.past.push_back(slice.hash);
    ++slice.version;
    if (slice.past.size() > kMaxPast) slice.past.pop_front();
  }
}

// --- who needs what ------------------------------------------------------------------

std::set<std::string> Slices::related_to(const Cluster& cluster, const std::string& id) {
  const auto* declaration = cluster.declaration(id);
  std::set<std::string> related;
  if (declaration == nullptr) return related;
  const auto& index = cluster.index();
  for (const auto& provider : policy::providers_of(cluster.world(), index, *declaration)) {
    related.insert(provider.workload->declaration.id);
  }
  const auto add_consumers = [&](const std::set<std::string>& ids) {
    for (const auto& consumer : ids) {
      const auto& other = *cluster.declaration(consumer);
      if (!policy::granted_ranges(other, *declaration).empty()) related.insert(consumer);
    }
  };
  if (const auto key = declaration->service()) {
    const auto consumers = index.consumers.find(*key);
    if (consumers != index.consumers.end()) add_consumers(consumers->second);
    const auto members = index.members.find(*key);
    if (members != index.members.end()) {
      related.insert(members->second.begin(), members->second.end());
    }
  }
  const auto callers = index.id_consumers.find(id);
  if (callers != index.id_consumers.end()) add_consumers(callers->second);
  related.erase(id);
  return related;
}

void Slices::relate(const Cluster& cluster, const std::string& id) {
  const auto* declaration = cluster.declaration(id);
  const auto* placement = declaration == nullptr ? nullptr : cluster.placement(id);
  rename(id, declaration == nullptr ? std::nullopt : declaration->service());
  auto related = related_to(cluster, id);
  auto& known = relations_[id];
  const auto before = std::exchange(known.related, related);
  const auto node_before =
      std::exchange(known.node, placement == nullptr ? std::string() : placement->node);
  // Additions first: what is needed for another reason now does not come and go.
  if (known.node != node_before) use(known.node, id, 1);
  for (const auto& other : related) {
    const bool is_new = !before.contains(other);
    if (is_new) {
      auto& there = relations_[other];
      there.related.insert(id);
      use(there.node, id, 1);
    }
    if (is_new || known.node != node_before) use(known.node, other, 1);
  }
  for (const auto& other : before) {
    const bool is_gone = !related.contains(other);
    if (is_gone || known.node != node_before) use(node_before, other, -1);
    if (is_gone) {
      auto& there = relations_[other];
      there.related.erase(id);
      use(there.node, id, -1);
    }
  }
  if (known.node != node_before) use(node_before, id, -1);
  if (declaration == nullptr) relations_.erase(id);
}

// Who holds the workload holds its service.
void Slices::rename(const std::string& id, const std::optional<policy::ServiceKey>& service) {
  auto& known = relations_[id];
  if (known.service == service) return;
  const auto before = std::exchange(known.service, service);
  const auto holders = holders_.find(workload_key(id));
  if (holders == holders_.end()) return;
  for (const auto& node : holders->second) {
    if (service) use_item(node, service_key(*service), 1);
    if (before) use_item(node, service_key(*before), -1);
  }
}

void Slices::use(const std::string& node, const std::string& id, int by) {
  if (node.empty()) return;
  const auto key = workload_key(id);
  const auto& uses = slices_[node].uses;
  const bool before = uses.contains(key);
  use_item(node, key, by);
  const bool after = uses.contains(key);
  if (before == after) return;
  const auto& service = relations_[id].service;
  if (service) use_item(node, service_key(*service), after ? 1 : -1);
}

void Slices::use_item(const std::string& node, const ItemKey& key, int by) {
  auto& slice = slices_[node];
  auto& use = slice.uses[key];
  use.reasons += by;
  if (use.reasons > 0) {
    holders_[key].insert(node);
    mark(node, key);
    return;
  }
  slice.hash -= use.hash;
  changed_.insert(node);
  slice.uses.erase(key);
  const auto holders = holders_.find(key);
  if (holders != holders_.end()) {
    holders->second.erase(node);
    if (holders->second.empty()) holders_.erase(holders);
  }
  if (slice.session) slice.session->dirty.insert(key);
  ready_.insert(node);
}

// The item is in the node's slice and may be another than before.
void Slices::mark(const std::string& node, const ItemKey& key) {
  auto& slice = slices_[node];
  auto& use = slice.uses[key];
  const auto* value = value_for(node, key);
  const auto hash = value == nullptr ? 0 : policy::slice_item_hash(key.kind, key.key, *value);
  if (hash == use.hash) return;
  slice.hash += hash - use.hash;
  changed_.insert(node);
  use.hash = hash;
  if (slice.session) slice.session->dirty.insert(key);
  ready_.insert(node);
}

const std::string* Slices::value_for(const std::string& node, const ItemKey& key) const {
  const auto item = items_.find(key);
  if (item == items_.end()) return nullptr;
  if (key.kind != KeyKind::WORKLOAD) return &item->second.other;
  const auto relations = relations_.find(key.key);
  const bool own = relations != relations_.end() && relations->second.node == node;
  return own ? &item->second.own : &item->second.other;
}

// --- items ---------------------------------------------------------------------------

void Slices::refresh(const ItemKey& key, std::optional<Item> item) {
  if (item) {
    items_.insert_or_assign(key, *std::move(item));
  } else {
    items_.erase(key);
  }
  const auto holders = holders_.find(key);
  if (holders == holders_.end()) return;
  for (const auto& node : holders->second) mark(node, key);
}

void Slices::refresh_workload(const Cluster& cluster, const std::string& id,
                              const std::set<std::string>& stale) {
  const auto found = cluster.world().workloads.find(id);
  if (found == cluster.world().workloads.end()) return refresh(workload_key(id), {});
  const auto& workload = found->second;
  mesh::v1::SliceWorkload own, other;
  own.set_own(true);
  *own.mutable_declaration() = policy::to_proto(workload.declaration);
  for (const auto port : workload.opened) own.add_opened(port);
  own.set_drained(workload.drained);
  *other.mutable_declaration() = face_of(workload.declaration);
  if (workload.remote) {
    other.set_node(workload.remote->node);
    for (const auto family : kFamilies) {
      const auto& address = workload.remote->address(family);
      if (address) other.add_addresses(address->to_string());
    }
    other.set_draining(workload.drains());
    other.set_ready(workload.ready);
    for (const auto& [port, ready] : workload.tcp_ready) {
      auto& entry = *other.add_ready_ports();
      entry.set_port(port);
      entry.set_v4(ready.v4);
      entry.set_v6(ready.v6);
    }
    other.set_stale(stale.contains(workload.remote->node));
  }
  refresh(workload_key(id), Item{own.SerializeAsString(), other.SerializeAsString()});
}

void Slices::refresh_service(const Cluster& cluster, const policy::ServiceKey& key) {
  const auto found = cluster.world().services.find(key);
  if (found == cluster.world().services.end()) return refresh(service_key(key), {});
  mesh::v1::SliceService service;
  service.set_owner(found->second.owner);
  for (const auto family : kFamilies) {
    if (found->second.vip(family)) service.add_vips(found->second.vip(family)->to_string());
  }
  refresh(service_key(key), Item{{}, service.SerializeAsString()});
}

void Slices::refresh_node(const Cluster& cluster, const std::string& name) {
  const auto found = cluster.nodes().find(name);
  refresh_gateway(name, found != cluster.nodes().end() && found->second.gateway);
  if (found == cluster.nodes().end()) {
    nodes_changed_ |= nodes_.drop(name);
    return;
  }
  mesh::v1::SliceNode item;
  for (const auto& block : found->second.blocks) item.add_blocks(block.to_string());
  for (const auto& address : found->second.underlay) item.add_underlay(address.to_string());
  item.set_gateway(found->second.gateway);
  nodes_changed_ |= nodes_.put(name, item.SerializeAsString());
}

// --- flows between nodes -------------------------------------------------------------

void Slices::refresh_pairs(const Cluster& cluster, const std::string& id) {
  std::set<PairKey> stale;
  if (const auto known = pairs_of_.find(id); known != pairs_of_.end()) stale = known->second;
  if (const auto relations = relations_.find(id); relations != relations_.end()) {
    for (const auto& other : relations->second.related) {
      for (const auto& key : {PairKey(id, other), PairKey(other, id)}) {
        stale.erase(key);
        refresh_pair(cluster, key.first, key.second);
      }
    }
  }
  for (const auto& key : stale) forget_pair(key);
}

void Slices::refresh_pair(const Cluster& cluster, const std::string& consumer,
                          const std::string& provider) {
  const PairKey key(consumer, provider);
  const auto& workloads = cluster.world().workloads;
  const auto& from = workloads.find(consumer)->second;
  const auto& to = workloads.find(provider)->second;
  Pair pair;
  if (from.remote && to.remote && from.remote->node != to.remote->node) {
    pair.ranges = policy::granted_ranges(from.declaration, to.declaration);
  }
  if (pair.ranges.empty()) return forget_pair(key);
  pair.from4 = from.remote->v4;
  pair.from6 = from.remote->v6;
  pair.to4 = to.remote->v4;
  pair.to6 = to.remote->v6;
  pair.consumer_node = from.remote->node;
  pair.provider_node = to.remote->node;
  pair.version = slices_[pair.provider_node].version;
  const auto known = pairs_.find(key);
  if (known != pairs_.end() && known->second.same_ends(pair)) {
    auto& before = known->second;
    if (before.ranges == pair.ranges) return;
    // What is confirmed and granted still; granted again later, it waits again.
    pair.confirmed_ranges = policy::without(before.confirmed_ranges,
                                            policy::without(before.confirmed_ranges, pair.ranges));
    pair.confirmed = policy::without(pair.ranges, pair.confirmed_ranges).empty();
  }
  pairs_of_[consumer].insert(key);
  pairs_of_[provider].insert(key);
  const auto& now = pairs_.insert_or_assign(key, std::move(pair)).first->second;
  if (!now.confirmed) wait_for_provider(key, now);
}

void Slices::wait_for_provider(const PairKey& key, const Pair& pair) {
  auto& slice = slices_[pair.provider_node];
  auto& session = slice.session;
  if (!session) {
    slice.open.insert(key);
    return;
  }
  session->sent.erase(key);
  session->waiting.insert(key);
  ready_.insert(pair.provider_node);
}

void Slices::forget_pair(const PairKey& key) {
  if (pairs_.erase(key) == 0) return;
  for (const auto& id : {key.first, key.second}) {
    const auto known = pairs_of_.find(id);
    if (known == pairs_of_.end()) continue;
    known->second.erase(key);
    if (known->second.empty()) pairs_of_.erase(known);
  }
}

void Slices::confirm(const PairKey& key) {
  const auto found = pairs_.find(key);
  if (found == pairs_.end()) return;
  auto& pair = found->second;
  pair.confirmed = true;
  pair.confirmed_ranges = pair.ranges;
  auto& session = slices_[pair.consumer_node].session;
  if (!session) return;
  session->to_confirm.insert(key);
  ready_.insert(pair.consumer_node);
}

bool Slices::is_confirmed(const std::string& consumer, const std::string& provider) const {
  const auto found = pairs_.find({consumer, provider});
  return found != pairs_.end() && found->second.confirmed;
}

}  // namespace meshd::controller
