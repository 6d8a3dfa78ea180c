#include "arvados/answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "arvados/json.h"
#include "arvados/limits.h"
#include "arvados/paths.h"
#include "policy/limits.h"

namespace meshd::arvados {
namespace {

using policy::YamlNode;
using Kind = YamlNode::Kind;

std::unexpected<Failure> away(std::string why) {
  return std::unexpected(Failure{Fault::kAway, std::move(why)});
}

// The body of an error as the API makes it: {"errors": ["..."]}. Absent: it is not the API's.
std::optional<std::string> error_text(const Reply& reply) {
  if (!reply.is_json) return std::nullopt;
  const auto tree = read_json(reply.body);
  if (!tree) return std::nullopt;
  const auto* const errors = find(*tree, "errors");
  if (errors == nullptr || errors->kind != Kind::kSequence || errors->items.empty()) {
    return std::nullopt;
  }
  return policy::quote(errors->items.front().text);
}

Answer<YamlNode> read_tree(const Reply& reply) {
  if (reply.too_large) return std::unexpected(Failure{Fault::kTooLarge, "the answer is too large"});
  if (reply.status == 0) return away(reply.trouble);
  if (reply.status == 200) {
    if (!reply.is_json) return away("the answer is not JSON by its Content-Type");
    auto tree = read_json(reply.body);
    if (tree) return *std::move(tree);
    const bool large = tree.error().code == ErrorCode::kExhausted;
    return std::unexpected(Failure{large ? Fault::kTooLarge : Fault::kAway,
                                   "the answer " + std::move(tree).error().what});
  }
  const auto text = error_text(reply);
  if (!text) return away(fmt::format("status {} without the API's body", reply.status));
  const auto why = fmt::format("status {}: {}", reply.status, *text);
  const auto fault = reply.status == 401   ? Fault::kBadToken
                     : reply.status == 403 ? Fault::kForbidden
                     : reply.status == 404 ? Fault::kNotFound
                                           : Fault::kAway;
  return std::unexpected(Failure{fault, why});
}

// The fields of one record. The first that is not as it must be is remembered, and the record
// then worth nothing.
class Fields {
 public:
  explicit Fields(const YamlNode& node) : node_(node) {
    if (node.kind != Kind::kMapping) wrong_ = "is no record";
  }

  std::string text(std::string_view key) {
    const auto* const value = scalar(key);
    if (value == nullptr || !value->quoted) return miss(key, "text");
    return value->text;
  }
  std::string uuid(std::string_view key, std::string_view kind) {
    auto value = text(key);
    return wrong_.empty() && !is_uuid(value, kind) ? miss(key, "a uuid of its kind") : value;
  }
  std::string any_uuid(std::string_view key) {
    auto value = text(key);
    return wrong_.empty() && !is_uuid(value) ? miss(key, "a uuid") : value;
  }
  std::string uuid_or_null(std::string_view key, std::string_view kind) {
    const auto* const value = find(node_, key);
    if (value != nullptr && value->kind == Kind::kNull) return {};
    return uuid(key, kind);
  }
  // What others may have left out, or set to anything.
  std::string text_or_empty(std::string_view key) const {
    const auto* const value = scalar(key);
    return value != nullptr && value->quoted ? value->text : std::string();
  }
  bool boolean(std::string_view key) {
    const auto* const value = scalar(key);
    const bool is_one =
        value != nullptr && !value->quoted && (value->text == "true" || value->text == "false");
    if (!is_one) miss(key, "true or false");
    return is_one && value->text == "true";
  }
  std::int64_t number_or_null(std::string_view key) {
    const auto* const value = find(node_, key);
    return value != nullptr && value->kind == Kind::kNull ? 0 : number(key);
  }
  std::int64_t number(std::string_view key) {
    const auto* const value = scalar(key);
    std::int64_t number = 0;
    if (value == nullptr || value->quoted || !parse(value->text, number)) miss(key, "a number");
    return number;
  }
  // Null when it is missing or null itself.
  const YamlNode* mapping_or_null(std::string_view key) {
    const auto* const value = find(node_, key);
    if (value == nullptr || value->kind == Kind::kNull) return nullptr;
    if (value->kind != Kind::kMapping) miss(key, "a mapping");
    return value->kind == Kind::kMapping ? value : nullptr;
  }
  const YamlNode* sequence(std::string_view key) {
    const auto* const value = find(node_, key);
    if (value == nullptr || value->kind != Kind::kSequence) {
      miss(key, "a list");
      return nullptr;
    }
    return value;
  }

  [[nodiscard]] const std::string& wrong() const { return wrong_; }

