#include "meshd/reporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meshd {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class ReporterTest : public testing::Test {
 protected:
  void attach(const std::string& id) {
    auto& workload = world_.workloads[id];
    workload.declaration.id = id;
    workload.attachment.emplace().v4 = IpAddress::v4(++last_);
    reporter_.note({id});
  }
  void detach(const std::string& id) {
    world_.workloads[id].attachment.reset();
    reporter_.note({id});
  }
  // What is sent now: "a b -c", or "nothing".
  std::string sent(std::uint64_t generation) {
    const auto report = reporter_.next(world_, generation);
    if (!report) return "nothing";
    number_ = report->number();
    std::string text = report->all() ? "all" : "";
    for (const auto& endpoint : report->endpoints()) text += " " + endpoint.id();
    for (const auto& id : report->gone()) text += " -" + id;
    return text;
  }
  void taken(const std::string& refused = "") {
    mesh::v1::ReportTaken message;
    message.set_number(number_);
    if (!refused.empty()) {
      message.add_refused()->set_subject(refused);
      message.mutable_refused(0)->set_detail("is not declared");
    }
    reporter_.taken(message);
  }

  policy::World world_;
  Reporter reporter_;
  std::uint32_t last_ = 0;
  std::uint64_t number_ = 0;
};

TEST_F(ReporterTest, AllAtFirstThenDifferences) {
  attach("a");
  attach("b");
  EXPECT_EQ(sent(1), "all a b");
  EXPECT_EQ(sent(2), "nothing");
  attach("c");
  detach("a");
  EXPECT_EQ(sent(3), " c -a");
  reporter_.begin();
  EXPECT_EQ(sent(4), "all b c");
}

TEST_F(ReporterTest, AnEmptyNodeSaysSo) {
  EXPECT_EQ(sent(1), "all");
  EXPECT_EQ(sent(1), "nothing");
}

TEST_F(ReporterTest, AGenerationIsReportedWhenItsReportWasTaken) {
  attach("a");
  EXPECT_EQ(sent(3), "all a");
  EXPECT_EQ(reporter_.reported(), 0U);
  EXPECT_EQ(sent(4), "nothing");
  EXPECT_EQ(reporter_.reported(), 0U) << "the controller has not heard of 3";
  taken();
  EXPECT_EQ(reporter_.reported(), 4U);
  EXPECT_EQ(sent(5), "nothing");
  EXPECT_EQ(reporter_.reported(), 5U);
}

TEST_F(ReporterTest, WhatIsNotBelievedIsSaidAgainWithItsNextChange) {
  attach("a");
  EXPECT_EQ(sent(1), "all a");
  taken("a");
  EXPECT_EQ(reporter_.refused().at("a"), "is not declared");
  EXPECT_EQ(sent(2), "nothing");
  reporter_.note({"a"});
  EXPECT_EQ(sent(3), " a");
  EXPECT_THAT(reporter_.refused(), IsEmpty());
}

TEST_F(ReporterTest, OthersAreNotReported) {
  world_.workloads["far"].remote.emplace().v4 = IpAddress::v4(9);
  reporter_.note({"far"});
  EXPECT_EQ(sent(1), "all");
}

TEST_F(ReporterTest, WhatNobodyAskedForIsNoAnswer) {
  attach("a");
  EXPECT_EQ(sent(1), "all a");
  number_ = 7;
  taken();
  EXPECT_EQ(reporter_.reported(), 0U);
}

}  // namespace
}  // namespace meshd
