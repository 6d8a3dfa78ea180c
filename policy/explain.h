// Why a flow is allowed, refused or held, in the declarations' own terms. Asks the truth
// function, never the kernel.
//
// Errors: kNotFound: an id, name or address that means nothing here. kInvalid: a source
//         that means several. Those texts are for the operator at the node; containers get
//         theirs from their view.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "policy/types.h"

namespace meshd::policy {

enum class FlowVerdict { kRefused, kAllowed, kHeld };

struct Explanation {
  FlowVerdict verdict = FlowVerdict::kRefused;
  std::string reason;                   // one line
  std::vector<std::string> lines;       // what decides: declarations, states
  std::string missing;                  // the declaration that would allow it, if one would
  std::vector<std::string> nodes = {};  // other ones, on which its ends are
};

// Whether the provider's node has confirmed the flow to the consumer's. For who is on neither:
// what a node knows itself stands in its world.
using IsConfirmed = std::function<bool(const std::string& consumer, const std::string& provider)>;

// `source` is an id, a full name, an address, or the name of a service when it is the only
// one of that name: of several replicas the first is asked for. `destination` is a name as
// the source would write it, an id, a full name or any address. From an address of the node
// the answer is that for its processes of uid 0.
// Without `is_confirmed` a flow between two other nodes counts as confirmed.
[[nodiscard]] Result<Explanation> explain(const World& world, std::string_view source,
                                          std::string_view destination, Proto proto,
                                          std::uint16_t port, const IsConfirmed& is_confirmed = {});

}  // namespace meshd::policy
