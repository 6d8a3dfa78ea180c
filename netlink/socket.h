// A netlink socket for nfnetlink (nftables): sends whole messages, receives datagrams,
// never blocks without a time limit.
//
// Threads: not thread-safe; one owner. It belongs to the network namespace of the thread
//          that opened it, for good.
// Owns:    the socket; tables made through it with kTableOwner live as long as it does.
// Errors:  kSystem with the errno. ENOBUFS and ETIMEDOUT mean that replies were lost:
//          what became of the request is unknown (see outcome_unknown()).
// Source:  netlink(7); nfnetlink processes a message within sendmsg (kernel 6.18, seen).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"

struct mnl_socket;

namespace meshd::netlink {

using MessageSpan = std::span<const std::byte>;

// True when an Error of this folder leaves open whether the kernel did what was asked:
// read the state back before going on.
[[nodiscard]] bool outcome_unknown(const Error& error);

class Socket {
 public:
  // The kernel answers within sendmsg; this only bounds what should never happen.
  static constexpr std::chrono::milliseconds kReplyTimeout{5'000};
  // Dumps come in datagrams of at most 32 KiB (netlink's own limit).
  static constexpr std::size_t kReceiveBytes = 64 * 1024;
  // Room for the errors of some thousand refused messages of one batch.
  static constexpr int kQueueBytes = 4 * 1024 * 1024;

  [[nodiscard]] static Result<Socket> open();

  [[nodiscard]] int fd() const;
  // What the kernel knows this socket by: the owner of tables, the source of events.
  [[nodiscard]] std::uint32_t port_id() const;
  // A number for the next request; never one that a batch uses (see nft_batch.h).
  [[nodiscard]] std::uint32_t next_sequence();

  // All of `message` in one sendmsg; raises the send buffer to what that needs.
  [[nodiscard]] Status send(MessageSpan message);
  // The next datagram, valid until the next call.
  [[nodiscard]] Result<MessageSpan> receive(std::chrono::milliseconds timeout = kReplyTimeout);
  // Forgets replies of earlier requests that nobody waited for.
  void drain();

  [[nodiscard]] Status join_group(unsigned group);
  // As much as is allowed up to `bytes`.
  void set_receive_queue(int bytes);

 private:
  struct Close {
    void operator()(mnl_socket* socket) const;
  };
  explicit Socket(mnl_socket* socket) : socket_(socket), buffer_(kReceiveBytes) {}

  std::unique_ptr<mnl_socket, Close> socket_;
  std::vector<std::byte> buffer_;
  std::size_t send_limit_ = 0;  // largest message the send buffer is known to take
  std::uint32_t sequence_ = 0;
};

}  // namespace meshd::netlink
