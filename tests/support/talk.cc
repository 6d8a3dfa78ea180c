#include "tests/support/talk.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/flows.h"

namespace meshd::test {
namespace {

int socket_type(Proto proto) { return proto == Proto::kTcp ? SOCK_STREAM : SOCK_DGRAM; }

bool wait_for(int fd, short events, std::chrono::milliseconds limit) {
  pollfd wait{.fd = fd, .events = events, .revents = 0};
  return poll(&wait, 1, static_cast<int>(limit.count())) == 1;
}

Talk from_errno(int error) {
  // EPERM: of a process on the node, whose own datagram is refused on its way out.
  if (error == ECONNREFUSED || error == ECONNRESET || error == EPIPE || error == EPERM) {
    return Talk::kRefused;
  }
  return error == EAGAIN || error == ETIMEDOUT ? Talk::kSilent : Talk::kOther;
}

int socket_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

Talk ask_on(int fd, std::chrono::milliseconds limit) {
  const char question[] = "hello";
  if (send(fd, question, sizeof question, MSG_NOSIGNAL) < 0) return from_errno(errno);
  if (!wait_for(fd, POLLIN, limit)) return Talk::kSilent;
  char answer[64];
  const auto got = recv(fd, answer, sizeof answer, 0);
  if (got < 0) return from_errno(errno);
  return got > 0 ? Talk::kAnswered : Talk::kRefused;
}

UniqueFd socket_in(const netlink::Netns& netns, Proto proto, const IpAddress& to) {
  UniqueFd fd;
  must(netlink::run_in_netns(netns.fd(),
                             [&] { fd = make_socket(to, socket_type(proto) | SOCK_NONBLOCK); }));
  return fd;
}

// Connects, or says why not.
Talk open_to(const UniqueFd& fd, const IpAddress& to, std::uint16_t port,
             const std::optional<IpAddress>& from, std::chrono::milliseconds limit) {
  if (from) {
    const auto local = endpoint(*from, 0);
    if (bind(fd.get(), local.get(), local.length) != 0) return Talk::kOther;
  }
  const auto remote = endpoint(to, port);
  if (connect(fd.get(), remote.get(), remote.length) == 0) return Talk::kAnswered;
  if (errno != EINPROGRESS) return from_errno(errno);
  if (!wait_for(fd.get(), POLLOUT, limit)) return Talk::kSilent;
  const int error = socket_error(fd.get());
  return error == 0 ? Talk::kAnswered : from_errno(error);
}

std::uint32_t sum16(std::span<const std::uint8_t> bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) sum += i % 2 == 0 ? bytes[i] << 8 : bytes[i];
  return sum;
}

std::uint16_t checksum(std::uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

void append(std::vector<std::uint8_t>& out, std::span<const std::uint8_t> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}
void append16(std::vector<std::uint8_t>& out, std::uint16_t value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8));
  out.push_back(static_cast<std::uint8_t>(value & 0xff));
}

// RFC 768; the checksum over addresses, protocol and length is one sum for both versions.
std::vector<std::uint8_t> udp(const RawDatagram& datagram) {
  std::vector<std::uint8_t> bytes;
  append16(bytes, datagram.source_port);
  append16(bytes, datagram.port);
  append16(bytes, 12);
  append16(bytes, 0);
  append(bytes, std::array<std::uint8_t, 4>{'r', 'a', 'w', '!'});
  const auto sum =
      sum16(datagram.from.bytes()) + sum16(datagram.to.bytes()) + 17 + 12 + sum16(bytes);
  const auto value = checksum(sum);
  bytes[6] = static_cast<std::uint8_t>(value >> 8);
  bytes[7] = static_cast<std::uint8_t>(value & 0xff);
  return bytes;
}

IpAddress address_of(const sockaddr_storage& peer) {
  if (peer.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&peer);
    return IpAddress::v4(ntohl(v4->sin_addr.s_addr));
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&peer);
  return IpAddress::v6(std::span<const std::uint8_t, 16>(v6->sin6_addr.s6_addr, 16));
}

}  // namespace

