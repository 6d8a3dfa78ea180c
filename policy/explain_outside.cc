#include <fmt/format.h>

#include <algorithm>

#include "policy/allocate.h"
#include "policy/base_table.h"
#include "policy/explain_parts.h"
#include "policy/fragment.h"
#include "policy/name.h"
#include "policy/profile.h"

namespace meshd::policy {
namespace {

constexpr std::uint16_t kDns = 53;
constexpr std::string_view kPublishedOnly =
    "only published ports are reached from outside, at the node's address";

Explanation allowed(std::string reason) {
  Explanation result;
  result.verdict = FlowVerdict::kAllowed;
  result.reason = std::move(reason);
  return result;
}

std::string_view family_name(const IpAddress& address) { return address.is_v4() ? "IPv4" : "IPv6"; }

// Multicast and broadcast, which `guard` drops.
bool is_group(const IpAddress& address) {
  if (address.is_v6()) return address.bytes()[0] == 0xff;
  return address.bytes()[0] >> 4 == 0xe || address.v4_host_order() == 0xffffffff;
}

// A question that reaches the resolver whomever it was addressed to, as `dnat_pre` has it.
std::optional<Explanation> to_resolver(const Settings& settings, const IpAddress& address,
                                       std::uint16_t port) {
  const auto* resolver = address.is_v4() ? settings.resolver4 : settings.resolver6;
  const bool runs = settings.pool(address.family()) && resolver[0].family() == address.family();
  if (port != kDns || !runs || is_group(address)) return std::nullopt;
  if (address == resolver[0]) return allowed("the node's resolver answers every container");
  if (in_mesh(settings, address)) return std::nullopt;
  if (address == resolver[1]) {
    return refused(fmt::format("{} answers what was addressed to others only; ask {}",
                               address.to_string(), resolver[0].to_string()));
  }
  return allowed(fmt::format("port {} of any address leads to the node's resolver, {}", kDns,
                             resolver[0].to_string()));
}

struct Published {
  const Workload* workload = nullptr;
  std::size_t entry = 0;  // of its `publish`, unless it is on demand
  Publication publication;
};

std::optional<Published> published(const Workload& workload, Proto proto, std::uint16_t port) {
  const auto all = publications_of(workload);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].proto == proto && all[i].port == port) return {{&workload, i, all[i]}};
  }
  return std::nullopt;
}

// What a node port stands for, whether its container is attached or not.
std::optional<Published> published_at(const World& world, const IpAddress& address, Proto proto,
                                      std::uint16_t node_port) {
  const auto& answering = world.settings.publish_addresses;
  if (std::ranges::find(answering, address) == answering.end()) return std::nullopt;
  for (const auto& [key, port] : world.node_ports) {
    if (key.proto != proto || port != node_port) continue;
    const auto& workload = world.workloads.find(key.id)->second;
    if (auto found = published(workload, proto, key.port)) return found;
  }
  return std::nullopt;
}

std::string published_text(const Published& published, std::uint16_t node_port) {
  const auto& publication = published.publication;
  return fmt::format("{} publishes {}/{}{} as node port {}", published.workload->declaration.id,
                     proto_name(publication.proto), publication.port,
                     publication.on_demand ? ", on demand," : "", node_port);
}

// What would admit the source, where that can be declared.
std::string missing_source(const Settings& settings, const Published& published,
                           const IpAddress& source) {
  const auto& publication = published.publication;
  if (publication.http) {
    return fmt::format("in the node's configuration: publish.proxies: [\"{}\"]",
                       source.to_string());
  }
  // A list of its own stands instead of the configured one: what that admits is repeated.
  std::string list;
  if (!publication.allow_from) {
    for (const auto& prefix : settings.publish_allow_from) {
      list += fmt::format("\"{}\", ", prefix.to_string());
    }
  }
  return fmt::format("in {}: publish[{}].allow_from: [{}\"{}\"]",
                     published.workload->declaration.id, published.entry, list, source.to_string());
}

Explanation to_published(const World& world, const Published& published, const IpAddress& source,
                         std::uint16_t node_port) {
  const auto& id = published.workload->declaration.id;
  const auto sources = admitted_to(world, published.publication);
  const bool admitted =
      std::ranges::any_of(sources, [&](const Prefix& prefix) { return prefix.contains(source); });
  Explanation result;
  if (!published.workload->attachment) {
    result.reason = id + " is not attached";
  } else if (published.workload->drains()) {
    result.reason = id + " is draining: open connections only";
  } else if (!admitted) {
    result.reason = fmt::format("{} is not among the sources it admits", source.to_string());
    result.missing = missing_source(world.settings, published, source);
  } else {
    result = allowed(fmt::format("{} admits {}", id, source.to_string()));
  }
  result.lines = {published_text(published, node_port)};
  return result;
}

