// What the Arvados API answers, as values. The only place where its bytes become something:
// whatever is not exactly what was asked for counts as no answer at all.
//
// Threads: any.
// Errors:  a Failure. 401, 403 and 404 are believed only with the API's own body; everything
//          else that is no good answer is kAway, with a reason for the log. The reason quotes
//          at most one short line of what came.
// Source:  arvados.org's API, 3.2: lists are {"items": [...]}, errors {"errors": [...]}.
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policy/read_yaml.h"

namespace meshd::arvados {

// What came of a request, as the client hands it on.
struct Reply {
  int status = 0;          // of HTTP; 0: nothing that could be read
  bool is_json = false;    // by its Content-Type
  std::string body{};      // whole
  std::string trouble{};   // why there is nothing; no token, no query
  bool too_large = false;  // more came than was allowed
};

enum class Fault : std::uint8_t {
  kBadToken,   // 401
  kForbidden,  // 403
  kNotFound,   // 404: is not there, or may not be read
  kTooLarge,   // ask for less
  kAway,       // down, slow, or not to be believed
};
struct [[nodiscard]] Failure {
  Fault fault = Fault::kAway;
  std::string why;
};
template <class T>
using Answer = std::expected<T, Failure>;

struct User {
  std::string uuid, name;
  bool is_active = false, is_admin = false;
};
[[nodiscard]] Answer<User> read_user(const Reply& reply);

struct TokenScope {
  std::string user;
  bool everything = false;  // its scopes are ["all"]
};
[[nodiscard]] Answer<TokenScope> read_token_scope(const Reply& reply);

// One record, and it is the one that was asked for.
[[nodiscard]] Answer<void> read_record(const Reply& reply, std::string_view uuid);
[[nodiscard]] Answer<bool> read_is_frozen(const Reply& reply, std::string_view group);
// 200: true, 403: false.
[[nodiscard]] Answer<bool> read_may_manage(const Reply& reply);

struct RequestOwner {
  std::string request, user, project;  // modified_by_user_uuid, owner_uuid
};
// All of them, or there is no answer.
[[nodiscard]] Answer<std::vector<RequestOwner>> read_owners(const Reply& reply);

enum class PermissionLevel : std::uint8_t { kNone, kCanRead, kCanWrite, kCanManage };
struct ComputedPermission {
  std::string user, target;
  PermissionLevel level = PermissionLevel::kNone;
};
[[nodiscard]] Answer<std::vector<ComputedPermission>> read_permissions(const Reply& reply);

struct PublishedPort {
  bool is_public = false;
  std::string label, initial_path;
};
// A container request whose container has not ended.
struct ContainerRequest {
  std::string uuid, container;
  std::string owner;     // modified_by_user_uuid
  std::string project;   // owner_uuid
  std::string workflow;  // requesting_container_uuid; empty: nobody's step
  std::string created_at;
  bool is_committed = false;
  std::int64_t priority = 0;
  bool is_service = false;
  std::map<std::uint16_t, PublishedPort> published;
  std::optional<policy::YamlNode> declaration;  // properties.meshd
  std::string problem;                          // why what its author wrote cannot be taken
};
// `bare`: as it was asked for, without published_ports and properties.
[[nodiscard]] Answer<std::vector<ContainerRequest>> read_requests(const Reply& reply, bool bare);

// A name outside that somebody gave to a port of a request.
struct PortLink {
  std::string uuid, owner, name, request;
  std::uint16_t port = 0;
  std::string problem;  // why it is none
};
[[nodiscard]] Answer<std::vector<PortLink>> read_links(const Reply& reply);

// Of those that were asked about, or that the asker may read.
[[nodiscard]] Answer<std::vector<std::string>> read_live_containers(const Reply& reply);

}  // namespace meshd::arvados
