#include "engines/podman.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "engines/json.h"
#include "engines/oci.h"

namespace meshd::engines {
namespace {

constexpr std::string_view kBlank = " \t\r";
constexpr std::string_view kKeyword = "nameserver";
// podman's, on a host that has only a resolver of its own.
constexpr std::array<std::string_view, 4> kDefaultServers = {
    "8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"};

std::vector<std::string_view> nameservers(std::string_view text) {
  std::vector<std::string_view> servers;
  while (!text.empty()) {
    auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (!line.starts_with(kKeyword)) continue;
    line.remove_prefix(kKeyword.size());
    const auto begin = line.find_first_not_of(kBlank);
    if (begin == 0 || begin == std::string_view::npos) continue;
    line.remove_prefix(begin);
    servers.push_back(line.substr(0, line.find_first_of(kBlank)));
  }
  return servers;
}

}  // namespace

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

bool is_podmans_resolv_conf(std::string_view path, std::string_view id) {
  constexpr std::string_view kName = "/resolv.conf";
  if (!path.ends_with(kName)) return false;
  path.remove_suffix(kName.size());
  return podman_store(path, id).has_value();
}

bool has_chosen_servers(std::string_view resolv_conf, std::string_view of_host) {
  const auto servers = nameservers(resolv_conf);
  if (servers.empty()) return false;
  auto hosts = nameservers(of_host);
  std::erase_if(hosts, [](auto one) { return one.starts_with("127.") || one == "::1"; });
  if (hosts.empty()) hosts.assign(kDefaultServers.begin(), kDefaultServers.end());
  return std::ranges::find(hosts, servers.back()) == hosts.end();
}

}  // namespace meshd::engines
