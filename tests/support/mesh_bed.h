// A node with containers and an outside host, all in network namespaces that nobody else
// sees, wired by hand as meshd does it: for tests of the table with real packets.
//
//   outside 192.0.2.100, .101, 2001:db8::100 ── up0 (node 192.0.2.1, 2001:db8::1)
//           169.254.169.254                      lo: the resolver's addresses
//   container i: eth0 10.213.0.(i+1), fd5a:1:2:1::(i+1) ── mesh(i) (group 77)
//
// Threads: the test's own; servers run in threads that end with them.
// Owns:    the namespaces, by descriptors: all is gone with the process.
// Errors:  what cannot be built fails the test, with the command's words.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "netlink/netns.h"
#include "netlink/socket.h"
#include "policy/base_table.h"
#include "policy/ruleset.h"
#include "policy/types.h"
#include "tests/support/talk.h"

namespace meshd::test {

struct BedHost {
  std::string name;
  netlink::Netns netns;
  std::string host_ifname;
  Mac mac;
  IpAddress v4, v6;
  [[nodiscard]] const IpAddress& at(Family family) const { return family == Family::kV4 ? v4 : v6; }
};

class MeshBed {
 public:
  using Elements = std::vector<policy::Element>;
  static constexpr std::uint32_t kRow = 0x12345678;

  // Moves the calling process into the node's namespace. The table is installed with what
  // `containers` need to exist, and nothing is allowed.
  explicit MeshBed(int containers, policy::TableOptions options = {},
                   std::uint32_t dns_client_rate = 2000);

  [[nodiscard]] const BedHost& operator[](std::size_t i) const { return containers_[i]; }
  [[nodiscard]] const BedHost& outside() const;
  [[nodiscard]] const netlink::Netns& node() const { return *node_; }
  [[nodiscard]] const policy::Settings& settings() const { return settings_; }
  // The node's own address on the uplink.
  [[nodiscard]] IpAddress node_address(Family family) const;
  [[nodiscard]] IpAddress vip(Family family) const;  // routed to the node, without slots

  // One transaction each; a refusal fails the test.
  void add(const Elements& elements) { apply({{}, elements}); }
  void remove(const Elements& elements) { apply({elements, {}}); }
  void apply(const policy::Delta& delta);
  // All rules anew in one transaction, as for a changed setting; elements stay.
  void replace_rules(std::uint32_t dns_client_rate);
  // That this address takes nothing new.
  [[nodiscard]] static policy::Element draining(const IpAddress& address);
  // Packets that each element of a set has counted.
  [[nodiscard]] std::map<policy::Element, std::uint64_t> counted(policy::SetId set);
  // From now on other nodes' packets come by the uplink, which is a tunnel's end or not.
  void join_cluster(bool by_tunnel);
  // From now on it takes connections from outside to other nodes.
  void become_gateway();
  // Packets of a named counter of the table.
  [[nodiscard]] std::uint64_t counter(const std::string& name);

  // Elements of one declaration's parts, for both families.
  [[nodiscard]] static Elements allow(const BedHost& from, const BedHost& to, Proto proto,
                                      std::uint16_t port);
  [[nodiscard]] static Elements pair(const BedHost& a, const BedHost& b);
  // All slots of a VIP port go to one endpoint.
  [[nodiscard]] Elements slots(Proto proto, std::uint16_t port, const BedHost& to) const;
  [[nodiscard]] Elements hold(const BedHost& from, Proto proto, std::uint16_t port) const;
  // A node port, and the sources that may use it.
  [[nodiscard]] Elements publish(Proto proto, std::uint16_t node_port, const BedHost& to,
                                 std::uint16_t port, std::uint32_t profile) const;
  [[nodiscard]] static Elements sources(std::uint32_t profile, const Prefix& from);
  // A container's egress by a profile, and what the profile permits, counted by a row.
  [[nodiscard]] static Elements egress_profile(const BedHost& container, std::uint32_t profile,
                                               std::uint32_t row = kRow);
  [[nodiscard]] static Elements egress(std::uint32_t profile, const Prefix& to,
                                       std::uint32_t row = kRow);

  // Elements of a container, as attach makes them.
  [[nodiscard]] static Elements attached(const BedHost& container);

 private:
  void make_outside();
  void make_container(int index);
  void install();
  void reinstall();

  policy::Settings settings_;
  policy::TableOptions options_;
  std::optional<netlink::Netns> node_;
  std::optional<BedHost> outside_;
  mutable bool outside_ready_ = false;
  std::vector<BedHost> containers_;
  std::optional<netlink::Socket> socket_;
};

inline constexpr Proto kProtos[] = {Proto::kTcp, Proto::kUdp};

// Calls check(family, proto) for all four kinds of flow, and names them in failures.
template <class Check>
void for_each_kind(Check check) {
  for (const Family family : kFamilies) {
    for (const Proto proto : kProtos) {
      SCOPED_TRACE(std::string(family == Family::kV4 ? "IPv4 " : "IPv6 ") +
                   std::string(proto_name(proto)));
      check(family, proto);
    }
  }
}

}  // namespace meshd::test
