#include "engines/cni.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "engines/oci.h"

namespace meshd::engines {
namespace {

using Kind = Json::Kind;

constexpr std::size_t kMaxNameBytes = 255;   // of containers and networks: a file name's
constexpr std::size_t kMaxIfnameBytes = 15;  // linux/if.h IFNAMSIZ
constexpr std::size_t kMaxPathBytes = 4096;  // linux/limits.h PATH_MAX

std::unexpected<CniError> wrong(CniError::Code code, std::string what) {
  return std::unexpected(CniError{code, std::move(what)});
}

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Of containers and networks, as the specification has it.
bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kMaxNameBytes && is_letter_or_digit(text.front()) &&
         std::ranges::all_of(text, [](char c) {
           return is_letter_or_digit(c) || c == '_' || c == '.' || c == '-';
         });
}

bool is_ifname(std::string_view text) {
  return !text.empty() && text.size() <= kMaxIfnameBytes && text != "." && text != ".." &&
         std::ranges::none_of(text,
                              [](char c) { return c == '/' || c == ':' || c <= ' ' || c == 0x7f; });
}

std::string variable(const Variables& environment, const std::string& name) {
  const auto found = environment.find(name);
  return found == environment.end() ? std::string() : found->second;
}

// "IgnoreUnknown=1;K8S_POD_NAME=db": in any order, and of the same twice the last.
Variables parse_arguments(std::string_view text) {
  Variables arguments;
  while (!text.empty()) {
    const auto pair = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(text.size(), pair.size() + 1));
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos) continue;
    arguments[std::string(pair.substr(0, equals))] = pair.substr(equals + 1);
  }
  return arguments;
}

CniResult<std::string> path_at(const Json& json, std::string_view key, std::string otherwise) {
  const auto* const value = json.find(key);
  if (value == nullptr) return otherwise;
  if (value->kind != Kind::kString || !value->text.starts_with('/') ||
      value->text.size() > kMaxPathBytes) {
    return wrong(CniError::kConfiguration, fmt::format("{}: must be an absolute path", key));
  }
  return value->text;
}

CniResult<std::vector<std::string>> parse_valid(const Json& list) {
  if (list.kind != Kind::kArray) {
    return wrong(CniError::kConfiguration, "cni.dev/valid-attachments: must be a list");
  }
  std::vector<std::string> valid;
  for (const auto& item : list.items) {
    valid.push_back(fmt::format("{}/{}", item.text_at("containerID"), item.text_at("ifname")));
  }
  return valid;
}

}  // namespace

CniResult<CniCall> parse_call(const Variables& environment) {
  CniCall call;
  call.command = variable(environment, "CNI_COMMAND");
  call.container = variable(environment, "CNI_CONTAINERID");
  call.netns = variable(environment, "CNI_NETNS");
  call.ifname = variable(environment, "CNI_IFNAME");
  call.uuid = variable(environment, "MESHD_UUID");
  call.arguments = parse_arguments(variable(environment, "CNI_ARGS"));
  const bool of_container =
      call.command == "ADD" || call.command == "DEL" || call.command == "CHECK";
  if (!of_container && call.command != "STATUS" && call.command != "GC" &&
      call.command != "VERSION") {
    return wrong(CniError::kEnvironment,
                 "CNI_COMMAND: must be ADD, DEL, CHECK, STATUS, GC or VERSION");
  }
  if (!of_container) return call;
  if (!is_name(call.container)) {
    return wrong(CniError::kEnvironment, "CNI_CONTAINERID: missing, or not a container's id");
  }
  if (!is_ifname(call.ifname)) {
    return wrong(CniError::kEnvironment, "CNI_IFNAME: missing, or not an interface's name");
  }
  if (call.command == "DEL") return call;
  // It is repeated in the result.
  if (call.netns.empty() || !is_utf8(call.netns)) {
    return wrong(CniError::kEnvironment, "CNI_NETNS: missing, or not UTF-8");
  }
  return call;
}

