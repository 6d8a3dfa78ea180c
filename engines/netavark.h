// What podman's netavark says to a plugin: networks and containers, read and checked, and the
// answers.
//
// Threads: any: values in, values out.
// Errors:  kInvalid for what netavark does not say; kUnsupported for what a network of the mesh
// does
//          not do. The plugin's user gets the line.
// Source:  netavark's description of its plugins (API version 1.0.0, from netavark 1.6 on). Debian
//          12's has none: no engine has spoken to this yet.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "engines/attach.h"
#include "engines/launch.h"

namespace meshd::engines {

// Of this program, as of all that are built with it.
inline constexpr std::string_view kNetavarkVersion = "0.1.0";

// A network as it is to be kept, from the one that podman has begun.
[[nodiscard]] Result<std::string> make_network(std::string_view text);

struct NetavarkCall {
  Launch launch;
  Place place;            // its key too
  Places places;          // by the network's options `run_dir` and `state_dir`
  std::string wish = {};  // that is not fulfilled; empty: none
};
[[nodiscard]] Result<NetavarkCall> parse_netavark(std::string_view text, const Places& places);

[[nodiscard]] std::string render_status(const mesh::v1::AttachReply& reply);
[[nodiscard]] std::string render_netavark_info();
[[nodiscard]] std::string render_netavark_error(std::string_view what);

}  // namespace meshd::engines
