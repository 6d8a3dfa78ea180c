// A stored state as text, every field of it, so that two can be compared and a difference
// read.
#pragma once

#include <fmt/format.h>

#include <string>

#include "meshd/store.h"

namespace meshd {

inline std::string dump(const std::optional<IpAddress>& address) {
  return address ? address->to_string() : "-";
}

inline std::string dump(const policy::Attachment& a) {
  return fmt::format("{}/{} {} {} {} {} {} {} route={} prepared={} at={}", a.netns.dev, a.netns.ino,
                     a.netns_path, a.ifname, a.host_ifname, a.mac.to_string(), dump(a.v4),
                     dump(a.v6), a.default_route, a.prepared,
                     a.attached_at.time_since_epoch().count());
}

inline std::string dump(const StoredState& state) {
  std::string out = fmt::format("generation {}\n", state.generation);
  for (const auto& [id, w] : state.workloads) {
    const auto& d = w.declaration;
    out += fmt::format("workload {}: {} {} {} {} draining={} ready={}\n", id, d.id, d.owner,
                       d.workflow, d.name, w.draining, w.ready);
    if (w.attachment) out += "  attached " + dump(*w.attachment) + "\n";
    for (const auto& [port, families] : w.tcp_ready) {
      out += fmt::format("  port {} {} {}\n", port, families.v4, families.v6);
    }
  }
  for (const auto& [key, s] : state.services) {
    out += fmt::format("service {} {} {}: {} {} {} {} {}\n", static_cast<int>(key.scope),
                       key.workflow, key.name, s.owner, dump(s.vip4), dump(s.vip6),
                       s.declared_at.time_since_epoch().count(),
                       s.endpoint_lost_at.time_since_epoch().count());
  }
  for (const auto& [key, port] : state.node_ports) {
    out += fmt::format("node port {} {} {}: {}\n", key.id, proto_name(key.proto), key.port, port);
  }
  for (const auto& [address, until] : state.quarantine) {
    out +=
        fmt::format("resting {} until {}\n", address.to_string(), until.time_since_epoch().count());
  }
  for (const auto& [name, since] : state.idle_names) {
    out += fmt::format("idle {} since {}\n", name, since);
  }
  for (const auto& [id, left] : state.left_netns) {
    out += fmt::format("left of {}: {}/{} {}\n", id, left.netns.dev, left.netns.ino, left.path);
  }
  if (state.cluster) {
    const auto& [terms, revision] = *state.cluster;
    out += fmt::format("cluster {} {} revision {}:", terms.cluster, terms.zone, revision);
    for (const auto* range :
         {&terms.pool4, &terms.pool6, &terms.vip4, &terms.vip6, &terms.block4, &terms.block6}) {
      out += *range ? " " + (*range)->to_string() : " -";
    }
    for (const auto& prefix : terms.proxies) out += " proxy " + prefix.to_string();
    if (terms.gateway_first != 0) {
      out += fmt::format(" gateway {}-{}", terms.gateway_first, terms.gateway_last);
    }
    out += "\n";
  }
  for (const auto& [key, value] : state.slice) {
    out += fmt::format("slice {} {}: {} bytes, {}\n", key.kind, key.key, value.size(),
                       std::hash<std::string>()(value));
  }
  for (const auto& [consumer, providers] : state.confirmed) {
    for (const auto& [provider, said] : providers) {
      out += fmt::format("confirmed {} -> {}: {} {} {} {}", consumer, provider, dump(said.from4),
                         dump(said.from6), dump(said.to4), dump(said.to6));
      for (const auto& range : said.ranges) {
        out += fmt::format(" {}/{}-{}", proto_name(range.proto), range.first, range.last);
      }
      out += "\n";
    }
  }
  return out;
}

}  // namespace meshd
