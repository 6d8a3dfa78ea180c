#include "proxy/people.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "tests/support/temp_dir.h"
#include "tests/support/text_file.h"

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;
using Kind = Answer::Kind;

constexpr UtcTime kNow{std::chrono::sys_days(std::chrono::year(2026) / 11 / 26)};

MadePerson made_for(Person terms, std::uint8_t seed = 7) {
  TokenSecret secret;
  secret.fill(seed);
  auto made = make_person(std::move(terms), secret);
  EXPECT_TRUE(made) << made.error().what;
  return *std::move(made);
}

Person terms_of(std::string user, std::vector<Grant> grants = {}) {
  Person terms;
  terms.user = std::move(user);
  terms.grants = std::move(grants);
  return terms;
}

Question level_of(std::string token, std::string owner) {
  return {Question::What::kLevel, std::move(token), "w1", std::move(owner), "", Access::kOwner};
}

std::string why_not(std::string_view text) {
  const auto people = parse_people("web-tokens", text);
  return people ? "" : people.error().what;
}

TEST(ProxyPeopleTest, ATokenHas256BitsAndIsRecognised) {
  const auto made = made_for(terms_of("alice"));
  EXPECT_THAT(made.token, StartsWith("mesh_"));
  EXPECT_THAT(made.token, SizeIs(5 + 43));
  EXPECT_NE(made.token, made_for(terms_of("alice"), 8).token);
}

TEST(ProxyPeopleTest, WhatIsWrittenIsReadAndHoldsNoToken) {
  auto terms =
      terms_of("alice@example.org", {{Access::kCanManage, "team-x"}, {Access::kCanRead, "bob"}});
  terms.admin = true;
  terms.expires_at = kNow + 24h;
  const auto first = made_for(terms);
  const auto second = made_for(terms_of("bob"), 8);
  const People people = {first.person, second.person};
  const auto text = render_people(people);
  EXPECT_THAT(text, HasSubstr(" alice@example.org 2026-11-27T00:00:00Z admin CAN_MANAGE:team-x "
                              "CAN_READ:bob\n"));
  EXPECT_THAT(text, HasSubstr(" bob never\n"));
  EXPECT_THAT(text, Not(HasSubstr(first.token.substr(5))));
  const auto read = parse_people("web-tokens", text);
  ASSERT_TRUE(read) << read.error().what;
  EXPECT_EQ(*read, people);
}

TEST(ProxyPeopleTest, ATokenAnswersForItsUser) {
  const auto made = made_for(terms_of("alice", {{Access::kCanWrite, "team-x"}}));
  const People people = {made_for(terms_of("bob"), 9).person, made.person};
  const auto level = [&](const std::string& owner) {
    return answer(people, level_of(made.token, owner), kNow).level;
  };
  EXPECT_EQ(level("alice"), Access::kOwner);
  EXPECT_EQ(level("team-x"), Access::kCanWrite);
  EXPECT_EQ(level("bob"), std::nullopt);
  const auto who =
      answer(people, {Question::What::kWho, made.token, "", "", "", Access::kOwner}, kNow);
  EXPECT_EQ(who.kind, Kind::kGood);
  EXPECT_EQ(who.user, (User{"", "alice", false}));
}

TEST(ProxyPeopleTest, AnAdministratorMayAll) {
  auto terms = terms_of("root");
  terms.admin = true;
  const auto made = made_for(terms);
  const auto got = answer(People{made.person}, level_of(made.token, "anybody"), kNow);
  EXPECT_EQ(got.level, Access::kOwner);
  EXPECT_TRUE(got.user.admin);
}

TEST(ProxyPeopleTest, AnArvadosUserIsToldByUuid) {
  const auto made = made_for(terms_of("zzzzz-tpzed-000000000000000"));
  EXPECT_EQ(answer(People{made.person}, level_of(made.token, "x"), kNow).user.uuid,
            "zzzzz-tpzed-000000000000000");
}

TEST(ProxyPeopleTest, OtherTokensAreNobodys) {
  const auto made = made_for(terms_of("alice"));
  const People people = {made.person};
  for (const std::string& token :
       {made.token + "x", made.token.substr(0, made.token.size() - 1), std::string(),
        pki::to_hex(made.person.digest), made.person.id, std::string("mesh_")}) {
    EXPECT_EQ(answer(people, level_of(token, "alice"), kNow).kind, Kind::kBadToken) << token;
  }
  EXPECT_EQ(answer({}, level_of(made.token, "alice"), kNow).kind, Kind::kBadToken);
}

