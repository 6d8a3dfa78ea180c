// What this kernel's nftables can do, found out by trying in a table of its own that is
// gone afterwards. Kernel versions are not asked: distributions port features back.
//
// Threads: any; opens sockets of its own in the calling thread's network namespace.
// Errors:  kSystem: nothing can be tried at all (no privilege, no nf_tables).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace meshd::netlink {

struct Feature {
  std::string_view name;        // "table owner"
  std::string_view needed_for;  // what is missing without it
  bool required = false;        // without it the ruleset cannot be loaded
  bool present = false;
  std::string why;  // the kernel's refusal, when not present
};

struct Features {
  bool owner = false;    // kTableOwner
  bool persist = false;  // kTableOwner | kTablePersist
  std::vector<Feature> all;
};

[[nodiscard]] Result<Features> probe_features();

}  // namespace meshd::netlink
