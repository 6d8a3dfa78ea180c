// What is declared of an Arvados site, by values: readings of its API go in, and workloads,
// reasons and writes come out.
#include "controller/arvados_declarer.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "controller/explain.h"
#include "controller/report.h"
#include "tests/arvados/samples.h"
#include "tests/controller/controller_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using arvados::container_uuid;
using arvados::request_uuid;
using arvados::SampleRequest;
using arvados::user_uuid;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kDatabase =
    R"({"meshd":{"name":"db","scope":"CLUSTER","serves":[{"port":5432}]}})";
constexpr const char* kStep = R"({"meshd":{"name":"db","serves":[{"port":5432}]}})";

class ArvadosDeclarerTest : public ControllerTest {
 protected:
  void SetUp() override {
    arvados_ = true;
    ControllerTest::SetUp();
    declarer_.emplace(*controller_);
    hello(*controller_, n1_);
  }
  static std::string workflow(int number) { return '"' + container_uuid(number) + '"'; }

  // One reading: these requests, these containers that are no more.
  void read(const std::vector<SampleRequest>& samples, const std::set<std::string>& ended = {},
            std::vector<arvados::PortLink> links = {}) {
    arvados::Listing listing;
    for (const auto& sample : samples) listing.requests.add(sample.value());
    listing.ended = ended;
    listing.links = std::move(links);
    declarer_->take(listing, arvados::site_of(listing), now_);
    answer(*controller_, n1_);
  }
  void find(const SampleRequest& sample) {
    arvados::Found found;
    found.requests.add(sample.value());
    declarer_->take(found, now_);
    answer(*controller_, n1_);
  }
  void attach(int container, const std::string& address) {
    started(n1_, container_uuid(container), 1);
    answer(*controller_, n1_);
    report(*controller_, n1_, container_uuid(container), address);
    answer(*controller_, n1_);
  }
  const policy::Declaration* declared(int container) {
    return controller_->cluster().declaration(container_uuid(container));
  }
  std::string problem(int container) {
    const auto& problems = controller_->launch_report()->problems;
    const auto found = problems.find(container_uuid(container));
    return found == problems.end() ? "" : found->second;
  }
  std::size_t commits() { return memory_->log.size(); }
  Status apply_as(Author::Role role, const std::string& workloads) {
    auto read = policy::read_declarations("test", "workloads: [" + workloads + "]");
    if (!read) return std::unexpected(read.error());
    return controller_->declare({role, "p"}, *std::move(read), "", now_);
  }

  std::optional<ArvadosDeclarer> declarer_;
  FakeStream n1_{"n1"};
};

TEST_F(ArvadosDeclarerTest, EachContainerIsAWorkloadOfItsRequestsOwner) {
  read({{.number = 1, .container = 1, .workflow = workflow(9), .properties = kStep},
        {.number = 2, .container = 2, .user = 2}});
  ASSERT_NE(declared(1), nullptr);
  EXPECT_EQ(declared(1)->owner, user_uuid(1));
  EXPECT_EQ(declared(1)->workflow, container_uuid(9));
  EXPECT_EQ(declared(1)->name, "db");
  EXPECT_EQ(declared(2)->owner, user_uuid(2));
  EXPECT_EQ(controller_->cluster().author(container_uuid(1)), "arvados/api");
  EXPECT_EQ(controller_->cluster().launch(container_uuid(1)).request, request_uuid(1));
  EXPECT_THAT(declarer_->known(), ElementsAre(container_uuid(1), container_uuid(2)));
}

TEST_F(ArvadosDeclarerTest, WhatItsRequestCallsAServiceIsShownAsOne) {
  const auto shown = [&] { return workload_list(*controller_).workloads(0).launch(); };
  read({{.number = 1, .container = 1}});
  EXPECT_EQ(shown().request(), request_uuid(1));
  EXPECT_FALSE(shown().service());
  read({{.number = 1, .container = 1, .service = "true"}});
  EXPECT_TRUE(shown().service());
  read({{.number = 1, .container = 1, .priority = "0", .service = "true"}});
  EXPECT_TRUE(controller_->cluster().launch(container_uuid(1)).drained);
  EXPECT_TRUE(shown().service());
}

