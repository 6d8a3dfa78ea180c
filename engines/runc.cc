#include "engines/runc.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "engines/files.h"
#include "engines/json.h"
#include "engines/limits.h"
#include "engines/oci.h"

namespace meshd::engines {
namespace {

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
  if (runtime.command != "create" && runtime.command != "run") return {};
  const auto path = runtime.bundle.value_or(".") + "/config.json";
  const auto text = TRY(read_file(path, kMaxFileBytes));
  auto config = read_json(text);
  if (!config) return std::unexpected(std::move(config).error().in(path));
  auto hooked = with_hooks(*std::move(config), {call.hook, call.options, kHookTimeoutS});
  if (!hooked) return std::unexpected(std::move(hooked).error().in(path));
  return replace_file(path, render(*hooked));
}

}  // namespace meshd::engines
