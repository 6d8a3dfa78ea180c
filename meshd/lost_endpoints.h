// Which services a change of the plan leaves without an endpoint, so that their consumers
// are held again from then on. Pure.
#pragma once

#include <set>

#include "policy/plan.h"
#include "policy/types.h"

namespace meshd {

// Services of which `delta` removed the last endpoint behind some port. `compiler` is that
// which made the delta, of this world.
[[nodiscard]] std::set<policy::ServiceKey> lost_endpoints(const policy::World& world,
                                                          const policy::Compiler& compiler,
                                                          const policy::Delta& delta);

// `later` was made right after `into`, of the same world: what they are together.
void merge(policy::PlanDelta& into, policy::PlanDelta later);

}  // namespace meshd
