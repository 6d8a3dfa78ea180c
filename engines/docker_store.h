// What lies in Docker's directory of a container, for those who may not ask dockerd about it.
//
// Errors: kSystem with the path, kInvalid for what Docker does not write.
// Source: docker.io 20.10.24, measured: all of it is there before the container starts.
#pragma once

#include <string>

#include "base/result.h"
#include "engines/docker.h"
#include "engines/launch.h"

namespace meshd::engines {

// What an image says of itself is not the launcher's word. Where that cannot be told apart, a
// container that means us must not start as nobody's, nor as another.
[[nodiscard]] Result<Labels> without_images(Labels labels, Result<Labels> image);

// `<data root>/containers/<id>` as a launch: its name, and labels that are its launcher's.
[[nodiscard]] Result<Launch> read_docker_launch(const std::string& directory,
                                                const std::string& id);

}  // namespace meshd::engines
