#include "engines/docker.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "engines/oci.h"

namespace meshd::engines {
namespace {

constexpr std::string_view kImagePrefix = "sha256:";

bool is_plain(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

// The image's configuration lies in a store that is named after the storage driver.
std::string image_file(const Json& container) {
  const auto driver = container.text_at("Driver");
  auto image = container.text_at("Image");
  if (!image.starts_with(kImagePrefix)) return {};
  image.remove_prefix(kImagePrefix.size());
  if (!is_plain(driver) || !is_plain(image)) return {};
  return fmt::format("image/{}/imagedb/content/sha256/{}", driver, image);
}

const Json* find_path(const Json& json, std::string_view first, std::string_view second) {
  const auto* const inner = json.find(first);
  return inner == nullptr ? nullptr : inner->find(second);
}

}  // namespace

// With the network of another container Docker mounts that one's files, which lie beside ours.
std::string docker_directory(const Json& config, std::string_view id) {
  constexpr std::string_view kContainers = "/containers/";
  std::string beside;
  for (const auto* file : {"hostname", "resolv.conf", "hosts"}) {
    const auto source = mount_source(config, fmt::format("/etc/{}", file));
    const auto tail = kContainers.size() + kNumberBytes + 1 + std::string_view(file).size();
    if (!source.starts_with('/') || source.size() <= tail) continue;
    const auto root = source.substr(0, source.size() - tail);
    const auto number = source.substr(root.size() + kContainers.size(), kNumberBytes);
    if (source != fmt::format("{}{}{}/{}", root, kContainers, number, file)) continue;
    if (!is_number(number)) continue;
    auto directory = fmt::format("{}{}{}", root, kContainers, id);
    if (number == id) return directory;
    if (beside.empty()) beside = std::move(directory);
  }
  return beside;
}

Result<DockerContainer> parse_docker_container(std::string_view text, std::string_view id) {
  const auto json = TRY(read_json(text));
  if (json.text_at("ID") != id) return fail(ErrorCode::kInvalid, "is of another container");
  DockerContainer container;
  container.name = json.text_at("Name");
  if (container.name.starts_with('/')) container.name.erase(0, 1);
  container.labels = labels_of(find_path(json, "Config", "Labels"));
  container.image_file = image_file(json);
  return container;
}

Result<Labels> parse_image_labels(std::string_view text) {
  const auto json = TRY(read_json(text));
  return labels_of(find_path(json, "config", "Labels"));
}

Labels launchers_own(Labels labels, const Labels& image) {
  std::erase_if(labels, [&](const auto& label) {
    const auto found = image.find(label.first);
    return found != image.end() && found->second == label.second;
  });
  return labels;
}

}  // namespace meshd::engines
