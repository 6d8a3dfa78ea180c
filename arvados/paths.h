// The questions that are put to the Arvados API, as request targets: all of them GET.
//
// Invariant: every uuid that goes in has passed is_uuid(), so that nothing has to be escaped but
//            the JSON's own characters.
// Source:    the API of Arvados 3.2 and later (doc.arvados.org/api); structured parameters are
//            JSON, percent-encoded (RFC 3986 section 2.1).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "policy/name.h"

namespace meshd::arvados {

// What stands between a uuid's hyphens says what it names.
inline constexpr std::string_view kUserKind = "tpzed", kRequestKind = "xvhdp",
                                  kContainerKind = "dz642", kGroupKind = "j7d0g",
                                  kLinkKind = "o0j2j";
// "zzzzz-tpzed-0123456789abcde": five, the kind, fifteen of [0-9a-z].
[[nodiscard]] bool is_uuid(std::string_view text, std::string_view kind);
using policy::is_uuid;  // of whatever kind

// Everything but RFC 3986's unreserved characters, as %XX.
[[nodiscard]] std::string percent_encode(std::string_view text);

// Who a token belongs to, and what it may be used for.
[[nodiscard]] std::string current_user_path();
[[nodiscard]] std::string current_token_path();

// Readable or not: 200 or 404.
[[nodiscard]] std::string request_path(std::string_view request);
[[nodiscard]] std::string container_path(std::string_view container);
// All requests on a container, with how many there are.
[[nodiscard]] std::string owners_path(std::string_view container);
// 200 for those who can_manage it, 403 for those who can read it.
[[nodiscard]] std::string permissions_path(std::string_view object);
// The users that `user` has permissions on, himself among them.
[[nodiscard]] std::string subjects_path(std::string_view user);
[[nodiscard]] std::string levels_path(std::span<const std::string> users,
                                      std::span<const std::string> targets);
[[nodiscard]] std::string group_path(std::string_view group);

// Pages, in the order of their uuids, from the one after `after` (empty: from the first).
// Bare: without what authors write freely.
[[nodiscard]] std::string requests_page_path(std::string_view after, std::size_t limit, bool bare);
[[nodiscard]] std::string links_page_path(std::string_view after, std::size_t limit, bool bare);
// The requests on these containers, where they have not ended; the oldest first.
[[nodiscard]] std::string requests_on_path(std::span<const std::string> containers,
                                           std::size_t limit);
// The first so many that the asker may read and that have not ended.
[[nodiscard]] std::string readable_containers_path(std::size_t limit);
// Which of these have not ended.
[[nodiscard]] std::string live_containers_path(std::span<const std::string> containers);

}  // namespace meshd::arvados
