// What dockerd says to its network and IPAM plugin, and the answers: everything but what must be
// looked up or done.
//
// Threads:   any: values in, values out.
// Invariant: nothing is kept between calls, so that a driver that was restarted knows as much as
//            one that was not.
// Errors:    kInvalid for what is not what dockerd says, an empty body among it: that is what it
//            sends when it says something again. kUnsupported for what a network of the mesh does
//            not do. kNotFound for a call that we do not have.
// Source:    moby libnetwork docs/remote.md, docs/ipam.md; docker.io 20.10.24, measured: at Join
//            there is no namespace yet, which the runtime makes later, and after Join dockerd says
//            nothing more before the payload runs. So a network of the mesh brings no interface:
//            the hook attaches (engines/hook.h), and the driver sees to it that it will.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engines/json.h"

namespace meshd::engines {

// Docker wants an address before it says whose. RFC 7600's, which nobody can have, and which the
// hook finds again in the container's /etc/hosts.
inline constexpr std::string_view kDummyAddress = "192.0.0.8";

struct PluginCall {
  enum class Kind {
    kAnswered,  // by `reply` alone
    kJoin,      // a container starts: may it?
    kLeave,     // it ends, or is taken off the network
  };
  Kind kind = Kind::kAnswered;
  std::string reply = {};                   // where all goes well
  std::string network = {}, endpoint = {};  // numbers of 64 letters
  std::string sandbox = {};                 // where its namespace will be; Join only
};

[[nodiscard]] Result<PluginCall> parse_plugin_call(std::string_view path, std::string_view body);
[[nodiscard]] std::string render_plugin_error(std::string_view what);

// Who is on a network, as its description says; while it starts, `container` is empty.
struct Member {
  std::string container = {}, name = {};
};
[[nodiscard]] Result<Member> parse_member(std::string_view network, std::string_view endpoint);
// The number of the container of exactly that name, from a list of containers.
[[nodiscard]] Result<std::string> parse_container_id(std::string_view list, std::string_view name);

// What the launcher chose, from hostconfig.json.
struct HostConfig {
  std::string runtime = {};
  bool own_dns = false;  // --dns
};
[[nodiscard]] Result<HostConfig> parse_host_config(std::string_view text);

// A container's /etc/hosts with its addresses where the dummy is; nothing: it is not in it.
[[nodiscard]] std::optional<std::string> with_addresses(std::string_view hosts,
                                                        const std::vector<std::string>& addresses);

}  // namespace meshd::engines
