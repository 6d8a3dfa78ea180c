#include "meshd/notify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Message {
  std::string text;
  std::vector<UniqueFd> fds;
};

// Plays the service manager: its notify socket, and the descriptors that it keeps.
class FakeManager {
 public:
  FakeManager() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    const std::string path = dir_.path() + "/notify";
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    path.copy(name.sun_path, sizeof name.sun_path - 1);
    EXPECT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  ~FakeManager() { unsetenv("NOTIFY_SOCKET"); }

  // The next message; an empty one when none was sent.
  Message receive() {
    std::array<char, 4096> text{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxStoredFds)> control{};
    iovec part{text.data(), text.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const auto size = recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    Message result;
    if (size < 0) return result;
    result.text.assign(text.data(), static_cast<std::size_t>(size));
    for (auto* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
      if (c->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        result.fds.emplace_back(fd);
      }
    }
    return result;
  }

 private:
  TempDir dir_;
  UniqueFd socket_;
};

// Runs `check` in a child that is started with these descriptors, as systemd starts one.
// Its result is the child's exit code.
template <class Check>
int start_with(std::vector<int> fds, const char* names, Check check) {
  const pid_t child = fork();
  if (child == 0) {
    // First out of the way: a source may be one of the targets.
    for (int& fd : fds) fd = fcntl(fd, F_DUPFD, 100);
    for (std::size_t i = 0; i < fds.size(); ++i) dup2(fds[i], 3 + static_cast<int>(i));
    setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
    setenv("LISTEN_FDS", std::to_string(fds.size()).c_str(), 1);
    setenv("LISTEN_FDNAMES", names, 1);
    _exit(check());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

std::uint64_t inode(int fd) {
  struct stat info{};
  return fstat(fd, &info) == 0 ? info.st_ino : 0;
}

TEST(NotifyTest, SaysWhatTheManagerUnderstands) {
  FakeManager manager;
  ASSERT_TRUE(notify_ready());
  EXPECT_EQ(manager.receive().text, "READY=1");
  ASSERT_TRUE(notify_stopping());
  EXPECT_EQ(manager.receive().text, "STOPPING=1");
  ASSERT_TRUE(notify_watchdog());
  EXPECT_EQ(manager.receive().text, "WATCHDOG=1");
}

TEST(NotifyTest, StatusCannotSmuggleInAnotherField) {
  FakeManager manager;
  ASSERT_TRUE(notify_status("behind by 1\nREADY=1"));
  EXPECT_EQ(manager.receive().text, "STATUS=behind by 1 READY=1");
}

TEST(NotifyTest, FailedUnitSaysWhyInOneLine) {
  FakeManager manager;
  ASSERT_TRUE(notify_failed(Error{ErrorCode::kSystem, "open /x:\nno", EACCES}));
  EXPECT_EQ(manager.receive().text, fmt::format("STATUS=open /x: no\nERRNO={}", EACCES));
  ASSERT_TRUE(notify_failed(Error{ErrorCode::kInvalid, "line 3: zone: too long"}));
  EXPECT_EQ(manager.receive().text, "STATUS=line 3: zone: too long");
}

TEST(NotifyTest, WithoutAManagerNothingHappens) {
  unsetenv("NOTIFY_SOCKET");
  unsetenv("LISTEN_FDS");
  EXPECT_TRUE(notify_ready());
  EXPECT_EQ(store_fds("dns", std::array{0}), false);
  const auto taken = take_stored_fds();
  ASSERT_TRUE(taken);
  EXPECT_TRUE(taken->empty());
}

TEST(NotifyTest, ManagerThatIsGoneIsAnError) {
  setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
  const auto status = notify_ready();
  unsetenv("NOTIFY_SOCKET");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kSystem);
  EXPECT_THAT(status.error().what, HasSubstr("notify the service manager: ready"));
}

TEST(NotifyTest, WatchdogIntervalIsTheManagers) {
  EXPECT_EQ(watchdog_interval(), std::nullopt);
  setenv("WATCHDOG_USEC", "30000000", 1);
  EXPECT_EQ(watchdog_interval(), std::chrono::seconds(30));
  setenv("WATCHDOG_PID", "1", 1);  // somebody else's
  EXPECT_EQ(watchdog_interval(), std::nullopt);
  unsetenv("WATCHDOG_USEC");
  unsetenv("WATCHDOG_PID");
}

TEST(NotifyTest, SocketsSurviveARestart) {
  FakeManager manager;
  const UniqueFd udp(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const UniqueFd tcp(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(store_fds("dns-udp", std::array{udp.get()}), true);
  ASSERT_EQ(store_fds("dns-tcp", std::array{tcp.get()}), true);
  const auto first = manager.receive();
  const auto second = manager.receive();
  EXPECT_EQ(first.text, "FDSTORE=1\nFDNAME=dns-udp\nFDPOLL=0");
  ASSERT_EQ(first.fds.size(), 1U);
  ASSERT_EQ(second.fds.size(), 1U);

  const auto want_udp = inode(udp.get());
  const auto want_tcp = inode(tcp.get());
  const int seen = start_with({first.fds[0].get(), second.fds[0].get()}, "dns-udp:dns-tcp", [&] {
    const auto taken = take_stored_fds();
    if (!taken || taken->size() != 2) return 1;
    if ((*taken)[0].name != "dns-udp" || inode((*taken)[0].fd.get()) != want_udp) return 2;
    if ((*taken)[1].name != "dns-tcp" || inode((*taken)[1].fd.get()) != want_tcp) return 3;
    if ((fcntl((*taken)[0].fd.get(), F_GETFD) & FD_CLOEXEC) == 0) return 4;
    if (getenv("LISTEN_FDS") != nullptr || getenv("LISTEN_FDNAMES") != nullptr) return 5;
    const auto again = take_stored_fds();
    return again && again->empty() ? 0 : 6;
  });
  EXPECT_EQ(seen, 0);
}

TEST(NotifyTest, ForgettingNamesWhatToDrop) {
  FakeManager manager;
  ASSERT_TRUE(forget_fds("dns-udp"));
  EXPECT_EQ(manager.receive().text, "FDSTOREREMOVE=1\nFDNAME=dns-udp");
}

TEST(NotifyTest, NamesAndCountsThatWouldNotArriveAreRefused) {
  FakeManager manager;
  for (const auto* name : {"", "a:b", "a\nREADY=1", "a b"}) {
    EXPECT_FALSE(store_fds(name, std::array{0})) << name;
    EXPECT_FALSE(forget_fds(name)) << name;
  }
  EXPECT_FALSE(store_fds(std::string(kMaxFdName + 1, 'x'), std::array{0}));
  EXPECT_FALSE(store_fds("dns", std::span<const int>{}));
  EXPECT_FALSE(store_fds("dns", std::vector<int>(kMaxStoredFds + 1, 0)));
  EXPECT_EQ(manager.receive().text, "");
}

}  // namespace
}  // namespace meshd
