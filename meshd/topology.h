// Links, addresses, routes, neighbours and sysctls: what makes a container's interface
// reach the node and nothing else before the table lets it.
//
//   container                        node
//   eth0 A/32, A6/128      veth      meshN (group 77, no ARP, no addresses)
//   169.254.1.1, fe80::1 ─────────── permanent neighbours on both sides
//   default via those                A, A6 dev meshN; mesh ranges dev lo (worst metric)
//                                    lo: the resolver's addresses
//
// Threads:    the main loop only; container-side work runs in a thread thrown away.
// Owns:       the route channel.
// Invariants: a link of ours carries group 77 from its creation, which the table refuses
//             until its elements are there. Nothing without our group, our protocol number
//             or our resolver's addresses is ever changed, but for the two forwarding
//             sysctls and accept_ra of uplinks, whose old values are remembered before, and
//             for ports of engines' bridges (bridge_ports.h).
// Errors:     the first failure, with the object's name and the kernel's words.
// Source:     measured on kernel 6.18: with permanent neighbours on both sides no ARP or ND
//             is needed; routes to lo let the node itself use VIPs, where `unreachable`
//             made connects fail before any rule was asked.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "meshd/bridge_ports.h"
#include "meshd/kernel.h"
#include "meshd/pools.h"
#include "netlink/address_route.h"
#include "netlink/channel.h"
#include "netlink/link.h"
#include "policy/types.h"

namespace meshd {

// The interface group of every container link. Fixed: the table's rules name it, and an
// older meshd's links must be recognised.
inline constexpr std::uint32_t kLinkGroup = 77;

// What the node's sysctls were before us, so that --purge can put them back.
struct OldSysctl {
  std::string key, value;
};

// Keeps them over a crash; refused, the sysctls stay as they are.
using RememberSysctls = std::function<Status(const std::vector<OldSysctl>&)>;

struct NodeNetwork {
  std::vector<IpAddress> addresses;  // all, of any scope
  std::vector<IpAddress> global;     // others reach the node by these
  // Networks of bridges, such as container engines make: their containers ask our resolver
  // as plain clients. Not of a bridge that the node's uplink is part of: there are others'
  // machines.
  std::vector<Prefix> bridges;
  // Bridges that are surely engines' (netlink/uplink.h): their containers are forwarded as they
  // would be without us.
  std::vector<std::string> engines4, engines6;
};

class Topology {
 public:
  [[nodiscard]] static Result<Topology> make(const policy::Settings& settings);
  // The next audit brings the node's own routes after it, which is no repair.
  void set_settings(const policy::Settings& settings) { settings_ = settings; }

  // `known`: what earlier runs found. `remember` hears of each sysctl before its first
  // change.
  void set_memory(std::map<std::string, std::string> known, RememberSysctls remember);
  // Whether forwarding of that family was off before us. After ensure_node().
  [[nodiscard]] bool forwarding_was_off(Family family) const;

  // The node's own part: resolver addresses, mesh routes, sysctls.
  [[nodiscard]] Result<Repairs> ensure_node();
  // Once the table is there, and not before: without it the node would forward for everybody. Again
  // when the settings have brought a family.
  [[nodiscard]] Status begin_forwarding();
  [[nodiscard]] Status connect(const LinkPlan& plan, int netns_fd);
  [[nodiscard]] Status disconnect(const std::string& host_ifname);
  // The policy rules that a link without the default route leaves in its container.
  [[nodiscard]] static Status clean_container(const policy::Attachment& attachment);
  [[nodiscard]] Result<bool> name_taken(const std::string& host_ifname);
  [[nodiscard]] Result<bool> link_exists(const std::string& host_ifname);
  [[nodiscard]] Result<Repairs> audit(const std::vector<LinkPlan>& links);
  // Whether that may be the namespace of a container of ours.
  [[nodiscard]] bool reaches(int netnsid) const { return containers_.contains(netnsid); }
  // Everything of ours, whatever daemon made it; `resolvers`: as far as they are known.
  // Goes on after a failure; all of them are in the error.
  [[nodiscard]] static Status purge(const std::vector<IpAddress>& resolvers);
  [[nodiscard]] static Status restore(const std::vector<OldSysctl>& before);

  // Facts about the node.
  [[nodiscard]] Result<NodeNetwork> node_network();
  [[nodiscard]] Result<std::vector<HostRoute>> routes();  // of others: may overlap our pools
  [[nodiscard]] Result<std::uint32_t> uplink_mtu();       // 1500 without a default route

 private:
  Topology(netlink::Channel channel, policy::Settings settings)
      : channel_(std::move(channel)), settings_(std::move(settings)) {}
  // A dump of the links costs the kernel time that grows with the square of their number
  // (11 ms of 1,000): whoever needs it twice passes it on.
  Result<Repairs> ensure_node(const std::vector<netlink::Link>& all);
  Status check_ipv6() const;
  Status ensure_mesh_routes(Repairs& repairs);
  Status ensure_sysctls(const std::vector<netlink::Link>& all, Repairs& repairs);
  Status connect_host_side(const LinkPlan& plan, const netlink::Link& link);
  // All links that are in the container then.
  Result<std::vector<netlink::Link>> connect_container_side(const LinkPlan& plan,
                                                            int netns_fd) const;
  [[nodiscard]] std::vector<netlink::Address> resolver_addresses() const;
  [[nodiscard]] std::vector<netlink::Route> mesh_routes() const;
  Status sweep_strangers(const std::vector<LinkPlan>& links, const std::vector<netlink::Link>& have,
                         Repairs& repairs);
  Status repair_links(const std::vector<LinkPlan>& links, const std::vector<netlink::Link>& have,
                      Repairs& repairs);
  void isolate_ports(const std::vector<LinkPlan>& links, const std::vector<netlink::Link>& all,
                     Repairs& repairs);
  Status sweep_routes(const std::vector<netlink::Route>& wanted, Repairs& repairs);

  netlink::Channel channel_;
  policy::Settings settings_;
  // Those that ensure_node() made or found last, and those that were before and are to go.
  std::vector<netlink::Route> mesh_made_, mesh_former_;
  bool forwards4_ = false, forwards6_ = false;  // begin_forwarding() was called for it
  NetnsIds containers_;                         // as of the last audit, and those connected since
  std::map<std::string, std::string> sysctls_before_;
  RememberSysctls remember_ = [](const std::vector<OldSysctl>&) -> Status { return {}; };
};

}  // namespace meshd