CniResult<CniNetwork> parse_network(std::string_view text, const Places& places) {
  auto json = read_json(text);
  if (!json) return wrong(CniError::kDecode, "the network's configuration " + json.error().what);
  if (json->kind != Kind::kObject) {
    return wrong(CniError::kDecode, "the network's configuration is no object");
  }
  CniNetwork network;
  network.version = json->text_at("cniVersion");
  network.name = json->text_at("name");
  if (std::ranges::find(kCniVersions, network.version) == std::end(kCniVersions)) {
    return wrong(CniError::kVersion, fmt::format("cniVersion '{}': mesh-cni speaks {}",
                                                 network.version, fmt::join(kCniVersions, ", ")));
  }
  if (!is_name(network.name))
    return wrong(CniError::kConfiguration, "name: missing, or not a name");
  auto run_dir = path_at(*json, "run_dir", places.run_dir);
  if (!run_dir) return std::unexpected(std::move(run_dir).error());
  auto state_dir = path_at(*json, "state_dir", places.state_dir);
  if (!state_dir) return std::unexpected(std::move(state_dir).error());
  network.places = {*std::move(run_dir), *std::move(state_dir)};
  if (const auto* const runtime = json->find("runtimeConfig")) {
    network.annotations = labels_of(runtime->find_any_case("io.kubernetes.cri.pod-annotations"));
    const auto* const ports = runtime->find_any_case("portMappings");
    network.maps_ports = ports != nullptr && !ports->items.empty();
  }
  const auto* const previous = json->find("prevResult");
  if (previous != nullptr && previous->kind == Kind::kObject) network.previous = *previous;
  if (const auto* const list = json->find("cni.dev/valid-attachments")) {
    auto valid = parse_valid(*list);
    if (!valid) return std::unexpected(std::move(valid).error());
    network.valid = *std::move(valid);
  }
  return network;
}

// Behind other plugins it is for them.
std::string not_done(const CniCall& call, const CniNetwork& network) {
  if (network.previous) return {};
  // MAC is no wish of somebody's alone: podman says the old one when it reloads a network.
  const auto address = call.arguments.find("IP");
  if (address != call.arguments.end() && !address->second.empty()) {
    return "CNI_ARGS: IP: meshd gives the addresses on a network of the mesh";
  }
  if (!network.maps_ports) return {};
  return "portMappings: on a network of the mesh, ports are published by `publish` of a "
         "declaration";
}

std::string crunch_container(std::string_view command_line) {
  const auto program = command_line.substr(0, command_line.find('\0'));
  if (program.substr(program.rfind('/') + 1) != "crunch-run") return {};
  while (!command_line.empty()) {
    const auto argument = command_line.substr(0, command_line.find('\0'));
    command_line.remove_prefix(std::min(command_line.size(), argument.size() + 1));
    if (is_arvados_container(argument)) return std::string(argument);
  }
  return {};
}

Launch launch_of(const CniCall& call, const CniNetwork& network, const std::string& crunch) {
  Launch launch;
  launch.labels = network.annotations;
  if (!call.uuid.empty()) launch.labels[std::string(kIdKey)] = call.uuid;
  const auto uuid = call.arguments.find("MESHD_UUID");
  if (uuid != call.arguments.end() && !uuid->second.empty())
    launch.labels[std::string(kIdKey)] = uuid->second;
  const auto pod = call.arguments.find("K8S_POD_NAME");
  if (pod != call.arguments.end()) launch.names.push_back(pod->second);
  if (!crunch.empty()) launch.names.push_back(crunch);
  launch.names.push_back(call.container);
  // `ctr` puts its namespace in front of the container's name, and "default" is its default.
  constexpr std::string_view kNamespace = "default-";
  if (call.container.starts_with(kNamespace)) {
    launch.names.push_back(call.container.substr(kNamespace.size()));
  }
  return launch;
}

std::string key_prefix(const CniNetwork& network) { return fmt::format("cni:{}/", network.name); }

std::string key_of(const CniCall& call, const CniNetwork& network) {
  return fmt::format("{}{}/{}", key_prefix(network), call.container, call.ifname);
}

}  // namespace meshd::engines
