// What a monitor reads of a controller: the counts, and the text made of them and of the
// cluster. Pure. The names are documented in docs/metrics.md.
//
// Invariant: labels are words of ours: never nodes or containers, of which there may be thousands.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "controller/counts.h"
#include "proxy/endpoint.h"

namespace meshd::controller {

class Controller;

// What arrived at the two ports and was not for the Controller, or came of it.
struct ServedCounts {
  std::map<std::pair<std::string, std::string>, std::uint64_t> commands;  // command, outcome
  metrics::Tally joins;                                                   // by outcome
  metrics::Tally turned_away;  // connections and calls, by why
  std::uint64_t handshakes_refused = 0, watchers = 0;
  std::optional<proxy::EndpointCounts> web;  // absent: nothing is opened from outside
};
[[nodiscard]] std::string render(const Controller& controller, const ServedCounts& served);

}  // namespace meshd::controller
