// What each node is told of the others, and what the list may forget.
#include "controller/node_list.h"

#include <gmock/gmock.h>

#include <random>

#include "policy/slice_hash.h"
#include "proto/controller.pb.h"

namespace meshd::controller {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class NodeListTest : public testing::Test {
 protected:
  // All that `name` is to be told, as "n1=value" or "-n1".
  std::vector<std::string> tell(NodeList::Place& place, const std::string& name) {
    std::vector<std::string> told;
    while (const auto* entry = list_.next(place, name)) {
      place.told = entry->second.changed;
      told.push_back(entry->second.gone ? "-" + entry->first
                                        : entry->first + "=" + entry->second.value);
    }
    return told;
  }
  NodeList list_;
};

TEST_F(NodeListTest, WhoComesIsToldOfAllButItself) {
  for (const auto* name : {"n1", "n2", "n3"}) list_.put(name, "a");
  auto place = list_.told_nothing();
  EXPECT_EQ(list_.left(place, "n2"), 2U);
  EXPECT_THAT(tell(place, "n2"), ElementsAre("n1=a", "n3=a"));
  EXPECT_THAT(tell(place, "n2"), IsEmpty());
}

TEST_F(NodeListTest, WhatChangesTwiceIsToldOnce) {
  list_.put("n1", "a");
  auto place = list_.told_all();
  EXPECT_TRUE(list_.put("n2", "a"));
  EXPECT_TRUE(list_.put("n1", "b"));
  EXPECT_TRUE(list_.put("n2", "b"));
  EXPECT_FALSE(list_.put("n2", "b")) << "the same again";
  EXPECT_THAT(tell(place, "me"), ElementsAre("n1=b", "n2=b"));
}

TEST_F(NodeListTest, WhoMayKnowOfOneThatIsGoneIsToldSo) {
  list_.put("n1", "a");
  auto knows = list_.told_all();
  EXPECT_TRUE(list_.drop("n1"));
  EXPECT_FALSE(list_.drop("n1"));
  auto comes = list_.told_nothing();
  EXPECT_THAT(tell(knows, "me"), ElementsAre("-n1"));
  EXPECT_THAT(tell(comes, "me"), IsEmpty()) << "it never knew";
}

TEST_F(NodeListTest, OneThatGoesWhileAllIsToldIsToldGone) {
  list_.put("n1", "a");
  list_.put("n2", "a");
  auto place = list_.told_nothing();
  place.told = list_.next(place, "me")->second.changed;  // n1
  list_.drop("n1");
  EXPECT_THAT(tell(place, "me"), ElementsAre("n2=a", "-n1"));
}

TEST_F(NodeListTest, GoneIsKeptUntilAllAreTold) {
  list_.put("n1", "a");
  auto late = list_.told_all();
  list_.drop("n1");
  list_.forget_gone(late.told);
  EXPECT_EQ(list_.gone(), 1U);
  EXPECT_THAT(tell(late, "me"), ElementsAre("-n1"));
  list_.forget_gone(late.told);
  EXPECT_EQ(list_.gone(), 0U);
}

TEST_F(NodeListTest, ANodeThatComesAgainIsTold) {
  list_.put("n1", "a");
  auto place = list_.told_all();
  list_.drop("n1");
  EXPECT_TRUE(list_.put("n1", "a"));
  EXPECT_EQ(list_.gone(), 0U);
  EXPECT_THAT(tell(place, "me"), ElementsAre("n1=a"));
}

// Whatever happens in between, who is told all has what is there, and its hash.
TEST_F(NodeListTest, WhoIsToldAllKnowsAll) {
  std::mt19937 random(1);
  const auto draw = [&](unsigned below) { return static_cast<unsigned>(random() % below); };
  struct Reader {
    NodeList::Place place;
    std::map<std::string, std::string> known;
  };
  std::map<std::string, Reader> readers;
  for (const auto* name : {"n0", "n1", "other"}) readers[name] = {list_.told_nothing(), {}};
  for (int step = 0; step < 5000; ++step) {
    const auto name = "n" + std::to_string(draw(6));
    if (draw(3) == 0) {
      list_.drop(name);
    } else {
      list_.put(name, std::string(1 + draw(3), 'x'));
    }
    auto least = list_.told_all().told;
    for (auto& [reader, at] : readers) {
      if (draw(4) == 0) {
        for (const auto& text : tell(at.place, reader)) {
          if (text[0] == '-') {
            at.known.erase(text.substr(1));
          } else {
            at.known[text.substr(0, 2)] = text.substr(3);
          }
        }
        std::uint64_t sum = 0;
        std::vector<std::string> names;
        for (const auto& [other, value] : at.known) {
          sum += policy::slice_item_hash(mesh::v1::SliceKey::Kind::NODE, other, value);
          names.push_back(other);
        }
        ASSERT_EQ(sum, list_.hash_for(reader)) << step;
        ASSERT_EQ(names, list_.names_for(reader)) << step;
      }
      least = std::min(least, at.place.told);
    }
    list_.forget_gone(least);
    ASSERT_LE(list_.gone(), 6U);
  }
}

}  // namespace
}  // namespace meshd::controller
