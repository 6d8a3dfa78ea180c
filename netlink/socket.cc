#include "netlink/socket.h"

#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

namespace meshd::netlink {
namespace {

// Below the first of our requests: batches number their messages from 1 (nft_batch.cc).
constexpr std::uint32_t kFirstSequence = 0x8000'0000;

// The default send buffer (net.core.wmem_default) is known to take this.
constexpr std::size_t kDefaultSendBytes = 128 * 1024;

Status set_option(int fd, int level, int option, int value, const char* what) {
  if (setsockopt(fd, level, option, &value, sizeof value) != 0) return fail_errno(what, errno);
  return {};
}

// The forced form goes beyond the system's maximum and needs CAP_NET_ADMIN, which whoever
// changes a ruleset has; a mere listener makes do with the maximum.
bool set_buffer(int fd, int forced, int plain, int bytes) {
  return setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) == 0 ||
         setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes) == 0;
}

}  // namespace

bool outcome_unknown(const Error& error) {
  return error.code == ErrorCode::kSystem &&
         (error.sys_errno == ENOBUFS || error.sys_errno == ETIMEDOUT);
}

void Socket::Close::operator()(mnl_socket* socket) const { mnl_socket_close(socket); }

Result<Socket> Socket::open() {
  mnl_socket* raw = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (raw == nullptr) return fail_errno("open a netfilter netlink socket", errno);
  Socket socket(raw);
  if (mnl_socket_bind(raw, 0, MNL_SOCKET_AUTOPID) != 0) {
    return fail_errno("bind a netfilter netlink socket", errno);
  }
  const int fd = socket.fd();
  // Errors without a copy of the refused message (64 KiB each), with the kernel's own text.
  CHECK_OK(set_option(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1, "set NETLINK_CAP_ACK"));
  CHECK_OK(set_option(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1, "set NETLINK_EXT_ACK"));
  socket.set_receive_queue(kQueueBytes);
  socket.send_limit_ = kDefaultSendBytes;
  socket.sequence_ = kFirstSequence;
  return socket;
}

int Socket::fd() const { return mnl_socket_get_fd(socket_.get()); }

std::uint32_t Socket::port_id() const { return mnl_socket_get_portid(socket_.get()); }

std::uint32_t Socket::next_sequence() {
  sequence_ = (sequence_ + 1) | kFirstSequence;
  return sequence_;
}

Status Socket::send(MessageSpan message) {
  if (message.size() > send_limit_) {
    // netlink refuses a message above the send buffer less 32 bytes; the kernel doubles
    // the number given, so this leaves room for its book-keeping.
    set_buffer(fd(), SO_SNDBUFFORCE, SO_SNDBUF, static_cast<int>(message.size()) + 65536);
    send_limit_ = message.size();
  }
  for (;;) {
    const ssize_t sent = mnl_socket_sendto(socket_.get(), message.data(), message.size());
    if (sent >= 0) return {};
    if (errno != EINTR) return fail_errno("send to nf_tables", errno);
  }
}

Result<MessageSpan> Socket::receive(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    sockaddr_nl sender{};
    socklen_t sender_size = sizeof sender;
    // MSG_TRUNC makes the kernel say how long the datagram really was.
    const ssize_t got = recvfrom(fd(), buffer_.data(), buffer_.size(), MSG_TRUNC,
                                 reinterpret_cast<sockaddr*>(&sender), &sender_size);
    if (got >= 0 && sender.nl_pid != 0) continue;  // another process, not the kernel
    if (got >= 0) {
      const auto length = static_cast<std::size_t>(got);
      if (length > buffer_.size()) return fail_errno("a datagram was cut off", ENOBUFS);
      return MessageSpan(buffer_.data(), length);
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return fail_errno("receive from nf_tables", errno);
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return fail_errno("no answer from nf_tables", ETIMEDOUT);
    pollfd waiting{.fd = fd(), .events = POLLIN, .revents = 0};
    if (poll(&waiting, 1, static_cast<int>(left.count()) + 1) < 0 && errno != EINTR) {
      return fail_errno("wait for nf_tables", errno);
    }
  }
}

void Socket::drain() {
  // Bounded: only our own requests are answered here, and a queue holds no more than this.
  constexpr int kMaxStale = kQueueBytes / 256;
  for (int i = 0; i < kMaxStale; ++i) {
    if (recv(fd(), buffer_.data(), buffer_.size(), 0) >= 0) continue;
    // ENOBUFS reports an overflow of the past; it is over once it has been read.
    if (errno != EINTR && errno != ENOBUFS) return;
  }
}

Status Socket::join_group(unsigned group) {
  return set_option(fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, static_cast<int>(group),
                    "listen to nf_tables");
}

void Socket::set_receive_queue(int bytes) { set_buffer(fd(), SO_RCVBUFFORCE, SO_RCVBUF, bytes); }

}  // namespace meshd::netlink