TEST_F(ArvadosDeclarerTest, AReadingThatSaysNothingNewWritesNothing) {
  const std::vector<SampleRequest> site = {{.number = 1, .container = 1, .properties = kDatabase},
                                           {.number = 2, .container = 2, .properties = "{}"}};
  auto before = commits();
  read(site);
  EXPECT_EQ(commits(), ++before) << "all of them at once";
  read(site);
  EXPECT_EQ(commits(), before);
}

TEST_F(ArvadosDeclarerTest, WhatIsWrongWithOneClosesItAloneAndIsTold) {
  read({{.number = 1, .container = 1, .properties = R"({"meshd":{"serves":[{"port":0}]}})"},
        {.number = 2, .container = 2, .properties = kDatabase}});
  EXPECT_EQ(*declared(1), arvados::closed(*declared(1)));
  EXPECT_EQ(declared(2)->name, "db");
  EXPECT_EQ(problem(1), "container request " + request_uuid(1) +
                            ": properties.meshd: serves[0].port: must be 1 to 65535, not 0");
  EXPECT_EQ(problem(2), "");
  const auto list = workload_list(*controller_);
  EXPECT_THAT(list.workloads(0).problems(), ElementsAre(problem(1)));
  EXPECT_THAT(list.workloads(1).problems(), IsEmpty());
}

TEST_F(ArvadosDeclarerTest, WhoAsksForAnothersNameIsClosedUntilItIsFree) {
  const SampleRequest mine{.number = 1,
                           .container = 1,
                           .properties = R"({"meshd":{"name":"ollama","scope":"CLUSTER"}})"};
  SampleRequest theirs = mine;
  theirs.number = theirs.container = theirs.user = 2;
  read({mine, theirs, {.number = 3, .container = 3, .properties = kDatabase}});
  EXPECT_EQ(declared(1)->name, "ollama");
  EXPECT_EQ(declared(2)->name, "");
  EXPECT_EQ(declared(3)->name, "db") << "nobody else suffers";
  EXPECT_THAT(problem(2), HasSubstr("container request " + request_uuid(2) + ": "));
  EXPECT_THAT(problem(2), HasSubstr("ollama"));
  const auto before = commits();
  read({mine, theirs, {.number = 3, .container = 3, .properties = kDatabase}});
  EXPECT_EQ(commits(), before);
  EXPECT_THAT(problem(2), HasSubstr("ollama")) << "still";
  // Its owner is done with it, and an administrator gives the name up.
  read({theirs, {.number = 3, .container = 3, .properties = kDatabase}}, {container_uuid(1)});
  ASSERT_TRUE(controller_->release({Author::Role::kAdmin, "a"}, "ollama", now_));
  read({theirs, {.number = 3, .container = 3, .properties = kDatabase}});
  EXPECT_EQ(declared(2)->name, "ollama");
  EXPECT_EQ(problem(2), "");
}

TEST_F(ArvadosDeclarerTest, PriorityZeroDrainsAndResumes) {
  SampleRequest database{.properties = kDatabase};
  read({database});
  attach(1, n1_.welcome->block4().substr(0, 9) + "1");
  database.priority = "0";
  read({database});
  EXPECT_TRUE(controller_->cluster().launch(container_uuid(1)).drained);
  const auto& workload = controller_->cluster().world().workloads.find(container_uuid(1))->second;
  EXPECT_TRUE(workload.drains());
  EXPECT_TRUE(workload.remote) << "it goes on";
  mesh::v1::SliceWorkload item;
  ASSERT_TRUE(
      item.ParseFromString(n1_.items.at({mesh::v1::SliceKey::Kind::WORKLOAD, container_uuid(1)})));
  EXPECT_TRUE(item.drained());
  // Whoever looks for it waits for the next, as when it had gone.
  EXPECT_NE(controller_->cluster().world().services.begin()->second.endpoint_lost_at, TimePoint());
  database.priority = "1";
  read({database});
  EXPECT_FALSE(controller_->cluster().world().workloads.find(container_uuid(1))->second.drains());
}

