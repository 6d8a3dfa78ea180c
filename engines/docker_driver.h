// mesh-docker: Docker's network and IPAM driver "mesh". A container on such a network is attached
// by the hook, as any other; the driver says before whether it will be, and who is not declared,
// or could not be attached, does not start.
//
// Threads: any number at once; nothing is shared, nothing kept.
// Errors:  one line for whoever started the container, in dockerd's own error. Leaving never fails
//          for dockerd: what could not be detached is for the log, and goes with the container.
#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"
#include "engines/attach.h"

namespace meshd::engines {

struct DriverOptions {
  Places places;
  std::string docker_socket = "/run/docker.sock";
  std::string docker_root = "/var/lib/docker";
  std::string runtime = "mesh";  // as daemon.json calls mesh-runc
};

struct PluginAnswer {
  unsigned status = 200;  // of HTTP
  std::string body;
  std::string refusal = {};  // for the log; empty: it was done
};

// All that dockerd says, in any order.
[[nodiscard]] PluginAnswer answer_plugin(std::string_view path, std::string_view body,
                                         const DriverOptions& options, TimePoint by);

}  // namespace meshd::engines
