// The stories of tests/replay/*.scn, and that the player believes nothing: a story that is
// not true, or makes no sense, fails with its file and line.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/node_player.h"
#include "tests/support/text_file.h"

namespace meshd {
namespace {

constexpr const char* kFolder = "tests/replay";

std::vector<std::string> stories() {
  std::vector<std::string> names;
  for (const auto& name : names_in(kFolder)) {
    if (name.ends_with(".scn")) names.push_back(name.substr(0, name.size() - 4));
  }
  return names;
}

class StoryTest : public NodePlayer, public testing::WithParamInterface<std::string> {};

TEST_P(StoryTest, GoesAsTold) {
  const auto path = fmt::format("{}/{}.scn", kFolder, GetParam());
  const auto text = read_file(path);
  ASSERT_TRUE(text) << path;
  const auto played = play(path, *text);
  EXPECT_TRUE(played) << played.error().what;
}

INSTANTIATE_TEST_SUITE_P(, StoryTest, testing::ValuesIn(stories()),
                         [](const auto& tested) { return tested.param; });

class PlayerTest : public NodePlayer {
 protected:
  // The worker waits for a db that is not attached.
  void SetUp() override {
    const auto played = play("before.scn", R"(
apply
  workloads:
  - {id: db, owner: ada, workflow: w, name: db, serves: [{port: 80}]}
  - {id: worker, owner: ada, workflow: w, peers: [{name: db}]}
attach worker
expect state worker READY
)");
    ASSERT_TRUE(played) << played.error().what;
  }
  std::string complaint(const std::string& text) {
    const auto played = play("x.scn", text);
    return played ? "" : played.error().what;
  }
};

TEST_F(PlayerTest, FindsTheStories) { EXPECT_GE(stories().size(), 8U); }

TEST_F(PlayerTest, NamesTheCommandThatIsRefusedUnexpectedly) {
  EXPECT_EQ(complaint("\n# nobody\nattach nobody\nexpect state db DECLARED\n"),
            "x.scn:3: the answer is: attach nobody: no workload of that id is declared here");
}

TEST_F(PlayerTest, NamesADeclarationByItsOwnLine) {
  EXPECT_EQ(complaint("# one\napply\n  workloads:\n\n  - id: x\n    owners: ada\n"),
            "x.scn:6: workloads[0]: unknown field \"owners\"; did you mean owner?");
  EXPECT_EQ(complaint("# one\napply workloads: [{id: x, owners: ada}]"),
            "x.scn:2: workloads[0]: unknown field \"owners\"; did you mean owner?");
}

TEST_F(PlayerTest, TellsWhatIsInsteadOfWhatWasExpected) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"expect pending", "the answer is: OK"},
      {"expect refused because", "the answer is: OK"},
      {"expect element local4 10.213.0.2", "in the kernel:\n  local4 10.213.0.1"},
      {"expect no element local4 *", "but there is: local4 *"},
      {"expect 2 elements local4 *", "there are 1:\n  local4 10.213.0.1"},
      {"expect name worker db NXDOMAIN", "the answer is 10.213.128.1 "},
      {"expect name6 worker db NODATA", "the answer is fd00:0:0:2::1 "},
      {"expect name worker other NODATA", "the answer is NXDOMAIN you declare no peer other"},
      {"expect name db worker NXDOMAIN", "db is not attached"},
      {"expect name 10.213.0.77 db NXDOMAIN",
       "the answer is DROPPED not a client of this resolver"},
      {"expect state worker ATTACHED", "it is READY"},
      {"expect state other READY", "it is GONE"},
      {"expect verdict worker db 80 ALLOWED",
       "it is HELD: no endpoint of db of workflow w is ready: held for another 120 s"},
      {"expect verdict worker db 80 HELD for ever",
       "it is HELD: no endpoint of db of workflow w is ready: held for another 120 s"},
      {"expect generations behind", "stored 2, planned 2, installed 2, named 2; behind: no"},
      {"expect event DETACHED",
       "told since:\n  ATTACHED worker 10.213.0.1 fd00:0:0:1::1\n  READY worker"},
      {"expect no event READY worker", "but there is: READY worker"},
      {"expect erased *", "erased since: none"},
  };
  for (const auto& [line, why] : cases) EXPECT_EQ(complaint(line), "x.scn:1: " + why) << line;
}

TEST_F(PlayerTest, RefusesWhatMakesNoSense) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "nothing is expected"},
      {"tick 5s", "nothing is expected"},
      {"  indented", "an indented line with nothing above it"},
      {"wait a while", "no such word: wait"},
      {"expect", "no such word: expect"},
      {"expect happiness", "no such expectation: happiness"},
      {"expect name worker db", "name takes 3 words or more, and not 2"},
      {"expect no state db READY", "'no' goes with element, event and erased"},
      {"expect no element allow5 *", "no such set: allow5"},
      {"expect element allow5 *", "no such set: allow5"},
      {"expect 0 elements allow5 *", "no such set: allow5"},
      {"expect many elements allow4 *", "how many? many"},
      {"expect no event SURPRISE", "no such event: SURPRISE"},
      {"expect verdict worker db http HELD", "no port: http"},
      {"tick 5", "'5' is no time: 500ms, 5s or 2m"},
      {"tick soon", "'' is not a number that fits here"},
      {"listens worker 70000", "'70000' is not a number that fits here"},
      {"listens db 80", "db is not attached"},
      {"listens worker 80 v5", "write it: listens ID PORT [v4|v6]"},
      {"kernel sleeps", "write it: kernel refuses [N] | accepts | emptied"},
      {"link worker", "write it: link ID gone [unheard]"},
      {"link db gone", "db is not attached"},
  };
  for (const auto& [line, why] : cases) EXPECT_EQ(complaint(line), "x.scn:1: " + why) << line;
}

// What no line of a story says is looked at all the same.
TEST_F(PlayerTest, SeesAnElementThatIsNotPlanned) {
  kernel_.lose_elements();
  EXPECT_THAT(complaint("expect state db DECLARED"),
              testing::StartsWith("x.scn:1: kernel and plan differ:\n  "));
}

}  // namespace
}  // namespace meshd