TEST_F(ArvadosDeclarerTest, WhoIsNotListedGoesOnUntilTheApiSaysItHasEnded) {
  read({{.properties = kDatabase}});
  read({});
  EXPECT_NE(declared(1), nullptr);
  read({}, {container_uuid(1)});
  EXPECT_EQ(declared(1), nullptr);
}

TEST_F(ArvadosDeclarerTest, WhoHasEndedAndIsAttachedDrainsUntilItsNodeSaysItIsGone) {
  read({{.properties = kDatabase}});
  attach(1, n1_.welcome->block4().substr(0, 9) + "1");
  read({}, {container_uuid(1)});
  ASSERT_NE(declared(1), nullptr);
  EXPECT_TRUE(controller_->cluster().launch(container_uuid(1)).drained);
  EXPECT_THAT(problem(1), HasSubstr("has ended, and is still attached to node n1"));
  report_gone(n1_, container_uuid(1));
  read({}, {container_uuid(1)});
  EXPECT_EQ(declared(1), nullptr);
  EXPECT_EQ(problem(1), "");
}

TEST_F(ArvadosDeclarerTest, ANodeThatWaitsIsAnsweredWhenItIsFound) {
  std::vector<std::string> waits;
  controller_->tell_waits([&](const std::string& id) { waits.push_back(id); });
  started(n1_, container_uuid(4), 7);
  EXPECT_THAT(waits, ElementsAre(container_uuid(4)));
  EXPECT_THAT(n1_.started, IsEmpty());
  find({.number = 4, .container = 4, .properties = kDatabase});
  ASSERT_THAT(n1_.started, SizeIs(1));
  EXPECT_EQ(n1_.started.front().error(), "");
  started(n1_, container_uuid(4), 8);
  EXPECT_THAT(waits, SizeIs(1)) << "it is declared";
}

TEST_F(ArvadosDeclarerTest, ANodeThatWaitsHearsThatNobodyKnowsIt) {
  controller_->tell_waits([](const std::string&) {});
  started(n1_, container_uuid(4), 7);
  controller_->say_unknown(container_uuid(5), now_);
  EXPECT_THAT(n1_.started, IsEmpty());
  controller_->say_unknown(container_uuid(4), now_);
  ASSERT_THAT(n1_.started, SizeIs(1));
  EXPECT_TRUE(n1_.started.front().unknown());
  EXPECT_EQ(n1_.started.front().call(), 7U);
  // And is answered all the same when it comes.
  find({.number = 4, .container = 4, .properties = kDatabase});
  ASSERT_THAT(n1_.started, SizeIs(2));
  EXPECT_FALSE(n1_.started.back().unknown());
}

TEST_F(ArvadosDeclarerTest, PeopleDoNotChangeItNorItWhatPeopleDeclare) {
  read({{.properties = kDatabase}});
  for (const auto role : {Author::Role::kAdmin, Author::Role::kDispatcher, Author::Role::kNode}) {
    const auto status =
        apply_as(role, "{id: " + container_uuid(1) + ", owner: " + user_uuid(1) + "}");
    ASSERT_FALSE(status);
    EXPECT_THAT(status.error().what, HasSubstr("declared by arvados/api"));
    EXPECT_THAT(status.error().what, HasSubstr("it follows its container request"));
    EXPECT_FALSE(controller_->forget({role, "p"}, container_uuid(1), true, now_));
  }
  EXPECT_EQ(declared(1)->name, "db");
  ASSERT_TRUE(apply_as(Author::Role::kAdmin, "{id: " + container_uuid(2) + ", owner: ada}"));
  read({{.properties = kDatabase}, {.number = 2, .container = 2, .properties = kDatabase}},
       {container_uuid(2)});
  EXPECT_EQ(declared(2)->owner, "ada");
  EXPECT_THAT(problem(2), HasSubstr("declared by admin/p, not arvados/api's to say"));
}

TEST_F(ArvadosDeclarerTest, WhereThereIsNoArvadosAnyMorePeopleClearAway) {
  read({{.properties = kDatabase}});
  arvados_ = false;
  controller_ = make("c2", store_);
  EXPECT_TRUE(controller_->forget({Author::Role::kAdmin, "a"}, container_uuid(1), false, now_));
}

