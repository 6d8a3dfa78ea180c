// Makes an UnderlayPlan so in the kernel, and keeps it so: the tunnel, whom it leads to, and the
// routes to other nodes' containers.
//
// Threads:    the main loop only, in the node's network namespace.
// Owns:       its route channel.
// Invariants: what is right already is not written again: a restart costs no packet. Ours are
//             links of group 78, all that hangs on them, and routes of the main table with our
//             protocol number and a gateway; nothing else is changed. What is new comes before
//             what is over goes.
// Errors:     one thing that fails does not keep the rest from being made. A link that is down
//             or not there yet is one of them: the audit tries again, and what it makes then is
//             late, no repair.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "meshd/kernel.h"
#include "meshd/underlay_plan.h"
#include "netlink/address_route.h"
#include "netlink/channel.h"
#include "netlink/link.h"

namespace meshd {

class Underlay {
 public:
  [[nodiscard]] static Result<Underlay> make();

  // kSystem names all that could not be made.
  [[nodiscard]] Status apply(UnderlayPlan plan);
  // Puts right what differs from the plan; what cannot be is in trouble().
  [[nodiscard]] Repairs audit();
  [[nodiscard]] const UnderlayPlan& plan() const { return plan_; }
  // What the last of both could not make or put right.
  [[nodiscard]] const std::vector<std::string>& trouble() const { return trouble_; }

  // Facts for a plan. Addresses: as configured, else those of global scope on the configured
  // link, else on the links of the default routes, else all.
  [[nodiscard]] Result<std::vector<IpAddress>> addresses(const UnderlayConfig& config);
  [[nodiscard]] Result<std::vector<UnderlayRoute>> routes();
  [[nodiscard]] Result<UnderlaySelf> self(const policy::Settings& settings,
                                          const UnderlayConfig& config);

  // Requests for a change so far.
  [[nodiscard]] std::uint64_t changes() const { return channel_.changes(); }

 private:
  explicit Underlay(netlink::Channel channel) : channel_(std::move(channel)) {}
  // The tunnel's number, 0 where there is to be none.
  Result<int> ensure_tunnel(Repairs& repairs);
  Result<netlink::Link> make_tunnel(const UnderlayPlan::Tunnel& tunnel, Repairs& repairs);
  Status remove_tunnels(bool renamed, Repairs& repairs);
  Status ensure_peers(int tunnel, Repairs& repairs);
  Status sweep_neighbours(int tunnel, std::span<const netlink::Neighbour> wanted, Repairs& repairs);
  std::vector<netlink::Route> wanted_routes(int tunnel);
  Status ensure_routes(int tunnel, Repairs& repairs);

  netlink::Channel channel_;
  UnderlayPlan plan_;
  std::vector<std::string> trouble_;
  // Of the plan, what was never made so far.
  bool tunnel_unmade_ = false;
  std::set<Prefix> unmade_;  // blocks whose routes
};

// Whether it is one of the routes that an Underlay makes, or an earlier one made.
[[nodiscard]] bool is_underlay_route(const netlink::Route& route);

}  // namespace meshd
