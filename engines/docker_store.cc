#include "engines/docker_store.h"

#include <algorithm>
#include <utility>

#include "engines/files.h"
#include "engines/limits.h"

namespace meshd::engines {
namespace {

bool says_something(const Labels& labels) {
  return std::ranges::any_of(labels, [](const auto& label) {
    return label.first == kIdKey || label.first == kDeclarationKey;
  });
}

Result<Labels> image_labels(const DockerContainer& container, const std::string& directory) {
  if (container.image_file.empty()) return fail(ErrorCode::kUnsupported, "an unknown image store");
  const auto root = directory.substr(0, directory.rfind("/containers/"));
  const auto text = TRY(read_file(root + "/" + container.image_file, kMaxFileBytes));
  return parse_image_labels(text);
}

}  // namespace

Result<Labels> without_images(Labels labels, Result<Labels> image) {
  if (image) return launchers_own(std::move(labels), *image);
  if (!says_something(labels)) return labels;
  return std::unexpected(
      std::move(image).error().in("what of its labels is the image's cannot be seen"));
}

Result<Launch> read_docker_launch(const std::string& directory, const std::string& id) {
  const auto text = TRY(read_file(directory + "/config.v2.json", kMaxFileBytes));
  auto docker = parse_docker_container(text, id);
  if (!docker) {
    return std::unexpected(std::move(docker).error().in(directory + "/config.v2.json"));
  }
  Launch launch;
  launch.labels = TRY(without_images(docker->labels, image_labels(*docker, directory)));
  launch.names = {docker->name, id};
  return launch;
}

}  // namespace meshd::engines
