// Inside changes: what one declaration's change means for its flows with the outside.
#pragma once

#include <vector>

#include "policy/changes.h"
#include "policy/types.h"

namespace meshd::policy {

// `before` is null for a new workload.
void note_egress(const Declaration* before, const Declaration& after, std::vector<Change>& changes);
// Publications that come or go, with their node ports, and those that stay and admit others.
void note_publications(const World& before, const Outcome& outcome, std::vector<Change>& changes);

}  // namespace meshd::policy
