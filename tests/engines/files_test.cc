// Files in a tree that somebody else filled, as a container's root is: its links lead nowhere out.
#include "engines/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "engines/limits.h"
#include "tests/support/temp_dir.h"

namespace meshd::engines {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct PutFileBelowTest : testing::Test {
  PutFileBelowTest() {
    fs::create_directories(root + "/etc");
    fs::create_directories(outside);
  }
  [[nodiscard]] Status put(const std::string& text) const {
    return put_file_below(root, "etc", "resolv.conf", text);
  }
  [[nodiscard]] std::string made() const {
    return read_file(root + "/etc/resolv.conf", kMaxFileBytes).value_or("not a plain file");
  }

  TempDir dir;
  const std::string root = dir.path() + "/root", outside = dir.path() + "/outside";
};

TEST_F(PutFileBelowTest, FileIsMadeAndReplaced) {
  EXPECT_TRUE(put("one, which is longer\n"));
  EXPECT_TRUE(put("two\n"));
  EXPECT_EQ(made(), "two\n");
  EXPECT_EQ(fs::status(root + "/etc/resolv.conf").permissions(), fs::perms(0644));
  EXPECT_EQ(std::distance(fs::directory_iterator(root + "/etc"), fs::directory_iterator()), 1);
}

TEST_F(PutFileBelowTest, FolderThatIsMissingIsMade) {
  fs::remove(root + "/etc");
  EXPECT_TRUE(put("one\n"));
  EXPECT_EQ(made(), "one\n");
}

TEST_F(PutFileBelowTest, LinkInItsPlaceIsReplacedAndNotFollowed) {
  std::ofstream(outside + "/victim") << "theirs\n";
  fs::create_symlink(outside + "/victim", root + "/etc/resolv.conf");
  EXPECT_TRUE(put("one\n"));
  EXPECT_EQ(made(), "one\n");
  EXPECT_EQ(read_file(outside + "/victim", kMaxFileBytes).value(), "theirs\n");
}

TEST_F(PutFileBelowTest, LinkedFolderIsOneOfTheTree) {
  fs::remove(root + "/etc");
  fs::create_directories(root + outside);
  fs::create_symlink(outside, root + "/etc");
  EXPECT_TRUE(put("one\n"));
  EXPECT_TRUE(fs::is_empty(outside));
  EXPECT_EQ(read_file(root + outside + "/resolv.conf", kMaxFileBytes).value(), "one\n");
  fs::remove(root + "/etc");
  fs::create_symlink("../../outside", root + "/etc");
  EXPECT_FALSE(put("one\n"));
  EXPECT_TRUE(fs::is_empty(outside));
}

TEST_F(PutFileBelowTest, WhatCannotBeIsSaidAndLeavesNothing) {
  fs::create_directories(root + "/etc/resolv.conf");
  EXPECT_THAT(put("one\n").error().what, HasSubstr(root + "/etc/resolv.conf"));
  EXPECT_EQ(std::distance(fs::directory_iterator(root + "/etc"), fs::directory_iterator()), 1);
  fs::remove_all(root + "/etc");
  std::ofstream(root + "/etc") << "a file\n";
  EXPECT_THAT(put("one\n").error().what, HasSubstr(root + "/etc"));
  fs::remove_all(root);
  EXPECT_THAT(put("one\n").error().what, HasSubstr(root));
}

}  // namespace
}  // namespace meshd::engines
