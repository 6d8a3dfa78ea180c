#include "proxy/directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/samples.h"

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> ids_of(const Directory::Openings& openings) {
  std::vector<std::string> ids;
  for (const auto& opening : openings) ids.push_back(opening->id);
  return ids;
}

class ProxyDirectoryTest : public testing::Test {
 protected:
  DirectoryWriter writer_;
  TimePoint now_{10h};
};

TEST_F(ProxyDirectoryTest, AnOpeningIsFoundByIdServiceAndRequest) {
  auto opening = sample_opening("w2", "db");
  opening.request = "zzzzz-xvhdp-000000000000000";
  writer_.set(opening);
  writer_.set(sample_opening("w1", "db"));
  writer_.set(sample_opening("w3"));
  const auto directory = writer_.directory();
  ASSERT_NE(directory->by_id("w2"), nullptr);
  EXPECT_EQ(*directory->by_id("w2"), opening);
  EXPECT_THAT(ids_of(directory->of_service("db")), ElementsAre("w1", "w2"));
  EXPECT_THAT(ids_of(directory->of_request(opening.request)), ElementsAre("w2"));
  EXPECT_EQ(directory->by_id("w4"), nullptr);
  EXPECT_THAT(directory->of_service(""), IsEmpty());
  EXPECT_THAT(directory->of_request(""), IsEmpty());
}

TEST_F(ProxyDirectoryTest, WhatChangesLeavesNothingBehind) {
  writer_.set(sample_opening("w1", "db"));
  writer_.set(sample_opening("w1", "web"));
  const auto directory = writer_.directory();
  EXPECT_THAT(directory->of_service("db"), IsEmpty());
  EXPECT_THAT(ids_of(directory->of_service("web")), ElementsAre("w1"));
  EXPECT_EQ(directory->by_id("w1"), directory->of_service("web").front().get());
}

TEST_F(ProxyDirectoryTest, ADirectoryThatWasPublishedStaysAsItIs) {
  writer_.set(sample_opening("w1", "db"));
  const auto before = writer_.directory();
  writer_.set(sample_opening("w1", "web"));
  writer_.set(sample_opening("w2", "db"));
  EXPECT_EQ(before->by_id("w1")->service, "db");
  EXPECT_THAT(ids_of(before->of_service("db")), ElementsAre("w1"));
}

TEST_F(ProxyDirectoryTest, WhoHasEndedIsRememberedForAnHour) {
  writer_.set(sample_opening("w1", "db"));
  writer_.end("w1", now_);
  writer_.forget_ended(now_ + 59min);
  const auto remembered = writer_.directory();
  ASSERT_NE(remembered->by_id("w1"), nullptr);
  EXPECT_EQ(remembered->by_id("w1")->state, Opening::State::kEnded);
  EXPECT_FALSE(remembered->by_id("w1")->ports.front().ready);
  EXPECT_THAT(ids_of(remembered->of_service("db")), ElementsAre("w1"));
  writer_.forget_ended(now_ + 1h);
  EXPECT_EQ(writer_.directory()->by_id("w1"), nullptr);
  EXPECT_THAT(writer_.directory()->of_service("db"), IsEmpty());
}

TEST_F(ProxyDirectoryTest, WhoComesBackIsNotForgottenForHavingEnded) {
  writer_.set(sample_opening("w1", "db"));
  writer_.end("w1", now_);
  writer_.set(sample_opening("w1", "db"));
  writer_.forget_ended(now_ + 2h);
  ASSERT_NE(writer_.directory()->by_id("w1"), nullptr);
  EXPECT_EQ(writer_.directory()->by_id("w1")->state, Opening::State::kReady);
  writer_.end("w1", now_ + 2h);
  writer_.forget_ended(now_ + 150min);
  EXPECT_NE(writer_.directory()->by_id("w1"), nullptr) << "half an hour after the second end";
}

TEST_F(ProxyDirectoryTest, TheOldestAreForgottenFirstWhenTooManyHaveEnded) {
  for (std::size_t i = 0; i <= kMaxEnded; ++i) {
    const auto id = "w" + std::to_string(i);
    writer_.set(sample_opening(id));
    writer_.end(id, now_);
  }
  EXPECT_EQ(writer_.directory()->by_id("w0"), nullptr);
  EXPECT_NE(writer_.directory()->by_id("w1"), nullptr);
}

TEST_F(ProxyDirectoryTest, EndingNobodyDoesNothing) {
  writer_.end("w1", now_);
  EXPECT_EQ(writer_.directory()->by_id("w1"), nullptr);
}

TEST_F(ProxyDirectoryTest, AliasesAndPortsLeadToTargets) {
  const Target target = ServiceTarget{"db", 8888};
  writer_.set_alias("ollama", target);
  writer_.set_port(9000, target);
  const auto directory = writer_.directory();
  ASSERT_TRUE(directory->by_alias("ollama") != nullptr && directory->by_port(9000) != nullptr);
  EXPECT_EQ(*directory->by_alias("ollama"), target);
  EXPECT_EQ(*directory->by_port(9000), target);
  writer_.remove_alias("ollama");
  writer_.remove_port(9000);
  EXPECT_EQ(writer_.directory()->by_alias("ollama"), nullptr);
  EXPECT_EQ(writer_.directory()->by_port(9000), nullptr);
  EXPECT_NE(directory->by_port(9000), nullptr);
}

TEST_F(ProxyDirectoryTest, OnlyWhatChangedCounts) {
  const auto changed = [&, before = writer_.changes()]() mutable {
    return std::exchange(before, writer_.changes()) != writer_.changes();
  };
  writer_.set(sample_opening("w1", "db"));
  EXPECT_TRUE(changed());
  writer_.set(sample_opening("w1", "db"));
  EXPECT_FALSE(changed());
  writer_.end("w1", now_);
  EXPECT_TRUE(changed());
  writer_.end("w1", now_);
  writer_.end("w2", now_);
  EXPECT_FALSE(changed());
  writer_.forget_ended(now_ + kRemembered);
  EXPECT_TRUE(changed());
  writer_.forget_ended(now_ + kRemembered);
  EXPECT_FALSE(changed());
  const auto point = [&](const char* name) {
    writer_.set_port(8400, ServiceTarget{name, {}});
    const bool port = changed();
    writer_.set_alias("old", ServiceTarget{name, {}});
    return std::pair(port, changed());
  };
  EXPECT_EQ(point("db"), std::pair(true, true));
  EXPECT_EQ(point("db"), std::pair(false, false));
  EXPECT_EQ(point("web"), std::pair(true, true));
  writer_.remove_port(8401);
  writer_.remove_alias("new");
  EXPECT_FALSE(changed());
  writer_.remove_port(8400);
  EXPECT_TRUE(changed());
  writer_.remove_alias("old");
  EXPECT_TRUE(changed());
}

}  // namespace
}  // namespace meshd::proxy
