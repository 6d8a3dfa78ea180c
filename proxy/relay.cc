#include "proxy/relay.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace meshd::proxy {
namespace {

constexpr std::string_view kSuffix = ".sock";
constexpr int kBacklog = 64;
// A peer whose machine has gone is noticed after some minutes, as nginx's side would be.
constexpr int kIdleS = 60, kIntervalS = 20, kProbes = 3;

void remove_sockets(const std::string& dir) {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(dir.c_str()), &closedir);
  if (!listing) return;
  while (const auto* entry = readdir(listing.get())) {
    if (std::string_view(entry->d_name).ends_with(kSuffix)) {
      unlinkat(dirfd(listing.get()), entry->d_name, 0);
    }
  }
}

Status make_folder(const std::string& dir, gid_t group) {
  if (mkdir(dir.c_str(), 0750) != 0 && errno != EEXIST) return fail_errno("make " + dir, errno);
  const UniqueFd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno("open " + dir, errno);
  if (group != static_cast<gid_t>(-1) && fchown(fd.get(), static_cast<uid_t>(-1), group) != 0) {
    return fail_errno("give " + dir + " to its group", errno);
  }
  if (fchmod(fd.get(), 0750) != 0) return fail_errno("chmod " + dir, errno);
  return {};
}

UniqueFd socket_to(const Upstream& upstream) {
  const int family = upstream.address.is_v4() ? AF_INET : AF_INET6;
  UniqueFd fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fd;
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPIDLE, &kIdleS, sizeof kIdleS);
  setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPINTVL, &kIntervalS, sizeof kIntervalS);
  setsockopt(fd.get(), IPPROTO_TCP, TCP_KEEPCNT, &kProbes, sizeof kProbes);
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  const sockaddr* name = reinterpret_cast<const sockaddr*>(&v6);
  socklen_t size = sizeof v6;
  const auto bytes = upstream.address.bytes();
  if (upstream.address.is_v4()) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(upstream.port);
    std::memcpy(&v4.sin_addr, bytes.data(), bytes.size());
    name = reinterpret_cast<const sockaddr*>(&v4);
    size = sizeof v4;
  } else {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(upstream.port);
    std::memcpy(&v6.sin6_addr, bytes.data(), bytes.size());
  }
  if (::connect(fd.get(), name, size) != 0 && errno != EINPROGRESS) fd.reset();
  return fd;
}

// How much of it the socket took; -1: it is broken.
ssize_t send_some(int fd, std::span<const std::uint8_t> bytes) {
  const auto sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return sent;
  return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

}  // namespace

Result<std::unique_ptr<Relay>> Relay::make(const std::string& dir, gid_t group,
                                           const RelayLimits& limits) {
  CHECK_OK(make_folder(dir, group));
  remove_sockets(dir);
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno("epoll_create1", errno);
  return std::unique_ptr<Relay>(new Relay(dir, std::move(epoll), limits));
}

Relay::~Relay() {
  while (!doors_.empty()) remove(doors_.begin());
}

// --- doors ---------------------------------------------------------------------------

Status Relay::listen(Door& door) const {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (door.path.size() >= sizeof name.sun_path) {
    return fail(ErrorCode::kInvalid, door.path + ": longer than a socket's path can be");
  }
  std::ranges::copy(door.path, name.sun_path);
  door.listener = UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!door.listener) return fail_errno("socket", errno);
  // Who may enter is said by the directory; the mode is set before anybody can connect.
  if (bind(door.listener.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
      chmod(door.path.c_str(), 0666) != 0 || ::listen(door.listener.get(), kBacklog) != 0) {
    return fail_errno("listen on " + door.path, errno);
  }
  door.source.door = &door;
  epoll_event event{.events = EPOLLIN, .data = {.ptr = &door.source}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, door.listener.get(), &event) != 0) {
    return fail_errno("epoll_ctl", errno);
  }
  return {};
}

