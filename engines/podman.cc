#include "engines/podman.h"

#include <fmt/format.h>

#include <algorithm>

#include "engines/json.h"
#include "engines/oci.h"

namespace meshd::engines {

std::optional<PodmanStore> podman_store(std::string_view bundle, std::string_view id) {
  const auto tail = fmt::format("-containers/{}/userdata", id);
  if (!bundle.starts_with('/') || !bundle.ends_with(tail)) return std::nullopt;
  const std::string base(bundle.substr(0, bundle.size() - tail.size()));
  return PodmanStore{base + "-containers", base + "-images"};
}

Result<std::string> parse_store_image(std::string_view text, std::string_view id) {
  const auto json = TRY(read_json(text));
  const auto found =
      std::ranges::find_if(json.items, [&](const Json& one) { return one.text_at("id") == id; });
  if (found == json.items.end()) return fail(ErrorCode::kNotFound, "does not have the container");
  std::string image(found->text_at("image"));
  if (!image.empty() && !is_number(image)) return fail(ErrorCode::kInvalid, "names no image");
  return image;
}

Result<Labels> parse_manifest_annotations(std::string_view text) {
  const auto json = TRY(read_json(text));
  return labels_of(json.find("annotations"));
}

}  // namespace meshd::engines
