#include "meshd/addressing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

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

// Another slot of the same port leads to the same endpoint: its connections stay right.
bool another_slot(Element element, const std::function<bool(const Element&)>& planned) {
  for (std::uint32_t slot = 0; slot < policy::kSlots; ++slot) {
    std::memcpy(element.bytes.data() + element.key_size - sizeof slot, &slot, sizeof slot);
    if (planned(element)) return true;
  }
  return false;
}

bool drains(const policy::World& world, const IpAddress& address) {
  return std::ranges::any_of(world.workloads, [&](const auto& entry) {
    const auto& workload = entry.second;
    return workload.draining && workload.attachment &&
           (workload.attachment->v4 == address || workload.attachment->v6 == address);
  });
}

}  // namespace

std::uint64_t pool_size(const policy::Settings& settings) {
  std::uint64_t size = std::uint64_t{1} << 32;
  for (const auto& pool : {settings.pool4, settings.pool6}) {
    if (pool) size = std::min(size, std::uint64_t{1} << std::min(pool->host_bits(), 32));
  }
  return size - 1;  // the last address of a prefix looks like a broadcast to people
}

std::uint64_t index_of(const policy::Settings& settings, const policy::Attachment& attachment) {
  if (attachment.v4 && settings.pool4) {
    return offset(settings.pool4->address(), *attachment.v4);
  }
  if (attachment.v6 && settings.pool6) {
    return offset(settings.pool6->address(), *attachment.v6);
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
    if (settings.pool4) result.v4 = settings.pool4->address().plus(index);
    if (settings.pool6) result.v6 = settings.pool6->address().plus(index);
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

void note_translations(const policy::World& world, const policy::Delta& delta,
                       const std::function<bool(const Element&)>& planned, EraseRequest& erase) {
  for (const auto& element : delta.remove) {
    const auto kind = translates(element.set);
    if (kind == Translates::kNo || planned(element)) continue;
    if (kind != Translates::kPublication && another_slot(element, planned)) continue;
    const auto translation = translation_of(element, kind);
    if (drains(world, translation.to)) continue;
    const auto& known = erase.translations;
    if (std::ranges::find(known, translation) == known.end()) {
      erase.translations.push_back(translation);
    }
  }
}

}  // namespace meshd
