#include "meshd/refusal_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "policy/allocate.h"
#include "policy/explain.h"
#include "policy/name.h"
#include "policy/truth.h"

namespace meshd {
namespace {

using policy::Declaration;
using policy::Scope;
using policy::ServiceKey;
using policy::World;

constexpr std::uint8_t kTcpNumber = 6, kUdpNumber = 17;
constexpr std::string_view kExplain = "explain: ";  // whose errors begin so

// What a name could stand for, as `client` would mean it.
struct Meaning {
  std::string id;
  std::vector<ServiceKey> keys;  // the first that somebody declares
};

Meaning meaning_of(std::string_view zone, std::string_view name, const Declaration& client) {
  Meaning meaning;
  if (const auto full = policy::parse_fqdn(zone, name)) {
    meaning.id = full->id;
    if (full->service) meaning.keys.push_back(*full->service);
    return meaning;
  }
  if (name.ends_with('.')) name.remove_suffix(1);
  if (name.empty() || name.contains('.')) return meaning;
  if (!client.workflow.empty()) {
    meaning.keys.push_back({Scope::kWorkflow, client.workflow, std::string(name)});
  }
  meaning.keys.push_back({Scope::kCluster, {}, std::string(name)});
  return meaning;
}

const Declaration* find(const World& world, const std::string& id) {
  const auto found = world.workloads.find(id);
  return found == world.workloads.end() ? nullptr : &found->second.declaration;
}

// Somebody that the name stands for.
const Declaration* provider_of(const World& world, const Meaning& meaning) {
  if (!meaning.id.empty()) return find(world, meaning.id);
  for (const auto& key : meaning.keys) {
    const auto ids = policy::members(world, key);
    if (!ids.empty()) return find(world, ids.front());
  }
  return nullptr;
}

// Of a name that nobody declares: the client's own part is all that can be said.
std::string missing_peer(const Declaration& client, const Meaning& meaning) {
  for (const auto& peer : client.peers) {
    if (!meaning.id.empty() && peer.id == meaning.id) {
      return fmt::format("a workload with id: {}", meaning.id);
    }
    const auto key = policy::peer_service(client, peer);
    if (key && std::ranges::find(meaning.keys, *key) != meaning.keys.end()) {
      return fmt::format("a workload with name: {}", key->name);
    }
  }
  if (!meaning.id.empty()) return fmt::format("in {}: peers: [{{id: {}}}]", client.id, meaning.id);
  if (meaning.keys.empty()) return {};
  const auto& key = meaning.keys.front();
  if (key.scope == Scope::kWorkflow && key.workflow != client.workflow) return {};
  return fmt::format("in {}: peers: [{{name: {}{}}}]", client.id, key.name,
                     key.scope == Scope::kCluster ? ", scope: CLUSTER" : "");
}

}  // namespace

std::string who_is(const World& world, const IpAddress& address) {
  for (const auto& [id, workload] : world.workloads) {
    if (workload.address(address.family()) == address) return id;
  }
  for (const auto& [key, service] : world.services) {
    if (service.vip4 == address || service.vip6 == address) {
      return policy::service_fqdn(world.settings.zone, key);
    }
  }
  return {};
}

Refusal describe(const World& world, const RefusedPacket& packet) {
  Refusal refusal;
  const auto consumer = who_is(world, packet.source);
  refusal.consumer = consumer.empty() ? packet.source.to_string() : consumer;
  refusal.provider = who_is(world, packet.destination);
  if (refusal.provider.empty()) refusal.provider = packet.destination.to_string();
  if (packet.spoofed) {
    refusal.detail = "a source address that is not its own";
    return refusal;
  }
  if (packet.proto != kTcpNumber && packet.proto != kUdpNumber) {
    refusal.detail = fmt::format("protocol {}", packet.proto);
    return refusal;
  }
  const auto proto = packet.proto == kTcpNumber ? Proto::kTcp : Proto::kUdp;
  const auto why = policy::explain(world, packet.source.to_string(), packet.destination.to_string(),
                                   proto, packet.port);
  std::string_view reason = why ? why->reason : why.error().what;
  if (reason.starts_with(kExplain)) reason.remove_prefix(kExplain.size());
  refusal.detail = fmt::format("{}/{}: {}", proto_name(proto), packet.port, reason);
  for (const auto& id : {consumer, refusal.provider}) {
    const auto found = world.workloads.find(id);
    if (found == world.workloads.end() || !found->second.remote) continue;
    const auto where = fmt::format("{} is on node {}", id, found->second.remote->node);
    if (!reason.contains(where)) refusal.detail += fmt::format(" ({})", where);
  }
  if (why) refusal.missing = why->missing;
  refusal.is_pair = find(world, consumer) != nullptr;
  return refusal;
}

std::string missing_for_name(const World& world, const std::string& client, std::string_view name) {
  const auto* const consumer = find(world, client);
  if (consumer == nullptr) return {};
  const auto meaning = meaning_of(world.settings.zone, name, *consumer);
  const auto* const provider = provider_of(world, meaning);
  if (provider == nullptr) return missing_peer(*consumer, meaning);
  if (provider->serves.empty()) return fmt::format("in {}: serves", provider->id);
  const auto& ports = provider->serves.front().ports;
  const auto why = policy::explain(world, client, provider->id, ports.proto, ports.first);
  return why ? why->missing : std::string();
}

}  // namespace meshd
