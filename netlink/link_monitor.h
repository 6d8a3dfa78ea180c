// Tells that links, addresses, routes or neighbours of this namespace changed, coarsely:
// enough to know what to read again.
//
// Threads:    not thread-safe; one owner, which watches fd() for reading.
// Invariants: no change goes unnoticed: where the kernel dropped events because we were
//             slow, one kUnknown event says that everything is to be read again.
// Errors:     kSystem with the errno.
// Source:     rtnetlink(7), RTNLGRP_ groups.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "netlink/channel.h"

namespace meshd::netlink {

struct LinkEvent {
  enum class Kind : std::uint8_t { kLink, kAddress, kRoute, kNeighbour, kUnknown };
  Kind kind = Kind::kUnknown;
  bool removed = false;
  bool ours = false;  // a link of our group; a route or neighbour with kOurProtocol
  int ifindex = 0;
  std::string name;                        // of links only
  std::optional<Prefix> destination = {};  // of routes only
  // Of a bridge's port that is not isolated: the number of the namespace that it leads to.
  std::optional<int> open_port_to = {};
  bool leads_out = false;    // a bridge's port behind which others' machines may be
  std::uint32_t origin = 0;  // Channel::port_id() of the cause; 0: the kernel itself
  auto operator<=>(const LinkEvent&) const = default;
};

class LinkMonitor {
 public:
  // A thousand links that appear at once make some 4 MB of events.
  static constexpr int kQueueBytes = 8 * 1024 * 1024;
  // Datagrams read in one call, so that a busy network cannot hold the loop up.
  static constexpr int kMaxReads = 256;

  // `our_group`: the interface group whose links count as ours.
  [[nodiscard]] static Result<LinkMonitor> open(std::uint32_t our_group);

  [[nodiscard]] int fd() const { return channel_.fd(); }
  // Non-blocking. Sorted, equal events once; neighbours that are merely learnt or expire
  // do not come at all.
  [[nodiscard]] Result<std::vector<LinkEvent>> read();
  void set_receive_queue_for_test(int bytes) { channel_.set_receive_queue(bytes); }

 private:
  LinkMonitor(Channel channel, std::uint32_t our_group)
      : channel_(std::move(channel)), our_group_(our_group) {}

  Channel channel_;
  std::uint32_t our_group_;
};

// The pure half: one datagram in, events appended.
void decode_link_events(ByteView datagram, std::uint32_t our_group, std::vector<LinkEvent>& events);

}  // namespace meshd::netlink
