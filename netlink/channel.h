// One netlink socket for questions to the kernel: a change and its acknowledgement, a dump,
// or the kernel's own reports. Used for rtnetlink, conntrack, sock_diag and nflog.
//
// Threads:    not thread-safe; one owner. The socket belongs to the network namespace of
//             the thread that opened it (see netns.h) and works from any thread.
// Owns:       the socket. It keeps its network namespace alive: close it when the
//             container ends.
// Invariants: no call waits longer than kReplyTimeout for the next datagram; an answer to
//             an earlier request is never taken for the present one's.
// Errors:     kSystem with the errno and, where the kernel gave one, its own words. On
//             ETIMEDOUT and ENOBUFS of a change it is unknown whether it was made.
// Source:     netlink(7); linux/netlink.h. The socket and the messages are libnl's, the
//             receiving is ours: libnl 3.7 folds the errno into its own codes, ignores the
//             error of an interrupted dump and copies every message.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "netlink/message.h"

struct nl_sock;

namespace meshd::netlink {

class Channel {
 public:
  enum class Protocol { kRoute, kSockDiag, kNetfilter };  // NETLINK_ROUTE and so on

  // The kernel answers a change at once; a dump's datagrams follow each other. Only a
  // stuck rtnl lock takes seconds (a driver resetting), hence the generous limit.
  static constexpr std::chrono::milliseconds kReplyTimeout{5'000};
  // The kernel fills datagrams up to 32 KiB when the reader offers as much.
  static constexpr std::size_t kReceiveBytes = 64 * 1024;
  // A dump is answered as it is read; 1 MB is room for the errors of a batch.
  static constexpr int kQueueBytes = 1024 * 1024;
  // A dump that was interrupted by a change is repeated; a node whose tables change
  // within every one of as many reads is reported instead.
  static constexpr int kMaxDumpAttempts = 8;
  // Acknowledgements per batch that fit into the receive queue with a wide margin.
  static constexpr std::size_t kMaxBatch = 128;

  [[nodiscard]] static Result<Channel> open(Protocol protocol);

  [[nodiscard]] int fd() const;
  // What the kernel knows this socket by: the origin of the events it causes.
  [[nodiscard]] std::uint32_t port_id() const;
  // Changes asked for so far, refused ones included. "Nothing to do" does not count.
  [[nodiscard]] std::uint64_t changes() const { return changes_; }

  // Asks for a change. `what` names it in the error: "add route 10.88.0.1/32 dev v1".
  [[nodiscard]] Status change(Message message, std::string_view what);
  // Several changes in few datagrams: one errno each, 0 where it was made. An Error only
  // when the exchange itself failed.
  [[nodiscard]] Result<std::vector<int>> change_many(std::span<Message> messages,
                                                     std::string_view what);

  // Type and content (behind the netlink header) of one message; valid during the call.
  using Visit = std::function<void(std::uint16_t type, ByteView content)>;
  // One question, one answer. False when the kernel says that there is no such object
  // (ENODEV, ENOENT, ESRCH).
  [[nodiscard]] Result<bool> get(Message message, std::string_view what, const Visit& visit);
  // `restart` is called before each attempt: forget what earlier ones have shown.
  [[nodiscard]] Status dump(Message message, std::string_view what,
                            const std::function<void()>& restart, const Visit& visit);

  // For sockets that listen. Groups by RTNLGRP_ number.
  [[nodiscard]] Status join_group(unsigned group);
  // As much as is allowed up to `bytes`.
  void set_receive_queue(int bytes);
  // The next datagram, valid until the next call; nothing when none is there. ENOBUFS:
  // some were lost, the next call goes on.
  [[nodiscard]] Result<std::optional<ByteView>> receive_now();

 private:
  struct Close {
    void operator()(nl_sock* socket) const;
  };
  enum class Mode { kAck, kGet, kDump };
  struct Outcome;  // of one exchange
  explicit Channel(nl_sock* socket) : socket_(socket), buffer_(kReceiveBytes) {}

  [[nodiscard]] Status send(ByteView bytes, std::string_view what);
  [[nodiscard]] Result<ByteView> receive(std::string_view what);
  [[nodiscard]] Result<Outcome> converse(Message& message, Mode mode, std::string_view what,
                                         const Visit& visit);
  [[nodiscard]] Status collect_acks(std::uint32_t first, std::span<int> outcomes,
                                    std::string_view what);

  std::unique_ptr<nl_sock, Close> socket_;
  std::vector<std::byte> buffer_;
  std::uint32_t sequence_ = 0;
  std::uint64_t changes_ = 0;
};

// A dump as a vector. `decode` makes a std::optional<T> of (type, content); what it does
// not want it leaves out.
template <class T, class Decode>
[[nodiscard]] Result<std::vector<T>> dump_all(Channel& channel, Message message,
                                              std::string_view what, Decode decode) {
  std::vector<T> all;
  CHECK_OK(channel.dump(
      std::move(message), what, [&all] { all.clear(); },
      [&](std::uint16_t type, ByteView content) {
        if (auto one = decode(type, content)) all.push_back(*std::move(one));
      }));
  return all;
}

}  // namespace meshd::netlink
