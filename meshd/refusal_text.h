// What the events of refusals say beyond the address and the name that were asked for. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/ip.h"
#include "policy/types.h"

namespace meshd {

// Whose address it is: a workload's id, or a service's full name when it is a VIP. Empty:
// neither.
[[nodiscard]] std::string who_is(const policy::World& world, const IpAddress& address);

// The declaration without which `client` does not see `name` (a bare label or a full name);
// empty when it does, or when the name is none that could be declared.
[[nodiscard]] std::string missing_for_name(const policy::World& world, const std::string& client,
                                           std::string_view name);

}  // namespace meshd
