// What this kernel's nftables can do, found out by asking it to check tables that are never
// made. Kernel versions are not asked: distributions port features back.
//
// Threads: any; opens a socket of its own in the calling thread's network namespace.
// Errors:  kSystem: nothing can be tried at all (no privilege, no nf_tables). kUnsupported
//          from require_all(): the name of what is missing, and what it is needed for.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace meshd::netlink {

// The table that is checked and never made.
inline constexpr std::string_view kProbeTable = "meshd-probe";

struct Feature {
  std::string_view name;        // "masquerade"
  std::string_view needed_for;  // what cannot be without it
  bool present = false;
  std::string why;  // the kernel's refusal, when not present
};

// Those that the ruleset needs and some kernel is known to lack.
[[nodiscard]] Result<std::vector<Feature>> probe_features();
[[nodiscard]] Status require_all(std::span<const Feature> features);

}  // namespace meshd::netlink
