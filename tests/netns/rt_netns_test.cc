#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "netlink/netns.h"
#include "tests/support/rt_fixture.h"

namespace meshd::netlink {
namespace {

using test::make_netns;
using test::must;

// A directory under a mount namespace of the test's own, so that no mount is seen outside.
class RtNetnsTest : public test::RtFixture {
 protected:
  void SetUp() override {
    RtFixture::SetUp();
    ASSERT_EQ(unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(mount("", "/", "none", MS_REC | MS_PRIVATE, nullptr), 0);
    char place[] = "/tmp/rt-netns-XXXXXX";
    ASSERT_NE(mkdtemp(place), nullptr);
    root_ = place;
    ASSERT_EQ(mount("tmpfs", place, "tmpfs", 0, nullptr), 0);
  }
  void TearDown() override {
    umount2(root_.c_str(), MNT_DETACH);
    std::filesystem::remove(root_);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return root_ + "/" + name; }
  [[nodiscard]] std::string names() const { return path("netns"); }

 private:
  std::string root_;
};

TEST_F(RtNetnsTest, NamedNetnsIsMadeFoundAndRemoved) {
  const Netns made = must(create_named_netns("c1", names()));
  EXPECT_NE(made.id(), must(Netns::own()).id());
  const Netns opened = must(Netns::open(names() + "/c1"));
  EXPECT_EQ(opened.id(), made.id());
  EXPECT_TRUE(must(remove_named_netns("c1", names())));
  EXPECT_FALSE(std::filesystem::exists(names() + "/c1"));
  EXPECT_FALSE(must(remove_named_netns("c1", names())));
  const auto gone = Netns::open(names() + "/c1");
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound);
}

TEST_F(RtNetnsTest, TakenNameIsAConflictAndKeepsItsOwner) {
  const Netns first = must(create_named_netns("c1", names()));
  const auto second = create_named_netns("c1", names());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kConflict);
  EXPECT_EQ(must(Netns::open(names() + "/c1")).id(), first.id());
}

TEST_F(RtNetnsTest, NamesThatLeaveTheDirectoryAreRefused) {
  for (const char* name : {"", ".", "..", "../x", "a/b"}) {
    EXPECT_FALSE(create_named_netns(name, names())) << name;
    EXPECT_FALSE(remove_named_netns(name, names())) << name;
  }
}

TEST_F(RtNetnsTest, RemovesOnlyWhatIsAName) {
  std::filesystem::create_directories(names());
  std::ofstream(names() + "/notes") << "mine";
  const auto refused = remove_named_netns("notes", names());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
  EXPECT_TRUE(std::filesystem::exists(names() + "/notes"));
  // Left by a crash between the file and the mount.
  std::ofstream(names() + "/half").flush();
  EXPECT_TRUE(must(remove_named_netns("half", names())));
}

TEST_F(RtNetnsTest, RefusesPathsThatAreNoNetns) {
  std::ofstream(path("file")) << "x";
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);  // opening it to read would block
  for (const std::string& place :
       {std::string("/dev/null"), path("file"), path("pipe"), std::string("/proc/self/ns/mnt"),
        std::string("/proc/self/ns/user"), std::string("/")}) {
    const auto refused = Netns::open(place);
    ASSERT_FALSE(refused) << place;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalid) << place;
    EXPECT_NE(refused.error().what.find(place), std::string::npos);
  }
}

TEST_F(RtNetnsTest, HandedOverDescriptorMustBeTheOneAnnounced) {
  const Netns container = make_netns();
  const Netns same = must(Netns::open_handed_over(getpid(), container.fd(), container.id().ino));
  EXPECT_EQ(same.id(), container.id());
  const auto other = Netns::open_handed_over(getpid(), container.fd(), container.id().ino + 1);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::kInvalid);

  const UniqueFd mounts(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  struct stat status{};
  ASSERT_EQ(fstat(mounts.get(), &status), 0);
  const auto wrong_kind = Netns::open_handed_over(getpid(), mounts.get(), status.st_ino);
  ASSERT_FALSE(wrong_kind);
  EXPECT_EQ(wrong_kind.error().code, ErrorCode::kInvalid);
  const auto closed = Netns::open_handed_over(getpid(), 9999, container.id().ino);
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code, ErrorCode::kNotFound);
}

TEST_F(RtNetnsTest, ProcessThatEndedIsNotFound) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  const auto gone = Netns::open("/proc/" + std::to_string(child) + "/ns/net");
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound);
}

TEST_F(RtNetnsTest, WorkIsDoneInsideAndTheCallerStays) {
  const Netns before = must(Netns::own());
  const Netns container = make_netns();
  const NetnsId inside = must(
      call_in_netns(container.fd(), []() -> Result<NetnsId> { return TRY(Netns::own()).id(); }));
  EXPECT_EQ(inside, container.id());
  EXPECT_EQ(must(Netns::own()).id(), before.id());
}

TEST_F(RtNetnsTest, ErrorOfTheWorkAndOfTheEntryComeBack) {
  const Netns container = make_netns();
  const auto failed = call_in_netns(
      container.fd(), []() -> Result<int> { return fail(ErrorCode::kConflict, "inside"); });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().what, "inside");
  const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  bool ran = false;
  const Status refused = run_in_netns(null.get(), [&ran] { ran = true; });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().sys_errno, EINVAL);
  EXPECT_FALSE(ran);
}

TEST_F(RtNetnsTest, SysctlIsWrittenInTheNamespaceAndOnlyOnce) {
  const Netns container = make_netns();
  constexpr std::string_view kKey = "net/ipv4/conf/lo/rp_filter";
  const std::string ours = must(read_sysctl(kKey));
  const std::string wanted = ours == "2" ? "1" : "2";
  const auto ensure = [&] { return ensure_sysctl(kKey, wanted); };
  const SysctlChange first = must(call_in_netns(container.fd(), ensure));
  EXPECT_TRUE(first.changed);
  EXPECT_NE(first.before, wanted);
  const SysctlChange second = must(call_in_netns(container.fd(), ensure));
  EXPECT_FALSE(second.changed);
  EXPECT_EQ(second.before, wanted);
  EXPECT_EQ(must(read_sysctl(kKey)), ours);
}

TEST_F(RtNetnsTest, SysctlsOutsideNetAreRefused) {
  for (const char* key :
       {"kernel/core_pattern", "net/../kernel/core_pattern", "net", "/net/x", "net//ipv4", ""}) {
    const auto refused = read_sysctl(key);
    ASSERT_FALSE(refused) << key;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalid) << key;
  }
  const auto missing = read_sysctl("net/ipv4/conf/nobody/rp_filter");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  const auto bad_value = ensure_sysctl("net/ipv4/conf/lo/rp_filter", "many");
  ASSERT_FALSE(bad_value);
  EXPECT_EQ(bad_value.error().sys_errno, EINVAL);
}

}  // namespace
}  // namespace meshd::netlink
