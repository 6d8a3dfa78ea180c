#include "controller/overview.h"

#include <gmock/gmock.h>

#include "tests/controller/cluster_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using policy::RefusedPair;
using proxy::DeclaredEdge;
using proxy::ShownRefusal;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using Whose = ShownRefusal::Whose;

class OverviewTest : public testing::Test {
 protected:
  void SetUp() override {
    site_.zone = "mesh.example.org";
    ASSERT_TRUE(bed_.join("n1"));
    declare(
        "{id: db-1, owner: bob, name: db, scope: CLUSTER, serves: [{port: 5432, name: sql}],"
        " admit_owners: [ada]},"
        "{id: lab-1, owner: ada, name: lab, scope: CLUSTER,"
        " publish: [{port: 8888, http: true, path: /lab, label: Notebook, access: CAN_READ}]},"
        "{id: spy, owner: carol},"
        "{id: worker, owner: ada, peers: [{name: db}, {name: mail}]}");
  }
  void declare(const std::string& workloads) {
    const auto status = bed_.apply(workloads);
    ASSERT_TRUE(status) << status.error().what;
  }
  proxy::Shape shape() { return shape_of(bed_.cluster, bed_.stale, site_); }
  void refuse(const std::string& consumer, const std::string& provider, const std::string& missing,
              std::uint16_t port = 5432) {
    pairs_.add({consumer, provider, Proto::kTcp, port}, 2, ++wall_ms_).missing = missing;
  }
  std::vector<ShownRefusal> refusals() { return refusals_of(bed_.cluster, pairs_); }
  std::shared_ptr<const proxy::Overview> make(std::vector<proxy::FlowRate> traffic = {}) {
    return overviews_.make({bed_.cluster, bed_.stale, pairs_, site_, bed_.written.size(),
                            static_cast<std::uint64_t>(wall_ms_), std::move(traffic)},
                           bed_.now);
  }

  proxy::Site site_;
  ClusterBed bed_;
  policy::RefusedPairs pairs_{16};
  std::int64_t wall_ms_ = 0;
  Overviews overviews_;
};

TEST_F(OverviewTest, ShowsWhoRunsWhere) {
  bed_.attach("n1", "db-1");
  bed_.stale = {"n1"};
  const auto made = shape();
  ASSERT_THAT(made.workloads, SizeIs(4));
  const auto& db = *made.find("db-1");
  EXPECT_EQ(db.owner, "bob");
  EXPECT_EQ(db.service, "db");
  EXPECT_EQ(db.node, "n1");
  EXPECT_TRUE(db.stale);
  EXPECT_EQ(db.state, proxy::Opening::State::kReady);
  EXPECT_THAT(db.serves, ElementsAre("tcp/5432 sql"));
  EXPECT_EQ(made.find("worker")->state, proxy::Opening::State::kWaiting);
  EXPECT_EQ(made.find("nobody"), nullptr);
}

TEST_F(OverviewTest, ALinkHasTheShortestNameThatTheSiteHas) {
  const auto made = shape();
  ASSERT_THAT(made.find("lab-1")->links, SizeIs(1));
  const auto& link = made.find("lab-1")->links[0];
  EXPECT_EQ(link.target, proxy::Target(proxy::ServiceTarget{"lab", std::nullopt}));
  EXPECT_EQ(link.path, "/lab");
  EXPECT_EQ(link.label, "Notebook");
  EXPECT_EQ(link.access, policy::Access::kCanRead);
}

TEST_F(OverviewTest, AnEdgeIsWhatTheTruthFunctionGrants) {
  const auto made = shape();
  EXPECT_THAT(made.edges, ElementsAre(DeclaredEdge{3, 0, "db", true, {{Proto::kTcp, 5432, 5432}}}));
}

TEST_F(OverviewTest, WhatNobodyGrantsIsAWish) {
  EXPECT_THAT(shape().wishes, ElementsAre(proxy::Wish{3, "mail", ""}));
  declare("{id: db-1, owner: bob, name: db, scope: CLUSTER, serves: [{port: 5432}]}");
  const auto made = shape();
  EXPECT_THAT(made.edges, IsEmpty());
  EXPECT_THAT(made.wishes, SizeIs(2));
}