TEST(ProxyPeopleTest, AnExpiredTokenIsNobodys) {
  auto terms = terms_of("alice");
  terms.expires_at = kNow;
  const auto made = made_for(terms);
  const People people = {made.person};
  EXPECT_EQ(answer(people, level_of(made.token, "alice"), kNow - 1s).kind, Kind::kGood);
  EXPECT_EQ(answer(people, level_of(made.token, "alice"), kNow).kind, Kind::kBadToken);
}

TEST(ProxyPeopleTest, ALineThatIsWrongIsNamedWithItsReason) {
  const auto made = made_for(terms_of("alice"));
  const auto& id = made.person.id;
  const auto digest = pki::to_hex(made.person.digest);
  const auto line = [&](const std::string& rest) { return id + " " + digest + " " + rest + "\n"; };
  EXPECT_EQ(why_not("# a comment\n\n" + line("alice never")), "");
  EXPECT_THAT(why_not("\n" + line("alice")), StartsWith("web-tokens:2: line: is not ID"));
  EXPECT_THAT(why_not(id + " abc alice never"), StartsWith("web-tokens:1: sha256: "));
  EXPECT_THAT(why_not("000000000000 " + digest + " alice never"), StartsWith("web-tokens:1: id: "));
  EXPECT_THAT(why_not(line("Alice never")), StartsWith("web-tokens:1: user: "));
  EXPECT_THAT(why_not(line("alice tomorrow")), StartsWith("web-tokens:1: expires: "));
  EXPECT_THAT(why_not(line("alice 2026-02-30T00:00:00Z")), StartsWith("web-tokens:1: expires: "));
  EXPECT_THAT(why_not(line("alice 2026-02-03 00:00:00Z")), StartsWith("web-tokens:1: expires: "));
  EXPECT_THAT(why_not(line("alice never OWNER:bob")), StartsWith("web-tokens:1: level: "));
  EXPECT_THAT(why_not(line("alice never CAN_READ")), StartsWith("web-tokens:1: level: "));
  EXPECT_THAT(why_not(line("alice never CAN_READ:")), StartsWith("web-tokens:1: level: "));
  EXPECT_THAT(why_not(line("alice never CAN_READ:b CAN_WRITE:b")), HasSubstr("grants: b stands"));
  EXPECT_THAT(why_not(line("alice never admin admin")), StartsWith("web-tokens:1: level: "));
  EXPECT_THAT(why_not(line("alice never") + line("bob never")), StartsWith("web-tokens:2: id: "));
}

TEST(ProxyPeopleTest, ATimeFarAwayIsATime) {
  auto terms = terms_of("alice");
  terms.expires_at = std::chrono::sys_days(std::chrono::year(9999) / 12 / 31) + 86'399s;
  const auto text = render_people(People{made_for(terms).person});
  EXPECT_THAT(text, HasSubstr(" 9999-12-31T23:59:59Z"));
  EXPECT_EQ(why_not(text), "");
}

TEST(ProxyPeopleTest, BeyondALimitNothingIsRead) {
  EXPECT_THAT(why_not(std::string(kMaxPeopleBytes + 1, '\n')), HasSubstr("more than"));
  EXPECT_THAT(why_not(std::string(kMaxPersonBytes + 1, 'a')), HasSubstr("longer than"));
  auto terms = terms_of("alice");
  for (std::size_t i = 0; i <= kMaxGrants; ++i) {
    terms.grants.push_back({Access::kCanRead, "o" + std::to_string(i)});
  }
  EXPECT_FALSE(make_person(terms, {}));
  People many(kMaxPeople);
  EXPECT_FALSE(add_person(many, made_for(terms_of("alice")).person));
}

class ProxyPeopleFileTest : public testing::Test {
 protected:
  [[nodiscard]] mode_t mode() const {
    struct stat info{};
    EXPECT_EQ(stat(path_.c_str(), &info), 0);
    return info.st_mode & 07777;
  }
  [[nodiscard]] Status add(const Person& person) const {
    return edit_people(path_, [&](People& people) { return add_person(people, person); });
  }

  TempDir dir_{TempDir::memory()};  // every write waits for the disk
  const std::string path_ = dir_ / kPeopleFile;
};

