#include "netlink/channel.h"

#include <linux/netlink.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <string>

namespace meshd::netlink {
namespace {

int protocol_number(Channel::Protocol protocol) {
  switch (protocol) {
    case Channel::Protocol::kRoute:
      return NETLINK_ROUTE;
    case Channel::Protocol::kSockDiag:
      return NETLINK_SOCK_DIAG;
    case Channel::Protocol::kNetfilter:
      return NETLINK_NETFILTER;
  }
  return -1;
}

// An NLMSG_ERROR, or the end of a dump.
struct Verdict {
  int error = 0;
  std::string words;  // the kernel's own, where it gave some
};

std::string kernel_words(ByteView tail) {
  std::string words;
  for_each_attribute(tail, [&words](std::uint16_t type, ByteView data) {
    if (type != NLMSGERR_ATTR_MSG) return;
    const std::string_view all(reinterpret_cast<const char*>(data.data()), data.size());
    words = all.substr(0, all.find('\0'));
  });
  return words;
}

Verdict read_verdict(const MessageView& message) {
  const int error = -read_host<std::int32_t>(message.payload).value_or(-EBADMSG);
  // Behind the code an NLMSG_ERROR repeats our header (NETLINK_CAP_ACK: not our content).
  const std::size_t fixed = message.type == NLMSG_ERROR ? sizeof(nlmsgerr) : sizeof(std::int32_t);
  const bool has_words = (message.flags & NLM_F_ACK_TLVS) != 0;
  return {error, has_words ? kernel_words(after(message.payload, fixed)) : std::string()};
}

std::unexpected<Error> refused(std::string_view what, int error, const std::string& words) {
  auto failure = fail_errno(std::string(what), error);
  if (!words.empty()) failure.error().what += " (" + words + ")";
  return failure;
}

bool is_absence(int error) { return error == ENODEV || error == ENOENT || error == ESRCH; }

}  // namespace

struct Channel::Outcome {
  int error = 0;
  std::string words;
  bool interrupted = false;  // what was shown may be neither the old nor the new state
};

void Channel::Close::operator()(nl_sock* socket) const { nl_socket_free(socket); }

Result<Channel> Channel::open(Protocol protocol) {
  nl_sock* const raw = nl_socket_alloc();
  if (raw == nullptr) return fail_errno("open netlink socket", ENOMEM);
  Channel channel(raw);
  if (const int error = nl_connect(raw, protocol_number(protocol)); error < 0) {
    return fail(ErrorCode::kSystem, std::string("open netlink socket: ") + nl_geterror(error),
                errno);
  }
  const int fd = channel.fd();
  const auto set = [fd](int option) {
    const int on = 1;
    return ::setsockopt(fd, SOL_NETLINK, option, &on, sizeof on) == 0;
  };
  // Without these errors have no words, and filters of dumps are ignored (which is safe:
  // whoever filters looks at the answer again).
  set(NETLINK_EXT_ACK);
  set(NETLINK_CAP_ACK);
  if (protocol == Protocol::kRoute) set(NETLINK_GET_STRICT_CHK);
  channel.set_receive_queue(kQueueBytes);
  return channel;
}

int Channel::fd() const { return nl_socket_get_fd(socket_.get()); }

std::uint32_t Channel::port_id() const { return nl_socket_get_local_port(socket_.get()); }

Status Channel::send(ByteView bytes, std::string_view what) {
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  for (;;) {
    const auto sent = ::sendto(fd(), bytes.data(), bytes.size(), 0,
                               reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
    if (sent >= 0) return {};  // a datagram goes whole or not at all
    if (errno != EINTR) return fail_errno(std::string(what), errno);
  }
}

Status Channel::join_group(unsigned group) {
  if (::setsockopt(fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0) {
    return fail_errno("join netlink group " + std::to_string(group), errno);
  }
  return {};
}

void Channel::set_receive_queue(int bytes) {
  // Beyond net.core.rmem_max where CAP_NET_ADMIN allows it.
  if (::setsockopt(fd(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0) {
    ::setsockopt(fd(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  }
}

Result<std::optional<ByteView>> Channel::receive_now() {
  for (;;) {
    sockaddr_nl sender{};
    socklen_t length = sizeof sender;
    const auto got = ::recvfrom(fd(), buffer_.data(), buffer_.size(), MSG_DONTWAIT | MSG_TRUNC,
                                reinterpret_cast<sockaddr*>(&sender), &length);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return std::nullopt;
      return fail_errno("receive from the kernel", errno);
    }
    if (sender.nl_pid != 0) continue;  // not from the kernel
    const auto size = static_cast<std::size_t>(got);
    if (size > buffer_.size()) return fail_errno("receive from the kernel", EMSGSIZE);
    return ByteView(buffer_).first(size);
  }
}

Result<ByteView> Channel::receive(std::string_view what) {
  const auto deadline = std::chrono::steady_clock::now() + kReplyTimeout;
  for (;;) {
    auto datagram = receive_now();
    if (!datagram) return std::unexpected(std::move(datagram).error().in(what));
    if (*datagram) return **datagram;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return fail_errno(std::string(what) + ": no answer", ETIMEDOUT);
    pollfd wait{.fd = fd(), .events = POLLIN, .revents = 0};
    ::poll(&wait, 1, static_cast<int>(left.count()) + 1);
  }
}

Result<Channel::Outcome> Channel::converse(Message& message, Mode mode, std::string_view what,
                                           const Visit& visit) {
  const std::uint32_t sequence = ++sequence_;
  const auto flags =
      static_cast<std::uint16_t>(NLM_F_REQUEST | (mode == Mode::kDump ? NLM_F_DUMP : NLM_F_ACK));
  const ByteView request = message.seal(sequence, flags);
  if (request.empty()) return fail(ErrorCode::kInternal, std::string(what) + ": message too long");
  CHECK_OK(send(request, what));
  Outcome outcome;
  for (bool done = false; !done;) {
    const auto datagram = receive(what);
    if (!datagram) {
      // The rest of a dump still comes: read it to its end, or the next one meets EBUSY.
      if (mode != Mode::kDump || datagram.error().sys_errno != ENOBUFS) {
        return std::unexpected(datagram.error());
      }
      outcome.interrupted = true;
      continue;
    }
    for_each_message(*datagram, [&](const MessageView& one) {
      if (one.sequence != sequence || done) return;  // an answer that nobody waited for
      if ((one.flags & NLM_F_DUMP_INTR) != 0) outcome.interrupted = true;
      if (one.type == NLMSG_ERROR || one.type == NLMSG_DONE) {
        auto verdict = read_verdict(one);
        outcome.error = verdict.error;
        outcome.words = std::move(verdict.words);
        done = true;
      } else if (one.type >= NLMSG_MIN_TYPE && visit) {
        visit(one.type, one.payload);
      }
    });
  }
  return outcome;
}

Status Channel::change(Message message, std::string_view what) {
  ++changes_;
  const Outcome outcome = TRY(converse(message, Mode::kAck, what, nullptr));
  if (outcome.error != 0) return refused(what, outcome.error, outcome.words);
  return {};
}

Result<bool> Channel::get(Message message, std::string_view what, const Visit& visit) {
  const Outcome outcome = TRY(converse(message, Mode::kGet, what, visit));
  if (is_absence(outcome.error)) return false;
  if (outcome.error != 0) return refused(what, outcome.error, outcome.words);
  return true;
}

Status Channel::dump(Message message, std::string_view what, const std::function<void()>& restart,
                     const Visit& visit) {
  for (int attempt = 0; attempt < kMaxDumpAttempts; ++attempt) {
    restart();
    const Outcome outcome = TRY(converse(message, Mode::kDump, what, visit));
    // EBUSY: an earlier dump, given up after its time, is still being read to its end.
    if (outcome.error == EBUSY) {
      while (::recv(fd(), buffer_.data(), buffer_.size(), MSG_DONTWAIT) > 0) {
      }
      continue;
    }
    if (outcome.interrupted || outcome.error == EINTR) continue;
    if (outcome.error != 0) return refused(what, outcome.error, outcome.words);
    return {};
  }
  return fail_errno(
      std::string(what) + ": changed during each of " + std::to_string(kMaxDumpAttempts) + " reads",
      EAGAIN);
}

Status Channel::collect_acks(std::uint32_t first, std::span<int> outcomes, std::string_view what) {
  for (std::size_t open = outcomes.size(); open > 0;) {
    const ByteView datagram = TRY(receive(what));
    for_each_message(datagram, [&](const MessageView& one) {
      const std::uint32_t index = one.sequence - first;  // wraps for what is older
      if (one.type != NLMSG_ERROR || index >= outcomes.size() || open == 0) return;
      outcomes[index] = read_verdict(one).error;
      --open;
    });
  }
  return {};
}

Result<std::vector<int>> Channel::change_many(std::span<Message> messages, std::string_view what) {
  std::vector<int> outcomes(messages.size(), 0);
  std::vector<std::byte> datagram;
  for (std::size_t done = 0; done < messages.size();) {
    const std::size_t count = std::min(kMaxBatch, messages.size() - done);
    const std::uint32_t first = sequence_ + 1;
    datagram.clear();
    for (Message& message : messages.subspan(done, count)) {
      const ByteView bytes = message.seal(++sequence_, NLM_F_REQUEST | NLM_F_ACK);
      if (bytes.empty())
        return fail(ErrorCode::kInternal, std::string(what) + ": message too long");
      datagram.insert(datagram.end(), bytes.begin(), bytes.end());
      datagram.resize(align4(datagram.size()));
    }
    changes_ += count;
    CHECK_OK(send(datagram, what));
    CHECK_OK(collect_acks(first, std::span(outcomes).subspan(done, count), what));
    done += count;
  }
  return outcomes;
}

}  // namespace meshd::netlink