TEST_F(OverviewTest, ARefusalSaysWhoseDeclarationIsMissing) {
  refuse("spy", "db-1", "in spy: peers: [{name: db, scope: CLUSTER}]");
  refuse("worker", "lab-1", "in worker: peers: [{name: lab}]");
  refuse("worker", "mail.svc.mesh.internal", "a workload with name: mail", 0);
  const auto list = refusals();
  ASSERT_THAT(list, SizeIs(3));
  EXPECT_EQ(list[0].provider, "mail") << "the latest first";
  EXPECT_EQ(list[0].whose, Whose::kNobody);
  EXPECT_EQ(list[1].whose, Whose::kConsumer);
  EXPECT_EQ(list[1].provider_owner, "ada");
  EXPECT_EQ(list[2].whose, Whose::kConsumer);
  EXPECT_EQ(list[2].consumer_owner, "carol");
  EXPECT_EQ(list[2].provider_owner, "bob");
}

TEST_F(OverviewTest, ARefusalByAServicesNameIsThatOfWhoeverServesIt) {
  refuse("spy", "db.svc.mesh.internal", "in spy: peers: [{name: db}]");
  EXPECT_EQ(refusals().at(0).provider, "db-1");
  EXPECT_EQ(refusals().at(0).provider_owner, "bob");
}

TEST_F(OverviewTest, ARefusalIsOverOnceWhatWasMissingIsDeclared) {
  refuse("spy", "db-1", "in spy: peers: [{name: db}]");
  refuse("spy", "db.svc.mesh.internal", "in spy: peers: [{name: db}]", 0);
  ASSERT_THAT(refusals(), SizeIs(2));
  declare(
      "{id: spy, owner: carol, peers: [{name: db, scope: CLUSTER}]},"
      "{id: db-1, owner: bob, name: db, scope: CLUSTER, serves: [{port: 5432}], admit: CLUSTER}");
  EXPECT_THAT(refusals(), IsEmpty());
}

TEST_F(OverviewTest, WhenOneHasAddedTheirPartTheOthersIsMissing) {
  refuse("spy", "db-1", "in spy: peers: [{name: db}]");
  declare("{id: spy, owner: carol, peers: [{name: db}]}");
  EXPECT_EQ(refusals().at(0).missing, "in db-1: admit_owners: [carol]");
  EXPECT_EQ(refusals().at(0).whose, Whose::kProvider);
}

TEST_F(OverviewTest, OfAConsumerThatIsGoneNothingIsShown) {
  refuse("spy", "db-1", "in spy: peers: [{name: db}]");
  ASSERT_TRUE(bed_.fold(forget(bed_.cluster, {Author::Role::kAdmin, "a"}, "spy", true, bed_.now)));
  EXPECT_THAT(refusals(), IsEmpty());
}

TEST_F(OverviewTest, TheVersionIsAnotherWhenSomethingIs) {
  const auto first = make();
  bed_.pass(1s);
  const auto same = make();
  EXPECT_EQ(same->version, first->version);
  EXPECT_EQ(same->shape, first->shape) << "shared, not made again";
  EXPECT_GT(same->made_at, first->made_at);
  const auto busy = make({{"worker", "db-1", Proto::kTcp, 5432, 1, 1}});
  EXPECT_GT(busy->version, same->version);
  refuse("spy", "db-1", "in spy: peers: [{name: db}]");
  const auto refused = make();
  EXPECT_GT(refused->version, busy->version);
  EXPECT_THAT(*refused->refusals, SizeIs(1));
  declare("{id: more, owner: ada}");
  const auto more = make();
  EXPECT_GT(more->version, refused->version);
  EXPECT_THAT(more->shape->workloads, SizeIs(5));
}

TEST_F(OverviewTest, AWriteThatShowsNothingNewIsNoNewVersion) {
  const auto first = make();
  bed_.fold(Writes{});
  declare("{id: spy, owner: carol}");
  EXPECT_EQ(make()->version, first->version);
}

TEST_F(OverviewTest, WhatWasForgottenIsMadeAgainWithALaterVersion) {
  const auto first = make();
  overviews_.forget();
  const auto again = make();
  EXPECT_GT(again->version, first->version);
  EXPECT_EQ(*again->shape, *first->shape);
}

TEST_F(OverviewTest, AProcessThatStartsLaterHasLaterVersions) {
  const auto first = make()->version;
  bed_.pass(1s);
  overviews_ = {};
  EXPECT_GT(make()->version, first + 1000);
}

}  // namespace
}  // namespace meshd::controller
