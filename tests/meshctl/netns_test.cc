#include "meshctl/netns.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "tests/meshctl/sandbox.h"
#include "tests/support/temp_dir.h"

namespace meshd::ctl {
namespace {

using testing::HasSubstr;

TEST(NetnsTest, OwnNamespaceOpensByPathAndByPidAsTheSame) {
  const auto by_path = open_netns("/proc/self/ns/net");
  ASSERT_TRUE(by_path) << by_path.error().what;
  const auto by_pid = open_netns_of(getpid());
  ASSERT_TRUE(by_pid) << by_pid.error().what;
  struct stat info{};
  ASSERT_EQ(stat("/proc/self/ns/net", &info), 0);
  EXPECT_EQ(by_path->dev, info.st_dev);
  EXPECT_EQ(by_path->ino, info.st_ino);
  EXPECT_EQ(by_pid->ino, by_path->ino);
  EXPECT_EQ(by_path->path, "/proc/self/ns/net");
  EXPECT_EQ(by_pid->path, "/proc/" + std::to_string(getpid()) + "/ns/net");
}

TEST(NetnsTest, WhatIsNoNetworkNamespaceIsRefused) {
  const TempDir dir;
  std::ofstream(dir / "file") << "x";
  EXPECT_THAT(open_netns(dir / "file").error().what, HasSubstr("not a network namespace"));
  EXPECT_THAT(open_netns(dir.path()).error().what, HasSubstr("not a network namespace"));
  EXPECT_THAT(open_netns("/dev/null").error().what, HasSubstr("not a network namespace"));
  EXPECT_THAT(open_netns("/proc/self/ns/mnt").error().what,
              HasSubstr("a namespace, but not a network namespace"));
  EXPECT_EQ(open_netns("").error().code, ErrorCode::kInvalid);
}

TEST(NetnsTest, AFifoIsRefusedWithoutWaitingForItsOtherEnd) {
  const TempDir dir;
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(open_netns(dir / "fifo").error().what, HasSubstr("not a network namespace"));
}

TEST(NetnsTest, AMissingPathIsNamedAndABareNameGetsAHint) {
  EXPECT_EQ(open_netns("/nowhere/x").error().what, "/nowhere/x: No such file or directory");
  EXPECT_THAT(open_netns("no-such-netns").error().what, HasSubstr("/run/netns/no-such-netns"));
}

TEST(NetnsTest, ADeadProcessHasNoNamespace) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  ASSERT_GT(child, 0);
  siginfo_t info{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  const auto zombie = open_netns_of(child);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  const auto gone = open_netns_of(child);
  ASSERT_FALSE(zombie);
  ASSERT_FALSE(gone);
  const auto reason = "no process " + std::to_string(child) + ", or it has ended";
  EXPECT_EQ(zombie.error().what, reason);
  EXPECT_EQ(gone.error().what, reason);
}

TEST(NetnsTest, ANameMustBeALabel) {
  EXPECT_EQ(named_netns_path("/run/netns", "web-1").value_or(""), "/run/netns/web-1");
  for (const auto* name : {"", ".", "..", "../x", "a/b", "A", "-a", "a b"}) {
    EXPECT_FALSE(named_netns_path("/run/netns", name)) << name;
  }
  EXPECT_FALSE(named_netns_path("/run/netns", std::string(64, 'a')));
}

class NamedNetnsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto sandbox = MountSandbox::make();
    ASSERT_TRUE(sandbox) << sandbox.error().what;
    sandbox_ = std::move(*sandbox);
    path_ = *sandbox_ / "netns/web";
  }
  static std::uint64_t inode_of(const std::string& path) {
    const auto netns = open_netns(path);
    return netns ? netns->ino : 0;
  }

  std::unique_ptr<MountSandbox> sandbox_;
  std::string path_;
};

TEST_F(NamedNetnsTest, AMadeNamespaceIsFreshAndIsRemovedWithoutTrace) {
  const auto made = create_named_netns(path_);
  ASSERT_TRUE(made) << made.error().what;
  EXPECT_NE(inode_of(path_), 0U);
  EXPECT_NE(inode_of(path_), inode_of("/proc/thread-self/ns/net"));
  const auto removed = remove_named_netns(path_);
  EXPECT_TRUE(removed) << removed.error().what;
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_TRUE(remove_named_netns(path_)) << "a second time";
}

TEST_F(NamedNetnsTest, ASecondOneFitsBesideTheFirst) {
  ASSERT_TRUE(create_named_netns(path_));
  ASSERT_TRUE(create_named_netns(*sandbox_ / "netns/db"));
  EXPECT_NE(inode_of(*sandbox_ / "netns/db"), 0U);
  EXPECT_NE(inode_of(*sandbox_ / "netns/db"), inode_of(path_));
}

TEST_F(NamedNetnsTest, ATakenNameIsAConflictAndLeftAlone) {
  ASSERT_TRUE(create_named_netns(path_));
  const auto before = inode_of(path_);
  const auto again = create_named_netns(path_);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kConflict);
  EXPECT_EQ(inode_of(path_), before);
}

TEST_F(NamedNetnsTest, AFileThatIsNoNamespaceIsNotRemoved) {
  const auto path = *sandbox_ / "web";
  std::ofstream(path) << "precious";
  const auto removed = remove_named_netns(path);
  ASSERT_FALSE(removed);
  EXPECT_THAT(removed.error().what, HasSubstr("left alone"));
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(NamedNetnsTest, AFailedMountLeavesNoFile) {
  ASSERT_TRUE(create_named_netns(*sandbox_ / "netns/first"));
  // Without /proc there is nothing to bind.
  ASSERT_EQ(mount("none", "/proc", "tmpfs", 0, nullptr), 0);
  const auto made = create_named_netns(path_);
  umount2("/proc", MNT_DETACH);
  EXPECT_FALSE(made);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace meshd::ctl
