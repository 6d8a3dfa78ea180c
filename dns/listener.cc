// Making and recognising the resolver's sockets.
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "dns/server.h"
#include "dns/socket_address.h"

namespace meshd::dns {
namespace {

// A burst of a whole node's containers fits: some 5,000 queries.
constexpr int kReceiveQueue = 4 << 20;
constexpr int kBacklog = 128;
// How often a port that the kernel picks may turn out to be half taken.
constexpr int kPicks = 16;

Status set_option(int fd, int level, int option, int value, const char* what) {
  if (setsockopt(fd, level, option, &value, sizeof value) == 0) return {};
  return fail_errno(what, errno);
}

Result<Listener> open_one(const IpAddress& address, std::uint16_t port, bool udp, int worker,
                          bool shared) {
  Listener listener;
  listener.udp = udp;
  listener.address = address;
  listener.worker = worker;
  const int kind = (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
  listener.fd = UniqueFd(socket(address.is_v4() ? AF_INET : AF_INET6, kind, 0));
  const auto what =
      fmt::format("listen on {} {} port {}", udp ? "udp" : "tcp", address.to_string(), port);
  if (!listener.fd) return fail_errno(what, errno);
  const int fd = listener.fd.get();
  if (address.is_v4()) {
    CHECK_OK(set_option(fd, IPPROTO_IP, IP_FREEBIND, 1, "IP_FREEBIND"));
  } else {
    CHECK_OK(set_option(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1, "IPV6_FREEBIND"));
    CHECK_OK(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, "IPV6_V6ONLY"));
  }
  if (shared) CHECK_OK(set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT"));
  if (!udp) CHECK_OK(set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR"));
  // Beyond the system's limit where we may, up to it where not.
  if (udp &&
      setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveQueue, sizeof kReceiveQueue) != 0) {
    CHECK_OK(set_option(fd, SOL_SOCKET, SO_RCVBUF, kReceiveQueue, "SO_RCVBUF"));
  }
  const auto target = to_sockaddr(address, port);
  if (bind(fd, target.get(), target.size()) != 0) return fail_errno(what, errno);
  if (!udp && listen(fd, kBacklog) != 0) return fail_errno(what, errno);
  return listener;
}

Result<std::vector<Listener>> open_all(const IpAddress& address, std::uint16_t port, int workers) {
  std::vector<Listener> listeners;
  for (int worker = 0; worker < workers; ++worker) {
    for (const bool udp : {true, false}) {
      listeners.push_back(TRY(open_one(address, port, udp, worker, workers > 1)));
      // The first socket's port is everybody's.
      if (port == 0) port = TRY(local_port(listeners.back().fd.get()));
    }
  }
  return listeners;
}

}  // namespace

// A colon would end the name in the service manager's list.
std::string Listener::name() const {
  auto text = address.to_string();
  std::ranges::replace(text, ':', '_');
  return fmt::format("dns-{}-{}-{}", udp ? "udp" : "tcp", text, worker);
}

Result<std::vector<Listener>> open_listeners(const std::vector<IpAddress>& addresses,
                                             std::uint16_t port, int workers) {
  std::vector<Listener> listeners;
  for (const auto& address : addresses) {
    auto own = open_all(address, port, workers);
    // What the kernel picked for UDP somebody else may have for TCP.
    for (int again = 0; port == 0 && !own && again < kPicks; ++again) {
      own = open_all(address, port, workers);
    }
    std::ranges::move(TRY(std::move(own)), std::back_inserter(listeners));
  }
  return listeners;
}

Result<Listener> open_listener(const IpAddress& address, std::uint16_t port, bool udp, int worker) {
  return open_one(address, port, udp, worker, /*shared=*/true);
}

Result<Listener> adopt_listener(UniqueFd fd, const std::string& name) {
  Listener listener;
  const auto bad = [&] { return fail(ErrorCode::kInvalid, "not a socket of ours: " + name); };
  const std::string_view text = name;
  if (!text.starts_with("dns-udp-") && !text.starts_with("dns-tcp-")) return bad();
  listener.udp = text.starts_with("dns-udp-");
  const auto dash = text.rfind('-');
  if (dash <= 8) return bad();
  std::string spelled(text.substr(8, dash - 8));
  std::ranges::replace(spelled, '_', ':');
  auto address = IpAddress::parse(spelled);
  const auto number = text.substr(dash + 1);
  const auto parsed = std::from_chars(number.begin(), number.end(), listener.worker);
  if (!address || parsed.ec != std::errc() || parsed.ptr != number.end()) return bad();
  listener.address = *address;
  int kind = 0;
  socklen_t size = sizeof kind;
  if (getsockopt(fd.get(), SOL_SOCKET, SO_TYPE, &kind, &size) != 0 ||
      kind != (listener.udp ? SOCK_DGRAM : SOCK_STREAM)) {
    return bad();
  }
  // Made when there was one worker, it may be one of several now.
  CHECK_OK(set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT"));
  listener.fd = std::move(fd);
  return listener;
}

Result<std::uint16_t> local_port(int fd) {
  SocketAddress own;
  if (getsockname(fd, own.get(), &own.size_) != 0) return fail_errno("getsockname", errno);
  return own.port();
}

}  // namespace meshd::dns
