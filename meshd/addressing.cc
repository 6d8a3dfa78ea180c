#include "meshd/addressing.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace meshd {
namespace {

using policy::Element;
using policy::SetId;

bool rests(const policy::Quarantine& resting, const std::optional<IpAddress>& address,
           TimePoint now) {
  if (!address) return false;
  const auto found = resting.find(*address);
  return found != resting.end() && found->second > now;
}

std::uint64_t offset(const IpAddress& base, const IpAddress& address) {
  std::uint64_t result = 0;
  for (std::size_t i = 0; i < base.bytes().size(); ++i) {
    result = (result << 8) + address.bytes()[i] - base.bytes()[i];
  }
  return result;
}

enum class Translates { kNo, kVip, kVipBlock, kPublication };

Translates translates(SetId set) {
  switch (set) {
    case SetId::kVip4:
    case SetId::kVip6:
      return Translates::kVip;
    case SetId::kVip4Block:
    case SetId::kVip6Block:
      return Translates::kVipBlock;
    case SetId::kPub4:
    case SetId::kPub6:
    case SetId::kGate4:
    case SetId::kGate6:
      return Translates::kPublication;
    default:
      return Translates::kNo;
  }
}

IpAddress address_at(std::span<const std::uint8_t> bytes, bool v4) {
  return v4 ? IpAddress::v4(bytes.first<4>()) : IpAddress::v6(bytes.first<16>());
}

// VIP keys: address . proto . port . slot; publication keys: address . proto . port. Each
// but the address takes four bytes.
EraseRequest::Translation translation_of(const Element& element, Translates kind) {
  const auto key = element.key();
  const std::size_t rest = kind == Translates::kPublication ? 8 : 12;
  const bool v4 = key.size() - rest == 4;
  const auto tail = key.subspan(key.size() - rest);
  EraseRequest::Translation result;
  result.proto = static_cast<Proto>(tail[0]);
  result.from = address_at(key, v4);
  result.first = static_cast<std::uint16_t>(tail[4] << 8 | tail[5]);
  result.last = kind == Translates::kVipBlock
                    ? static_cast<std::uint16_t>(result.first + policy::kBlock - 1)
                    : result.first;
  result.to = address_at(element.data(), v4);
  return result;
}

// Whether the workload at `to` still is the service at `from` on that port, ready or not,
// draining or not: both are about new connections. Asked of the declarations, since one
// port can stand for itself in one plan and in a block in the next.
bool serves_as(const policy::World& world, const policy::Workload& workload, const IpAddress& vip,
               Proto proto, std::uint16_t port) {
  const auto key = workload.declaration.service();
  if (!key) return false;
  const auto service = world.services.find(*key);
  if (service == world.services.end() || service->second.vip(vip.family()) != vip) return false;
  return std::ranges::any_of(workload.declaration.serves, [&](const auto& served) {
    return served.ports.contains(proto, port);
  });
}

bool still_serves(const policy::World& world, const EraseRequest::Translation& translation,
                  std::uint16_t port) {
  const auto family = translation.from.family();
  return std::ranges::any_of(world.workloads, [&](const auto& entry) {
    const auto& workload = entry.second;
    return workload.address(family) == translation.to &&
           serves_as(world, workload, translation.from, translation.proto, port);
  });
}

// Whether another slot leads where this one did.
bool still_leads(const Element& element, const EraseRequest::Translation& translation,
                 const std::function<bool(const Element&)>& planned) {
  for (std::uint32_t slot = 0; slot < policy::kSlots; ++slot) {
    if (planned(policy::ElementBuilder(element.set)
                    .addr(translation.from)
                    .proto(translation.proto)
                    .port(translation.first)
                    .number(slot)
                    .data()
                    .addr(translation.to)
                    .build())) {
      return true;
    }
  }
  return false;
}

// What of a VIP's translation is wrong now, as runs of ports: all of it, or what was not answered.
std::vector<EraseRequest::Translation> outdated(const policy::World& world,
                                                const EraseRequest::Translation& translation) {
  std::vector<EraseRequest::Translation> runs;
  for (int number = translation.first; number <= translation.last; ++number) {
    const auto port = static_cast<std::uint16_t>(number);
    const bool serves = still_serves(world, translation, port);
    if (runs.empty() || runs.back().only_unanswered != serves) {
      runs.push_back(translation);
      runs.back().first = port;
      runs.back().only_unanswered = serves;
    }
    runs.back().last = port;
  }
  return runs;
}

// Outside ports of a gateway, which nobody else's translation has.
bool is_by_gateway(const policy::Settings& settings, const IpAddress& asked, std::uint16_t port) {
  const auto& own = settings.publish_addresses;
  return settings.gateway && port >= settings.gateway_first && port <= settings.gateway_last &&
         port != 0 && std::ranges::find(own, asked) != own.end();
}

}  // namespace

std::uint64_t pool_size(const policy::Settings& settings) {
  std::uint64_t size = std::uint64_t{1} << 32;
  for (const auto family : kFamilies) {
    const auto& block = settings.block(family);
    if (block) size = std::min(size, std::uint64_t{1} << std::min(block->host_bits(), 32));
  }
  return size - 1;  // the last address of a prefix looks like a broadcast to people
}

