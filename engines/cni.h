// What a container runtime says to a CNI plugin: environment and network configuration, read and
// checked.
//
// Threads: any: values in, values out.
// Errors:  CniError, with the specification's code and one line.
// Source:  CNI specification 1.1.0, and 0.3.1 to 1.0.0 before it; what podman 4.3, containerd 1.6
//          and Singularity send (docs/engines.md).
#pragma once

#include <expected>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engines/attach.h"
#include "engines/json.h"
#include "engines/launch.h"

namespace meshd::engines {

// Best last: what is answered to those who ask with a version that we do not know.
inline constexpr std::string_view kCniVersions[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};

struct CniError {
  enum Code : int {  // specification, "Error"
    kVersion = 1,
    kEnvironment = 4,
    kInput = 5,
    kDecode = 6,
    kConfiguration = 7,
    kTryAgain = 11,
    kUnavailable = 50,
    kRefused = 100,  // from here on a plugin's own
  };
  int code = kRefused;
  std::string what, details = {};
};
template <class T>
using CniResult = std::expected<T, CniError>;

using Variables = std::map<std::string, std::string>;

struct CniCall {
  std::string command;
  std::string container, netns, ifname;
  Variables arguments;  // CNI_ARGS
  std::string uuid;     // MESHD_UUID, of a runtime that hands its environment on
};
// A DEL needs no namespace, STATUS, GC and VERSION need no container.
[[nodiscard]] CniResult<CniCall> parse_call(const Variables& environment);

struct CniNetwork {
  std::string version, name;
  Places places;                 // `run_dir`, `state_dir`, for runtimes that clear the
                                 // environment
  Labels annotations;            // of the pod
  std::optional<Json> previous;  // what plugins before this one did
  std::optional<std::vector<std::string>> valid;  // GC: "container/ifname"
  bool maps_ports = false;
};
[[nodiscard]] CniResult<CniNetwork> parse_network(std::string_view text, const Places& places);

// What somebody asked for that a network of ours alone would not do, and why; empty: nothing.
[[nodiscard]] std::string not_done(const CniCall& call, const CniNetwork& network);

// Who the container is. `crunch` is what an Arvados container's launcher was started for, else
// empty.
[[nodiscard]] Launch launch_of(const CniCall& call, const CniNetwork& network,
                               const std::string& crunch);

// The key of an attachment, and what all of a network begin with.
[[nodiscard]] std::string key_prefix(const CniNetwork& network);
[[nodiscard]] std::string key_of(const CniCall& call, const CniNetwork& network);

// The container that a command line of crunch-run names; empty: none. Arguments end with \0.
[[nodiscard]] std::string crunch_container(std::string_view command_line);

// --- answers -------------------------------------------------------------------------------

// `reply` absent: it starts without us, and what came before stands. `default_route`: by us.
[[nodiscard]] std::string render_result(const CniCall& call, const CniNetwork& network,
                                        bool default_route,
                                        const std::optional<mesh::v1::AttachReply>& reply);
// The container's interface that a result has of us, by its host's end, which bears a name that
// only meshd gives; without a name: none.
struct OurLink {
  std::string name;
  std::vector<std::string> addresses;  // as they are written there
};
[[nodiscard]] OurLink our_link(const Json& result);
[[nodiscard]] std::string render_error(const CniError& error, std::string_view version);
[[nodiscard]] std::string render_versions(std::string_view asked);

}  // namespace meshd::engines
