// Reads what nftables log rules with a group report: which packet, from which link, with
// which prefix.
//
// Threads:    not thread-safe; one owner, which watches fd() for reading.
// Owns:       the socket; the group is bound to it, one reader per group and namespace.
// Invariants: read() takes at most kMaxReads datagrams. Lost packets are counted.
// Errors:     kConflict when another process reads the group.
// Units:      ports in host order.
// Source:     linux/netfilter/nfnetlink_log.h; RFC 791, RFC 8200 for the packets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.h"
#include "base/result.h"
#include "netlink/channel.h"

namespace meshd::netlink {

struct LogPacket {
  std::string prefix;  // as in the rule
  int in_ifindex = 0;  // 0: none
  int out_ifindex = 0;
  std::uint8_t hook = 0;   // NF_INET_ number
  std::uint8_t proto = 0;  // IANA number, behind IPv6 extension headers
  IpAddress source, destination;
  // 0 when the packet has none (ICMP, later fragments, cut off).
  std::uint16_t source_port = 0, destination_port = 0;
  bool operator==(const LogPacket&) const = default;
};

class NflogReader {
 public:
  // IPv6 header, some extension headers and the ports.
  static constexpr std::uint32_t kCopyBytes = 128;
  // The rules limit themselves to some 20 packets a second each; 1 MB holds thousands.
  static constexpr int kQueueBytes = 1024 * 1024;
  static constexpr int kMaxReads = 64;
  // The kernel hands over that many packets at once, or after this time.
  static constexpr std::uint32_t kBatchPackets = 32;
  static constexpr std::uint32_t kBatchTimeoutCs = 5;  // 1/100 s

  // Of the calling thread's namespace; through call_in_netns() of another.
  [[nodiscard]] static Result<NflogReader> open(std::uint16_t group);

  [[nodiscard]] int fd() const { return channel_.fd(); }
  // Non-blocking; empty when there is nothing.
  [[nodiscard]] Result<std::vector<LogPacket>> read();
  // How often packets were lost because we were slow; how many is not known.
  [[nodiscard]] std::uint64_t overruns() const { return overruns_; }
  void set_receive_queue_for_test(int bytes) { channel_.set_receive_queue(bytes); }

 private:
  explicit NflogReader(Channel channel) : channel_(std::move(channel)) {}

  Channel channel_;
  std::uint64_t overruns_ = 0;
};

// NFULNL_MSG_PACKET content with its nfgenmsg; nothing without an IP packet in it.
[[nodiscard]] std::optional<LogPacket> decode_log_packet(ByteView content);

}  // namespace meshd::netlink