std::uint64_t index_of(const policy::Settings& settings, const policy::Attachment& attachment) {
  for (const auto family : kFamilies) {
    const auto& block = settings.block(family);
    const auto& address = attachment.address(family);
    if (address && block) return offset(block->address(), *address);
  }
  return 0;
}

Result<policy::Attachment> allocate(const policy::World& world, const policy::Quarantine& resting,
                                    std::uint64_t last) {
  const auto& settings = world.settings;
  std::set<std::uint64_t> used;
  for (const auto& [id, workload] : world.workloads) {
    if (workload.attachment) used.insert(index_of(settings, *workload.attachment));
  }
  const std::uint64_t count = pool_size(settings) - 1;
  // Resting addresses can fill a small pool; beyond this many tries it is full in effect.
  const std::uint64_t tries = std::min(count, used.size() + resting.size() + 1);
  for (std::uint64_t step = 0; step < tries; ++step) {
    const std::uint64_t index = 1 + (last + step) % count;
    if (used.contains(index)) continue;
    policy::Attachment result;
    const auto& block4 = settings.block(Family::kV4);
    const auto& block6 = settings.block(Family::kV6);
    if (block4) result.v4 = block4->address().plus(index);
    if (block6) result.v6 = block6->address().plus(index);
    if (rests(resting, result.v4, world.now) || rests(resting, result.v6, world.now)) continue;
    result.host_ifname = fmt::format("mesh{:x}", index);
    for (std::size_t i = 0; i < 4; ++i) {
      result.mac.bytes[2 + i] = static_cast<std::uint8_t>(index >> (24 - 8 * i));
    }
    result.mac.bytes[0] = 0x02;  // locally administered
    result.mac.bytes[1] = 0x01;  // never the host end's 02:00:00:00:00:01
    return result;
  }
  return fail(ErrorCode::kExhausted,
              fmt::format("no address is free: {} of {} are in use, {} rest after their last use",
                          used.size(), count, resting.size()));
}

std::optional<EraseRequest::Translation> vip_slot(const policy::Element& element) {
  const auto kind = translates(element.set);
  if (kind != Translates::kVip && kind != Translates::kVipBlock) return std::nullopt;
  return translation_of(element, kind);
}

void note_translations(const policy::World& world, const policy::Delta& delta,
                       const std::function<bool(const Element&)>& planned, EraseRequest& erase) {
  std::set<EraseRequest::Translation> removed;  // one for all slots of an endpoint
  for (const auto& element : delta.remove) {
    const auto kind = translates(element.set);
    if (kind == Translates::kNo || planned(element)) continue;
    const auto translation = translation_of(element, kind);
    if (!removed.insert(translation).second) continue;
    if (kind == Translates::kPublication) {
      erase.translations.push_back(translation);
      continue;
    }
    for (const auto& wrong : outdated(world, translation)) {
      if (wrong.only_unanswered && still_leads(element, translation, planned)) continue;
      erase.translations.push_back(wrong);
    }
  }
  std::ranges::sort(erase.translations);
  const auto twice = std::ranges::unique(erase.translations);
  erase.translations.erase(twice.begin(), twice.end());
}

std::function<bool(const policy::LiveConnection&)> outlived(const policy::World& world,
                                                            const std::vector<Element>& planned) {
  std::map<IpAddress, const policy::Workload*> at;
  for (const auto& [id, workload] : world.workloads) {
    for (const auto family : kFamilies) {
      if (const auto& address = workload.address(family)) at[*address] = &workload;
    }
  }
  std::set<EraseRequest::Translation> published;
  for (const auto& element : planned) {
    const auto kind = translates(element.set);
    if (kind == Translates::kPublication) published.insert(translation_of(element, kind));
  }
  std::set<IpAddress> nodes;
  for (const auto& [name, node] : world.nodes) {
    nodes.insert(node.underlay.begin(), node.underlay.end());
  }
  return [&world, at = std::move(at), nodes = std::move(nodes),
          published = std::move(published)](const policy::LiveConnection& connection) {
    const auto& settings = world.settings;
    const auto in = [](const std::optional<Prefix>& pool, const IpAddress& address) {
      return pool && pool->contains(address);
    };
    const auto ours = [&](const IpAddress& address) {
      return in(settings.pool4, address) || in(settings.pool6, address);
    };
    const auto& [proto, source, asked, asked_port, server, port] = connection;
    for (const auto* const end : {&source, &asked, &server}) {
      if (ours(*end) && !at.contains(*end)) return true;
    }
    if (proto != Proto::kTcp && proto != Proto::kUdp) return false;
    if (is_by_gateway(settings, asked, asked_port) && nodes.contains(server)) {
      return !published.contains({proto, asked, asked_port, asked_port, server});
    }
    if (asked == server || !ours(server)) return false;  // not translated by us
    if (in(settings.vip_pool4, asked) || in(settings.vip_pool6, asked)) {
      return !serves_as(world, *at.at(server), asked, proto, asked_port);
    }
    return !published.contains({proto, asked, asked_port, asked_port, server});
  };
}

}  // namespace meshd
