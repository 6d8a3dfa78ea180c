#include "proxy/listen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tests/support/temp_dir.h"

namespace meshd::proxy {
namespace {

using testing::HasSubstr;

constexpr gid_t kNoGroup = static_cast<gid_t>(-1);

class ProxyListenTest : public testing::Test {
 protected:
  [[nodiscard]] bool is_there() const {
    struct stat found{};
    return lstat(path_.c_str(), &found) == 0;
  }
  // What a process that was killed leaves.
  void leave_stale() const {
    const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::ranges::copy(path_, name.sun_path);
    ASSERT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  }
  TempDir dir_;
  const std::string path_ = dir_ / "run/web.sock";
};

TEST_F(ProxyListenTest, TheDirectoryIsForTheGroupAndSoIsTheSocket) {
  const auto open = Listener::open(path_, getgid());
  ASSERT_TRUE(open) << open.error().what;
  struct stat socket_file{}, parent{};
  ASSERT_EQ(lstat(path_.c_str(), &socket_file), 0);
  ASSERT_EQ(lstat((dir_ / "run").c_str(), &parent), 0);
  EXPECT_EQ(socket_file.st_mode & 07777U, 0660U);
  EXPECT_EQ(parent.st_mode & 07777U, 0750U);
  EXPECT_EQ(socket_file.st_gid, getgid());
}

TEST_F(ProxyListenTest, AStaleSocketIsReplacedAndALiveOneIsNot) {
  ASSERT_EQ(mkdir((dir_ / "run").c_str(), 0700), 0);
  leave_stale();
  const auto first = Listener::open(path_, kNoGroup);
  ASSERT_TRUE(first) << first.error().what;
  const auto second = Listener::open(path_, kNoGroup);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
  EXPECT_TRUE(is_there());
}

TEST_F(ProxyListenTest, WhatIsNoSocketStays) {
  ASSERT_EQ(mkdir((dir_ / "run").c_str(), 0700), 0);
  std::ofstream(path_) << "precious";
  const auto open = Listener::open(path_, kNoGroup);
  ASSERT_FALSE(open);
  EXPECT_THAT(open.error().what, HasSubstr("no socket"));
  EXPECT_TRUE(is_there());
}

TEST_F(ProxyListenTest, TheFileGoesWithItUnlessItIsAnothers) {
  {
    auto open = Listener::open(path_, kNoGroup);
    ASSERT_TRUE(open);
    const Listener moved(*std::move(open));
    EXPECT_TRUE(is_there());
  }
  EXPECT_FALSE(is_there());
  {
    const auto open = Listener::open(path_, kNoGroup);
    ASSERT_TRUE(open);
    unlink(path_.c_str());
    std::ofstream(path_) << "another's";
  }
  EXPECT_TRUE(is_there());
}

TEST_F(ProxyListenTest, AnAddressIsOnLoopback) {
  const auto v4 = Listener::open("127.0.0.1:0", kNoGroup);
  ASSERT_TRUE(v4);
  EXPECT_GT(v4->port(), 0);
  EXPECT_FALSE(v4->is_v6());
  for (const auto* text :
       {"", "127.0.0.1", "0.0.0.0:80", "192.0.2.1:80", "[::]:80", "::1:80", "localhost:80",
        "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:80x", "127.0.0.1:+8", "run/web.sock"}) {
    const auto open = Listener::open(text, kNoGroup);
    ASSERT_FALSE(open) << text;
    EXPECT_EQ(open.error().code, ErrorCode::kInvalid) << text;
  }
  const auto taken = Listener::open("127.0.0.1:" + std::to_string(v4->port()), kNoGroup);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, ErrorCode::kSystem);
}

TEST_F(ProxyListenTest, APathThatIsTooLongIsSaidSo) {
  const auto open = Listener::open("/" + std::string(120, 'x'), kNoGroup);
  ASSERT_FALSE(open);
  EXPECT_THAT(open.error().what, HasSubstr("longer than a socket's path can be"));
}

TEST_F(ProxyListenTest, AGroupIsLookedUpByItsName) {
  EXPECT_EQ(group_id("").value(), kNoGroup);
  EXPECT_EQ(group_id("root").value(), 0U);
  const auto none = group_id("no-such-group");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace meshd::proxy