std::ostream& operator<<(std::ostream& out, Talk talk) {
  constexpr std::array kNames = {"answered", "refused", "silent", "other"};
  return out << kNames[static_cast<std::size_t>(talk)];
}

Talk talk(const netlink::Netns& netns, Proto proto, const IpAddress& to, std::uint16_t port,
          const std::optional<IpAddress>& from, std::chrono::milliseconds limit) {
  const auto fd = socket_in(netns, proto, to);
  const auto opened = open_to(fd, to, port, from, limit);
  return opened == Talk::kAnswered ? ask_on(fd.get(), limit) : opened;
}

Talk talk_here(Proto proto, const IpAddress& to, std::uint16_t port) {
  const auto fd = make_socket(to, socket_type(proto) | SOCK_NONBLOCK);
  const auto opened = open_to(fd, to, port, std::nullopt, kPatience);
  return opened == Talk::kAnswered ? ask_on(fd.get(), kPatience) : opened;
}

Talk ping(const netlink::Netns& netns, const IpAddress& to, std::chrono::milliseconds limit) {
  UniqueFd fd;
  must(netlink::run_in_netns(netns.fd(), [&] {
    fd.reset(socket(to.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC,
                    to.is_v4() ? +IPPROTO_ICMP : +IPPROTO_ICMPV6));
  }));
  EXPECT_TRUE(fd) << strerror(errno);
  const auto remote = endpoint(to, 0);
  if (connect(fd.get(), remote.get(), remote.length) != 0) return Talk::kOther;
  // Type, code, checksum (the kernel's), identifier (the kernel's), sequence.
  const std::array<std::uint8_t, 8> echo = {
      std::uint8_t{to.is_v4() ? std::uint8_t{8} : std::uint8_t{128}}, 0, 0, 0, 0, 0, 0, 1};
  if (send(fd.get(), echo.data(), echo.size(), 0) < 0) return from_errno(errno);
  if (!wait_for(fd.get(), POLLIN, limit)) return Talk::kSilent;
  char answer[64];
  return recv(fd.get(), answer, sizeof answer, 0) > 0 ? Talk::kAnswered : from_errno(errno);
}

Conversation::Conversation(const netlink::Netns& netns, Proto proto, const IpAddress& to,
                           std::uint16_t port)
    : fd_(socket_in(netns, proto, to)), opened_(open_to(fd_, to, port, std::nullopt, kPatience)) {}

Talk Conversation::ask() {
  return opened_ == Talk::kAnswered ? ask_on(fd_.get(), kPatience) : opened_;
}

struct EchoServer::State {
  UniqueFd stop{eventfd(0, EFD_CLOEXEC)};
  std::thread thread;
  mutable std::mutex mutex;
  IpAddress last_peer;
  std::atomic<std::uint64_t> questions{0};

  void note(const sockaddr_storage& from) {
    const std::lock_guard lock(mutex);
    last_peer = address_of(from);
    ++questions;
  }
  void serve(UniqueFd tcp, UniqueFd udp);
};

void EchoServer::State::serve(UniqueFd tcp, UniqueFd udp) {
  std::vector<UniqueFd> clients;
  char buffer[64];
  for (;;) {
    std::vector<pollfd> waits = {
        {stop.get(), POLLIN, 0}, {tcp.get(), POLLIN, 0}, {udp.get(), POLLIN, 0}};
    for (const auto& client : clients) waits.push_back({client.get(), POLLIN, 0});
    if (poll(waits.data(), waits.size(), -1) < 0 || waits[0].revents != 0) return;
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    if (waits[2].revents != 0) {
      const auto got =
          recvfrom(udp.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&peer), &size);
      if (got > 0) {
        note(peer);
        sendto(udp.get(), buffer, static_cast<std::size_t>(got), 0,
               reinterpret_cast<sockaddr*>(&peer), size);
      }
    }
    for (std::size_t i = waits.size(); i-- > 3;) {
      if (waits[i].revents == 0) continue;
      const int fd = waits[i].fd;
      const auto got = recv(fd, buffer, sizeof buffer, 0);
      if (got <= 0) {
        clients.erase(clients.begin() + static_cast<std::ptrdiff_t>(i - 3));
        continue;
      }
      size = sizeof peer;
      getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size);
      note(peer);
      static_cast<void>(send(fd, buffer, static_cast<std::size_t>(got), MSG_NOSIGNAL));
    }
    if (waits[1].revents != 0) {
      UniqueFd client(accept4(tcp.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (client) clients.push_back(std::move(client));
    }
  }
}

