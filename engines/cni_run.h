// mesh-cni: a CNI plugin. Alone in a network's list it gives the container its one interface;
// behind others a second one, without a default route, to those that are declared.
//
// Errors: CniError, of which the runtime gets the specification's object on standard output. A DEL
//         succeeds whatever is left of the container: what it cannot undo, the daemon notices.
#pragma once

#include <string>

#include "base/clock.h"
#include "engines/cni.h"

namespace meshd::engines {

struct CniAnswer {
  std::string text;  // for standard output; empty: nothing
  int exit = 0;
};

[[nodiscard]] CniAnswer run_cni(const Variables& environment, int input, TimePoint by);

}  // namespace meshd::engines