  static bool parse(std::string_view text, std::int64_t& into) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc() && end == text.data() + text.size();
  }

 private:
  const YamlNode* scalar(std::string_view key) const {
    const auto* const value = find(node_, key);
    return value != nullptr && value->kind == Kind::kScalar ? value : nullptr;
  }
  std::string miss(std::string_view key, std::string_view wanted) {
    if (wrong_.empty()) wrong_ = fmt::format("{} is not {}", key, wanted);
    return {};
  }

  const YamlNode& node_;
  std::string wrong_;
};

template <class T>
Answer<T> checked(const Fields& fields, T value) {
  if (fields.wrong().empty()) return value;
  return away("the answer's " + fields.wrong());
}

// Each of "items" by `one`, a function from Fields to a value.
template <class One>
auto read_items(const YamlNode& tree, const One& one)
    -> Answer<std::vector<decltype(one(std::declval<Fields&>()))>> {
  Fields list(tree);
  const auto* const items = list.sequence("items");
  if (items == nullptr) return away("the answer's " + list.wrong());
  std::vector<decltype(one(std::declval<Fields&>()))> result;
  for (std::size_t i = 0; i < items->items.size(); ++i) {
    Fields fields(items->items[i]);
    result.push_back(one(fields));
    if (!fields.wrong().empty()) {
      return away(fmt::format("the answer's items[{}]: {}", i, fields.wrong()));
    }
  }
  return result;
}

// `80: {access, label, initial_path}`; upstream checks it, so what differs is somebody's error.
std::string read_published_port(const std::string& key, const YamlNode& node,
                                std::map<std::uint16_t, PublishedPort>& into) {
  std::int64_t port = 0;
  if (!Fields::parse(key, port) || port < 1 || port > 65535) {
    return fmt::format("published_ports: {} is not a port", policy::quote(key));
  }
  Fields fields(node);
  const auto access = fields.text("access");
  PublishedPort published{access == "public", fields.text("label"), fields.text("initial_path")};
  if (fields.wrong().empty() && access != "public" && access != "private") {
    return fmt::format("published_ports.{}: access is neither public nor private", port);
  }
  if (!fields.wrong().empty()) return fmt::format("published_ports.{}: {}", port, fields.wrong());
  into.emplace(static_cast<std::uint16_t>(port), std::move(published));
  return {};
}

void read_published(Fields& fields, ContainerRequest& request) {
  const auto* const ports = fields.mapping_or_null("published_ports");
  if (ports == nullptr) return;
  if (ports->keys.size() > policy::kMaxPublish) {
    request.problem = fmt::format("published_ports: has {} entries, {} are allowed",
                                  ports->keys.size(), policy::kMaxPublish);
    return;
  }
  for (std::size_t i = 0; i < ports->keys.size() && request.problem.empty(); ++i) {
    request.problem = read_published_port(ports->keys[i].text, ports->items[i], request.published);
  }
  if (!request.problem.empty()) request.published.clear();
}

void read_declaration(Fields& fields, ContainerRequest& request) {
  const auto* const properties = fields.mapping_or_null("properties");
  const auto* const ours = properties == nullptr ? nullptr : find(*properties, "meshd");
  if (ours == nullptr) return;
  if (weight(*ours) > policy::kMaxWorkloadBytes) {
    request.problem =
        fmt::format("properties.meshd: is larger than {} KiB", policy::kMaxWorkloadBytes / 1024);
    return;
  }
  request.declaration = *ours;
}

ContainerRequest read_request(Fields& fields, bool bare) {
  ContainerRequest request;
  request.uuid = fields.uuid("uuid", kRequestKind);
  request.container = fields.uuid("container_uuid", kContainerKind);
  request.owner = fields.uuid("modified_by_user_uuid", kUserKind);
  request.project = fields.any_uuid("owner_uuid");
  request.workflow = fields.uuid_or_null("requesting_container_uuid", kContainerKind);
  request.created_at = fields.text("created_at");
  request.is_committed = fields.text("state") == "Committed";
  request.priority = fields.number_or_null("priority");
  request.is_service = fields.boolean("service");
  if (bare) {
    request.problem = fmt::format("properties: the request's record is larger than {} MiB",
                                  kMaxAnswerBytes >> 20);
    return request;
  }
  read_published(fields, request);
  if (request.problem.empty()) read_declaration(fields, request);
  return request;
}

PortLink read_link(Fields& fields) {
  PortLink link;
  link.uuid = fields.uuid("uuid", kLinkKind);
  link.owner = fields.any_uuid("owner_uuid");
  // Anybody may have written these, and the API checks only what kind the head is.
  link.name = fields.text_or_empty("name");
  const auto* const properties = fields.mapping_or_null("properties");
  const auto* const port = properties == nullptr ? nullptr : find(*properties, "port");
  link.request = fields.text_or_empty("head_uuid");
  std::int64_t number = 0;
  if (!is_uuid(link.request, kRequestKind)) {
    link.problem = "head_uuid: is not a container request";
  } else if (port == nullptr || port->kind != Kind::kScalar || port->quoted ||
             !Fields::parse(port->text, number) || number < 1 || number > 65535) {
    link.problem = "properties.port: is not a port";
  } else {
    link.port = static_cast<std::uint16_t>(number);
  }
  return link;
}

PermissionLevel read_level(Fields& fields) {
  const auto word = fields.text("perm_level");
  if (word == "can_manage") return PermissionLevel::kCanManage;
  if (word == "can_write") return PermissionLevel::kCanWrite;
  if (word == "can_read") return PermissionLevel::kCanRead;
  return PermissionLevel::kNone;
}

}  // namespace