EchoServer::EchoServer(const netlink::Netns& netns, const IpAddress& address, std::uint16_t port)
    : state_(std::make_unique<State>()) {
  const auto text = address.to_string();
  auto tcp = serve(netns, text.c_str(), port, SOCK_STREAM);
  auto udp = serve(netns, text.c_str(), port, SOCK_DGRAM);
  state_->thread =
      std::thread([state = state_.get(), tcp = std::move(tcp), udp = std::move(udp)]() mutable {
        state->serve(std::move(tcp), std::move(udp));
      });
}

EchoServer::~EchoServer() {
  const std::uint64_t one = 1;
  static_cast<void>(!write(state_->stop.get(), &one, sizeof one));
  state_->thread.join();
}

IpAddress EchoServer::last_peer() const {
  const std::lock_guard lock(state_->mutex);
  return state_->last_peer;
}

std::uint64_t EchoServer::questions() const { return state_->questions; }

std::vector<std::uint8_t> raw_packet(const RawDatagram& datagram) {
  const auto payload = udp(datagram);
  std::vector<std::uint8_t> bytes;
  if (datagram.to.is_v4()) {
    append(bytes, std::array<std::uint8_t, 2>{0x45, 0});
    append16(bytes, static_cast<std::uint16_t>(20 + payload.size()));
    append(bytes, std::array<std::uint8_t, 8>{0, 1, 0, 0, 64, 17, 0, 0});
  } else {
    append(bytes, std::array<std::uint8_t, 4>{0x60, 0, 0, 0});
    append16(bytes, static_cast<std::uint16_t>(payload.size()));
    append(bytes, std::array<std::uint8_t, 2>{17, 64});
  }
  append(bytes, datagram.from.bytes());
  append(bytes, datagram.to.bytes());
  if (datagram.to.is_v4()) {
    const auto value = checksum(sum16(bytes));
    bytes[10] = static_cast<std::uint8_t>(value >> 8);
    bytes[11] = static_cast<std::uint8_t>(value & 0xff);
  }
  append(bytes, payload);
  return bytes;
}

void send_raw(const netlink::Netns& netns, std::span<const RawDatagram> datagrams) {
  UniqueFd fd;
  unsigned index = 0;
  must(netlink::run_in_netns(netns.fd(), [&] {
    fd.reset(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    index = if_nametoindex("eth0");
  }));
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = static_cast<int>(index);
  to.sll_halen = ETH_ALEN;
  for (const auto& datagram : datagrams) {
    std::vector<std::uint8_t> frame = {2, 0, 0, 0, 0, 1};  // the node's end of every veth
    append(frame, datagram.from_mac.bytes);
    append16(frame, datagram.to.is_v4() ? ETH_P_IP : ETH_P_IPV6);
    append(frame, raw_packet(datagram));
    std::copy_n(frame.begin(), ETH_ALEN, to.sll_addr);
    const auto sent = sendto(fd.get(), frame.data(), frame.size(), 0,
                             reinterpret_cast<const sockaddr*>(&to), sizeof to);
    ASSERT_EQ(sent, static_cast<ssize_t>(frame.size())) << strerror(errno);
  }
}

}  // namespace meshd::test
