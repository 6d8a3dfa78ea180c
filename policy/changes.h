// What an apply changes, for people: workloads, flows, names, published ports, and peers
// that nobody declares yet. Made before the outcome is adopted, so that `plan` shows the
// same as `apply`.
#pragma once

#include <string>
#include <vector>

#include "policy/allocate.h"
#include "policy/types.h"

namespace meshd::policy {

struct Change {
  enum class Kind {
    kWorkloadAdded,
    kWorkloadChanged,
    kWorkloadUnchanged,
    kFlowAdded,
    kFlowRemoved,
    kNameAdded,
    kNameRemoved,
    kPortPublished,
    kPortWithdrawn,
    kConnectionCut,
    kPeerUndeclared,
  };
  Kind kind = Kind::kWorkloadAdded;
  std::string subject;  // "worker -> db-1 tcp/6379"
  std::string detail;
  auto operator<=>(const Change&) const = default;
};

// Sorted by kind, then subject.
[[nodiscard]] std::vector<Change> describe(const World& before, const Outcome& outcome);

}  // namespace meshd::policy
