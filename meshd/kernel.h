// What the node asks of the kernel, as an interface: the real one is LinuxKernel, the
// tests have one in memory that can be told to fail.
//
// Threads: the main loop only.
// Errors:  a failed call left the kernel as it was, or says in its text what it left;
//          converge() is the remedy that needs no knowledge of what went wrong.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "meshd/underlay_plan.h"
#include "policy/allocate.h"
#include "policy/changes.h"
#include "policy/ruleset.h"
#include "policy/types.h"

namespace meshd {

// One container's link, both ends.
struct LinkPlan {
  std::string id;
  std::string host_ifname, ifname;
  Mac mac;
  std::optional<IpAddress> v4, v6;
  bool default_route = true;
  std::uint32_t mtu = 1500;
};

// Connections whose conntrack entry must go, because it would go on translating.
struct EraseRequest {
  struct Translation {
    Proto proto = Proto::kTcp;
    IpAddress from;  // what the client addressed: a VIP or a node address
    std::uint16_t first = 0, last = 0;
    IpAddress to;  // the endpoint it was translated to
    bool only_unanswered = false;
    auto operator<=>(const Translation&) const = default;
  };
  std::vector<IpAddress> addresses;  // everything that touches these
  std::vector<Translation> translations;
  // Every entry that it says yes to; one of another protocol than TCP and UDP has no ports.
  std::function<bool(const policy::LiveConnection&)> also;
  [[nodiscard]] bool empty() const { return addresses.empty() && translations.empty() && !also; }
};

struct ElementCount {
  policy::Element element;
  std::uint64_t packets = 0, bytes = 0;
};

// Open connections that concern containers, as connection tracking has them.
struct Connections {
  std::vector<policy::LiveConnection> list;
  bool more = false;  // there were more than a listing for people holds
};

// What converge() or audit() found different and put right.
struct Repairs {
  std::vector<std::string> what;  // "table meshd: 3 elements were missing"
  // Host links that are not there any more: audit() makes none anew.
  std::vector<std::string> missing = {};
  // What could not be put right, and that nothing else waits for.
  std::vector<std::string> trouble = {};
};

class Kernel {
 public:
  virtual ~Kernel() = default;

  // Makes the veth pair, configures both ends and the node's routes to it, brings it up.
  // On failure nothing of it is left. kConflict with EEXIST: another link of the node has
  // the name.
  [[nodiscard]] virtual Status connect(const LinkPlan& plan, int netns_fd) = 0;
  // Takes the link and what refers to it away; harmless when it is gone.
  [[nodiscard]] virtual Status disconnect(const std::string& host_ifname) = 0;
  // Takes away what a link that goes leaves in its container. Best effort: the namespace
  // may be out of reach by now.
  [[nodiscard]] virtual Status clean_container(const policy::Attachment&) { return {}; }
  // Whether any link of the node has that name, ours or not.
  [[nodiscard]] virtual Result<bool> name_taken(const std::string& host_ifname) = 0;
  [[nodiscard]] virtual Result<bool> link_exists(const std::string& host_ifname) = 0;

  // All or nothing: on failure there may be intervals of profiles that nobody has.
  [[nodiscard]] virtual Status commit(const policy::Delta& delta) = 0;
  // Makes the table equal to `wanted`, whatever it is now; writes nothing when it is.
  [[nodiscard]] virtual Result<Repairs> converge(const std::vector<policy::Element>& wanted) = 0;
  // The same for links, routes, neighbours, addresses and sysctls of ours: what belongs to
  // none of `links` is removed, what is missing on the node's side is put back. Ways to other
  // nodes that cannot be made are no error: nothing else waits for them.
  [[nodiscard]] virtual Result<Repairs> audit(const std::vector<LinkPlan>& links) = 0;
  // The ways to other nodes, whole: kept, and made so at once. Until the first call there are
  // to be none: it comes before the first audit(), which sweeps what an earlier process made.
  // What failed is tried again by audit().
  [[nodiscard]] virtual Status set_underlay(const UnderlayPlan& plan) = 0;

  // Ports on which processes of the node listen: never given to a publication.
  [[nodiscard]] virtual Result<policy::ListeningPorts> listening() = 0;
  [[nodiscard]] virtual Status erase_conntrack(const EraseRequest& request) = 0;
  [[nodiscard]] virtual Result<Connections> connections() = 0;
  [[nodiscard]] virtual Result<std::vector<ElementCount>> counters(policy::SetId set) = 0;
};

}  // namespace meshd
