#include "engines/oci.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace meshd::engines {
namespace {

using Kind = Json::Kind;

constexpr std::string_view kHookName = "mesh-hook";

// Of runc and crun, before the command and after it, that take a value.
constexpr std::array<std::string_view, 22> kWithValue = {"--log",
                                                         "--log-format",
                                                         "--root",
                                                         "--criu",
                                                         "--rootless",
                                                         "--bundle",
                                                         "-b",
                                                         "--console-socket",
                                                         "--pid-file",
                                                         "--preserve-fds",
                                                         "--cgroup-manager",
                                                         "-f",
                                                         "--config",
                                                         "--image-path",
                                                         "--work-path",
                                                         "--manage-cgroups-mode",
                                                         "--parent-path",
                                                         "--empty-ns",
                                                         "--lsm-profile",
                                                         "--lsm-mount-context",
                                                         "--page-server",
                                                         "--status-fd"};

bool has_our_hook(const Json& list) {
  return std::ranges::any_of(list.items, [](const Json& hook) {
    const auto* const args = hook.find("args");
    return args != nullptr && !args->items.empty() && args->items.front().text == kHookName;
  });
}

Json hook_json(const HookCommand& command, std::string_view verb) {
  std::vector<Json> args{Json::string(kHookName), Json::string(verb)};
  for (const auto& option : command.options) args.push_back(Json::string(option));
  auto hook = Json::object();
  hook.set("path", Json::string(command.path));
  hook.set("args", Json::array(std::move(args)));
  hook.set("timeout", Json::number(command.timeout_s));
  return hook;
}

// The object or array at `key`, made when it is absent or null.
Result<Json*> section(Json& parent, std::string_view key, Kind kind) {
  const auto* const there = parent.find(key);
  if (there == nullptr || there->kind == Kind::kNull) {
    Json made;
    made.kind = kind;
    return &parent.set(key, std::move(made));
  }
  if (there->kind != kind) return fail(ErrorCode::kInvalid, fmt::format("{}: unexpected", key));
  return const_cast<Json*>(there);  // parent is not const
}

}  // namespace

Labels labels_of(const Json* object) {
  Labels labels;
  if (object == nullptr || object->kind != Kind::kObject) return labels;
  for (std::size_t i = 0; i < object->keys.size(); ++i) {
    const auto& value = object->items[i];
    if (value.kind == Kind::kString) labels.emplace(object->keys[i], value.text);
  }
  return labels;
}

Result<OciState> parse_state(std::string_view text) {
  auto json = read_json(text);
  if (!json) return std::unexpected(std::move(json).error().in("the container's state"));
  OciState state;
  state.id = json->text_at("id");
  state.bundle = json->text_at("bundle");
  if (state.id.empty()) return fail(ErrorCode::kInvalid, "the container's state has no id");
  if (const auto* const pid = json->find("pid"); pid != nullptr && pid->kind == Kind::kNumber) {
    const auto& digits = pid->text;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), state.pid);
    if (error != std::errc() || end != digits.data() + digits.size() || state.pid < 0) {
      return fail(ErrorCode::kInvalid, "the container's state: pid is no process's number");
    }
  }
  state.annotations = labels_of(json->find("annotations"));
  return state;
}

std::string mount_source(const Json& config, std::string_view destination) {
  const auto* const mounts = config.find("mounts");
  if (mounts == nullptr) return {};
  // The last one covers those before it.
  for (auto mount = mounts->items.rbegin(); mount != mounts->items.rend(); ++mount) {
    if (mount->text_at("destination") == destination) return std::string(mount->text_at("source"));
  }
  return {};
}

std::string_view network_path(const Json& config) {
  const auto* const linux_part = config.find("linux");
  const auto* const list = linux_part == nullptr ? nullptr : linux_part->find("namespaces");
  if (list == nullptr) return {};
  const auto found = std::ranges::find_if(
      list->items, [](const Json& one) { return one.text_at("type") == "network"; });
  return found == list->items.end() ? std::string_view() : found->text_at("path");
}

Result<Json> with_hooks(Json config, const HookCommand& command) {
  if (config.kind != Kind::kObject) return fail(ErrorCode::kInvalid, "is no object");
  auto* const hooks = TRY(section(config, "hooks", Kind::kObject));
  const std::array<std::pair<std::string_view, std::string_view>, 2> stages = {
      {{"createRuntime", "attach"}, {"poststop", "detach"}}};
  for (const auto& [stage, verb] : stages) {
    auto* const list = TRY(section(*hooks, stage, Kind::kArray));
    if (!has_our_hook(*list)) list->items.push_back(hook_json(command, verb));
  }
  return config;
}

RuntimeCall parse_runtime_call(const std::vector<std::string>& arguments) {
  RuntimeCall call;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const auto& argument = arguments[i];
    if (!argument.starts_with('-')) {
      // What follows the command's own options is the container's id.
      if (!call.command.empty()) break;
      call.command = argument;
      continue;
    }
    const auto equals = argument.find('=');
    const auto name = argument.substr(0, equals);
    std::optional<std::string> value;
    if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (std::ranges::find(kWithValue, name) != kWithValue.end() &&
               i + 1 < arguments.size()) {
      value = arguments[++i];
    }
    if (name == "--bundle" || name == "-b") call.bundle = value;
    if (name == "--log") call.log = value;
  }
  return call;
}

}  // namespace meshd::engines
