// What podman keeps of a container's image: it mixes the image's annotations with the launcher's,
// as Docker does with labels (engines/docker.h), and cannot be asked from a hook either.
//
// Threads: any: values in, values out.
// Errors:  kInvalid, one line.
// Source:  podman 4.3.1, measured; containers/storage for the files.
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

}  // namespace meshd::engines
