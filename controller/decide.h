// What the controller decides: a command or a report and the cluster as it is come to the writes
// that follow, or to a refusal with its reason. Pure.
//
// Invariant: all or nothing. Who asks is an Author made from a certificate; whatever a message
//            says of the sender's name is not read.
// Errors:    kInvalid, kConflict, kNotFound, kExhausted, kNotInForce: "WHAT: WHY", as people see
//            it.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "controller/cluster.h"
#include "controller/record.h"
#include "controller/token.h"

namespace meshd::controller {

// How long an address, and a node's block, rest after their last use.
inline constexpr auto kAddressRest = std::chrono::seconds(60);
inline constexpr auto kBlockRest = std::chrono::minutes(15);
// A report names its containers; far above what one node runs.
inline constexpr std::size_t kMaxEndpoints = 10'000;

struct Author {
  enum class Role : std::uint8_t { kNode, kDispatcher, kAdmin, kArvados };
  Role role = Role::kNode;
  std::string name;
  [[nodiscard]] std::string text() const;  // "node/n1"
};

// Who declares for the containers of an Arvados site (controller/arvados_declarer.h).
[[nodiscard]] Author arvados_author();

struct Limits {
  bool node_declarations = false;
  bool arvados = false;  // else what it has left is for people to clear away
};
// By id. Of others than these it stays as it is.
using Launches = std::map<std::string, Launch>;

[[nodiscard]] Result<Writes> declare(const Cluster& cluster, const Author& author,
                                     std::vector<policy::Declaration> declarations,
                                     const std::string& pinned, const Limits& limits,
                                     const Moment& now, const Launches& launches = {});
// Refused while it is attached, unless forced.
[[nodiscard]] Result<Writes> forget(const Cluster& cluster, const Author& author,
                                    const std::string& id, bool force, const Moment& now,
                                    const Limits& limits = {});
[[nodiscard]] Result<Writes> release(const Cluster& cluster, const Author& author,
                                     const std::string& name, const Moment& now);

// What a node says of itself as a gateway.
struct GatewayFacts {
  bool is_one = false;
  std::vector<IpAddress> addresses;  // where it is reached from outside
};

// A node that says hello: known ones keep their blocks, new ones get some. Another boot than
// the last: nothing is attached there any more.
[[nodiscard]] Result<Writes> admit(const Cluster& cluster, const std::string& node,
                                   const std::string& boot_id,
                                   const std::vector<IpAddress>& underlay, const Moment& now,
                                   const GatewayFacts& gateway = {});
// A node that does not come back: its containers are nowhere, its blocks rest.
[[nodiscard]] Writes dismiss(const Cluster& cluster, const std::string& node, const Moment& now);

// A container is about to be attached there. kNotInForce: not while it is attached elsewhere.
[[nodiscard]] Result<Writes> start(const Cluster& cluster, const std::string& node,
                                   const std::string& id);

struct Judged {
  Writes writes;
  std::vector<std::pair<std::string, std::string>> refused;  // id, reason
};
[[nodiscard]] Judged report(const Cluster& cluster, const std::string& node,
                            const mesh::v1::Report& report, const Moment& now);

// A machine with a token asks to become the node of that name: the use of the token. The error
// is for our log; who asks hears kTokenRefused.
[[nodiscard]] Result<Writes> spend(const Cluster& cluster, std::string_view token,
                                   const IpAddress& source, const std::string& node,
                                   pki::UtcTime now);
[[nodiscard]] Write put_token(const Token& token);

// An administrator has dismissed the node: its certificates are refused from now on, but for those
// of a key that enrols under its name later, or made later by an authority of the site's own.
inline constexpr std::string_view kDismissed =
    "this node was dismissed by an administrator: it has to join again";
inline constexpr auto kDismissedPause = std::chrono::minutes(1);
// Longer than certificates are made for.
inline constexpr auto kDismissalKept = std::chrono::days(400);
[[nodiscard]] Write put_dismissal(const std::string& node, const Moment& now);
// Absent: the name was not dismissed.
[[nodiscard]] std::optional<Write> put_enrolled(const Cluster& cluster, const std::string& node,
                                                const std::string& key);
// `key` is the digest of the certificate's, `since` its beginning.
[[nodiscard]] bool is_dismissed(const Cluster& cluster, const std::string& node,
                                const std::string& key, pki::UtcTime since);

// How long a token that has expired is still listed, so that whoever uses it is told so in the
// log.
inline constexpr auto kTokenKept = std::chrono::days(7);
// What has rested or expired.
[[nodiscard]] Writes sweep(const Cluster& cluster, const Moment& now);

}  // namespace meshd::controller