// What leads there: a refused packet is told of as it is addressed by then.
std::map<OutsideKey, Outside>::const_iterator leading_to(const World& world,
                                                         const IpAddress& address, Proto proto,
                                                         std::uint16_t node_port) {
  if (!world.settings.gateway) return world.outside.end();
  return std::ranges::find_if(world.outside, [&](const auto& entry) {
    const auto& [key, outside] = entry;
    return key.proto == proto && outside.node_port == node_port &&
           outside.address(address.family()) == address;
  });
}

// On a gateway: to a node port of another node, or of this one.
Explanation by_gateway(const World& world, const OutsideKey& key, const Outside& outside,
                       const IpAddress& source) {
  const auto here = world.workloads.find(outside.id);
  if (here != world.workloads.end() && here->second.attachment) {
    const auto found = published(here->second, key.proto, outside.port);
    if (found) return to_published(world, *found, source, key.port);
  }
  const auto name = proto_name(key.proto);
  const auto& address = outside.address(source.family());
  const bool admitted = std::ranges::any_of(
      outside.allow_from, [&](const Prefix& prefix) { return prefix.contains(source); });
  Explanation result;
  if (!address) {
    result.reason = fmt::format("{}'s node has no {} address", outside.id, family_name(source));
  } else if (admitted) {
    result = allowed(fmt::format("{} admits {}", outside.id, source.to_string()));
  } else {
    result.reason =
        fmt::format("{} is not among the sources {} admits", source.to_string(), outside.id);
    result.missing = fmt::format("in {}: allow_from of its publication of {}/{}: \"{}\"",
                                 outside.id, name, outside.port, source.to_string());
  }
  result.lines = {fmt::format("outside port {}/{} leads to {}'s {}/{}", name, key.port, outside.id,
                              name, outside.port)};
  return result;
}

// By the container's own address, as a refused packet has it in the log: translated by then.
Explanation to_container(const World& world, const IpAddress& source, const Workload& workload,
                         Proto proto, std::uint16_t port) {
  auto result = refused(std::string(kPublishedOnly));
  const auto node_port = world.node_ports.find({workload.declaration.id, proto, port});
  const auto found = published(workload, proto, port);
  if (node_port == world.node_ports.end() || !found) return result;
  auto judged = to_published(world, *found, source, node_port->second);
  if (judged.verdict != FlowVerdict::kAllowed) return judged;
  result.lines = std::move(judged.lines);
  return result;
}

// By `egress` alone: where it never leads has been seen to.
Explanation by_egress(const Workload& consumer, const IpAddress& address, Proto proto,
                      std::uint16_t port) {
  const auto& declaration = consumer.declaration;
  for (const auto& piece : normalise(declaration.egress)) {
    if (piece.proto != static_cast<std::uint8_t>(proto) || !piece.prefix.contains(address) ||
        port < piece.first || port > piece.last) {
      continue;
    }
    if (!consumer.attachment) return refused(declaration.id + " is not attached");
    return allowed(
        fmt::format("{} declares egress to {}", declaration.id, piece.prefix.to_string()));
  }
  auto result = refused(fmt::format("{} declares no egress to {} {}/{}", declaration.id,
                                    address.to_string(), proto_name(proto), port));
  if (consumer.attachment && !consumer.attachment->default_route) {
    result.lines = {declaration.id +
                    " is attached with --no-default-route: its way out is "
                    "another interface, and egress is not for it"};
    return result;
  }
  result.missing = fmt::format("in {}: egress: [{{cidr: \"{}\", ports: [{}]}}]", declaration.id,
                               address.to_string(), port_entry(proto, port));
  return result;
}

// Of a mesh address of another node that this one knows nothing of; empty: it is none.
std::string of_another_node(const World& world, const IpAddress& address) {
  for (const auto& [name, node] : world.nodes) {
    for (const auto& block : node.blocks) {
      if (!block.contains(address)) continue;
      return fmt::format("{} is node {}'s, and of nobody that this node has to do with",
                         address.to_string(), name);
    }
  }
  return {};
}

// A mesh address that stands for nothing here.
std::string nobodys(const World& world, const IpAddress& address) {
  auto whose = of_another_node(world, address);
  return whose.empty() ? address.to_string() + " is nobody's address" : whose;
}

std::string elsewhere(const Workload& workload) {
  return fmt::format("{} is on node {}: from a node itself only its own containers are reached",
                     workload.declaration.id, workload.remote->node);
}

// The node's uids that reach containers, for people.
std::string users_text(const Settings& settings) {
  std::string uids;
  for (const auto uid : settings.allow_uids) {
    uids += fmt::format("{}{}", uids.empty() ? "" : ", ", uid);
  }
  return uids.empty() ? "nobody else, since node.allow_users is empty"
                      : "the uids of node.allow_users (" + uids + ")";
}

