// The resolver as it is configured, and its sockets at a start: those that an earlier run left with
// the service manager, new ones for the rest, and what is left over given back.
//
// Threads: the main thread, before any other (see notify.h).
#pragma once

#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "dns/server.h"
#include "meshd/config.h"

namespace meshd {

[[nodiscard]] dns::ServerOptions server_options(const Config& config);

// One UDP and one TCP socket for each address and worker.
[[nodiscard]] Result<std::vector<dns::Listener>> take_listeners(
    const std::vector<IpAddress>& addresses, int workers);

}  // namespace meshd
