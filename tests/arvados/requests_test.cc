// What the controller declares for the containers of Arvados, and what changes from one reading
// to the next.
#include "arvados/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arvados/limits.h"
#include "tests/arvados/samples.h"

namespace meshd::arvados {
namespace {

using policy::Access;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Listing listing_of(const std::vector<SampleRequest>& samples, std::vector<PortLink> links = {}) {
  Listing listing;
  for (const auto& sample : samples) listing.requests.add(sample.value());
  listing.links = std::move(links);
  return listing;
}
Listed listed_of(const SampleRequest& sample) { return listed(sample.value()); }
PortLink link_to(int number, std::string name, int request, std::uint16_t port = 80) {
  return {uuid("o0j2j", number), user_uuid(1), std::move(name), request_uuid(request), port, ""};
}
std::map<std::string, Declared> have_of(const Site& site) {
  std::map<std::string, Declared> have;
  for (const auto& step : difference({}, site, {}).declare) {
    have[step.declaration.id] = {step.declaration, step.draining, step.request};
  }
  return have;
}

TEST(ListedTest, ARequestThatSaysNothingIsAWorkloadThatIsClosed) {
  const auto plain = listed_of({.workflow = '"' + container_uuid(9) + '"'});
  EXPECT_EQ(plain.declaration.id, container_uuid(1));
  EXPECT_EQ(plain.declaration.owner, user_uuid(1));
  EXPECT_EQ(plain.declaration.workflow, container_uuid(9));
  EXPECT_EQ(plain.declaration.scope, policy::Scope::kWorkflow);
  EXPECT_THAT(plain.declaration.serves, IsEmpty());
  EXPECT_THAT(plain.declaration.publish, IsEmpty());
  EXPECT_EQ(plain.problem, "");
  EXPECT_EQ(plain.declaration, closed(plain.declaration));
}

TEST(ListedTest, PublishedPortsArePublicationsForThePublicOrTheOwner) {
  const auto declaration =
      listed_of({.published =
                     R"({"80":{"access":"public","label":"Web","initial_path":"lab?x=1"},)"
                     R"("8888":{"access":"private","label":"Notebook","initial_path":""}})"})
          .declaration;
  ASSERT_EQ(declaration.publish.size(), 2U);
  EXPECT_EQ(declaration.publish[0].port, 80);
  EXPECT_TRUE(declaration.publish[0].http);
  EXPECT_EQ(declaration.publish[0].access, Access::kPublic);
  EXPECT_EQ(declaration.publish[0].path, "/lab?x=1");
  EXPECT_EQ(declaration.publish[1].access, Access::kOwner);
  EXPECT_EQ(declaration.publish[1].label, "Notebook");
}

TEST(ListedTest, LabelsAndPathsThatUpstreamTakesAreMadeFit) {
  const auto publication = [](const std::string& label, const std::string& path) {
    return listed_of({.published = fmt::format(
                          R"({{"80":{{"access":"public","label":"{}","initial_path":"{}"}}}})",
                          label, path)})
        .declaration.publish.at(0);
  };
  EXPECT_EQ(publication(std::string(63, 'a') + "\u00e9", "").label, std::string(63, 'a'));
  EXPECT_EQ(publication("a\\u001b[31mb\u009bc", "").label, "a [31mb  c");
  EXPECT_EQ(publication("a", "//evil.example").path, "/evil.example");
  EXPECT_EQ(publication("a", "/\\\\evil").path, "/evil");
  EXPECT_EQ(publication("a", "a\\\\b c\\r\\n").path, "/a%5Cb%20c%0D%0A");
  EXPECT_EQ(publication("a", std::string(2000, 'a')).path, "");
}

TEST(ListedTest, ADeclarationInPropertiesIsOneWorkloadAndItsOwnPortsWin) {
  const auto result = listed_of(
      {.workflow = '"' + container_uuid(9) + '"',
       .published = R"({"80":{"access":"private","label":"Web","initial_path":""}})",
       .properties = R"({"meshd":{"name":"db","serves":[{"port":5432,"name":"sql"}],"hold":"60s",)"
                     R"("peers":[{"name":"cache"}],)"
                     R"("publish":[{"port":80,"http":true,"access":"CAN_READ"}]}})"});
  EXPECT_EQ(result.problem, "");
  EXPECT_EQ(result.declaration.name, "db");
  EXPECT_EQ(result.declaration.serves.at(0).ports.first, 5432);
  EXPECT_EQ(result.declaration.peers.at(0).scope, policy::Scope::kWorkflow);
  ASSERT_EQ(result.declaration.publish.size(), 1U);
  EXPECT_EQ(result.declaration.publish[0].access, Access::kCanRead);
  EXPECT_EQ(result.declaration.hold, std::chrono::seconds(60));
}

TEST(ListedTest, ADeclarationMayBeATextAsCwlLeavesItAlone) {
  const auto with = [](std::string_view meshd) {
    return listed_of({.workflow = '"' + container_uuid(9) + '"',
                      .properties = fmt::format(R"({{"meshd":{}}})", meshd)});
  };
  const auto text = with(R"("name: db\nserves: [{port: 5432, name: sql}]\n")");
  EXPECT_EQ(text.problem, "");
  EXPECT_EQ(text.declaration,
            with(R"({"name":"db","serves":[{"port":5432,"name":"sql"}]})").declaration);
  EXPECT_THAT(with(R"("name: db\nserve: []")").problem, HasSubstr("unknown field \"serve\""));
  EXPECT_THAT(with(R"("name: db\n}")").problem, HasSubstr("properties.meshd:2: "));
  EXPECT_THAT(with(R"("id: x")").problem, HasSubstr("id: is the launcher's to say"));
  EXPECT_THAT(with(R"("")").problem, HasSubstr("is empty"));
}

TEST(ListedTest, ABadDeclarationClosesItsWorkloadAndSaysWhy) {
  const auto problem = [](std::string_view meshd) {
    const auto result = listed_of({.published = R"({"80":{"access":"public","label":"a",)"
                                                R"("initial_path":""}})",
                                   .properties = fmt::format(R"({{"meshd":{}}})", meshd)});
    EXPECT_EQ(result.declaration, closed(result.declaration));
    return result.problem;
  };
  const auto at = "container request " + request_uuid(1) + ": properties.meshd: ";
  EXPECT_EQ(problem(R"({"serves":[{"port":"5432"}]})"),
            at + "serves[0].port: must be a whole number, not \"5432\"");
  EXPECT_EQ(problem(R"({"serves":[{"port":70000}]})"),
            at + "serves[0].port: must be 1 to 65535, not 70000");
  EXPECT_EQ(problem(R"({"serve":[]})"), at + "unknown field \"serve\"; did you mean serves?");
  EXPECT_EQ(problem(R"({"owner":"zzzzz-tpzed-000000000000002"})"),
            at + "owner: is the launcher's to say; leave it out");
  EXPECT_EQ(problem(R"({"peers":[{"name":"a","ports":[]}]})"),
            at + "peers[0].ports: is an empty list; leave the field out instead");
  EXPECT_EQ(problem(R"({"name":"db"})"),
            at + "scope: without a workflow a name needs scope: CLUSTER");
  EXPECT_EQ(problem("7"), at + "must be a mapping, not a single value");
  EXPECT_EQ(problem("null"), at + "must be a mapping, not null");
}

TEST(ListedTest, PriorityZeroOrAnEndedRequestDrains) {
  EXPECT_FALSE(listed_of({}).draining);
  EXPECT_TRUE(listed_of({.priority = "0"}).draining);
  EXPECT_TRUE(listed_of({.state = "Final"}).draining);
}

TEST(SiteTest, ABadRequestStopsNoOther) {
  const auto site =
      site_of(listing_of({{.number = 1, .container = 1, .properties = R"({"meshd":7})"},
                          {.number = 2, .container = 2}}));
  const auto steps = difference({}, site, {});
  EXPECT_EQ(steps.declare.size(), 2U);
  ASSERT_EQ(steps.problems.size(), 1U);
  EXPECT_THAT(steps.problems.at(container_uuid(1)), HasSubstr("properties.meshd"));
}

TEST(SiteTest, OneUserCannotFillTheMemoryOfAll) {
  // 2,000 of these are more than one user may have.
  std::string peers;
  for (int i = 0; i < 200; ++i) {
    peers += fmt::format(R"({}{{"name":"{:0>50}"}})", i > 0 ? "," : "", i + 1000);
  }
  const auto large = SampleRequest{.properties = R"({"meshd":{"peers":[)" + peers + "]}}"}.value();
  RequestSet requests;
  for (int i = 0; i < 2000; ++i) {
    auto request = large;
    request.uuid = request_uuid(i);
    request.container = container_uuid(i);
    requests.add(std::move(request));
  }
  auto of_another = large;
  of_another.container = container_uuid(5000);
  of_another.owner = user_uuid(2);
  requests.add(std::move(of_another));
  const auto& first = requests.by_container().at(container_uuid(0)).at(user_uuid(1));
  EXPECT_EQ(first.problem, "");
  const auto& last = requests.by_container().at(container_uuid(1999)).at(user_uuid(1));
  EXPECT_THAT(last.problem, HasSubstr("together larger than"));
  EXPECT_EQ(requests.by_container().at(container_uuid(5000)).at(user_uuid(2)).problem, "");
}

TEST(DifferenceTest, WhatIsDeclaredAlreadyIsNotDeclaredAgain) {
  const auto site =
      site_of(listing_of({{.number = 1, .container = 1}, {.number = 2, .container = 2}}));
  EXPECT_TRUE(difference(have_of(site), site, {}).empty());
}

TEST(DifferenceTest, ADeclarationThatChangedIsDeclaredAgain) {
  const auto have = have_of(site_of(listing_of({{}})));
  const auto site = site_of(listing_of({{.properties = R"({"meshd":{"serves":[{"port":1}]}})"}}));
  const auto steps = difference(have, site, {});
  ASSERT_EQ(steps.declare.size(), 1U);
  EXPECT_EQ(steps.declare[0].declaration.serves.size(), 1U);
}

TEST(DifferenceTest, OnlyWhoHasEndedIsForgotten) {
  const auto site =
      site_of(listing_of({{.number = 1, .container = 1}, {.number = 2, .container = 2}}));
  const auto have = have_of(site);
  EXPECT_THAT(difference(have, Site{}, {container_uuid(1), container_uuid(3)}).forget,
              ElementsAre(container_uuid(1)));
  EXPECT_TRUE(difference(have, Site{}, {}).empty()) << "not listed is not ended";
  EXPECT_TRUE(difference(have, site, {container_uuid(1)}).empty());
}

TEST(DifferenceTest, AnotherRequestThatSpeaksForItIsNoted) {
  const auto have = have_of(site_of(listing_of({{.number = 1}})));
  const auto steps = difference(have, site_of(listing_of({{.number = 2}})), {});
  ASSERT_EQ(steps.declare.size(), 1U);
  EXPECT_EQ(steps.declare[0].request, request_uuid(2));
}

TEST(DifferenceTest, PriorityZeroDrainsOnceAndABetterOneResumes) {
  const auto running = site_of(listing_of({{}}));
  const auto cancelled = site_of(listing_of({{.priority = "0"}}));
  const auto drain = difference(have_of(running), cancelled, {});
  ASSERT_EQ(drain.declare.size(), 1U);
  EXPECT_TRUE(drain.declare[0].draining);
  EXPECT_TRUE(difference(have_of(cancelled), cancelled, {}).empty());
  const auto resume = difference(have_of(cancelled), running, {});
  ASSERT_EQ(resume.declare.size(), 1U);
  EXPECT_FALSE(resume.declare[0].draining);
}

TEST(DifferenceTest, WhoJoinsAnothersContainerGetsNoSayInIt) {
  const SampleRequest mine{.number = 5, .properties = R"({"meshd":{"serves":[{"port":5432}]}})"};
  const SampleRequest theirs{.number = 1,
                             .user = 2,
                             .properties = R"({"meshd":{"admit":"CLUSTER"}})",
                             .created_at = "2025-01-01T00:00:00.000000000Z"};
  const auto have = have_of(site_of(listing_of({mine})));
  EXPECT_TRUE(difference(have, site_of(listing_of({mine, theirs})), {}).empty());
  // Also when mine is gone.
  const auto alone = difference(have, site_of(listing_of({theirs})), {});
  EXPECT_TRUE(alone.empty());
  EXPECT_THAT(alone.problems.at(container_uuid(1)), HasSubstr("stays as declared"));
  // And mine goes on being heard beside it.
  auto cancelled = mine;
  cancelled.priority = "0";
  const auto drain = difference(have, site_of(listing_of({cancelled, theirs})), {});
  ASSERT_EQ(drain.declare.size(), 1U);
  EXPECT_TRUE(drain.declare[0].draining);
}

TEST(DifferenceTest, AContainerOfSeveralUsersThatNobodyKnewIsClosed) {
  const auto site =
      site_of(listing_of({{.number = 1, .properties = R"({"meshd":{"serves":[{"port":5432}]}})"},
                          {.number = 2, .user = 2}}));
  const auto steps = difference({}, site, {});
  ASSERT_EQ(steps.declare.size(), 1U);
  const auto& first = steps.declare[0];
  EXPECT_EQ(first.declaration, closed(first.declaration));
  EXPECT_EQ(first.request, "");
  EXPECT_THAT(steps.problems.at(container_uuid(1)), HasSubstr("requests of 2 users"));
  // And stays so, whoever is left.
  const std::map<std::string, Declared> have = {
      {container_uuid(1), {first.declaration, false, ""}}};
  EXPECT_TRUE(difference(have, site, {}).empty());
  const auto left = site_of(listing_of({{.properties = R"({"meshd":{"serves":[{"port":1}]}})"}}));
  const auto later = difference(have, left, {});
  EXPECT_TRUE(later.empty());
  EXPECT_THAT(later.problems.at(container_uuid(1)), HasSubstr("several users"));
}

TEST(DifferenceTest, OfAUsersRequestsTheOldestSpeaks) {
  const auto site =
      site_of(listing_of({{.number = 2,
                           .properties = R"({"meshd":{"serves":[{"port":2}]}})",
                           .created_at = "2026-02-01T00:00:00.000000000Z"},
                          {.number = 3, .properties = R"({"meshd":{"serves":[{"port":1}]}})"}}));
  EXPECT_EQ(site.find(container_uuid(1), user_uuid(1))->request, request_uuid(3));
}

TEST(NamesTest, ALinkNamesThePortOfTheContainerThatItsRequestHasNow) {
  const auto before =
      site_of(listing_of({{.number = 1, .container = 1}}, {link_to(1, "ollama", 1, 11434)}));
  EXPECT_EQ(before.names.at("ollama"), (PortName{container_uuid(1), request_uuid(1), 11434}));
  // The node died, and the same request got another container.
  const auto after =
      site_of(listing_of({{.number = 1, .container = 2}}, {link_to(1, "ollama", 1, 11434)}));
  EXPECT_EQ(after.names.at("ollama").container, container_uuid(2));
  const auto ended = site_of(listing_of({}, {link_to(1, "ollama", 1, 11434)}));
  EXPECT_THAT(ended.names, IsEmpty());
  EXPECT_THAT(ended.link_problems, IsEmpty());
}

TEST(NamesTest, ANameThatIsNoneIsToldAndNoOtherSuffers) {
  const auto site = site_of(
      listing_of({{}}, {link_to(1, "good", 1), link_to(2, "a.b", 1), link_to(3, "../etc", 1),
                        link_to(4, "x\r\ny", 1), link_to(5, "a--80", 1), link_to(6, "good", 1),
                        link_to(7, container_uuid(3), 1), link_to(8, "", 1)}));
  EXPECT_EQ(site.names.size(), 1U);
  EXPECT_EQ(site.link_problems.size(), 7U);
  EXPECT_THAT(site.link_problems.at(uuid("o0j2j", 4)).why, HasSubstr("\\x0d\\x0a"));
  EXPECT_THAT(site.link_problems.at(uuid("o0j2j", 6)).why, HasSubstr("stands in another link"));
}

}  // namespace
}  // namespace meshd::arvados
