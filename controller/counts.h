// What the Controller counts of its own doing, for controller/metrics.h. The words in a Tally are
// those that the code says.
#pragma once

#include <cstdint>

#include "metrics/text.h"

namespace meshd::controller {

struct Counts {
  std::uint64_t sessions = 0;  // begun
  metrics::Tally ended;        // by us, by why
  metrics::Tally refused;      // what nodes said and what is not believed, by what it was
  std::uint64_t messages = 0;  // of nodes
  std::uint64_t slices_sent = 0, slices_applied = 0, slices_refused = 0;
  std::uint64_t commits = 0, commit_conflicts = 0, commit_failures = 0;
  std::uint64_t refused_flows = 0;  // that nodes told of
};

}  // namespace meshd::controller
