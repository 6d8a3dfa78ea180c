#include "engines/runc.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <span>
#include <string_view>
#include <utility>

#include "engines/files.h"
#include "engines/json.h"
#include "engines/limits.h"
#include "engines/oci.h"

namespace meshd::engines {
namespace {

// Those that make a container of a bundle. The hooks of createRuntime are run by all of them; by
// `restore` with runc, which is the only one known to.
constexpr std::array<std::string_view, 3> kMaking = {"create", "run", "restore"};
// All others that runc or crun has. A word that is none may be the value of an option that is not
// known here, and what follows it one of the three.
constexpr std::array<std::string_view, 18> kOthers = {
    "checkpoint", "delete", "events", "exec",   "features", "help",  "init",  "kill",   "list",
    "mounts",     "pause",  "ps",     "resume", "spec",     "start", "state", "update", "version"};

bool is_among(std::string_view word, std::span<const std::string_view> words) {
  return std::ranges::find(words, word) != words.end();
}

// After the hook has given up by itself.
constexpr int kHookTimeoutS = static_cast<int>(kDeadline.count()) + 2;

bool take(std::string_view argument, std::string_view name, std::string& into) {
  if (!argument.starts_with(name) || argument.size() <= name.size() ||
      argument[name.size()] != '=') {
    return false;
  }
  into = argument.substr(name.size() + 1);
  return true;
}

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string() : value;
}

}  // namespace

Result<WrapperCall> parse_wrapper_call(const std::vector<std::string>& arguments,
                                       const std::string& self) {
  WrapperCall call;
  auto run_dir = environment("MESHD_RUN_DIR");
  auto state_dir = environment("MESHD_STATE_DIR");
  call.hook = self.substr(0, self.rfind('/') + 1) + "mesh-hook";
  for (const auto& argument : arguments) {
    if (take(argument, "--mesh-runtime", call.runtime) ||
        take(argument, "--mesh-hook", call.hook) || take(argument, "--mesh-run-dir", run_dir) ||
        take(argument, "--mesh-state-dir", state_dir)) {
      continue;
    }
    call.arguments.push_back(argument);
  }
  if (!call.hook.starts_with('/')) {
    return fail(ErrorCode::kInvalid, call.hook + ": the hook's path must be absolute");
  }
  if (!run_dir.empty()) call.options.insert(call.options.end(), {"--run-dir", run_dir});
  if (!state_dir.empty()) call.options.insert(call.options.end(), {"--state-dir", state_dir});
  return call;
}

Status prepare_bundle(const WrapperCall& call) {
  const auto runtime = parse_runtime_call(call.arguments);
  if (!is_among(runtime.command, kMaking)) {
    if (runtime.command.empty() || is_among(runtime.command, kOthers)) return {};
    return fail(ErrorCode::kUnsupported,
                fmt::format("'{}' is no command of a runtime that is known here", runtime.command));
  }
  const auto name = std::string_view(call.runtime).substr(call.runtime.rfind('/') + 1);
  if (runtime.command == "restore" && name != "runc") {
    return fail(ErrorCode::kUnsupported,
                fmt::format("restore: {} is not known to run our hook then, as runc is", name));
  }
  const auto path = runtime.bundle.value_or(".") + "/config.json";
  const auto text = TRY(read_file(path, kMaxFileBytes));
  auto config = read_json(text);
  if (!config) return std::unexpected(std::move(config).error().in(path));
  auto hooked = with_hooks(*std::move(config), {call.hook, call.options, kHookTimeoutS});
  if (!hooked) return std::unexpected(std::move(hooked).error().in(path));
  return replace_file(path, render(*hooked));
}

}  // namespace meshd::engines
