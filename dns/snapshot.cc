#include "dns/snapshot.h"

#include <algorithm>

#include "dns/name.h"

namespace meshd::dns {

void View::add(const std::string& wire, NameData data, std::string_view zone) {
  names.insert_or_assign(wire, std::move(data));
  if (!is_under(wire, zone)) return;  // a bare label
  for (auto above = parent(wire); above.size() > zone.size(); above = parent(above)) {
    non_terminals.emplace(above);
  }
}

Snapshot::Snapshot(std::shared_ptr<const ZoneSettings> settings) : settings_(std::move(settings)) {
  shards_.fill(std::make_shared<const Shard>());
}

std::size_t Snapshot::shard_of(const IpAddress& client) {
  return std::hash<IpAddress>{}(client) % kShards;
}

const View* Snapshot::view(const IpAddress& client) const {
  const auto& shard = *shards_[shard_of(client)];
  const auto found = shard.find(client);
  return found == shard.end() ? nullptr : found->second.get();
}

std::shared_ptr<const View> Snapshot::shared_view(const IpAddress& client) const {
  const auto& shard = *shards_[shard_of(client)];
  const auto found = shard.find(client);
  return found == shard.end() ? nullptr : found->second;
}

bool Snapshot::is_plain_client(const IpAddress& client) const {
  return std::ranges::any_of(settings_->engine_prefixes,
                             [&](const Prefix& prefix) { return prefix.contains(client); });
}

Snapshot::Shard& Snapshot::own_shard(const IpAddress& client) {
  auto& shard = shards_[shard_of(client)];
  auto copy = std::make_shared<Shard>(*shard);
  auto& result = *copy;
  shard = std::move(copy);
  return result;
}

void Snapshot::set(const IpAddress& client, std::shared_ptr<const View> view) {
  own_shard(client).insert_or_assign(client, std::move(view));
}

void Snapshot::remove(const IpAddress& client) { own_shard(client).erase(client); }

}  // namespace meshd::dns
