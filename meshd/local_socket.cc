#include "meshd/local_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace meshd {
namespace {

// How soon a connection that could not be taken is looked at again.
constexpr int kRetryMs = 100;

Result<UniqueFd> listening(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail(ErrorCode::kInvalid, path + ": too long");
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno("socket for " + path, errno);
  struct stat old{};
  // Of a daemon that was killed: the run directory is locked, so nobody serves it.
  if (lstat(path.c_str(), &old) == 0 && S_ISSOCK(old.st_mode)) unlink(path.c_str());
  const auto mask = umask(0177);
  const int bound = bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  umask(mask);
  if (bound != 0) return fail_errno("bind " + path, error);
  if (::listen(fd.get(), SOMAXCONN) != 0) return fail_errno("listen " + path, errno);
  return fd;
}

ino_t inode_of(int fd) {
  struct stat entry{};
  return fstat(fd, &entry) == 0 && S_ISSOCK(entry.st_mode) ? entry.st_ino : 0;
}

}  // namespace

std::optional<Caller> caller_of(int fd) {
  ucred found{};
  socklen_t size = sizeof found;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &found, &size) != 0) return std::nullopt;
  return Caller{found.uid, found.pid};
}

Result<std::unique_ptr<LocalSocket>> LocalSocket::listen(const std::string& path, std::size_t most,
                                                         Take take) {
  UniqueFd stop(eventfd(0, EFD_CLOEXEC));
  if (!stop) return fail_errno("eventfd", errno);
  auto socket = TRY(listening(path));
  return std::unique_ptr<LocalSocket>(
      new LocalSocket(path, std::move(socket), std::move(stop), most, std::move(take)));
}

LocalSocket::LocalSocket(std::string path, UniqueFd socket, UniqueFd stop, std::size_t most,
                         Take take)
    : path_(std::move(path)),
      socket_(std::move(socket)),
      stop_(std::move(stop)),
      most_(most),
      take_(std::move(take)),
      thread_([this] { run(); }) {}

LocalSocket::~LocalSocket() {
  eventfd_write(stop_.get(), 1);
  thread_.join();
  unlink(path_.c_str());
}

void LocalSocket::run() {
  std::array<pollfd, 2> fds = {{{stop_.get(), POLLIN, 0}, {socket_.get(), POLLIN, 0}}};
  while (true) {
    const int ready = poll(fds.data(), fds.size(), -1);
    if (ready < 0) continue;
    if (fds[0].revents != 0) return;
    if (accept_one()) continue;
    // The queue stays readable: without a pause this would be a busy loop.
    pollfd stop{stop_.get(), POLLIN, 0};
    if (poll(&stop, 1, kRetryMs) > 0) return;
  }
}

// False: not now.
bool LocalSocket::accept_one() {
  if (!has_room()) return false;
  UniqueFd fd(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return errno == ECONNABORTED || errno == EINTR || errno == EAGAIN;
  open_.emplace_back(fd.get(), inode_of(fd.get()));
  take_(std::move(fd));
  return true;
}

bool LocalSocket::has_room() {
  if (open_.size() < most_) return true;
  std::erase_if(open_, [](const auto& one) { return inode_of(one.first) != one.second; });
  return open_.size() < most_;
}

}  // namespace meshd
