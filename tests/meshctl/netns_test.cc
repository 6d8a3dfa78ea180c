#include "meshctl/netns.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>

#include "tests/meshctl/sandbox.h"
#include "tests/meshctl/support.h"

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

// Each of these mounts, so each runs in a mount namespace of its own.
void expect_in_sandbox(const std::function<std::string()>& body) {
  const auto result = in_mount_sandbox(body);
  if (!result) GTEST_SKIP() << "no mount namespaces for this user";
  EXPECT_EQ(*result, "");
}

TEST(NamedNetnsTest, AMadeNamespaceIsFreshAndIsRemovedWithoutTrace) {
  const TempDir dir;
  expect_in_sandbox([&]() -> std::string {
    const auto path = dir / "netns/web";
    if (const auto made = create_named_netns(path); !made) return made.error().what;
    const auto netns = open_netns(path);
    if (!netns) return netns.error().what;
    const auto own = open_netns("/proc/self/ns/net");
    if (!own || own->ino == netns->ino) return "it is our own namespace";
    if (const auto removed = remove_named_netns(path); !removed) return removed.error().what;
    if (std::filesystem::exists(path)) return "the file is still there";
    const auto again = remove_named_netns(path);
    return again ? "" : "removing it twice fails: " + again.error().what;
  });
}

TEST(NamedNetnsTest, ASecondOneFitsBesideTheFirst) {
  const TempDir dir;
  expect_in_sandbox([&]() -> std::string {
    for (const auto* name : {"netns/a", "netns/b"}) {
      if (const auto made = create_named_netns(dir / name); !made) return made.error().what;
    }
    const auto a = open_netns(dir / "netns/a");
    const auto b = open_netns(dir / "netns/b");
    if (!a || !b) return "one of them is no namespace";
    return a->ino != b->ino ? "" : "both are the same namespace";
  });
}

TEST(NamedNetnsTest, ATakenNameIsAConflictAndLeftAlone) {
  const TempDir dir;
  expect_in_sandbox([&]() -> std::string {
    const auto path = dir / "netns/web";
    if (!create_named_netns(path)) return "cannot make the first";
    const auto first = open_netns(path);
    const auto second = create_named_netns(path);
    if (second || second.error().code != ErrorCode::kConflict) return "no conflict";
    const auto still = open_netns(path);
    return first && still && first->ino == still->ino ? "" : "the first one changed";
  });
}

TEST(NamedNetnsTest, AFileThatIsNoNamespaceIsNotRemoved) {
  const TempDir dir;
  std::ofstream(dir / "web") << "precious";
  const auto removed = remove_named_netns(dir / "web");
  ASSERT_FALSE(removed);
  EXPECT_THAT(removed.error().what, HasSubstr("left alone"));
  EXPECT_TRUE(std::filesystem::exists(dir / "web"));
}

TEST(NamedNetnsTest, AFailedMountLeavesNoFile) {
  const TempDir dir;
  expect_in_sandbox([&]() -> std::string {
    const auto path = dir / "netns/web";
    if (!create_named_netns(dir / "netns/first")) return "cannot make the first";
    // Without /proc there is nothing to bind.
    if (mount("none", "/proc", "tmpfs", 0, nullptr) != 0) return "cannot hide /proc";
    if (create_named_netns(path)) return "it was made out of nothing";
    return std::filesystem::exists(path) ? "a file is left" : "";
  });
}

}  // namespace
}  // namespace meshd::ctl
