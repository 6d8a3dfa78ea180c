#include "arvados/paths.h"

#include <fmt/format.h>

#include <algorithm>

namespace meshd::arvados {
namespace {

constexpr std::string_view kApi = "/arvados/v1/";
constexpr std::string_view kLive = R"(["Queued","Locked","Running"])";

bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

std::string list(std::span<const std::string> texts) {
  std::string json = "[";
  for (const auto& text : texts) json += fmt::format("{}\"{}\"", json.size() > 1 ? "," : "", text);
  return json + "]";
}

// `filters` goes on after its opening bracket.
std::string query(std::string_view what, std::string_view filters, std::string_view select,
                  std::string_view order, std::size_t limit, bool counted) {
  auto path = fmt::format("{}{}?filters={}&select={}", kApi, what, percent_encode(filters),
                          percent_encode(select));
  if (!order.empty()) path += "&order=" + percent_encode(order);
  path += fmt::format("&limit={}", limit);
  if (!counted) path += "&count=none";
  return path;
}

std::string after_filter(std::string_view after) {
  return after.empty() ? std::string() : fmt::format(R"(,["uuid",">","{}"])", after);
}

constexpr std::string_view kRequestFields =
    R"(["uuid","container_uuid","owner_uuid","modified_by_user_uuid","requesting_container_uuid",)"
    R"("state","priority","created_at","service","published_ports","properties"])";
constexpr std::string_view kBareRequestFields =
    R"(["uuid","container_uuid","owner_uuid","modified_by_user_uuid","requesting_container_uuid",)"
    R"("state","priority","created_at","service"])";

}  // namespace

bool is_uuid(std::string_view text, std::string_view kind) {
  return is_uuid(text) && text.substr(6, 5) == kind;
}

std::string percent_encode(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    const bool plain =
        is_lower_alnum(c) || (c >= 'A' && c <= 'Z') || std::string_view("-._~").contains(c);
    if (plain) {
      encoded += c;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

std::string current_user_path() { return fmt::format("{}users/current", kApi); }
std::string current_token_path() {
  return fmt::format("{}api_client_authorizations/current", kApi);
}

std::string request_path(std::string_view request) {
  return fmt::format("{}container_requests/{}?select={}", kApi, request,
                     percent_encode(R"(["uuid"])"));
}

std::string container_path(std::string_view container) {
  return fmt::format("{}containers/{}?select={}", kApi, container, percent_encode(R"(["uuid"])"));
}

std::string owners_path(std::string_view container) {
  return query("container_requests", fmt::format(R"([["container_uuid","=","{}"]])", container),
               R"(["uuid","modified_by_user_uuid","owner_uuid"])", "", 1000, true);
}

std::string permissions_path(std::string_view object) {
  return fmt::format("{}permissions/{}", kApi, object);
}

// A range and not a pattern: this list takes no `like`. It holds in every collation, since only
// uuids of this cluster's users lie between two of them.
std::string subjects_path(std::string_view user) {
  const auto cluster = user.substr(0, 5);
  return query("computed_permissions",
               fmt::format(R"([["user_uuid","=","{0}"],["target_uuid",">=","{1}-tpzed-{2:0>15}"],)"
                           R"(["target_uuid","<=","{1}-tpzed-{3:z>15}"]])",
                           user, cluster, "", ""),
               R"(["user_uuid","target_uuid","perm_level"])", "", 1000, false);
}

std::string levels_path(std::span<const std::string> users, std::span<const std::string> targets) {
  return query(
      "computed_permissions",
      fmt::format(R"([["user_uuid","in",{}],["target_uuid","in",{}]])", list(users), list(targets)),
      R"(["user_uuid","target_uuid","perm_level"])", "", 1000, false);
}

std::string group_path(std::string_view group) {
  return fmt::format("{}groups/{}?select={}", kApi, group,
                     percent_encode(R"(["uuid","frozen_by_uuid"])"));
}

std::string requests_page_path(std::string_view after, std::size_t limit, bool bare) {
  return query("container_requests",
               fmt::format(R"([["container.state","in",{}]{}])", kLive, after_filter(after)),
               bare ? kBareRequestFields : kRequestFields, R"(["uuid asc"])", limit, false);
}

std::string links_page_path(std::string_view after, std::size_t limit, bool bare) {
  return query("links",
               fmt::format(R"([["link_class","=","published_port"]{}])", after_filter(after)),
               bare ? R"(["uuid","owner_uuid"])"
                    : R"(["uuid","owner_uuid","name","head_uuid","properties"])",
               R"(["uuid asc"])", limit, false);
}

std::string requests_on_path(std::span<const std::string> containers, std::size_t limit) {
  return query("container_requests",
               fmt::format(R"([["container_uuid","in",{}],["container.state","in",{}]])",
                           list(containers), kLive),
               kRequestFields, R"(["created_at asc","uuid asc"])", limit, false);
}

std::string live_containers_path(std::span<const std::string> containers) {
  return query("containers",
               fmt::format(R"([["uuid","in",{}],["state","in",{}]])", list(containers), kLive),
               R"(["uuid","state"])", "", containers.size(), false);
}

std::string readable_containers_path(std::size_t limit) {
  return query("containers", fmt::format(R"([["state","in",{}]])", kLive), R"(["uuid","state"])",
               R"(["uuid asc"])", limit, false);
}

}  // namespace meshd::arvados
