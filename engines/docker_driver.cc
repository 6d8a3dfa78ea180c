#include "engines/docker_driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "engines/docker_api.h"
#include "engines/docker_plugin.h"
#include "engines/docker_store.h"
#include "engines/files.h"
#include "engines/limits.h"
#include "engines/netns.h"

namespace meshd::engines {
namespace {

using Kind = PluginCall::Kind;

// The hook has waited before, and `docker rm` waits for both.
constexpr auto kLeavePatience = std::chrono::milliseconds(1500);

Status check_launcher(const std::string& directory, const DriverOptions& options) {
  const auto text = TRY(read_file(directory + "/hostconfig.json", kMaxFileBytes));
  const auto config = TRY(parse_host_config(text));
  if (config.runtime != options.runtime) {
    return fail(ErrorCode::kConflict,
                fmt::format("its runtime is {}, which would not attach it: --runtime {}, or that "
                            "as default-runtime in daemon.json",
                            config.runtime, options.runtime));
  }
  if (config.own_dns) {
    return fail(ErrorCode::kUnsupported, "--dns: on a network of the mesh its resolver answers");
  }
  return {};
}

// A runtime that has made the namespace already has also called the hook.
Status check_attached(const std::string& id, const DriverOptions& options, TimePoint by) {
  const auto key = container_key(id);
  const auto attached = TRY(attached_under(key, options.places, by));
  if (std::ranges::find(attached, key, &Attached::key) != attached.end()) return {};
  return fail(ErrorCode::kUnsupported,
              "it runs already and is not attached: stop it, connect it, start it");
}

Status may_start(const std::string& name, const std::string& sandbox, const DriverOptions& options,
                 TimePoint by) {
  const auto id = TRY(find_container_id(options.docker_socket, name, by));
  const auto directory = fmt::format("{}/containers/{}", options.docker_root, id);
  CHECK_OK(check_launcher(directory, options));
  const auto launch = TRY(read_docker_launch(directory, id));
  CHECK_OK(expect_attach(launch, options.places, by));
  if (open_netns(sandbox)) return check_attached(id, options, by);
  return {};
}

Status join(const PluginCall& call, const DriverOptions& options, TimePoint by) {
  const auto member = TRY(find_member(options.docker_socket, call.network, call.endpoint, by));
  auto status = may_start(member.name, call.sandbox, options, by);
  if (!status) return std::unexpected(std::move(status).error().in("container " + member.name));
  return {};
}

// One that ends was detached by its hook, or will be; one that is taken off the network runs on.
Status leave(const PluginCall& call, const DriverOptions& options, TimePoint by) {
  by = std::min<TimePoint>(by, BootClock::now() + kLeavePatience);
  const auto member = find_member(options.docker_socket, call.network, call.endpoint, by);
  if (!member && member.error().code != ErrorCode::kNotFound) {
    return std::unexpected(member.error());
  }
  if (!member || member->container.empty()) return {};
  auto status = detach(container_key(member->container), options.places, by);
  if (!status) return std::unexpected(std::move(status).error().in("container " + member->name));
  return {};
}

}  // namespace

PluginAnswer answer_plugin(std::string_view path, std::string_view body,
                           const DriverOptions& options, TimePoint by) {
  const auto call = parse_plugin_call(path, body);
  if (!call && call.error().code == ErrorCode::kNotFound) {
    return {404, render_plugin_error(call.error().what), {}};
  }
  Status done = call ? Status() : std::unexpected(call.error());
  if (call && call->kind == Kind::kJoin) done = join(*call, options, by);
  // Docker goes on whatever it hears: for the log.
  if (call && call->kind == Kind::kLeave) {
    if (const auto left = leave(*call, options, by); !left) {
      return {200, call->reply, left.error().what};
    }
  }
  if (!done) return {200, render_plugin_error("mesh: " + done.error().what), done.error().what};
  return {200, call->reply, {}};
}

}  // namespace meshd::engines
