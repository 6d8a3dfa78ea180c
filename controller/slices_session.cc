// What goes to a node when, and what its answers confirm.
#include <algorithm>
#include <utility>

#include "controller/slices.h"

namespace meshd::controller {
namespace {

using KeyKind = mesh::v1::SliceKey::Kind;

// News of nodes go to so many nodes at once, and to one in this time from there on: a message costs
// the controller 0.2 ms of CPU, so that they take a fifth of a core at most, however many nodes
// come and go, and never hold up what concerns somebody.
constexpr int kNewsAtOnce = 64;
constexpr auto kNewsEvery = std::chrono::milliseconds(1);
constexpr std::size_t kNewsShare = 8;  // told in one turn, so that not each is a turn of the loop

std::uint64_t age_ms(TimePoint since, TimePoint now) {
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(now - since).count();
  return static_cast<std::uint64_t>(std::max<std::int64_t>(age, 1));
}

}  // namespace

bool Slices::begin(const Cluster& cluster, const std::string& node, std::uint64_t revision,
                   std::uint64_t hash) {
  auto& slice = slices_[node];
  auto& session = slice.session.emplace(Session{});
  session.revision = revision;
  session.nodes = nodes_.told_all();
  slice.open.clear();
  const bool same = revision > 0 && hash == this->hash(node);
  if (same) session.in_force = slice.hash;
  if (!same) start_over(node);
  note_pairs(cluster, node, session);
  if (same) {
    // It is in force there, whoever it came from.
    for (const auto& key : std::exchange(session.waiting, {})) confirm(key);
  }
  ready_.insert(node);
  return same;
}

void Slices::end(const std::string& node) {
  const auto found = slices_.find(node);
  if (found == slices_.end() || !found->second.session) return;
  auto& slice = found->second;
  slice.open.merge(slice.session->waiting);
  slice.open.merge(slice.session->sent);
  slice.session.reset();
}

// Flows that wait for this node, and those that its consumers are to be told of.
void Slices::note_pairs(const Cluster& cluster, const std::string& node, Session& session) {
  for (const auto& id : cluster.placed_on(node)) {
    const auto pairs = pairs_of_.find(id);
    if (pairs == pairs_of_.end()) continue;
    for (const auto& key : pairs->second) {
      const auto& pair = pairs_.at(key);
      if (pair.provider_node == node && !pair.confirmed) session.waiting.insert(key);
      if (pair.consumer_node == node && !pair.confirmed_ranges.empty()) {
        session.to_confirm.insert(key);
      }
    }
  }
}

void Slices::start_over(const std::string& node) {
  auto& slice = slices_[node];
  auto& session = *slice.session;
  session.snapshot = true;
  session.nodes = nodes_.told_nothing();
  session.dirty.clear();
  for (const auto& [key, use] : slice.uses) session.dirty.insert(key);
}

bool Slices::has_more(const Session& session) {
  return session.snapshot || !session.dirty.empty() || !session.to_confirm.empty() ||
         !session.waiting.empty();
}

bool Slices::has_more(const std::string& node, const Session& session) const {
  auto place = session.nodes;
  return has_more(session) || nodes_.next(place, node) != nullptr;
}

std::optional<Slices::Next> Slices::take(const Cluster& cluster, const std::string& node,
                                         TimePoint now) {
  const auto found = slices_.find(node);
  if (found == slices_.end() || !found->second.session) return std::nullopt;
  auto& session = *found->second.session;
  if (session.on_its_way || !has_more(node, session)) return std::nullopt;
  Next next;
  next.change.set_revision(++session.revision);
  next.change.set_snapshot(session.snapshot);
  add_items(cluster, node, now, next.change);
  add_nodes(node, session, next.change);
  if (session.dirty.empty() && nodes_.next(session.nodes, node) == nullptr) {
    add_confirmations(session, next.change);
    // All that they need of the slice has gone by now.
    session.sent = std::exchange(session.waiting, {});
    next.in_sync = std::exchange(session.snapshot, false);
    session.sent_hash = slices_[node].hash;
  }
  session.on_its_way = true;
  return next;
}

void Slices::add_items(const Cluster& cluster, const std::string& node, TimePoint now,
                       mesh::v1::SliceChange& change) {
  auto& slice = slices_[node];
  auto& dirty = slice.session->dirty;
  for (std::size_t count = 0; count < kItemsPerChange && !dirty.empty(); ++count) {
    const auto key = std::move(dirty.extract(dirty.begin()).value());
    const auto* value = slice.uses.contains(key) ? value_for(node, key) : nullptr;
    auto& name = value == nullptr ? *change.add_gone() : *change.add_items()->mutable_key();
    name.set_kind(key.kind);
    name.set_key(key.key);
    if (value == nullptr) continue;
    auto& item = *change.mutable_items()->rbegin();
    item.set_value(*value);
    if (key.kind != KeyKind::SERVICE) continue;
    const auto& service = cluster.world().services.find(parse_service_key(key.key))->second;
    item.set_declared_ago_ms(age_ms(service.declared_at, now));
    if (service.endpoint_lost_at != TimePoint()) {
      item.set_endpoint_lost_ago_ms(age_ms(service.endpoint_lost_at, now));
    }
  }
}

void Slices::add_nodes(const std::string& node, Session& session,
                       mesh::v1::SliceChange& change) const {
  session.more_nodes = false;
  for (std::size_t count = 0;; ++count) {
    const auto* entry = nodes_.next(session.nodes, node);
    if (entry == nullptr) return;
    if (count == kNodesPerChange) {
      session.more_nodes = true;
      return;
    }
    session.nodes.told = entry->second.changed;
    auto& key = entry->second.gone ? *change.add_gone() : *change.add_items()->mutable_key();
    key.set_kind(KeyKind::NODE);
    key.set_key(entry->first);
    if (!entry->second.gone) change.mutable_items()->rbegin()->set_value(entry->second.value);
  }
}

void Slices::add_confirmations(Session& session, mesh::v1::SliceChange& change) const {
  auto& keys = session.to_confirm;
  for (std::size_t count = 0; count < kConfirmationsPerChange && !keys.empty(); ++count) {
    const auto key = std::move(keys.extract(keys.begin()).value());
    const auto found = pairs_.find(key);
    if (found == pairs_.end()) continue;
    const auto& pair = found->second;
    auto& confirmation = *change.add_confirmed();
    confirmation.set_consumer(key.first);
    confirmation.set_provider(key.second);
    for (const auto* address : {&pair.from4, &pair.from6}) {
      if (*address) confirmation.add_from((*address)->to_string());
    }
    for (const auto* address : {&pair.to4, &pair.to6}) {
      if (*address) confirmation.add_to((*address)->to_string());
    }
    for (const auto& range : pair.confirmed_ranges) {
      auto& port = *confirmation.add_ports();
      port.set_port(range.first);
      if (!range.single()) port.set_end_port(range.last);
      port.set_protocol(range.proto == Proto::kUdp ? mesh::v1::Protocol::UDP
                                                   : mesh::v1::Protocol::TCP);
    }
  }
}

bool Slices::applied(const std::string& node, std::uint64_t revision) {
  const auto found = slices_.find(node);
  if (found == slices_.end() || !found->second.session) return false;
  auto& session = *found->second.session;
  if (!session.on_its_way || session.revision != revision) return false;
  session.on_its_way = false;
  session.in_force = std::exchange(session.sent_hash, std::nullopt);
  for (const auto& key : std::exchange(session.sent, {})) confirm(key);
  if (session.more_nodes || has_more(session)) ready_.insert(node);
  return true;
}

std::optional<std::uint64_t> Slices::in_force(const std::string& node) const {
  const auto found = slices_.find(node);
  if (found == slices_.end() || !found->second.session) return std::nullopt;
  return found->second.session->in_force;
}

void Slices::heard_in_force(const std::string& node, std::uint64_t hash) {
  const auto found = slices_.find(node);
  if (found == slices_.end() || found->second.session) return;
  auto& slice = found->second;
  const auto at = std::find(slice.past.rbegin(), slice.past.rend(), hash);
  if (at == slice.past.rend()) return;
  const auto version = slice.version - static_cast<std::uint64_t>(at - slice.past.rbegin());
  std::erase_if(slice.open, [&](const PairKey& key) {
    const auto pair = pairs_.find(key);
    // Gone, or with another provider's node, where it waits anew.
    if (pair == pairs_.end() || pair->second.provider_node != node) return true;
    if (!pair->second.confirmed && pair->second.version > version) return false;
    confirm(key);
    return true;
  });
}

bool Slices::refused(const Cluster& cluster, const std::string& node, std::uint64_t revision) {
  const auto found = slices_.find(node);
  if (found == slices_.end() || !found->second.session) return false;
  auto& session = *found->second.session;
  if (!session.on_its_way || session.revision != revision) return false;
  session.on_its_way = false;
  session.sent_hash.reset();
  session.in_force.reset();
  session.sent.clear();
  start_over(node);
  note_pairs(cluster, node, session);
  return true;
}

std::uint64_t Slices::hash(const std::string& node) const {
  const auto found = slices_.find(node);
  return nodes_.hash_for(node) + (found == slices_.end() ? 0 : found->second.hash);
}

std::uint64_t Slices::revision(const std::string& node) const {
  const auto found = slices_.find(node);
  return found == slices_.end() || !found->second.session ? 0 : found->second.session->revision;
}

std::uint64_t Slices::revision_with_all(const std::string& node) const {
  const auto found = slices_.find(node);
  if (found == slices_.end() || !found->second.session) return 0;
  const auto& session = *found->second.session;
  const auto changes = [](std::size_t items, std::size_t each) {
    return (items + each - 1) / each;
  };
  return session.revision + std::max(changes(session.dirty.size(), kItemsPerChange),
                                     changes(nodes_.left(session.nodes, node), kNodesPerChange));
}

std::optional<TimePoint> Slices::next_news() const {
  if (!nodes_changed_ && !telling_) return std::nullopt;
  return told_until_ + kNewsEvery * static_cast<int>(std::min(slices_.size(), kNewsShare));
}

std::set<std::string> Slices::take_ready(TimePoint now) {
  if (const auto when = next_news(); when && *when <= now) tell_nodes(now);
  auto ready = std::exchange(ready_, {});
  std::erase_if(ready, [&](const std::string& node) {
    const auto found = slices_.find(node);
    return found == slices_.end() || !found->second.session || found->second.session->on_its_way ||
           !has_more(node, *found->second.session);
  });
  return ready;
}

// All who have a session are to be told.
// Round by round: what changes in one is told in it to those that it has not come to, and to the
// others in the next.
void Slices::tell_nodes(TimePoint now) {
  if (!telling_) {
    nodes_changed_ = false;
    telling_.emplace();
  }
  told_until_ = std::max(told_until_, now - kNewsAtOnce * kNewsEvery);
  auto next = slices_.upper_bound(*telling_);
  for (; next != slices_.end() && told_until_ + kNewsEvery <= now; ++next) {
    telling_ = next->first;
    if (!next->second.session || next->second.session->on_its_way) continue;
    ready_.insert(next->first);
    told_until_ += kNewsEvery;
  }
  if (next != slices_.end()) return;
  telling_.reset();
  auto told = nodes_.told_all().told;
  for (const auto& [node, slice] : slices_) {
    if (slice.session) told = std::min(told, slice.session->nodes.told);
  }
  nodes_.forget_gone(told);
}

std::vector<ItemKey> Slices::keys(const std::string& node) const {
  std::vector<ItemKey> keys;
  if (const auto found = slices_.find(node); found != slices_.end()) {
    for (const auto& [key, use] : found->second.uses) keys.push_back(key);
  }
  for (const auto& name : nodes_.names_for(node)) keys.push_back({KeyKind::NODE, name});
  return keys;
}

}  // namespace meshd::controller
