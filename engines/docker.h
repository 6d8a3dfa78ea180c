// What Docker has written of a container before it starts: its name and labels. Its API cannot be
// asked from a hook: it answers once the hook has ended.
//
// Threads:   any: values in, values out.
// Invariant: a label that the image has as well is the image author's and says nothing: else
//            whoever makes images could take the id, and so the permissions, of another.
// Errors:    kInvalid, one line.
// Source:    docker.io 20.10.24, measured; moby container/container.go for the fields.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "engines/json.h"
#include "engines/launch.h"

namespace meshd::engines {

struct DockerContainer {
  std::string name;        // without the slash in front
  Labels labels;           // the image's among them
  std::string image_file;  // below the data root: the image's configuration; empty: unknown
};

// `<data root>/containers/<id>`, from what Docker mounts into each container; empty: it is not
// Docker's, or something else is mounted over all three of its files.
[[nodiscard]] std::string docker_directory(const Json& config, std::string_view id);
[[nodiscard]] Result<DockerContainer> parse_docker_container(std::string_view text,
                                                             std::string_view id);
// The labels of an image's configuration.
[[nodiscard]] Result<Labels> parse_image_labels(std::string_view text);
// Of the container's labels those that its launcher gave.
[[nodiscard]] Labels launchers_own(Labels labels, const Labels& image);

}  // namespace meshd::engines