Result<std::string> Relay::open(const std::string& key, const Upstream& upstream, TimePoint now) {
  const auto known = doors_.find(key);
  if (known != doors_.end()) {
    auto& door = *known->second;
    if (door.upstream != upstream) end_all(door);
    door.upstream = upstream;
    door.used = now;
    return door.path;
  }
  if (doors_.size() >= limits_.doors) {
    return fail(ErrorCode::kExhausted,
                fmt::format("{} callers have websockets open", limits_.doors));
  }
  auto door = std::make_unique<Door>();
  door->key = key;
  door->path = fmt::format("{}/{}{}", dir_, key, kSuffix);
  door->upstream = upstream;
  door->used = now;
  if (auto status = listen(*door); !status) {
    unlink(door->path.c_str());
    return std::unexpected(std::move(status).error());
  }
  return doors_.emplace(key, std::move(door)).first->second->path;
}

void Relay::remove(std::map<std::string, std::unique_ptr<Door>>::iterator door) {
  end_all(*door->second);
  unlink(door->second->path.c_str());
  door->second->listener.reset();
  removed_.push_back(std::move(door->second));
  doors_.erase(door);
}

void Relay::cut(const std::string& key) {
  if (const auto door = doors_.find(key); door != doors_.end()) remove(door);
}

std::vector<std::string> Relay::busy() const {
  std::vector<std::string> keys;
  for (const auto& [key, door] : doors_) {
    if (!door->pipes.empty()) keys.push_back(key);
  }
  return keys;
}

void Relay::sweep(TimePoint now) {
  for (auto next = doors_.begin(); next != doors_.end();) {
    const auto at = next++;
    auto& door = *at->second;
    for (auto pipe = door.pipes.begin(); pipe != door.pipes.end();) {
      auto& one = **pipe++;
      if (one.outer.hung_up && !one.end_by) one.end_by = now + kLeftAloneLimit;
      const bool late = one.end_by && *one.end_by <= now;
      if (late || (!one.connected && one.connect_by <= now)) end(door, one);
    }
    pause(door, false);
    if (!door.pipes.empty()) door.used = now;
    if (now - door.used > kDoorLife) remove(at);
  }
  ended_.clear();
  removed_.clear();
}

// --- connections ---------------------------------------------------------------------

void Relay::pause(Door& door, bool paused) const {
  if (std::exchange(door.paused, paused) == paused) return;
  epoll_event event{.events = paused ? 0U : static_cast<std::uint32_t>(EPOLLIN),
                    .data = {.ptr = &door.source}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, door.listener.get(), &event);
}

void Relay::accept(Door& door, TimePoint now) {
  for (int i = 0; i < kBacklog; ++i) {
    UniqueFd fd(accept4(door.listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      // Out of descriptors or memory: it stays readable, and would be told of again and again.
      if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) pause(door, true);
      return;
    }
    if (connections_ >= limits_.connections) continue;  // nginx tells 502
    auto& pipe = *door.pipes.emplace_front(std::make_unique<Pipe>());
    pipe.self = door.pipes.begin();
    ++connections_;
    pipe.outer.fd = std::move(fd);
    pipe.connect_by = now + kConnectLimit;
    if (!connect(door, pipe)) end(door, pipe);
  }
}

bool Relay::connect(Door& door, Pipe& pipe) {
  pipe.inner.fd = socket_to(door.upstream);
  if (!pipe.inner.fd) return false;
  for (auto* side : {&pipe.outer, &pipe.inner}) {
    side->source = {&door, &pipe, side == &pipe.outer};
    // Of nginx's side nothing is read before there is somebody to give it to.
    side->waits_for = side == &pipe.outer ? 0U : static_cast<std::uint32_t>(EPOLLOUT);
    epoll_event event{.events = side->waits_for, .data = {.ptr = &side->source}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, side->fd.get(), &event) != 0) return false;
  }
  return true;
}

