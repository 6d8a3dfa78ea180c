// A workload whose author is not its launcher.
#include "policy/authored.h"

#include <gtest/gtest.h>

namespace meshd::policy {
namespace {

Result<Declaration> read(std::string_view text) {
  auto tree = read_yaml("author", text).value();
  return read_authored("properties.meshd", tree, {"c1", "alice", "run-1"});
}

TEST(AuthoredTest, TheLauncherSaysWhoItIsAndTheAuthorTheRest) {
  const auto declaration = read("{name: db, serves: [{port: 5432}]}").value();
  EXPECT_EQ(declaration.id, "c1");
  EXPECT_EQ(declaration.owner, "alice");
  EXPECT_EQ(declaration.workflow, "run-1");
  EXPECT_EQ(declaration.name, "db");
  EXPECT_EQ(declaration.scope, Scope::kWorkflow);
}

TEST(AuthoredTest, WhatIsTheLaunchersIsRefusedByName) {
  for (const std::string field : {"id", "owner", "workflow"}) {
    EXPECT_EQ(read("{" + field + ": mallory}").error().what,
              "properties.meshd: " + field + ": is the launcher's to say; leave it out");
  }
}

TEST(AuthoredTest, AnErrorNamesTheLineWhereThereIsOne) {
  EXPECT_EQ(read("serves:\n- {port: 0}").error().what,
            "properties.meshd:2: serves[0].port: must be 1 to 65535, not 0");
  YamlNode tree;
  tree.kind = YamlNode::Kind::kScalar;
  EXPECT_EQ(read_authored("properties.meshd", tree, {"c1", "alice", ""}).error().what,
            "properties.meshd: must be a mapping, not a single value");
  // Found by the values' own rules, which know fields and no lines.
  EXPECT_EQ(read("{peers: [{id: c1}]}").error().what,
            "properties.meshd: peers[0].id: is the workload itself");
}

}  // namespace
}  // namespace meshd::policy
