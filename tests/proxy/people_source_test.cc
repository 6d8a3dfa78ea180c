#include "proxy/people_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "pki/files.h"
#include "tests/support/temp_dir.h"

namespace meshd::proxy {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

class PeopleSourceTest : public testing::Test {
 protected:
  void add(const std::string& user, std::uint8_t number) const {
    Person terms;
    terms.user = user;
    TokenSecret secret{};
    secret[0] = number;
    const auto made = make_person(terms, secret);
    ASSERT_TRUE(made);
    ASSERT_TRUE(
        edit_people(path_, [&](People& people) { return add_person(people, made->person); }));
  }
  [[nodiscard]] bool changes() {
    const auto changed = source_.refresh();
    EXPECT_TRUE(changed) << changed.error().what;
    return changed.value_or(false);
  }

  TempDir dir_;
  const std::string path_ = dir_ / "web-tokens";
  PeopleSource source_{path_};
};

TEST_F(PeopleSourceTest, IsReadAgainWhenItHasChanged) {
  EXPECT_FALSE(changes()) << "there is none, and nobody";
  add("alice", 1);
  EXPECT_TRUE(changes());
  EXPECT_FALSE(changes());
  add("bob", 2);
  EXPECT_TRUE(changes());
  EXPECT_THAT(source_.people(), SizeIs(2));
}

TEST_F(PeopleSourceTest, ChangesOfOneMomentAreAllSeen) {
  // Written in place, with the same size: only the content tells, where the clock is coarse.
  add("alice", 1);
  EXPECT_TRUE(changes());
  for (std::uint8_t number = 2; number < 60; ++number) {
    std::filesystem::remove(path_);
    add("alice", number);
    EXPECT_TRUE(changes()) << int{number};
  }
}

TEST_F(PeopleSourceTest, ABrokenFileLeavesThoseWhoWereThereAndIsToldOnce) {
  add("alice", 1);
  EXPECT_TRUE(changes());
  ASSERT_TRUE(pki::write_secrets(path_, "nonsense\n"));
  const auto broken = source_.refresh();
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().what, HasSubstr("web-tokens:1: line: "));
  EXPECT_FALSE(changes());
  EXPECT_THAT(source_.people(), SizeIs(1));
  std::filesystem::remove(path_);
  add("bob", 2);
  EXPECT_TRUE(changes());
  ASSERT_TRUE(pki::write_secrets(path_, "nonsense\n"));
  EXPECT_FALSE(source_.refresh()) << "broken anew, told anew";
}

TEST_F(PeopleSourceTest, AFileThatOthersCanReadIsNotTaken) {
  add("alice", 1);
  EXPECT_TRUE(changes());
  add("bob", 2);
  std::filesystem::permissions(path_, std::filesystem::perms(0644));
  EXPECT_FALSE(source_.refresh());
  EXPECT_THAT(source_.people(), SizeIs(1));
}

TEST_F(PeopleSourceTest, AFileThatIsGoneLeavesNobody) {
  add("alice", 1);
  EXPECT_TRUE(changes());
  std::filesystem::remove(path_);
  EXPECT_TRUE(changes());
  EXPECT_THAT(source_.people(), SizeIs(0));
}

}  // namespace
}  // namespace meshd::proxy