Answer<User> read_user(const Reply& reply) {
  const auto tree = TRY(read_tree(reply));
  Fields fields(tree);
  User user;
  user.uuid = fields.uuid("uuid", kUserKind);
  user.is_active = fields.boolean("is_active");
  user.is_admin = fields.boolean("is_admin");
  const auto* const name = find(tree, "username");
  if (name != nullptr && name->quoted) user.name = name->text.substr(0, policy::kMaxOwnerBytes);
  return checked(fields, std::move(user));
}

Answer<TokenScope> read_token_scope(const Reply& reply) {
  const auto tree = TRY(read_tree(reply));
  Fields fields(tree);
  TokenScope scope;
  scope.user = fields.uuid("owner_uuid", kUserKind);
  const auto* const scopes = fields.sequence("scopes");
  scope.everything = scopes != nullptr && scopes->items.size() == 1 &&
                     scopes->items.front().quoted && scopes->items.front().text == "all";
  return checked(fields, std::move(scope));
}

Answer<void> read_record(const Reply& reply, std::string_view uuid) {
  const auto tree = TRY(read_tree(reply));
  Fields fields(tree);
  if (fields.text("uuid") != uuid) return away("the answer is about another record");
  return {};
}

Answer<bool> read_is_frozen(const Reply& reply, std::string_view group) {
  const auto tree = TRY(read_tree(reply));
  Fields fields(tree);
  if (fields.text("uuid") != group) return away("the answer is about another record");
  return checked(fields, !fields.uuid_or_null("frozen_by_uuid", kUserKind).empty());
}

Answer<bool> read_may_manage(const Reply& reply) {
  const auto tree = read_tree(reply);
  if (!tree && tree.error().fault == Fault::kForbidden) return false;
  if (!tree) return std::unexpected(tree.error());
  Fields fields(*tree);
  static_cast<void>(fields.sequence("items"));
  return checked(fields, true);
}

Answer<std::vector<RequestOwner>> read_owners(const Reply& reply) {
  const auto tree = TRY(read_tree(reply));
  auto owners = TRY(read_items(tree, [](Fields& fields) {
    return RequestOwner{fields.uuid("uuid", kRequestKind),
                        fields.uuid("modified_by_user_uuid", kUserKind),
                        fields.any_uuid("owner_uuid")};
  }));
  Fields fields(tree);
  const auto available = fields.number("items_available");
  if (!fields.wrong().empty()) return away("the answer's " + fields.wrong());
  if (available != static_cast<std::int64_t>(owners.size())) {
    return away(fmt::format("the answer has {} of {} requests", owners.size(), available));
  }
  return owners;
}

Answer<std::vector<ComputedPermission>> read_permissions(const Reply& reply) {
  const auto tree = TRY(read_tree(reply));
  return read_items(tree, [](Fields& fields) {
    return ComputedPermission{fields.uuid("user_uuid", kUserKind), fields.any_uuid("target_uuid"),
                              read_level(fields)};
  });
}

Answer<std::vector<ContainerRequest>> read_requests(const Reply& reply, bool bare) {
  const auto tree = TRY(read_tree(reply));
  return read_items(tree, [&](Fields& fields) { return read_request(fields, bare); });
}

Answer<std::vector<PortLink>> read_links(const Reply& reply) {
  const auto tree = TRY(read_tree(reply));
  return read_items(tree, [](Fields& fields) { return read_link(fields); });
}

Answer<std::vector<std::string>> read_live_containers(const Reply& reply) {
  const auto tree = TRY(read_tree(reply));
  return read_items(tree, [](Fields& fields) { return fields.uuid("uuid", kContainerKind); });
}

}  // namespace meshd::arvados
