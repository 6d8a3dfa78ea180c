// The command line of an administrator as a value: what a running controller is asked for, and
// where it is found.
//
// Invariant: parse_admin() reads nothing but its arguments.
// Errors:    kInvalid: wrong usage, in one line.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"
#include "proto/controller.pb.h"
#include "proxy/people.h"

namespace meshd::controller {

inline constexpr std::uint32_t kMaxTokenHours = 365 * 24;
inline constexpr std::uint32_t kMaxTokenUses = 1'000'000;
// An authority lasts as long; a certificate never lasts longer than it.
inline constexpr std::uint32_t kMaxCertificateDays = 3652;
inline constexpr std::uint32_t kMaxPersonDays = proxy::kMaxTokenLife.count();

// What is empty comes from the configuration: its directory's admin.pem and authorities.pem,
// and the port that it listens on.
struct Where {
  std::string config, dir, controllers, identity, authorities;
};

struct CreateToken {
  mesh::v1::TokenRequest request;
};
struct ListTokens {};
struct RevokeToken {
  std::string id;
};
struct DismissNode {
  std::string name;
};
struct MakeBackup {
  std::string path;
};
struct Certify {
  std::string role, name;
  std::uint32_t lifetime_s = 0;  // 0: the controller's default
  std::string out;               // the file that is made
};
// Of this machine's files, whether a controller runs or not.
struct AddPerson {
  proxy::Person terms;  // without id, digest and end
  std::optional<std::uint32_t> days;
};
struct ListPeople {};
struct RemovePerson {
  std::string id;
};
// What is given counts before the configuration's `web`.
struct PrintProxyConfig {
  std::optional<std::uint16_t> port;
  std::string zone, host, ports, certificate, certificate_key, endpoint, access_log;
};
struct AdminHelp {};
using AdminAction =
    std::variant<AdminHelp, CreateToken, ListTokens, RevokeToken, DismissNode, MakeBackup, Certify,
                 AddPerson, ListPeople, RemovePerson, PrintProxyConfig>;

struct AdminCommand {
  Where where;
  AdminAction action;
};

// Whether a line that begins so is for parse_admin().
[[nodiscard]] bool is_admin_command(std::string_view word);
[[nodiscard]] Result<AdminCommand> parse_admin(std::span<const std::string> args);

}  // namespace meshd::controller
