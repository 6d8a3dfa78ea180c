// The constant part of the node's table: chains, rules, limits and counters. Containers
// and flows are elements (ruleset.h) and change nothing here.
//
// A packet's way, hook by hook ("mesh interface": a veth of ours, interface group 77):
//
//   hook         prio  chain      does
//   prerouting   -450  guard      from a mesh interface only with its own MAC and address, in
//                                 plain forms; before defragmentation (-400), so on every
//                                 fragment. From elsewhere never with a mesh source, but by a
//                                 trunk with one of another node's.
//   prerouting   -300  raw_pre    DNS limit per container; DNS to the resolver is not tracked
//   prerouting   -200             (connection tracking)
//   prerouting   -100  dnat_pre   foreign port 53 -> resolver[1]; VIP -> endpoint; published
//                                 port -> container, whoever asks
//   prerouting    -90  pre_late   mesh destination without a live target: held or refused;
//                                 one on another node: held until confirmed
//   input         -10  inp        container to node: DNS, ping to the resolver, replies
//   forward       -10  forw       every packet, both directions: allowed flow, egress,
//                                 publication from a permitted source, ICMP of a pair
//   output       -300  raw_out    the resolver's answers are not tracked
//   output       -100  dnat_out   VIPs and published ports, for the node itself
//   output        -10  outp       node to container: uid 0 and the permitted uids
//   postrouting   100  snat_post  own VIP (hairpin); egress is masqueraded
//
// Invariants: every base chain has policy accept, since other users' packets pass it, and
//             where it decides it has a refusal of its own for mesh interfaces after the
//             chain it jumps to: nothing opens when a chain is empty for a moment. The
//             number of chains, rules, sets and counters depends on Settings alone; the
//             rules about other nodes are there with Settings::in_cluster only.
//             Nothing writes a packet's mark or a connection's mark: those are others'.
// Source:     linux/netfilter_ipv4.h (priorities); docs/policy.md says why, chain by chain.
#pragma once

#include <cstdint>
#include <string_view>

#include "policy/rule.h"
#include "policy/types.h"

namespace meshd::policy {

inline constexpr std::string_view kTableName = "meshd";
// The interface group of our veths on the node's side; given at creation, so that there is
// no moment without it.
inline constexpr std::uint32_t kMeshGroup = 77;

// Likewise of the VXLAN device of a cluster.
inline constexpr std::uint32_t kTunnelGroup = 78;

// Beginning of the log prefixes; the reader of the log group tells them apart by these.
inline constexpr std::string_view kSpoofPrefix = "meshd:spoof ";
inline constexpr std::string_view kRefusedPrefix = "meshd:refused ";

// Open connections of one container: a tenth of the kernel's usual table of 65,536 would be
// more; a notebook or a database client needs some hundred.
inline constexpr std::uint32_t kMaxConnections = 4'096;
// Fragments a second and container, 1.4 MB/s: some UDP still needs them, and each incomplete
// packet holds memory of the node.
inline constexpr std::uint32_t kFragmentRate = 1'000, kFragmentBurst = 500;
// Pings of the resolver a second and container: a person's `ping -i 0.1` passes.
inline constexpr std::uint32_t kEchoRate = 20, kEchoBurst = 20;
// Log entries a second and container (spoofed: and interface; from elsewhere: in all):
// enough to see every kind of refusal, and a thousand loud ones can still be read.
inline constexpr std::uint32_t kLogRate = 10, kLogBurst = 20;
// Bytes of a packet in the log: headers of IPv6 and TCP without options.
inline constexpr std::uint32_t kLogSnaplen = 64;

// The port and the network's number of that device, the same on all nodes.
inline constexpr std::uint32_t kTunnelPort = 8472, kTunnelNumber = 88;
// VXLAN (IANA's and Linux' old number) and Geneve: a container must not speak for a node.
inline constexpr std::uint32_t kTunnelPorts[] = {4789, 6081, kTunnelPort};

struct TableOptions {
  // Forwarding of that family was off before meshd switched it on: what concerns neither a mesh
  // interface nor an engine's bridge is then not forwarded, as before.
  bool forwarding4_was_off = false, forwarding6_was_off = false;
  std::uint16_t log_group = 88;  // NFLOG
};

[[nodiscard]] Table base_table(const Settings& settings, const TableOptions& options);

}  // namespace meshd::policy
