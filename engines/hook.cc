#include "engines/hook.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "engines/attach.h"
#include "engines/docker.h"
#include "engines/docker_plugin.h"
#include "engines/docker_store.h"
#include "engines/files.h"
#include "engines/limits.h"
#include "engines/netns.h"
#include "engines/oci.h"
#include "engines/podman.h"
#include "engines/program.h"

namespace meshd::engines {
namespace {

constexpr std::string_view kFirstName = "eth0";

using Attachment = std::optional<mesh::v1::AttachReply>;

struct Container {
  Launch launch;
  std::string resolv_conf;  // to be written to; empty: none that is the engine's own
  std::string hosts;        // to be looked into; empty: the same
  std::string root;         // to have a resolv.conf of ours; empty: there is one, or it is not ours
  bool is_a_guest = false;  // in the network of another container
};

// One with --rm may stand in the second file, which podman does not sync.
Result<std::string> podman_image(const PodmanStore& store, const std::string& id) {
  for (const auto* file : {"containers.json", "volatile-containers.json"}) {
    const auto text = read_file(fmt::format("{}/{}", store.containers, file), kMaxFileBytes);
    if (!text && text.error().sys_errno == ENOENT) continue;
    auto image = text ? parse_store_image(*text, id) : std::unexpected(text.error());
    if (image || image.error().code != ErrorCode::kNotFound) return image;
  }
  return fail(ErrorCode::kNotFound, store.containers + ": does not have the container");
}

Result<Labels> image_annotations(const PodmanStore& store, const Result<std::string>& image) {
  if (!image) return std::unexpected(image.error());
  if (image->empty()) return Labels();
  const auto path = fmt::format("{}/{}/manifest", store.images, *image);
  return parse_manifest_annotations(TRY(read_file(path, kMaxFileBytes)));
}

// What podman takes for the host's servers.
std::string resolv_conf_of_host() {
  std::string all;
  for (const auto* path : {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}) {
    std::error_code error;
    const auto file = std::filesystem::canonical(path, error);
    if (!error) all += read_file(file, kMaxFileBytes).value_or("") + "\n";
  }
  return all;
}

Status look_at_podman(const Json& config, const OciState& state, const PodmanStore& store,
                      Container& into) {
  const auto image = podman_image(store, state.id);
  auto& labels = into.launch.labels;
  labels = TRY(without_images(std::move(labels), image_annotations(store, image)));
  const auto own = mount_source(config, "/etc/resolv.conf");
  if (is_podmans_resolv_conf(own, state.id)) {
    const auto text = read_file(own, kMaxFileBytes);
    if (text && !has_chosen_servers(*text, resolv_conf_of_host())) into.resolv_conf = own;
  }
  // It makes none without a network. What is no image's is somebody's directory, not to be
  // written into.
  const auto* const root = config.find("root");
  if (own.empty() && network_path(config).empty() && image && !image->empty() && root != nullptr) {
    into.root = root->text_at("path");
  }
  return {};
}

// The container's root lies in Docker's data root, how deep depends on the storage driver.
Result<std::string> directory_above(const Json& config, const std::string& id) {
  const auto* const root = config.find("root");
  std::string path(root == nullptr ? std::string_view() : root->text_at("path"));
  while (path.size() > 1) {
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    auto directory = fmt::format("{}/containers/{}", path, id);
    if (access((directory + "/config.v2.json").c_str(), F_OK) == 0) return directory;
  }
  return fail(ErrorCode::kNotFound, "what Docker has written of the container is not to be found");
}

Status look_at_docker(const Json& config, const OciState& state, const std::string& directory,
                      Container& into) {
  auto docker = TRY(read_docker_launch(directory, state.id));
  into.launch.labels.merge(std::move(docker.labels));
  into.launch.names = std::move(docker.names);
  // Never a file that somebody has mounted there: it may be the node's. (Where Docker's own is,
  // config.v2.json says from the second start on.)
  const auto hosts = directory + "/hosts";
  if (mount_source(config, "/etc/hosts") == hosts) into.hosts = hosts;
  const auto own = directory + "/resolv.conf";
  if (mount_source(config, "/etc/resolv.conf") != own) return {};
  const auto host = read_file(directory + "/hostconfig.json", kMaxFileBytes);
  const auto said = host ? parse_host_config(*host) : std::unexpected(host.error());
  if (said && !said->own_dns) into.resolv_conf = own;
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
  // What is made for a container has another path, or none.
  container.is_a_guest = network_path(*config).starts_with("/proc/");
  auto directory = docker_directory(*config, state.id);
  // Who mounts over all that Docker would is not left unread for that.
  if (directory.empty() && state.bundle.ends_with("/moby/" + state.id)) {
    directory = TRY(directory_above(*config, state.id));
  }
  if (!directory.empty()) CHECK_OK(look_at_docker(*config, state, directory, container));
  if (const auto store = podman_store(state.bundle, state.id)) {
    CHECK_OK(look_at_podman(*config, state, *store, container));
  }
  return container;
}

// Who is on one of Docker's networks that are the mesh's has its own name at an address that
// nobody has (engines/docker_plugin.h).
Status put_addresses(const Container& container, const Attachment& reply) {
  const auto before = container.hosts.empty()
                          ? std::string()
                          : read_file(container.hosts, kMaxFileBytes).value_or("");
  std::vector<std::string> addresses;
  if (reply) addresses.assign(reply->addresses().begin(), reply->addresses().end());
  const auto after = with_addresses(before, addresses);
  if (!after) return {};
  if (reply) return write_in_place(container.hosts, *after);
  return fail(ErrorCode::kConflict,
              "nobody declared this container, and it is on a network of the mesh");
}

Status attach_container(const OciState& state, const Places& places, TimePoint by) {
  if (state.pid == 0) return fail(ErrorCode::kInvalid, "the container's state has no process");
  const auto container = TRY(look_at(state));
  if (container.is_a_guest && TRY(concerns_us(container.launch, places))) {
    return fail(ErrorCode::kConflict,
                fmt::format("container {}: it has the network of another container",
                            container.launch.names.front()));
  }
  const auto netns = TRY(open_netns_of(state.pid));
  Place place{.key = container_key(state.id), .ifname = std::string(kFirstName)};
  if (TRY(has_other_links(netns, {}))) {
    place.ifname = kSecondName;
    place.default_route = false;
  }
  const auto reply = TRY(attach(container.launch, netns, place, places, by));
  CHECK_OK(put_addresses(container, reply));
  if (!reply) return {};
  const auto text = resolv_conf_of(*reply);
  if (!container.root.empty()) return put_file_below(container.root, "etc", "resolv.conf", text);
  return container.resolv_conf.empty() ? Status() : write_in_place(container.resolv_conf, text);
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
  if (container && !concerns_us(container->launch, places).value_or(true)) return {};
  return detach(container_key(state.id), places, by);
}

}  // namespace meshd::engines
