// mesh-netavark: a plugin for podman's netavark. Whoever is on a network of it is declared and in
// the mesh, or does not start.
//
// Errors: one JSON object on standard output, which podman shows. A teardown succeeds whatever is
//         left of the container: what it cannot undo, the daemon notices.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"

namespace meshd::engines {

struct NetavarkAnswer {
  std::string text;  // for standard output; empty: nothing
  int exit = 0;
};

[[nodiscard]] NetavarkAnswer run_netavark(std::vector<std::string> arguments, int input,
                                          TimePoint by);

}  // namespace meshd::engines
