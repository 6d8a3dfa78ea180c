// Firewalls beside ours that drop what ours lets pass. Every chain on the kernel's forward hook has
// its say, and one whose policy is to drop ends what no rule of it accepts. dockerd makes such a
// chain, and one for administrators, DOCKER-USER, in which two rules of ours can let the mesh pass.
//
// Threads:    the main loop only; the first half is pure.
// Owns:       a socket.
// Invariants: of what is others' nothing is changed but those two rules, which our comment marks
//             (an equal one without it is the administrator's, and does as well). There are
//             never two of ours for one direction.
// Errors:     the kernel's; what the next look finds is as it was.
// Source:     docker 20.10: FORWARD of `ip filter` drops by its policy, and asks DOCKER-USER first,
//             which dockerd keeps over restarts and may end with `return`. An accept in our own
//             table ends only that. iptables 1.8.9 lists the rules, and restores them with
//             its own kind of comment.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "netlink/nft_dump.h"
#include "netlink/socket.h"
#include "policy/types.h"

namespace meshd {

inline constexpr std::string_view kRuleMark = "meshd";
// All links of ours begin so: containers' and the tunnel's.
inline constexpr std::string_view kLinkPrefix = "mesh";

struct ForeignChain {
  netlink::NamedChain chain;
  std::vector<netlink::RuleDump> rules;
};
struct ForeignChains {
  std::uint32_t generation = 0;           // of the ruleset, before they were read
  std::vector<ForeignChain> drops;        // on the forward hook, by their policy
  std::vector<ForeignChain> docker_user;  // of `ip` and `ip6`, where there are
};

struct RuleChange {
  std::vector<std::uint64_t> remove;   // handles
  std::vector<netlink::Exprs> insert;  // before all others
  [[nodiscard]] bool empty() const { return remove.empty() && insert.empty(); }
};
// What makes the mesh pass DOCKER-USER, or takes all of ours out of it.
[[nodiscard]] RuleChange docker_user_change(std::span<const netlink::RuleDump> rules, bool wanted);

// One line with the mend for each chain that drops packets of the mesh, as far as can be seen: a
// rule that lets them pass by other marks than their interface is not understood.
[[nodiscard]] std::vector<std::string> firewall_troubles(const ForeignChains& chains,
                                                         const policy::Settings& settings);

class Firewalls {
 public:
  // Somebody changes the ruleset all the time: then the next look finds it.
  static constexpr int kMaxAttempts = 8;

  [[nodiscard]] static Result<Firewalls> make();
  // Puts our rules into DOCKER-USER or takes them out, and says what is in the way then.
  [[nodiscard]] Result<std::vector<std::string>> look(bool docker_user,
                                                      const policy::Settings& settings);
  [[nodiscard]] static Status purge();

 private:
  explicit Firewalls(netlink::Socket socket) : socket_(std::move(socket)) {}
  [[nodiscard]] Result<ForeignChains> read();
  [[nodiscard]] Result<ForeignChains> settle(bool docker_user);
  [[nodiscard]] Status apply(const ForeignChain& chain, const RuleChange& change,
                             std::uint32_t generation);

  netlink::Socket socket_;
};

}  // namespace meshd
