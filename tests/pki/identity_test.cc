#include "pki/identity.h"

#include <gtest/gtest.h>

namespace meshd::pki {
namespace {

TEST(IdentityTest, EveryRoleSurvivesTheWayThroughText) {
  for (const auto role : kRoles) {
    const Identity identity{"lab-1", role, "node-7"};
    const auto read = parse_identity(identity.to_string());
    ASSERT_TRUE(read) << read.error().what;
    EXPECT_EQ(*read, identity);
  }
  EXPECT_EQ((Identity{"lab", Role::kNode, "a"}.to_string()), "mesh://lab/node/a");
}

TEST(IdentityTest, TheLongestFits) {
  const Identity longest{std::string(63, 'c'), Role::kController, std::string(63, 'n')};
  EXPECT_EQ(longest.to_string().size(), kMaxIdentityBytes);
  EXPECT_TRUE(parse_identity(longest.to_string()));
}

TEST(IdentityTest, WhatIsNotExactlyOneIsRefused) {
  const std::string nul("mesh://lab/node/a\0b", 19);
  for (const std::string& text : {std::string(),
                                  std::string("mesh://"),
                                  std::string("mesh://lab"),
                                  std::string("mesh://lab/node"),
                                  std::string("mesh://lab/node/"),
                                  std::string("mesh:///node/a"),
                                  std::string("mesh://lab//a"),
                                  std::string("mesh://lab/node/a/"),
                                  std::string("mesh://lab/node/a/b"),
                                  std::string("mesh://lab/node/a?x"),
                                  std::string("mesh://lab/node/a#x"),
                                  std::string("mesh://lab:1/node/a"),
                                  std::string("mesh://u@lab/node/a"),
                                  std::string("Mesh://lab/node/a"),
                                  std::string("mesh://Lab/node/a"),
                                  std::string("mesh://lab/Node/a"),
                                  std::string("mesh://lab/node/A"),
                                  std::string("mesh://lab/node/%61"),
                                  std::string("mesh://lab/root/a"),
                                  std::string("mesh://lab/node/a "),
                                  std::string(" mesh://lab/node/a"),
                                  std::string("mesh://lab/node/-a"),
                                  std::string("mesh://lab/node/a-"),
                                  std::string("mesh://lab/node/a.b"),
                                  std::string("mesh://lab/node/a_b"),
                                  std::string("mesh://lab/node/\xc3\xa4"),
                                  std::string("https://lab/node/a"),
                                  std::string("mesh:/lab/node/a"),
                                  std::string("mesh://lab/node/") + std::string(64, 'a'),
                                  nul,
                                  std::string(1 << 20, '/')}) {
    EXPECT_FALSE(parse_identity(text)) << text.substr(0, 80);
  }
}

TEST(IdentityTest, AnErrorRepeatsNothingOfTheText) {
  const auto read = parse_identity("mesh://lab/node/\x1b[31mred");
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().what,
            "not mesh://CLUSTER/ROLE/NAME: the name may hold a-z, 0-9 and '-' only");
}

TEST(IdentityTest, ControllersHaveAHostOfTheirCluster) {
  EXPECT_EQ(controller_host("lab"), "controller.lab.mesh");
}

}  // namespace
}  // namespace meshd::pki
