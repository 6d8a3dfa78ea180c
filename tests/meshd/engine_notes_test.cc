// What the daemon notes is what the shims read.
#include "meshd/engine_notes.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

class EngineNotesTest : public testing::Test {
 protected:
  [[nodiscard]] std::set<std::string> noted() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ + "/engines/declared")) {
      names.insert(entry.path().filename());
    }
    return names;
  }
  [[nodiscard]] std::string rules() const {
    std::stringstream text;
    text << std::ifstream(dir_ + "/engines/rules").rdbuf();
    return text.str();
  }
  static auto workloads(std::set<std::string> ids) {
    decltype(policy::World::workloads) all;
    for (const auto& id : ids) all[id];
    return all;
  }

  const TempDir temporary_;
  const std::string& dir_ = temporary_.path();
};

TEST_F(EngineNotesTest, ExactlyWhatIsDeclaredIsNoted) {
  auto notes = EngineNotes::open(dir_).value();
  for (const std::set<std::string>& ids : std::vector<std::set<std::string>>{
           {"b", "d"}, {"a", "b", "c", "d", "e"}, {"c"}, {"c", "z"}, {"a"}, {}}) {
    ASSERT_TRUE(notes.follow(workloads(ids)));
    EXPECT_EQ(noted(), ids);
  }
}

TEST_F(EngineNotesTest, TheNextProcessGoesOnFromWhatIsThere) {
  ASSERT_TRUE(EngineNotes::open(dir_).value().follow(workloads({"a", "b"})));
  auto notes = EngineNotes::open(dir_).value();
  EXPECT_EQ(noted(), (std::set<std::string>{"a", "b"}));
  ASSERT_TRUE(notes.follow(workloads({"b", "c"})));
  EXPECT_EQ(noted(), (std::set<std::string>{"b", "c"}));
}

TEST_F(EngineNotesTest, WhatCouldNotBeNotedIsTriedAgain) {
  auto notes = EngineNotes::open(dir_).value();
  const std::string longest(300, 'a');  // no file's name
  EXPECT_FALSE(notes.follow(workloads({"a", longest})));
  ASSERT_TRUE(notes.follow(workloads({"a", "b"})));
  EXPECT_EQ(noted(), (std::set<std::string>{"a", "b"}));
}

TEST_F(EngineNotesTest, RulesAreWrittenWhole) {
  const auto notes = EngineNotes::open(dir_).value();
  ASSERT_TRUE(notes.write_rules(Undeclared::kIgnore, false));
  EXPECT_EQ(rules(), "undeclared IGNORE\ncluster no\n");
  ASSERT_TRUE(notes.write_rules(Undeclared::kRefuse, true));
  EXPECT_EQ(rules(), "undeclared REFUSE\ncluster yes\n");
  ASSERT_TRUE(notes.write_rules(Undeclared::kClosed, true));
  EXPECT_EQ(rules(), "undeclared CLOSED\ncluster yes\n");
}

}  // namespace
}  // namespace meshd
