// What podman keeps of a container's image: it mixes the image's annotations with the launcher's,
// as Docker does with labels (engines/docker.h), and cannot be asked from a hook either. And whose
// nameservers it gave a container.
//
// Threads: any: values in, values out.
// Errors:  kInvalid, one line.
// Source:  podman 4.3.1, measured; containers/storage for the files; resolv.conf(5).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "engines/launch.h"

namespace meshd::engines {

// Where a store keeps things: `<root>/<driver>-containers`, `<root>/<driver>-images`.
struct PodmanStore {
  std::string containers, images;
};

// By where podman puts a container's bundle; nothing: another engine's.
[[nodiscard]] std::optional<PodmanStore> podman_store(std::string_view bundle, std::string_view id);
// From a store's containers.json the image of a container; empty: none, it has a directory of its
// own. kNotFound where that file does not have it.
[[nodiscard]] Result<std::string> parse_store_image(std::string_view text, std::string_view id);
[[nodiscard]] Result<Labels> parse_manifest_annotations(std::string_view text);

// Whether podman made what is mounted as a container's resolv.conf.
[[nodiscard]] bool is_podmans_resolv_conf(std::string_view path, std::string_view id);
// It writes the host's servers last unless somebody chose others, and does not say whether anybody
// did. Who chose the host's own cannot be told from who chose none.
[[nodiscard]] bool has_chosen_servers(std::string_view resolv_conf, std::string_view of_host);

}  // namespace meshd::engines