Explanation for_users(const Settings& settings, std::vector<std::string> lines) {
  auto result = allowed(
      fmt::format("from the node itself uid 0 reaches containers, and {}", users_text(settings)));
  result.lines = std::move(lines);
  return result;
}

Explanation node_to_service(const World& world, const Target& target, Proto proto,
                            std::uint16_t port) {
  std::vector<std::string> here, others;
  for (const auto& id : members(world, target.key)) {
    const auto& workload = world.workloads.find(id)->second;
    const bool there = std::ranges::any_of(kFamilies, [&](Family family) {
      return families_of(target.address).on(family) &&
             is_endpoint(workload, {proto, port, false}, family);
    });
    if (!there) continue;
    if (workload.remote) {
      others.push_back(elsewhere(workload));
    } else if (here.empty()) {
      here.push_back(fmt::format("{} leads to {}", service_text(target.key), id));
    }
  }
  if (!here.empty()) {
    here.insert(here.end(), others.begin(), others.end());
    return for_users(world.settings, std::move(here));
  }
  if (!others.empty()) return refused(others.front());
  // Only consumers wait.
  return refused(fmt::format("no endpoint of {} is ready", service_text(target.key)));
}

}  // namespace

Explanation to_outside(const World& world, const Workload& consumer, const IpAddress& address,
                       Proto proto, std::uint16_t port) {
  const auto& settings = world.settings;
  const auto text = address.to_string();
  if (consumer.attachment && !consumer.attachment->address(address.family())) {
    return refused(
        fmt::format("{} has no {} address", consumer.declaration.id, family_name(address)));
  }
  if (auto asked = to_resolver(settings, address, port)) {
    return consumer.attachment ? *std::move(asked)
                               : refused(consumer.declaration.id + " is not attached");
  }
  if (in_mesh(settings, address)) return refused(nobodys(world, address));
  // Translated before anything is judged: a node port is the container behind it, and the
  // packet one between two containers.
  if (const auto published = published_at(world, address, proto, port);
      published && published->workload->attachment) {
    auto result = judge(world, consumer, *published->workload, proto, published->publication.port,
                        families_of(address));
    result.lines.insert(result.lines.begin(), published_text(*published, port));
    return result;
  }
  const auto& own = settings.node_addresses;
  if (std::ranges::find(own, address) != own.end()) {
    return refused(text + " is the node's own: egress never includes it");
  }
  for (const auto& prefix : never_reached(world)) {
    if (!prefix.contains(address)) continue;
    return refused(fmt::format("{} is in {}: egress never includes it", text, prefix.to_string()));
  }
  if (proto == Proto::kUdp && std::ranges::find(kTunnelPorts, port) != std::end(kTunnelPorts)) {
    return refused(fmt::format("udp/{} is a port of tunnels: egress never includes it", port));
  }
  return by_egress(consumer, address, proto, port);
}

Explanation from_outside(const World& world, const IpAddress& source, const Target& target,
                         Proto proto, std::uint16_t port) {
  if (in_mesh(world.settings, source)) {
    if (auto whose = of_another_node(world, source); !whose.empty()) {
      return refused(std::move(whose));
    }
    return refused(source.to_string() +
                   " is no container's: a mesh address is believed from "
                   "its own container only");
  }
  if (target.workload != nullptr) return to_container(world, source, *target.workload, proto, port);
  if (target.service != nullptr) return refused(std::string(kPublishedOnly));
  const auto translated = leading_to(world, *target.address, proto, port);
  if (translated != world.outside.end()) {
    return by_gateway(world, translated->first, translated->second, source);
  }
  const auto& answering = world.settings.publish_addresses;
  if (std::ranges::find(answering, *target.address) == answering.end()) {
    return refused(target.address->to_string() + " is no address where published ports answer");
  }
  if (const auto published = published_at(world, *target.address, proto, port)) {
    return to_published(world, *published, source, port);
  }
  const auto outside = world.outside.find({proto, port});
  if (world.settings.gateway && outside != world.outside.end()) {
    return by_gateway(world, outside->first, outside->second, source);
  }
  return refused(fmt::format("no container publishes node port {}/{}", proto_name(proto), port));
}

std::optional<Explanation> from_node(const World& world, const Target& target, Proto proto,
                                     std::uint16_t port) {
  if (target.service != nullptr) return node_to_service(world, target, proto, port);
  if (target.workload != nullptr) {
    if (target.workload->attachment) return for_users(world.settings, {});
    if (target.workload->remote) return refused(elsewhere(*target.workload));
    return refused(target.workload->declaration.id + " is not attached");
  }
  if (in_mesh(world.settings, *target.address)) return refused(nobodys(world, *target.address));
  const auto published = published_at(world, *target.address, proto, port);
  if (!published || !published->workload->attachment) return std::nullopt;
  return for_users(world.settings, {published_text(*published, port)});
}

}  // namespace meshd::policy
