// Nodes with one container each, in network namespaces that nobody else sees: on a bridge that
// they share, or each behind a router. Without a table, so that only routes decide.
//
//   node i: eth0 192.0.2.i, 2001:db8::i (bridge) or 198.51.100.(16i+1)/28, 2001:db8:i::1 (router)
//           container: 10.213.i.5, fd5a:1:2:1:i::5 by mesh1 (group 77)
//
// Threads: the test's own.
// Owns:    the namespaces, by descriptors: all is gone with the process.
// Errors:  what cannot be built fails the test, with the command's words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "meshd/underlay.h"
#include "netlink/netns.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/talk.h"

namespace meshd::test {

struct UnderlayNode {
  std::string name;
  netlink::Netns netns, container;
  policy::RemoteNode told;  // as the others know it
  IpAddress v4, v6;         // of its container
  std::optional<Underlay> underlay;
  [[nodiscard]] const IpAddress& at(Family family) const { return family == Family::kV4 ? v4 : v6; }
};

class UnderlayBed {
 public:
  enum class Wire { kBridge, kRouter };

  explicit UnderlayBed(const std::vector<Wire>& wires);
  [[nodiscard]] UnderlayNode& operator[](std::size_t i) { return nodes_[i]; }

  // What node `i` would do with the others but for `unknown`.
  [[nodiscard]] UnderlayPlan plan(std::size_t i, const UnderlayConfig& config = {},
                                  std::optional<std::size_t> unknown = {});
  void apply(std::size_t i, const UnderlayPlan& plan);
  // Every node its plan; containers get its MTU.
  void apply_all(const UnderlayConfig& config = {});
  [[nodiscard]] std::vector<std::string> audit(std::size_t i);
  // As a new process would find it.
  void restart(std::size_t i);

  [[nodiscard]] std::string in_node(std::size_t i, const std::string& command) {
    return output_in(nodes_[i].netns, command);
  }
  [[nodiscard]] std::string in_container(std::size_t i, const std::string& command) {
    return output_in(nodes_[i].container, command);
  }
  // Ours on the node, as ip(8) and bridge(8) list it; empty when there is nothing.
  [[nodiscard]] std::string ours(std::size_t i);
  // Whether the container of `from` gets an answer from that of `to` within a few seconds.
  [[nodiscard]] bool reaches(std::size_t from, std::size_t to, Family family);
  // One echo request of that size as an IP packet, which nobody may split.
  [[nodiscard]] bool carries(std::size_t from, std::size_t to, Family family, int bytes);
  // A megabyte by TCP arrives within a few seconds.
  [[nodiscard]] bool streams(std::size_t from, std::size_t to, Family family);

 private:
  void make_node(int number, Wire wire);
  void make_container(const UnderlayNode& node);

  std::vector<UnderlayNode> nodes_;
};

}  // namespace meshd::test
