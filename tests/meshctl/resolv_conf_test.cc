#include "meshctl/resolv_conf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/meshctl/sandbox.h"
#include "tests/support/temp_dir.h"

namespace meshd::ctl {
namespace {

using testing::HasSubstr;

const ResolvConf kConf{.nameservers = {"169.254.1.1", "fd00::53"},
                       .search = {"run1.wf.mesh.internal", "svc.mesh.internal"}};
constexpr std::string_view kText =
    "# written by meshctl attach\n"
    "nameserver 169.254.1.1\n"
    "nameserver fd00::53\n"
    "search run1.wf.mesh.internal svc.mesh.internal\n"
    "options ndots:1 timeout:2 attempts:2\n";

std::string slurp(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::size_t entries(const std::string& dir) {
  const std::filesystem::directory_iterator all(dir);
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

TEST(ResolvConfTest, ItHoldsResolversSearchListAndOptions) {
  EXPECT_EQ(render_resolv_conf(kConf), kText);
}

TEST(ResolvConfTest, NoSearchListIsNoSearchLineAndTheFourthServerIsLeftOut) {
  EXPECT_EQ(render_resolv_conf(
                {.nameservers = {"1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"}, .search = {}}),
            "# written by meshctl attach\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n"
            "nameserver 3.3.3.3\noptions ndots:1 timeout:2 attempts:2\n");
}

TEST(ResolvConfTest, AFileIsReplacedAndNothingElseIsLeft) {
  const TempDir dir;
  const auto path = dir / "resolv.conf";
  std::ofstream(path) << "old and much longer than the new one\n" << std::string(4096, 'x');
  const auto before = std::filesystem::hard_link_count(path);
  ASSERT_TRUE(write_resolv_conf(path, kConf));
  EXPECT_EQ(slurp(path), kText);
  EXPECT_EQ(std::filesystem::hard_link_count(path), before);
  EXPECT_EQ(entries(dir.path()), 1U);
}

TEST(ResolvConfTest, AnyoneMayReadItWhateverTheUmask) {
  const TempDir dir;
  const auto path = dir / "resolv.conf";
  const auto before = umask(0077);
  const auto written = write_resolv_conf(path, kConf);
  umask(before);
  ASSERT_TRUE(written);
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0644));
}

TEST(ResolvConfTest, ALinkIsReplacedAndItsTargetLeftAlone) {
  const TempDir dir;
  const auto path = dir / "resolv.conf";
  std::ofstream(dir / "hosts-own") << "precious";
  std::filesystem::create_symlink(dir / "hosts-own", path);
  ASSERT_TRUE(write_resolv_conf(path, kConf));
  EXPECT_EQ(slurp(dir / "hosts-own"), "precious");
  EXPECT_FALSE(std::filesystem::is_symlink(path));
  EXPECT_EQ(slurp(path), kText);
}

TEST(ResolvConfTest, AMissingDirectoryIsAnErrorThatNamesIt) {
  const TempDir dir;
  const auto written = write_resolv_conf(dir / "none/resolv.conf", kConf);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().sys_errno, ENOENT);
  EXPECT_THAT(written.error().what, HasSubstr("/none/resolv.conf"));
}

TEST(ResolvConfTest, AMountPointIsWrittenInPlace) {
  const auto sandbox = MountSandbox::make();
  ASSERT_TRUE(sandbox) << sandbox.error().what;
  const auto& dir = **sandbox;
  const auto path = dir / "resolv.conf";
  std::ofstream(path) << "under the mount";
  std::ofstream(dir / "engines") << "old and much longer than the new one" << std::string(999, 'x');
  ASSERT_EQ(mount((dir / "engines").c_str(), path.c_str(), nullptr, MS_BIND, nullptr), 0);
  const auto written = write_resolv_conf(path, kConf);
  ASSERT_TRUE(written) << written.error().what;
  EXPECT_EQ(slurp(dir / "engines"), kText);
  EXPECT_EQ(entries(dir.path()), 2U);
}

}  // namespace
}  // namespace meshd::ctl
