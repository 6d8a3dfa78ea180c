#include "meshd/traffic.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace meshd {
namespace {

using Flow = std::pair<const TrafficKey*, TrafficCount>;

struct AddressHash {
  std::size_t operator()(const IpAddress& address) const {
    const auto bytes = address.bytes();
    return std::hash<std::string_view>{}(
        {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
};
using Ids = std::unordered_map<IpAddress, const policy::Workload*, AddressHash>;

Ids ids_of(const policy::World& world) {
  Ids ids;
  for (const auto& [id, workload] : world.workloads) {
    for (const auto family : kFamilies) {
      if (workload.address(family)) ids.emplace(*workload.address(family), &workload);
    }
  }
  return ids;
}

}  // namespace

// allow4/allow6: consumer . provider . proto (padded) . port (padded), network order.
AllowKey read_allow(const policy::Element& element) {
  const auto key = element.key();
  const std::size_t width = key.size() == 16 ? 4 : 16;
  const auto address = [&](std::size_t at) {
    return width == 4 ? IpAddress::v4(std::span<const std::uint8_t, 4>(key.data() + at, 4))
                      : IpAddress::v6(std::span<const std::uint8_t, 16>(key.data() + at, 16));
  };
  return {address(0), address(width), key[2 * width],
          static_cast<std::uint16_t>(key[2 * width + 4] << 8 | key[2 * width + 5])};
}

TrafficCounts traffic_counts(const policy::World& world, const std::vector<ElementCount>& counts) {
  TrafficCounts result;
  const auto ids = ids_of(world);
  for (const auto& count : counts) {
    if (count.packets == 0) continue;
    const auto key = read_allow(count.element);
    const auto consumer = ids.find(key.consumer), provider = ids.find(key.provider);
    if (consumer == ids.end() || provider == ids.end()) continue;
    if (!consumer->second->attachment) continue;
    auto& sum = result[{consumer->second->declaration.id, provider->second->declaration.id,
                        key.proto, key.port}];
    sum.packets += count.packets;
    sum.bytes += count.bytes;
  }
  return result;
}

mesh::v1::Traffic traffic_since(const TrafficCounts& before, const TrafficCounts& now,
                                Duration over) {
  std::vector<Flow> flows;
  for (const auto& [key, count] : now) {
    auto more = count;
    const auto old = before.find(key);
    if (old != before.end() && old->second.packets <= count.packets &&
        old->second.bytes <= count.bytes) {
      more.packets -= old->second.packets;
      more.bytes -= old->second.bytes;
    }
    if (more.packets != 0) flows.emplace_back(&key, more);
  }
  const auto most = std::min(flows.size(), kMaxTrafficFlows);
  std::ranges::partial_sort(flows, flows.begin() + static_cast<std::ptrdiff_t>(most),
                            std::ranges::greater(),
                            [](const Flow& flow) { return flow.second.bytes; });
  mesh::v1::Traffic message;
  message.set_over_ms(
      static_cast<std::uint32_t>(std::chrono::ceil<std::chrono::milliseconds>(over).count()));
  for (const auto& [key, count] : std::span(flows).first(most)) {
    auto& flow = *message.add_flows();
    flow.set_consumer(key->consumer);
    flow.set_provider(key->provider);
    flow.mutable_port()->set_port(key->port);
    flow.mutable_port()->set_protocol(key->proto == std::to_underlying(Proto::kUdp)
                                          ? mesh::v1::Protocol::UDP
                                          : mesh::v1::Protocol::TCP);
    flow.set_packets(count.packets);
    flow.set_bytes(count.bytes);
  }
  return message;
}

}  // namespace meshd
