#include "proxy/overview.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/proxy/overview_samples.h"

namespace meshd::proxy {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using Whose = ShownRefusal::Whose;

class OverviewTest : public testing::Test {
 protected:
  View see(const Viewer& who, std::string_view find = {}) {
    overview_ = bed_.overview();
    return visible(overview_, who, find);
  }
  static std::vector<std::string> ids(const View& view) {
    std::vector<std::string> result;
    for (const auto* one : view.workloads) result.push_back(one->id);
    return result;
  }
  static std::vector<std::string> ends(const View& view) {
    std::vector<std::string> result;
    for (const auto& edge : view.edges) result.push_back(edge.from + " > " + edge.to);
    return result;
  }
  static std::vector<std::string> others(const View& view) {
    std::vector<std::string> result;
    for (const auto& other : view.others) result.push_back(other.key);
    return result;
  }

  OverviewBed bed_;
  Overview overview_;
};

TEST_F(OverviewTest, AnOwnerSeesTheirOwn) {
  EXPECT_THAT(ids(see(viewer("ada"))), ElementsAre("db", "worker"));
  EXPECT_THAT(ids(see(viewer("bob"))), ElementsAre("store"));
}

TEST_F(OverviewTest, SomebodyWithoutAnOwnersNameSeesNothing) {
  bed_.shape.workloads[1].owner.clear();  // cannot be, and must not match nobody's name
  const auto view = see(Viewer());
  EXPECT_THAT(view.workloads, IsEmpty());
  EXPECT_THAT(view.edges, IsEmpty());
  EXPECT_THAT(view.refusals, IsEmpty());
}

TEST_F(OverviewTest, WhomTheyMayReadTheySeeToo) {
  auto who = viewer("bob");
  who.owners = {"carol"};
  EXPECT_THAT(ids(see(who)), ElementsAre("spy", "store"));
}

TEST_F(OverviewTest, ASingleContainerThatTheyMayReadTheySeeToo) {
  auto who = viewer("bob");
  who.ids = {"db"};
  EXPECT_THAT(ids(see(who)), ElementsAre("db", "store"));
}

TEST_F(OverviewTest, AnAdministratorSeesAll) {
  const auto view = see(administrator());
  EXPECT_THAT(view.workloads, SizeIs(4));
  EXPECT_THAT(ends(view), ElementsAre("worker > db", "worker > store"));
  EXPECT_THAT(view.others, IsEmpty());
}

TEST_F(OverviewTest, AConsumersOwnerSeesTheNameTheyDeclareAndNotWhoStandsBehindIt) {
  const auto view = see(viewer("ada"));
  EXPECT_THAT(ends(view), ElementsAre("worker > db", "worker > service store"));
  ASSERT_THAT(view.others, SizeIs(1));
  EXPECT_EQ(view.others[0].label, "store");
  EXPECT_EQ(view.others[0].kind, Other::Kind::kService);
}

TEST_F(OverviewTest, OfAPeerByIdTheySeeTheId) {
  bed_.shape.edges[1].service.clear();
  EXPECT_THAT(others(see(viewer("ada"))), ElementsAre("workload store"));
}

TEST_F(OverviewTest, AProvidersOwnerSeesTheOwnerWhomTheyAdmitByName) {
  const auto view = see(viewer("bob"));
  EXPECT_THAT(ends(view), ElementsAre("owner ada > store"));
}

TEST_F(OverviewTest, WhomTheyAdmitAsAnybodyTheyDoNotLearnOf) {
  bed_.shape.edges[1].names_consumer = false;
  const auto view = see(viewer("bob"));
  EXPECT_THAT(ends(view), ElementsAre("somebody others > store"));
  EXPECT_EQ(view.others[0].label, "others");
}

TEST_F(OverviewTest, AnEdgeBetweenOthersIsNotThere) {
  EXPECT_THAT(see(viewer("carol")).edges, IsEmpty());
}

TEST_F(OverviewTest, ReplicasBehindOneNameAreOneEdge) {
  auto more = sample_shown("store-2", "bob", "store");
  bed_.shape.workloads.insert(bed_.shape.workloads.begin() + 3, more);
  bed_.shape.edges = {{4, 0, "db", false, {{Proto::kTcp, 5432, 5432}}},
                      {4, 2, "store", true, {{Proto::kTcp, 80, 90}}},
                      {4, 3, "store", true, {{Proto::kTcp, 80, 90}, {Proto::kUdp, 1, 1}}}};
  bed_.traffic = {{"worker", "store", Proto::kTcp, 80, 10, 1},
                  {"worker", "store-2", Proto::kTcp, 80, 20, 2}};
  const auto view = see(viewer("ada"));
  ASSERT_THAT(ends(view), ElementsAre("worker > db", "worker > service store"));
  EXPECT_THAT(view.edges[1].ports, ElementsAre("tcp/80-90", "udp/1"));
  ASSERT_THAT(view.edges[1].flows, SizeIs(1));
  EXPECT_EQ(view.edges[1].flows[0].bytes, 30);
  EXPECT_EQ(view.edges[1].flows[0].packets, 3);
}

TEST_F(OverviewTest, TrafficIsShownOnItsEdgeAlone) {
  bed_.traffic = {{"worker", "db", Proto::kTcp, 5432, 100, 4}};
  const auto view = see(viewer("ada"));
  ASSERT_THAT(view.edges[0].flows, SizeIs(1));
  EXPECT_EQ(view.edges[0].flows[0].port, "tcp/5432");
  EXPECT_THAT(view.edges[1].flows, IsEmpty());
}

TEST_F(OverviewTest, APeerThatNobodyProvidesIsAnEdgeThatIsNotOpen) {
  bed_.shape.wishes = {{3, "mail", ""}, {1, "secret", ""}};
  const auto view = see(viewer("ada"));
  EXPECT_THAT(ends(view),
              ElementsAre("worker > db", "worker > service mail", "worker > service store"));
  EXPECT_FALSE(view.edges[1].open);
  EXPECT_TRUE(view.edges[0].open);
}

TEST_F(OverviewTest, ARefusalIsShownToBothOwners) {
  bed_.refusals = {sample_refusal("spy", "carol", "db", "ada", Whose::kProvider)};
  for (const auto* who : {"ada", "carol"}) {
    const auto view = see(viewer(who));
    ASSERT_THAT(view.refusals, SizeIs(1)) << who;
    EXPECT_EQ(view.refusals[0].consumer_owner, "carol");
    EXPECT_EQ(view.refusals[0].provider_owner, "ada");
  }
  EXPECT_THAT(see(viewer("bob")).refusals, IsEmpty());
}

TEST_F(OverviewTest, WhoDeclaredNoPeerIsNotToldWhoseTheProviderIs) {
  bed_.refusals = {sample_refusal("spy", "carol", "db", "ada", Whose::kConsumer)};
  EXPECT_EQ(see(viewer("carol")).refusals.at(0).provider_owner, "");
  EXPECT_EQ(see(viewer("ada")).refusals.at(0).consumer_owner, "carol");
  EXPECT_EQ(see(administrator()).refusals.at(0).provider_owner, "ada");
}

TEST_F(OverviewTest, ARefusalByNobodysServiceIsShownToTheConsumersOwnerAlone) {
  bed_.refusals = {sample_refusal("worker", "ada", "198.51.100.9", "", Whose::kConsumer)};
  EXPECT_THAT(see(viewer("ada")).refusals, SizeIs(1));
  EXPECT_THAT(see(viewer("bob")).refusals, IsEmpty());
  EXPECT_THAT(see(Viewer()).refusals, IsEmpty());
}

TEST_F(OverviewTest, FindShowsWhatMatchesAndWhomThatTalksTo) {
  EXPECT_THAT(ids(see(administrator(), "STORE")), ElementsAre("store", "worker"));
  const auto none = see(administrator(), "nothing of this");
  EXPECT_THAT(none.workloads, IsEmpty());
  EXPECT_EQ(none.left_out, 4);
}

TEST_F(OverviewTest, FindShowsNobodyWhomTheyMayNotSee) {
  EXPECT_THAT(ids(see(viewer("ada"), "store")), IsEmpty());
  EXPECT_THAT(ids(see(viewer("carol"), "worker")), IsEmpty());
}

TEST_F(OverviewTest, OfManyTheirOwnAreShownFirstAndTheRestIsCounted) {
  bed_.shape = {};
  for (std::size_t i = 0; i < kMaxShown + 10; ++i) {
    bed_.shape.workloads.push_back(
        sample_shown(fmt::format("w{:05}", i), i < kMaxShown ? "others" : "root"));
  }
  const auto view = see(administrator());
  EXPECT_THAT(view.workloads, SizeIs(kMaxShown));
  EXPECT_EQ(view.left_out, 10);
  EXPECT_EQ(view.workloads.back()->owner, "root");
}

TEST_F(OverviewTest, WhoIsLeftOutIsNotMadeAStrangerOf) {
  bed_.shape.edges = {{3, 0, "db", false, {{Proto::kTcp, 5432, 5432}}}};
  bed_.shape.workloads[0].owner = "zed";
  auto who = viewer("ada");
  who.owners = {"zed"};
  // worker alone matches; db comes with it, as it is declared to be talked to.
  EXPECT_THAT(others(see(who, "worker")), IsEmpty());
}

TEST_F(OverviewTest, ViewersThatSeeOtherThingsHaveOtherKeys) {
  auto granted = viewer("ada");
  granted.owners = {"bob"};
  auto single = viewer("ada");
  single.ids = {"bob"};
  auto admin = viewer("ada");
  admin.admin = true;
  const std::set<std::string> keys = {viewer("ada").key(), viewer("bob").key(), granted.key(),
                                      single.key(), admin.key()};
  EXPECT_THAT(keys, SizeIs(5));
  EXPECT_EQ(viewer("ada").key(), viewer("ada").key());
}

}  // namespace
}  // namespace meshd::proxy
