// Whether the kernel's sets can hold a plan. One set too full refuses the whole transaction,
// and with it everybody's changes. Pure.
#pragma once

#include <array>
#include <cstddef>

#include "base/result.h"
#include "policy/plan.h"

namespace meshd {

using Room = std::array<std::size_t, policy::kSetCount>;  // elements, by SetId

[[nodiscard]] Room planned_now(const policy::Compiler& compiler);
// The most that readiness, detaches and holds can make of it by themselves.
[[nodiscard]] Room worst_case(const policy::Compiler& compiler);

// kExhausted when a set has grown past its size. One that was too full before and has not
// grown is no reason to refuse a change.
[[nodiscard]] Status check_room(const Room& before, const Room& after);

}  // namespace meshd
