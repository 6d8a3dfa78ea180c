// What is wrong with others' firewalls and what is done about it, from values alone.
#include "meshd/firewalls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "meshd/topology.h"
#include "tests/support/ruleset_samples.h"

namespace meshd {
namespace {

using netlink::BaseChain;
using netlink::Compare;
using netlink::CompareOp;
using netlink::Counter;
using netlink::Exprs;
using netlink::MetaKey;
using netlink::MetaLoad;
using netlink::RuleDump;
using netlink::TableFamily;
using netlink::Verdict;
using netlink::VerdictKind;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

using Rules = std::vector<RuleDump>;

RuleDump rule(std::uint64_t handle, Exprs exprs, std::string comment = {}) {
  return {"DOCKER-USER", handle, std::move(exprs), std::move(comment)};
}
Exprs accept(MetaKey key, std::string_view name = "mesh") {
  return {MetaLoad{key}, Compare{{}, CompareOp::kEqual, {name.begin(), name.end()}}, Counter{},
          Verdict{VerdictKind::kAccept}};
}
RuleDump in(std::uint64_t handle, std::string comment = "meshd") {
  return rule(handle, accept(MetaKey::kIifname), std::move(comment));
}
RuleDump out(std::uint64_t handle, std::string comment = "meshd") {
  return rule(handle, accept(MetaKey::kOifname), std::move(comment));
}
RuleDump ends(VerdictKind kind) { return rule(99, {Counter{}, Verdict{kind}}); }

TEST(DockerUserTest, EachWayGetsARuleBeforeAllOthers) {
  const auto change = docker_user_change(Rules{ends(VerdictKind::kReturn)}, true);
  EXPECT_THAT(change.insert, ElementsAre(accept(MetaKey::kIifname), accept(MetaKey::kOifname)));
  EXPECT_THAT(change.remove, IsEmpty());
}

TEST(DockerUserTest, WhatIsThereIsNotMadeAgain) {
  EXPECT_TRUE(docker_user_change(Rules{in(1), out(2), ends(VerdictKind::kReturn)}, true).empty());
  const auto half = docker_user_change(Rules{in(1)}, true);
  EXPECT_THAT(half.insert, ElementsAre(accept(MetaKey::kOifname)));
}

TEST(DockerUserTest, OurSecondOneGoes) {
  const auto change = docker_user_change(Rules{in(1), out(2), in(3), out(4)}, true);
  EXPECT_THAT(change.insert, IsEmpty());
  EXPECT_THAT(change.remove, ElementsAre(3, 4));
}

TEST(DockerUserTest, AnAdministratorsOwnDoesAsWellAndStays) {
  EXPECT_TRUE(docker_user_change(Rules{in(1, ""), out(2, "")}, true).empty());
  EXPECT_TRUE(docker_user_change(Rules{in(1, ""), out(2, "")}, false).empty());
  const auto change = docker_user_change(Rules{in(1, ""), out(2, ""), in(3), out(4)}, true);
  EXPECT_THAT(change.remove, ElementsAre(3, 4));
}

TEST(DockerUserTest, RuleThatNoPacketGetsToIsMovedBeforeAllOthers) {
  const auto change = docker_user_change(Rules{ends(VerdictKind::kReturn), in(1), out(2)}, true);
  EXPECT_THAT(change.insert, SizeIs(2));
  EXPECT_THAT(change.remove, ElementsAre(1, 2));
}

TEST(DockerUserTest, WhereEverythingPassesNothingIsAdded) {
  EXPECT_TRUE(docker_user_change(Rules{ends(VerdictKind::kAccept)}, true).empty());
}

TEST(DockerUserTest, RulesOfAnAdministratorMayStandBefore) {
  auto blocked = rule(5, accept(MetaKey::kIifname, "eth0"));
  blocked.exprs.back() = Verdict{VerdictKind::kDrop};
  const auto jump = rule(6, {Verdict{VerdictKind::kJump, "other"}});
  EXPECT_TRUE(docker_user_change(Rules{blocked, jump, in(1), out(2)}, true).empty());
}

TEST(DockerUserTest, SwitchedOffAllOfOursGoAndNothingElse) {
  auto edited = in(3);
  edited.exprs.back() = Verdict{VerdictKind::kDrop};
  const auto change =
      docker_user_change(Rules{in(1), out(2), edited, in(4, ""), rule(5, {Counter{}}, "x"),
                               ends(VerdictKind::kReturn)},
                         false);
  EXPECT_THAT(change.insert, IsEmpty());
  EXPECT_THAT(change.remove, ElementsAre(1, 2, 3));
}

TEST(DockerUserTest, RuleThatAsksMoreOrOthersIsNotOurs) {
  auto narrow = in(1, "");
  narrow.exprs.insert(narrow.exprs.begin(), netlink::UnknownExpr{"match"});
  auto other = rule(2, accept(MetaKey::kIifname, "mesh1"));
  auto inverted = in(3, "");
  inverted.exprs[1] = Compare{{}, CompareOp::kNotEqual, {'m', 'e', 's', 'h'}};
  EXPECT_THAT(docker_user_change(Rules{narrow, other, inverted}, true).insert, SizeIs(2));
}

ForeignChain dropping(TableFamily family, std::string table, std::string name, Rules rules = {}) {
  BaseChain base;
  base.hook = netlink::Hook::kForward;
  base.policy = netlink::Policy::kDrop;
  return {{family, std::move(table), {std::move(name), base}}, std::move(rules)};
}
ForeignChain docker_user(TableFamily family, Rules rules) {
  return {{family, "filter", {"DOCKER-USER"}}, std::move(rules)};
}

TEST(FirewallTroublesTest, DockersIsNamedWithItsMend) {
  const ForeignChains chains{.drops = {dropping(TableFamily::kIp, "filter", "FORWARD")},
                             .docker_user = {docker_user(TableFamily::kIp, {in(1)})}};
  EXPECT_THAT(firewall_troubles(chains, test::sample_settings()),
              ElementsAre(AllOf(HasSubstr("chain FORWARD of table ip filter"),
                                HasSubstr("set engines.docker_user"))))
      << "one way is not enough";
}

TEST(FirewallTroublesTest, WhatLetsTheMeshPassIsNone) {
  const auto settings = test::sample_settings();
  ForeignChains chains{.drops = {dropping(TableFamily::kIp, "filter", "FORWARD")},
                       .docker_user = {docker_user(TableFamily::kIp, {in(1), out(2)})}};
  EXPECT_THAT(firewall_troubles(chains, settings), IsEmpty());
  chains.docker_user[0].chain.family = TableFamily::kIp6;
  EXPECT_THAT(firewall_troubles(chains, settings), SizeIs(1)) << "of the other family";
  chains.docker_user.clear();
  chains.drops[0].rules = {in(1, ""), out(2, "")};
  EXPECT_THAT(firewall_troubles(chains, settings), IsEmpty()) << "by hand";
  const auto group = [](MetaKey key) {
    return Exprs{MetaLoad{key}, Compare{{}, CompareOp::kEqual, netlink::host_bytes(kLinkGroup)},
                 Verdict{VerdictKind::kAccept}};
  };
  chains.drops[0].rules = {rule(1, group(MetaKey::kIifgroup)), rule(2, group(MetaKey::kOifgroup))};
  EXPECT_THAT(firewall_troubles(chains, settings), IsEmpty()) << "by the links' group";
}

TEST(FirewallTroublesTest, OthersThanDockersAreNamedToo) {
  const ForeignChains chains{.drops = {dropping(TableFamily::kInet, "fw", "fwd")},
                             .docker_user = {docker_user(TableFamily::kIp, {in(1), out(2)})}};
  EXPECT_THAT(firewall_troubles(chains, test::sample_settings()),
              ElementsAre(AllOf(HasSubstr("chain fwd of table inet fw"),
                                HasSubstr("accept what comes in"), Not(HasSubstr("docker_user")))));
}

TEST(FirewallTroublesTest, FamilyThatTheMeshHasNotIsNoTrouble) {
  auto settings = test::sample_settings();
  settings.pool6.reset();
  const ForeignChains chains{.drops = {dropping(TableFamily::kIp6, "filter", "FORWARD")},
                             .docker_user = {}};
  EXPECT_THAT(firewall_troubles(chains, settings), IsEmpty());
}

}  // namespace
}  // namespace meshd
