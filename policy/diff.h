// From what is installed to what is wanted: the elements that differ.
//
// Invariants: applying the delta to `installed` gives `wanted`; it is empty when both are
//             equal. A map's element with other data is removed and added.
#pragma once

#include <span>

#include "policy/ruleset.h"

namespace meshd::policy {

// Both sorted and without repetition.
[[nodiscard]] Delta diff(std::span<const Element> installed, std::span<const Element> wanted);

}  // namespace meshd::policy
