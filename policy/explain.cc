#include "policy/explain.h"

#include <fmt/format.h>

#include <algorithm>

#include "policy/allocate.h"
#include "policy/fragment.h"
#include "policy/name.h"
#include "policy/profile.h"
#include "policy/truth.h"

namespace meshd::policy {
namespace {

struct Target {  // exactly one of these
  const Workload* workload = nullptr;
  const Service* service = nullptr;
  ServiceKey key;  // of service
  std::optional<IpAddress> address;
};

const Workload* find_workload(const World& world, std::string_view id) {
  const auto found = world.workloads.find(id);
  return found == world.workloads.end() ? nullptr : &found->second;
}

Target of_service(const World& world, const ServiceKey& key) {
  Target target;
  const auto found = world.services.find(key);
  if (found == world.services.end()) return target;
  target.service = &found->second;
  target.key = key;
  return target;
}

Target of_address(const World& world, const IpAddress& address) {
  Target target;
  for (const auto& [id, workload] : world.workloads) {
    if (!workload.attachment) continue;
    if (workload.attachment->v4 == address || workload.attachment->v6 == address) {
      target.workload = &workload;
      return target;
    }
  }
  for (const auto& [key, service] : world.services) {
    if (service.vip4 == address || service.vip6 == address) return of_service(world, key);
  }
  target.address = address;
  return target;
}

bool found(const Target& target) {
  return target.workload != nullptr || target.service != nullptr || target.address;
}

// As `source` would write it: bare names by its own scopes, then ids, full names, addresses.
Target look_up(const World& world, const Declaration* source, std::string_view text) {
  if (const auto address = IpAddress::parse(text)) return of_address(world, *address);
  if (const auto parsed = parse_fqdn(world.settings.zone, text)) {
    if (parsed->service) return of_service(world, *parsed->service);
    Target target;
    target.workload = find_workload(world, parsed->id);
    return target;
  }
  const std::string name(text);
  if (source != nullptr && !source->workflow.empty()) {
    auto target = of_service(world, {Scope::kWorkflow, source->workflow, name});
    if (found(target)) return target;
  }
  auto target = of_service(world, {Scope::kCluster, {}, name});
  if (found(target)) return target;
  target.workload = find_workload(world, text);
  return target;
}

bool in_mesh(const Settings& settings, const IpAddress& address) {
  for (const auto& range :
       {settings.pool4, settings.vip_pool4, settings.pool6, settings.vip_pool6}) {
    if (range && range->contains(address)) return true;
  }
  return false;
}

Explanation refused(std::string reason) {
  Explanation result;
  result.reason = std::move(reason);
  return result;
}

std::string missing_for(const Decision& decision, const Declaration& consumer,
                        const Declaration& provider, Proto proto, std::uint16_t port) {
  const auto ports =
      fmt::format("{{port: {}{}}}", port, proto == Proto::kUdp ? ", protocol: UDP" : "");
  switch (decision.ruling) {
    case Ruling::kNoPeer:
      return provider.name.empty()
                 ? fmt::format("in {}: peers: [{{id: {}}}]", consumer.id, provider.id)
                 : fmt::format("in {}: peers: [{{name: {}{}}}]", consumer.id, provider.name,
                               provider.scope == Scope::kCluster ? ", scope: CLUSTER" : "");
    case Ruling::kPortNotListed:
      return fmt::format("in {}: peers[{}].ports: [{}]", consumer.id, decision.peer, ports);
    case Ruling::kNotServed:
      return fmt::format("in {}: serves: [{}]", provider.id, ports);
    case Ruling::kNotAdmitted:
      return fmt::format("in {}: admit_owners: [{}]", provider.id, consumer.owner);
    case Ruling::kAllowed:
      break;
  }
  return {};
}

Explanation between(const Workload& consumer, const Workload& provider, Proto proto,
                    std::uint16_t port) {
  const auto decision = decide(consumer.declaration, provider.declaration, proto, port);
  Explanation result;
  result.reason = decision.reason;
  if (decision.ruling != Ruling::kAllowed) {
    result.missing = missing_for(decision, consumer.declaration, provider.declaration, proto, port);
    return result;
  }
  result.lines = {decision.reason,
                  fmt::format("{} serves {}/{}", provider.declaration.id, proto_name(proto), port),
                  fmt::format("{} admits {}", provider.declaration.id, consumer.declaration.id)};
  for (const auto* side : {&consumer, &provider}) {
    if (side->attachment) continue;
    result.reason = side->declaration.id + " is not attached";
    return result;
  }
  result.verdict = FlowVerdict::kAllowed;
  if (provider.draining) {
    result.verdict = FlowVerdict::kRefused;
    result.reason = provider.declaration.id + " is draining: open connections only";
  }
  return result;
}

Explanation to_service(const World& world, const Workload& consumer, const Target& target,
                       Proto proto, std::uint16_t port) {
  auto result = refused(fmt::format("nobody declares {}", service_text(target.key)));
  bool granted = false;
  std::chrono::seconds hold{};
  for (const auto& id : members(world, target.key)) {
    const auto& provider = world.workloads.find(id)->second;
    auto one = between(consumer, provider, proto, port);
    const auto ruling = decide(consumer.declaration, provider.declaration, proto, port).ruling;
    if (ruling == Ruling::kAllowed) {
      granted = true;
      hold = provider.declaration.hold;
      const PortUnit unit{proto, port, false};
      const bool ready =
          is_endpoint(provider, unit, Family::kV4) || is_endpoint(provider, unit, Family::kV6);
      if (one.verdict == FlowVerdict::kAllowed && ready) return one;
      if (one.verdict == FlowVerdict::kAllowed) {
        one.lines.push_back(id + " is not ready yet");
      } else {
        one.lines.push_back(one.reason);
      }
    }
    result = std::move(one);
  }
  result.verdict = FlowVerdict::kRefused;
  if (!granted || !consumer.attachment) return result;
  const auto until = std::max({consumer.attachment->attached_at, target.service->declared_at,
                               target.service->endpoint_lost_at}) +
                     hold;
  const auto what = fmt::format("no endpoint of {} is ready", service_text(target.key));
  // A peer by id asks for that instance; only who names the service waits for it.
  const bool named = std::ranges::any_of(consumer.declaration.peers, [&](const Peer& peer) {
    return peer_service(consumer.declaration, peer) == target.key;
  });
  if (!named) {
    result.reason = fmt::format("{}, and {} does not name it", what, consumer.declaration.id);
  } else if (world.now < until) {
    result.verdict = FlowVerdict::kHeld;
    const auto left = std::chrono::ceil<std::chrono::seconds>(until - world.now).count();
    result.reason = fmt::format("{}: held for another {} s", what, left);
  } else {
    result.reason = what + ", and the time to wait for one is over";
  }
  return result;
}

Explanation to_outside(const World& world, const Workload& consumer, const IpAddress& address,
                       Proto proto, std::uint16_t port) {
  const auto& settings = world.settings;
  for (const auto* resolver : {settings.resolver4, settings.resolver6}) {
    if (address != resolver[0] || port != 53) continue;
    Explanation result;
    result.verdict = FlowVerdict::kAllowed;
    result.reason = "the node's resolver answers every container";
    return result;
  }
  if (in_mesh(settings, address)) return refused(address.to_string() + " is nobody's address");
  if (std::ranges::find(settings.node_addresses, address) != settings.node_addresses.end()) {
    return refused(address.to_string() + " is the node's own: egress never includes it");
  }
  for (const auto& prefix : never_reached(settings)) {
    if (!prefix.contains(address)) continue;
    return refused(fmt::format("{} is in {}: egress never includes it", address.to_string(),
                               prefix.to_string()));
  }
  const auto number = static_cast<std::uint8_t>(proto);
  for (const auto& piece : normalise(consumer.declaration.egress)) {
    if (piece.proto != number || !piece.prefix.contains(address) || port < piece.first ||
        port > piece.last) {
      continue;
    }
    Explanation result;
    result.verdict = consumer.attachment ? FlowVerdict::kAllowed : FlowVerdict::kRefused;
    result.reason = consumer.attachment
                        ? fmt::format("{} declares egress to {}", consumer.declaration.id,
                                      piece.prefix.to_string())
                        : consumer.declaration.id + " is not attached";
    return result;
  }
  auto result = refused(fmt::format("{} declares no egress to {} {}/{}", consumer.declaration.id,
                                    address.to_string(), proto_name(proto), port));
  result.missing =
      fmt::format("in {}: egress: [{{cidr: {}}}]", consumer.declaration.id, address.to_string());
  return result;
}

Explanation from_outside(const World& world, const IpAddress& source, const Target& target,
                         Proto proto, std::uint16_t port) {
  if (!target.address) {
    return refused("only published ports are reached from outside, at the node's address");
  }
  const auto& answering = world.settings.publish_addresses;
  if (std::ranges::find(answering, *target.address) == answering.end()) {
    return refused(target.address->to_string() + " is no address where published ports answer");
  }
  for (const auto& [key, node_port] : world.node_ports) {
    if (key.proto != proto || node_port != port) continue;
    const auto& workload = world.workloads.find(key.id)->second;
    const auto publication = std::ranges::find_if(
        workload.declaration.publish,
        [&](const Publication& p) { return p.proto == proto && p.port == key.port; });
    if (publication == workload.declaration.publish.end()) continue;
    const auto& sources = publication->http         ? world.settings.proxies
                          : publication->allow_from ? *publication->allow_from
                                                    : world.settings.publish_allow_from;
    Explanation result;
    result.lines = {fmt::format("{} publishes {}/{} as node port {}", key.id, proto_name(proto),
                                key.port, node_port)};
    const bool admitted =
        std::ranges::any_of(sources, [&](const Prefix& prefix) { return prefix.contains(source); });
    if (!workload.attachment) {
      result.reason = key.id + " is not attached";
    } else if (workload.draining) {
      result.reason = key.id + " is draining: open connections only";
    } else if (!admitted) {
      result.reason = fmt::format("{} is not among the sources it admits", source.to_string());
      result.missing =
          fmt::format("in {}: publish: allow_from: [\"{}\"]", key.id, source.to_string());
    } else {
      result.verdict = FlowVerdict::kAllowed;
      result.reason = fmt::format("{} admits {}", key.id, source.to_string());
    }
    return result;
  }
  return refused(fmt::format("no container publishes node port {}/{}", proto_name(proto), port));
}

}  // namespace

Result<Explanation> explain(const World& world, std::string_view source,
                            std::string_view destination, Proto proto, std::uint16_t port) {
  const auto from = look_up(world, nullptr, source);
  const auto* consumer = from.workload;
  if (consumer == nullptr && from.service != nullptr) {
    const auto replicas = members(world, from.key);
    if (!replicas.empty()) consumer = find_workload(world, replicas.front());
  }
  if (consumer == nullptr && !from.address) {
    return fail(ErrorCode::kNotFound,
                fmt::format("explain: {} is no workload, service or address here", source));
  }
  const auto* declaration = consumer == nullptr ? nullptr : &consumer->declaration;
  const auto to = look_up(world, declaration, destination);
  if (!found(to)) {
    if (consumer == nullptr) {
      return fail(ErrorCode::kNotFound,
                  fmt::format("explain: {} is no workload, service or address here", destination));
    }
    return refused(fmt::format("nobody declares {}", destination));
  }
  if (consumer == nullptr) return from_outside(world, *from.address, to, proto, port);
  if (to.workload != nullptr) return between(*consumer, *to.workload, proto, port);
  if (to.service != nullptr) return to_service(world, *consumer, to, proto, port);
  return to_outside(world, *consumer, *to.address, proto, port);
}

}  // namespace meshd::policy
