// What the events of refusals say beyond the address and the name that were asked for. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/ip.h"
#include "policy/types.h"

namespace meshd {

// Whose address it is: a workload's id, here or on another node, or a service's full name when it
// is a VIP. Empty: neither.
[[nodiscard]] std::string who_is(const policy::World& world, const IpAddress& address);

// A packet that was refused, as the kernel logged it.
struct RefusedPacket {
  IpAddress source, destination;
  std::uint8_t proto = 0;
  std::uint16_t port = 0;
  bool spoofed = false;
};
struct Refusal {
  std::string consumer, provider;  // who_is(), else the address
  std::string detail;              // for people: "tcp/80: db does not serve tcp/80"
  std::string missing;             // the declaration that would allow it
  bool is_pair = false;            // a flow that a declaration could have allowed
};
[[nodiscard]] Refusal describe(const policy::World& world, const RefusedPacket& packet);

// The declaration without which `client` does not see `name` (a bare label or a full name);
// empty when it does, or when the name is none that could be declared.
[[nodiscard]] std::string missing_for_name(const policy::World& world, const std::string& client,
                                           std::string_view name);

}  // namespace meshd
