#include "pki/identity.h"

#include <fmt/format.h>

#include <algorithm>

namespace meshd::pki {
namespace {

constexpr std::string_view kScheme = "mesh://";
constexpr std::size_t kMaxLabel = 63;

bool is_alphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// The text is not repeated: it may be anything, and is somebody else's.
std::unexpected<Error> refuse(std::string_view why) {
  return fail(ErrorCode::kInvalid, fmt::format("not mesh://CLUSTER/ROLE/NAME: {}", why));
}

}  // namespace

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kNode:
      return "node";
    case Role::kController:
      return "controller";
    case Role::kDispatcher:
      return "dispatcher";
    case Role::kAdmin:
      return "admin";
    case Role::kReader:
      return "reader";
  }
  return "?";
}

std::string label_problem(std::string_view text) {
  if (text.empty()) return "is empty";
  if (text.size() > kMaxLabel) return fmt::format("is longer than {} characters", kMaxLabel);
  const auto fits = [](char c) { return is_alphanumeric(c) || c == '-'; };
  if (!std::ranges::all_of(text, fits)) return "may hold a-z, 0-9 and '-' only";
  if (text.front() == '-' || text.back() == '-') return "may not begin or end with '-'";
  return {};
}

std::string Identity::to_string() const {
  return fmt::format("{}{}/{}/{}", kScheme, cluster, role_name(role), name);
}

Result<Identity> parse_identity(std::string_view uri) {
  if (uri.size() > kMaxIdentityBytes) return refuse("too long");
  if (!uri.starts_with(kScheme)) return refuse("another scheme");
  uri.remove_prefix(kScheme.size());
  const auto first = uri.find('/');
  const auto second = first == std::string_view::npos ? first : uri.find('/', first + 1);
  if (second == std::string_view::npos) return refuse("a part is missing");
  const auto cluster = uri.substr(0, first);
  const auto role = uri.substr(first + 1, second - first - 1);
  const auto name = uri.substr(second + 1);  // a further '/' is no part of a label
  if (const auto why = label_problem(cluster); !why.empty()) return refuse("the cluster " + why);
  if (const auto why = label_problem(name); !why.empty()) return refuse("the name " + why);
  const auto* const found = std::ranges::find(kRoles, role, role_name);
  if (found == kRoles.end()) return refuse("no such role");
  return Identity{std::string(cluster), *found, std::string(name)};
}

std::string controller_host(std::string_view cluster) {
  return fmt::format("controller.{}.mesh", cluster);
}

}  // namespace meshd::pki
