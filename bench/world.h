// Worlds of any number of flows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "bench/must.h"
#include "policy/types.h"

namespace meshd::bench {

inline policy::Settings settings() {
  policy::Settings s;
  s.pool4 = Prefix::parse("10.213.0.0/16").value();
  s.vip_pool4 = Prefix::parse("10.214.0.0/16").value();
  s.pool6 = Prefix::parse("fd00:0:0:1::/64").value();
  s.vip_pool6 = Prefix::parse("fd00:0:0:2::/64").value();
  for (int i = 0; i < 2; ++i) {
    s.resolver4[i] = IpAddress::parse(fmt::format("169.254.1.{}", i + 1)).value();
    s.resolver6[i] = IpAddress::parse(fmt::format("fd00:0:0:53::{}", i + 53)).value();
  }
  return s;
}

// An attached container that serves one port.
inline policy::Workload workload(const policy::Settings& s, std::uint64_t index, Proto proto) {
  policy::Workload w;
  w.declaration.id = fmt::format("w{}", index);
  w.declaration.owner = "bench";
  w.declaration.admit = policy::Admit::kOwner;
  w.declaration.serves = {{{proto, 80, 80}, ""}};
  w.attachment.emplace();
  w.attachment->v4 = s.pool4->address().plus(index);
  w.attachment->v6 = s.pool6->address().plus(index);
  w.attachment->host_ifname = fmt::format("mesh{:x}", index);
  w.attachment->mac = {
      {2, 0, 0, 0, static_cast<std::uint8_t>(index >> 8), static_cast<std::uint8_t>(index)}};
  return w;
}

// `flows` directed edges, in chunks of 100 per consumer (a flow is an element per family);
// w1, which is toggled or sends, always has ten peers, w2 the first.
inline policy::World world_of(const policy::Settings& s, int flows, Proto proto) {
  policy::World world;
  world.settings = s;
  const int containers = std::max(20, flows / 100 + 1);
  for (int i = 1; i <= containers; ++i) {
    auto w = workload(s, static_cast<std::uint64_t>(i), proto);
    world.workloads.emplace(w.declaration.id, std::move(w));
  }
  int left = flows;
  for (int i = 1; i <= containers && left > 0; ++i) {
    auto& peers = world.workloads[fmt::format("w{}", i)].declaration.peers;
    const int wanted = i == 1 ? 10 : 100;
    for (int k = 1; k <= wanted && left > 0 && k < containers; ++k, --left) {
      peers.push_back({fmt::format("w{}", (i + k - 1) % containers + 1), "", {}, {}});
    }
  }
  return world;
}

}  // namespace meshd::bench
