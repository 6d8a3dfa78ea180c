// The rules of base_table.h, in `refuse`, about packets that met two states of the sets. Rules go
// at once and for all, but a packet on its way passes hook by hook, and connection tracking is
// cut a moment after. Whoever would be refused for that hears nothing: the next try is a first
// packet again, and is judged by one state. Off the path of all that is permitted.
#pragma once

#include <vector>

#include "policy/rule.h"
#include "policy/types.h"

namespace meshd::policy::words {

[[nodiscard]] std::vector<Rule> overtaken(const Settings& settings);

}  // namespace meshd::policy::words
