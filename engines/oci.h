// The OCI runtime's texts: the state that a hook is given, the configuration that a container is
// made from, and our hooks in it.
//
// Threads: any: values in, values out.
// Errors:  kInvalid for what is not what the specification says, in one line.
// Source:  OCI runtime-spec 1.0.2 runtime.md, config.md; states seen of docker 20.10 with runc 1.1
//          (annotations null, pid absent at poststop) and podman 4.3 with crun 1.8.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engines/json.h"
#include "engines/launch.h"

namespace meshd::engines {

struct OciState {
  std::string id;
  pid_t pid = 0;  // 0: none, it has ended
  std::string bundle;
  Labels annotations;
};

[[nodiscard]] Result<OciState> parse_state(std::string_view text);

// Strings of an object; whatever else is in it is passed over.
[[nodiscard]] Labels labels_of(const Json* object);

// What is mounted at `destination`, and from where; empty: nothing.
[[nodiscard]] std::string mount_source(const Json& config, std::string_view destination);

// Of the network namespace that is to be entered; empty: it gets one, or has the node's.
[[nodiscard]] std::string_view network_path(const Json& config);

// A program of ours as a hook.
struct HookCommand {
  std::string path;
  std::vector<std::string> options;  // after the verb
  int timeout_s = 0;
};

// `config` with our hooks: createRuntime, before the payload, and poststop. Once, however often.
[[nodiscard]] Result<Json> with_hooks(Json config, const HookCommand& command);

// A runtime's command line: which command, and the bundle that it names.
struct RuntimeCall {
  std::string command;                // "create"; empty: none
  std::optional<std::string> bundle;  // absent: the working directory
  std::optional<std::string> log;     // where engines look for what went wrong
};
[[nodiscard]] RuntimeCall parse_runtime_call(const std::vector<std::string>& arguments);

}  // namespace meshd::engines
