// What becomes of a container, by what is known of it.
#include "engines/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engines/notes.h"

namespace meshd::engines {
namespace {

using Kind = Decision::Kind;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string kNumber = "3f2a0c9e4b7d1a5c8e6f0b2d4a6c8e0f1a3c5e7f9b1d3f5a7c9e1b3d5f7a9c1e";
const std::string kArvados = "zzzzz-dz642-000000000000001";

Notes noted(std::set<std::string> ids, bool in_cluster = false) {
  return {Notes::Undeclared::kIgnore, in_cluster, std::move(ids)};
}

TEST(LaunchTest, NamesThatCannotBeIdsAreNone) {
  EXPECT_THAT(ids_of({{}, {"db", kNumber, "My_App", "db"}}), ElementsAre("db", "3f2a0c9e4b7d"));
  for (const auto* text : {"", "-a", "a-", "a--b", "A", "a.b", "a_b", "a/b", ".."}) {
    EXPECT_FALSE(is_id(text)) << text;
  }
  EXPECT_FALSE(is_id(std::string(64, 'a')));
  EXPECT_TRUE(is_id(std::string(63, 'a')));
  EXPECT_TRUE(is_id(kArvados));
}

TEST(LaunchTest, WhoIsNotedIsAttachedByTheBestName) {
  const auto decision = decide({{}, {"web", kNumber}}, noted({"3f2a0c9e4b7d", "web"})).value();
  EXPECT_EQ(decision.kind, Kind::kAttach);
  EXPECT_EQ(decision.id, "web");
  EXPECT_TRUE(decision.declaration.empty());
}

TEST(LaunchTest, WhoIsNotNotedIsLeftAloneUnlessConfigured) {
  auto notes = noted({});
  EXPECT_EQ(decide({{}, {"web"}}, notes)->kind, Kind::kLeave);
  notes.undeclared = Notes::Undeclared::kClosed;
  EXPECT_EQ(decide({{}, {"web"}}, notes)->kind, Kind::kClosed);
  notes.undeclared = Notes::Undeclared::kRefuse;
  EXPECT_EQ(decide({{}, {"web"}}, notes)->kind, Kind::kRefuse);
}

TEST(LaunchTest, AnIdThatIsGivenCountsBeforeAnyName) {
  const Launch launch{{{"mesh.id", "db"}}, {"web"}};
  const auto decision = decide(launch, noted({"web"})).value();
  EXPECT_EQ(decision.kind, Kind::kAttach);
  EXPECT_EQ(decision.id, "db");
  EXPECT_THAT(decide({{{"mesh.id", "../x"}}, {}}, noted({})).error().what, HasSubstr("mesh.id"));
}

TEST(LaunchTest, ADeclarationIsOfWhoeverLaunches) {
  const Launch launch{{{"mesh.declaration", "name: db"}}, {"web"}};
  auto decision = decide(launch, noted({})).value();
  EXPECT_EQ(decision.kind, Kind::kAttach);
  EXPECT_EQ(decision.id, "web");
  EXPECT_EQ(decision.declaration, "name: db");
  EXPECT_EQ(decision.owner, "root");
  EXPECT_EQ(decision.workflow, "");
  const Launch whole{{{"mesh.declaration", "name: db"},
                      {"mesh.owner", "ada"},
                      {"mesh.workflow", "wf1"},
                      {"mesh.id", "db"}},
                     {"web"}};
  decision = decide(whole, noted({})).value();
  EXPECT_EQ(decision.id, "db");
  EXPECT_EQ(decision.owner, "ada");
  EXPECT_EQ(decision.workflow, "wf1");
}

TEST(LaunchTest, WhoSaysNothingWithALabelOfOursIsNotLeftAlone) {
  for (const auto* key : {"mesh.id", "mesh.declaration"}) {
    EXPECT_THAT(decide({{{key, ""}}, {"web"}}, noted({})).error().what, HasSubstr(key));
  }
}

TEST(LaunchTest, ADeclarationWithoutAnythingThatCanBeAnIdIsRefused) {
  const auto decision = decide({{{"mesh.declaration", "name: db"}}, {"My_App"}}, noted({}));
  EXPECT_THAT(decision.error().what, HasSubstr("give mesh.id"));
}

TEST(LaunchTest, InAClusterOnlyAControllerKnowsOfAnArvadosContainer) {
  const auto decision = decide({{}, {kArvados}}, noted({}, true)).value();
  EXPECT_EQ(decision.kind, Kind::kAsk);
  EXPECT_EQ(decision.id, kArvados);
  EXPECT_EQ(decide({{}, {kArvados}}, noted({}))->kind, Kind::kLeave);
  // Others' containers are started without asking anybody.
  EXPECT_EQ(decide({{}, {"nginx", kNumber}}, noted({}, true))->kind, Kind::kLeave);
  EXPECT_FALSE(is_arvados_container("zzzzz-xvhdp-000000000000001"));
  EXPECT_FALSE(is_arvados_container("zzzzz-dz642-00000000000000A"));
}

TEST(NotesTest, RulesAreReadAndHalfAFileIsNone) {
  EXPECT_EQ(parse_rules("undeclared REFUSE\ncluster yes\n")->undeclared,
            Notes::Undeclared::kRefuse);
  EXPECT_TRUE(parse_rules("undeclared REFUSE\ncluster yes\n")->in_cluster);
  EXPECT_FALSE(parse_rules("undeclared IGNORE\ncluster no\n")->in_cluster);
  EXPECT_EQ(parse_rules("undeclared CLOSED\n")->undeclared, Notes::Undeclared::kClosed);
  EXPECT_FALSE(parse_rules(""));
  EXPECT_FALSE(parse_rules("cluster yes\n"));
  EXPECT_FALSE(parse_rules("undeclared MAYBE\n"));
}

TEST(NotesTest, ANodeWithoutADaemonHasDeclaredNothing) {
  const auto notes = read_notes("/nonexistent", {"db"}).value();
  EXPECT_TRUE(notes.declared.empty());
  EXPECT_EQ(notes.undeclared, Notes::Undeclared::kIgnore);
}

}  // namespace
}  // namespace meshd::engines
