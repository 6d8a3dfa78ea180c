// Tells that the ruleset changed: one event per transaction that touched the named table,
// with who did it. The caller then reads the table (nft_dump.h) if it was not itself.
//
// Threads:    not thread-safe; one owner, which watches fd() for reading.
// Invariants: no change goes unnoticed: where the kernel dropped messages because we were
//             slow, a kUnknown event says so.
// Source:     NFNLGRP_NFTABLES; NFT_MSG_NEWGEN ends each transaction and names the writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "netlink/socket.h"

namespace meshd::netlink {

struct TableEvent {
  enum class Kind : std::uint8_t {
    kChanged,  // by the process below
    kUnknown,  // messages were lost: the table may have changed
  };
  Kind kind = Kind::kUnknown;
  std::uint32_t generation = 0;
  std::uint32_t port_id = 0;  // the writer's socket; compare with Socket::port_id()
  std::uint32_t pid = 0;
  std::string process;   // name of the writer's process, at most 15 bytes
  bool deleted = false;  // the table itself was removed
};

// The pure half: datagrams in, events out.
class TableEventDecoder {
 public:
  explicit TableEventDecoder(std::string table) : table_(std::move(table)) {}
  void feed(std::span<const std::byte> datagram, std::vector<TableEvent>& events);
  // Messages were lost.
  void lost(std::vector<TableEvent>& events);
  // Whether anything came of a table `filter` of `ip` or `ip6` since the last call, or may have.
  [[nodiscard]] bool take_filter() { return std::exchange(filter_, false); }
  // Of the last transaction that was read to its end, whichever tables it was about.
  [[nodiscard]] std::optional<std::uint32_t> generation() const { return generation_; }

 private:
  void take(std::uint16_t type, std::uint32_t port_id, std::span<const std::byte> attributes,
            std::vector<TableEvent>& events);

  std::string table_;
  bool touched_ = false;  // by the transaction whose messages are being read
  bool deleted_ = false;
  bool filter_ = false;
  std::optional<std::uint32_t> generation_;
};

class NftMonitor {
 public:
  // 20,000 element events fit into 8 MB (kernel 6.18, seen); 212,992 bytes lost some after 2,750.
  static constexpr int kQueueBytes = 8 * 1024 * 1024;
  // Datagrams read in one call, so that a busy writer cannot hold the loop up.
  static constexpr int kMaxReads = 256;

  [[nodiscard]] static Result<NftMonitor> make(std::string table);
  [[nodiscard]] int fd() const { return socket_.fd(); }
  // Non-blocking. May return nothing although fd() was readable: others' tables changed,
  // or a transaction's end is still to come.
  [[nodiscard]] Result<std::vector<TableEvent>> read_events();
  // Whether iptables' own rules changed, by whomever, since the last call; or may have.
  [[nodiscard]] bool take_filter() { return decoder_.take_filter(); }
  // Up to where the last read_events() told of everything; nothing: there was more to read.
  [[nodiscard]] std::optional<std::uint32_t> heard() const {
    return drained_ ? decoder_.generation() : std::nullopt;
  }
  void set_receive_queue_for_test(int bytes) { socket_.set_receive_queue(bytes); }

 private:
  NftMonitor(Socket socket, std::string table)
      : socket_(std::move(socket)), decoder_(std::move(table)) {}

  Socket socket_;
  TableEventDecoder decoder_;
  bool drained_ = false;
};

}  // namespace meshd::netlink
