#include "engines/hook.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engines/attach.h"
#include "engines/docker.h"
#include "engines/files.h"
#include "engines/limits.h"
#include "engines/netns.h"
#include "engines/oci.h"
#include "engines/program.h"

namespace meshd::engines {
namespace {

// Beside the engine's own interface, which is eth0 then.
constexpr std::string_view kSecondName = "mesh0";
constexpr std::string_view kFirstName = "eth0";

std::string key_of(const OciState& state) { return "container:" + state.id; }

struct Container {
  Launch launch;
  std::string resolv_conf;  // to be written to; empty: none that is the engine's own
};

// The image's labels are not the launcher's. Of an image that cannot be looked at (removed
// meanwhile, another store) none is believed.
Labels launchers_labels(const DockerContainer& container, const std::string& directory) {
  const auto root = directory.substr(0, directory.rfind("/containers/"));
  if (container.image_file.empty()) return {};
  const auto text = read_file(root + "/" + container.image_file, kMaxFileBytes);
  const auto image = text ? parse_image_labels(*text) : std::unexpected(text.error());
  return image ? launchers_own(container.labels, *image) : Labels();
}

Status look_at_docker(const Json& config, const OciState& state, const std::string& directory,
                      Container& into) {
  const auto text = TRY(read_file(directory + "/config.v2.json", kMaxFileBytes));
  auto docker = parse_docker_container(text, state.id);
  if (!docker) {
    return std::unexpected(std::move(docker).error().in(directory + "/config.v2.json"));
  }
  into.launch.labels.merge(launchers_labels(*docker, directory));
  into.launch.names.insert(into.launch.names.begin(), docker->name);
  // Never a file that somebody has mounted there: it may be the node's. (Where Docker's own is,
  // config.v2.json says from the second start on.)
  const auto own = directory + "/resolv.conf";
  if (mount_source(config, "/etc/resolv.conf") != own) return {};
  const auto host = read_file(directory + "/hostconfig.json", kMaxFileBytes);
  const auto own_dns = host ? has_own_dns(*host) : std::unexpected(host.error());
  if (own_dns && !*own_dns) into.resolv_conf = own;
  return {};
}

Result<Container> look_at(const OciState& state) {
  Container container;
  container.launch.labels = state.annotations;
  container.launch.names = {state.id};
  const auto path = state.bundle + "/config.json";
  const auto text = TRY(read_file(path, kMaxFileBytes));
  const auto config = read_json(text);
  if (!config) return std::unexpected(Error(config.error()).in(path));
  const auto directory = docker_directory(*config, state.id);
  if (!directory.empty()) CHECK_OK(look_at_docker(*config, state, directory, container));
  return container;
}

Status attach_container(const OciState& state, const Places& places, TimePoint by) {
  if (state.pid == 0) return fail(ErrorCode::kInvalid, "the container's state has no process");
  const auto container = TRY(look_at(state));
  const auto netns = TRY(open_netns_of(state.pid));
  Place place{.key = key_of(state), .ifname = std::string(kFirstName)};
  if (!TRY(is_own(netns)) && !TRY(links_in(netns)).empty()) {
    place.ifname = kSecondName;
    place.default_route = false;
  }
  const auto reply = TRY(attach(container.launch, netns, place, places, by));
  if (!reply || container.resolv_conf.empty()) return {};
  return write_in_place(container.resolv_conf, resolv_conf_of(*reply));
}

}  // namespace

Status run_hook(std::vector<std::string> arguments, int input, TimePoint by) {
  const auto places = TRY(take_places(arguments));
  if (arguments.size() != 1 || (arguments[0] != "attach" && arguments[0] != "detach")) {
    return fail(ErrorCode::kInvalid,
                "usage: mesh-hook attach|detach [--run-dir DIR] [--state-dir DIR]");
  }
  const auto text = TRY(read_input(input, kMaxInputBytes, by));
  const auto state = TRY(parse_state(text));
  if (arguments[0] == "attach") return attach_container(state, places, by);
  // Nobody's container ends as it started: without asking anybody.
  const auto container = look_at(state);
  if (container && !concerns_us(container->launch, places)) return {};
  return detach(key_of(state), places, by);
}

}  // namespace meshd::engines