void Relay::wait_for(Side& side, std::uint32_t events) const {
  if (side.hung_up || std::exchange(side.waits_for, events) == events) return;
  epoll_event event{.events = events, .data = {.ptr = &side.source}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, side.fd.get(), &event);
}

bool Relay::move(Side& from, Side& to) {
  if (!to.unsent.empty()) {
    const auto sent = send_some(to.fd.get(), to.unsent);
    if (sent < 0) return false;
    to.unsent.erase(to.unsent.begin(), to.unsent.begin() + sent);
    if (to.unsent.empty()) to.unsent.shrink_to_fit();  // most connections are idle
  }
  if (to.unsent.empty() && !from.ended) {
    const auto got = recv(from.fd.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (got == 0) from.ended = true;
    if (got > 0) {
      const auto bytes =
          std::span<const std::uint8_t>(buffer_).first(static_cast<std::size_t>(got));
      const auto sent = send_some(to.fd.get(), bytes);
      if (sent < 0) return false;
      const auto rest = bytes.subspan(static_cast<std::size_t>(sent));
      to.unsent.assign(rest.begin(), rest.end());
    }
  }
  if (from.ended && to.unsent.empty() && !std::exchange(to.shut, true)) {
    shutdown(to.fd.get(), SHUT_WR);
  }
  return true;
}

// No event will tell that there is more of one that has hung up.
bool Relay::move_rest(Side& from, Side& to) {
  while (from.hung_up && !from.ended && to.unsent.empty()) {
    if (!move(from, to)) return false;
  }
  return true;
}

// That a peer has gone is told again and again, whether it is waited for or not.
void Relay::hang_up(Side& side) const {
  if (std::exchange(side.hung_up, true)) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, side.fd.get(), nullptr);
}

bool Relay::serve(Pipe& pipe, bool outer, std::uint32_t events) {
  if (!pipe.connected) {
    if (outer || (events & (EPOLLERR | EPOLLHUP)) != 0) return false;  // either side has gone
    pipe.connected = true;
  }
  if ((events & EPOLLERR) != 0) return false;
  if ((events & EPOLLHUP) != 0) hang_up(outer ? pipe.outer : pipe.inner);
  if (!move(pipe.outer, pipe.inner) || !move(pipe.inner, pipe.outer)) return false;
  if (!move_rest(pipe.outer, pipe.inner) || !move_rest(pipe.inner, pipe.outer)) return false;
  if (pipe.outer.shut && pipe.inner.shut) return false;
  for (auto [side, other] : {std::pair{&pipe.outer, &pipe.inner}, {&pipe.inner, &pipe.outer}}) {
    const bool reads = !side->ended && other->unsent.empty();
    wait_for(*side, (reads ? static_cast<std::uint32_t>(EPOLLIN) : 0U) |
                        (side->unsent.empty() ? 0U : static_cast<std::uint32_t>(EPOLLOUT)));
  }
  return true;
}

void Relay::serve(TimePoint now) {
  std::array<epoll_event, 64> events{};
  const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const auto& event = events[static_cast<std::size_t>(i)];
    auto& source = *static_cast<Source*>(event.data.ptr);
    if (source.pipe == nullptr) {
      if (source.door->listener) accept(*source.door, now);
      continue;
    }
    auto& pipe = *source.pipe;
    if (!pipe.outer.fd) continue;  // ended by an event of this turn
    if (!serve(pipe, source.outer, event.events)) end(*source.door, pipe);
  }
  ended_.clear();
  removed_.clear();
}

void Relay::end(Door& door, Pipe& pipe) {
  pipe.outer.fd.reset();
  pipe.inner.fd.reset();
  --connections_;
  ended_.splice(ended_.begin(), door.pipes, pipe.self);
}

void Relay::end_all(Door& door) {
  while (!door.pipes.empty()) end(door, *door.pipes.front());
}

}  // namespace meshd::proxy