TEST_F(ProxyPeopleFileTest, NoFileIsNobody) {
  const auto people = read_people(path_);
  ASSERT_TRUE(people) << people.error().what;
  EXPECT_THAT(*people, IsEmpty());
}

TEST_F(ProxyPeopleFileTest, PeopleAreAddedAndRemoved) {
  const auto alice = made_for(terms_of("alice")).person, bob = made_for(terms_of("bob"), 8).person;
  ASSERT_TRUE(add(alice) && add(bob));
  EXPECT_EQ(read_people(path_).value(), (People{alice, bob}));
  EXPECT_EQ(mode(), 0600);
  EXPECT_THAT(names_in(dir_.path()), testing::ElementsAre(kPeopleFile));
  ASSERT_TRUE(edit_people(path_, [&](People& all) { return remove_person(all, alice.id); }));
  EXPECT_EQ(read_people(path_).value(), (People{bob}));
}

TEST_F(ProxyPeopleFileTest, AChangeThatFailsWritesNothing) {
  ASSERT_TRUE(add(made_for(terms_of("alice")).person));
  const auto before = read_file(path_);
  const auto removed = edit_people(path_, [](People& all) { return remove_person(all, "nobody"); });
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(add(made_for(terms_of("alice")).person)) << "the same token once more";
  EXPECT_EQ(read_file(path_), before);
}

TEST_F(ProxyPeopleFileTest, AFileThatCannotBeReadIsLeftAlone) {
  ASSERT_TRUE(write_file(path_, "garbage\n"));
  ASSERT_EQ(chmod(path_.c_str(), 0600), 0);
  const auto added = add(made_for(terms_of("alice")).person);
  ASSERT_FALSE(added);
  EXPECT_THAT(added.error().what, StartsWith(path_ + ":1: line: "));
  EXPECT_EQ(read_file(path_), "garbage\n");
}

TEST_F(ProxyPeopleFileTest, AFileThatOthersCanReadIsRefused) {
  ASSERT_TRUE(write_file(path_, ""));
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  const auto people = read_people(path_);
  ASSERT_FALSE(people);
  EXPECT_THAT(people.error().what, HasSubstr("others may read it"));
}

TEST_F(ProxyPeopleFileTest, ALinkIsNotFollowed) {
  const auto elsewhere = dir_ / "elsewhere";
  ASSERT_TRUE(write_file(elsewhere, ""));
  ASSERT_EQ(chmod(elsewhere.c_str(), 0600), 0);
  ASSERT_EQ(symlink(elsewhere.c_str(), path_.c_str()), 0);
  EXPECT_FALSE(read_people(path_));
}

TEST_F(ProxyPeopleFileTest, WhatRootWritesBelongsToTheDirectorysOwner) {
  ASSERT_EQ(geteuid(), 0U) << "run as root: nobody else gives files away";
  constexpr uid_t kDaemon = 61'234;
  ASSERT_EQ(chown(dir_.path().c_str(), kDaemon, kDaemon), 0);
  ASSERT_TRUE(add(made_for(terms_of("alice")).person));
  struct stat info{};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, kDaemon);
  EXPECT_TRUE(add(made_for(terms_of("bob"), 8).person)) << "and root still reads it";
}

TEST_F(ProxyPeopleFileTest, TwoWhoAddAtOnceLoseNobody) {
  constexpr int kEach = 20;
  const auto add_many = [&](std::uint8_t first) {
    for (std::uint8_t i = 0; i < kEach; ++i) {
      EXPECT_TRUE(add(made_for(terms_of("alice"), static_cast<std::uint8_t>(first + i)).person));
    }
  };
  std::thread other(add_many, std::uint8_t{100});
  add_many(0);
  other.join();
  EXPECT_THAT(read_people(path_).value(), SizeIs(2 * kEach));
}

TEST(ProxyPeopleTest, WhoseWorkloadsATokenMaySeeIsToldWithIt) {
  Person terms;
  terms.user = "alice";
  terms.grants = {{Access::kCanRead, "bob"}, {Access::kCanManage, "carol"}};
  const auto made = make_person(terms, TokenSecret{}).value();
  const auto got = answer(People{made.person},
                          {Question::What::kSees, made.token, "", "", "", Access::kOwner}, kNow);
  EXPECT_EQ(got.kind, Kind::kGood);
  EXPECT_EQ(got.user.name, "alice");
  EXPECT_EQ(got.owners, (std::vector<std::string>{"bob", "carol"}));
}

}  // namespace
}  // namespace meshd::proxy