TEST_F(ArvadosDeclarerTest, WhatWasReadIsKnownToTheNextController) {
  SampleRequest database{.properties = kDatabase, .priority = "0"};
  read({database});
  controller_ = make("c2", store_);
  declarer_.emplace(*controller_);
  EXPECT_THAT(declarer_->known(), ElementsAre(container_uuid(1)));
  const auto before = commits();
  read({database});
  EXPECT_EQ(commits(), before);
  EXPECT_TRUE(controller_->cluster().launch(container_uuid(1)).drained);
}

TEST_F(ArvadosDeclarerTest, WhatTheStoreDoesNotTakeIsSaidAgain) {
  store_->away = true;
  read({{.properties = kDatabase}});
  EXPECT_EQ(declared(1), nullptr);
  EXPECT_EQ(problem(1), "") << "that is not its author's doing";
  store_->away = false;
  read({{.properties = kDatabase}});
  EXPECT_EQ(declared(1)->name, "db");
}

TEST_F(ArvadosDeclarerTest, ManyAreAFewCommits) {
  std::vector<SampleRequest> site;
  for (int i = 1; i <= 1000; ++i) {
    site.push_back({.number = i,
                    .container = i,
                    .workflow = workflow(5000 + i),
                    .properties = i % 100 == 0 ? R"({"meshd":{"serves":1}})" : kStep});
  }
  const auto before = commits();
  read(site);
  EXPECT_EQ(commits() - before, 4U);
  EXPECT_THAT(controller_->launch_report()->problems, SizeIs(10));
  EXPECT_EQ(controller_->cluster().world().services.size(), 990U);
}

TEST_F(ArvadosDeclarerTest, TheApiIsAwaySinceWhen) {
  EXPECT_TRUE(status_reply(*controller_).healthy());
  declarer_->set_trouble("connection refused", now_);
  auto status = status_reply(*controller_);
  EXPECT_FALSE(status.healthy());
  ASSERT_THAT(status.problems(), SizeIs(1));
  EXPECT_EQ(status.problems(0).subject(), "arvados");
  const auto since = status.problems(0).detail();
  EXPECT_THAT(since, HasSubstr("the API is away since 1970-01-12T13:46:40"));
  EXPECT_THAT(since, HasSubstr(": connection refused"));
  pass(1h);
  declarer_->set_trouble("status 502 without the API's body", now_);
  EXPECT_THAT(controller_->launch_report()->trouble, HasSubstr("since 1970-01-12T13:46:40"));
  declarer_->set_trouble("", now_);
  EXPECT_EQ(controller_->launch_report()->trouble, "");
}

TEST_F(ArvadosDeclarerTest, ExplainSaysWhyAnEndIsClosed) {
  read({{.number = 1, .container = 1, .properties = R"({"meshd":{"serves":[{"port":0}]}})"},
        {.number = 2, .container = 2}});
  mesh::v1::ExplainRequest request;
  request.set_src(container_uuid(2));
  request.set_dst(container_uuid(1));
  request.set_port(5432);
  const auto reply = explain_reply(*controller_, request, now_.steady);
  ASSERT_TRUE(reply) << reply.error().what;
  EXPECT_THAT(std::vector<std::string>(reply->lines().begin(), reply->lines().end()),
              testing::Contains(HasSubstr("serves[0].port: must be 1 to 65535, not 0")));
}

TEST_F(ArvadosDeclarerTest, ALinkThatIsNoNameIsToldBesideItsContainer) {
  read({{}}, {},
       {{arvados::uuid("o0j2j", 1), user_uuid(1), "not.a.label", request_uuid(1), 80, ""},
        {arvados::uuid("o0j2j", 2), user_uuid(1), "x y", request_uuid(77), 80, ""}});
  EXPECT_THAT(problem(1), HasSubstr("link " + arvados::uuid("o0j2j", 1) + ": name: "));
  EXPECT_THAT(controller_->launch_report()->problems, SizeIs(1));
}

}  // namespace
}  // namespace meshd::controller
