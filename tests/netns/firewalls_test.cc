// Docker's firewall, imitated: what is said of it, and our two rules in its chain.
#include "meshd/firewalls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "netlink/nft_monitor.h"
#include "tests/support/mesh_bed.h"
#include "tests/support/rt_fixture.h"
#include "tests/support/ruleset_samples.h"

namespace meshd {
namespace {

using test::must;
using test::output_of;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// What docker 20.10 makes, less what concerns its own containers only.
std::string dockers(const std::string& family) {
  return "nft -f - <<'END'\ntable " + family +
         " filter {\n"
         "chain DOCKER-USER { counter return; }\n"
         "chain DOCKER-ISOLATION-STAGE-1 { counter return; }\n"
         "chain FORWARD { type filter hook forward priority filter; policy drop;\n"
         "counter jump DOCKER-USER; counter jump DOCKER-ISOLATION-STAGE-1;\n"
         "oifname \"docker0\" ct state established,related counter accept; }\n"
         "chain INPUT { type filter hook input priority filter; policy accept; }\n"
         "}\nEND";
}

std::string user_chain(const std::string& family) {
  return output_of("nft list chain " + family + " filter DOCKER-USER");
}
// Without counts, which packets change.
std::string all_rules() { return output_of("nft -s list ruleset"); }

class FirewallsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto entered = test::PrivateNetns::enter();
    ASSERT_TRUE(entered) << entered.error().what;
    firewalls_.emplace(must(Firewalls::make()));
  }
  std::vector<std::string> look(bool docker_user) {
    return must(firewalls_->look(docker_user, test::sample_settings()));
  }
  std::optional<Firewalls> firewalls_;
};

TEST_F(FirewallsTest, NothingIsSaidWhereThereIsNothing) {
  EXPECT_THAT(look(true), IsEmpty());
  EXPECT_EQ(all_rules(), "") << "and no chain is made";
}

TEST_F(FirewallsTest, DockersIsSaidAndLeftAsItIs) {
  ASSERT_EQ(output_of(dockers("ip")), "");
  const auto before = all_rules();
  EXPECT_THAT(look(false), ElementsAre(AllOf(HasSubstr("chain FORWARD of table ip filter"),
                                             HasSubstr("set engines.docker_user"))));
  EXPECT_EQ(all_rules(), before);
}

TEST_F(FirewallsTest, WantedTheRulesStandBeforeAllOthersOnce) {
  for (const char* family : {"ip", "ip6"}) ASSERT_EQ(output_of(dockers(family)), "");
  const auto before = all_rules();
  EXPECT_THAT(look(true), IsEmpty());
  for (const std::string family : {"ip", "ip6"}) {
    const auto text = output_of("nft -s list chain " + family + " filter DOCKER-USER");
    EXPECT_EQ(text, "table " + family +
                        " filter {\n\tchain DOCKER-USER {\n"
                        "\t\toifname \"mesh*\" counter accept comment \"meshd\"\n"
                        "\t\tiifname \"mesh*\" counter accept comment \"meshd\"\n"
                        "\t\tcounter return\n\t}\n}\n");
  }
  auto socket = must(netlink::Socket::open());
  const auto generation = must(netlink::read_generation(socket));
  EXPECT_THAT(look(true), IsEmpty());
  EXPECT_EQ(must(netlink::read_generation(socket)), generation) << "nothing to write";
  // Switched off again, or purged: as it was, to the letter.
  EXPECT_THAT(look(false), SizeIs(2));
  EXPECT_EQ(all_rules(), before);
  look(true);
  must(Firewalls::purge());
  EXPECT_EQ(all_rules(), before);
}

TEST_F(FirewallsTest, RulesThatWereTakenOutAreToldAndPutBack) {
  ASSERT_EQ(output_of(dockers("ip")), "");
  look(true);
  const auto mended = user_chain("ip");
  auto monitor = must(netlink::NftMonitor::make("meshd"));
  EXPECT_FALSE(monitor.take_filter());
  ASSERT_EQ(output_of("nft add table ip other; nft add table inet filter"), "");
  must(monitor.read_events());
  EXPECT_FALSE(monitor.take_filter()) << "of other tables";
  ASSERT_EQ(output_of("nft 'flush chain ip filter DOCKER-USER;"
                      "add rule ip filter DOCKER-USER counter return'"),
            "");
  EXPECT_THAT(must(monitor.read_events()), IsEmpty()) << "our table is another";
  EXPECT_TRUE(monitor.take_filter());
  EXPECT_FALSE(monitor.take_filter());
  EXPECT_THAT(look(true), IsEmpty());
  EXPECT_EQ(user_chain("ip"), mended);
}

TEST_F(FirewallsTest, AnAdministratorsRulesStayWhereTheyAre) {
  ASSERT_EQ(output_of(dockers("ip")), "");
  ASSERT_EQ(output_of("nft insert rule ip filter DOCKER-USER ip saddr 192.0.2.66 drop"), "");
  look(true);
  ASSERT_EQ(output_of("nft insert rule ip filter DOCKER-USER ip saddr 192.0.2.67 drop"), "");
  const auto before = all_rules();
  EXPECT_THAT(look(true), IsEmpty());
  EXPECT_EQ(all_rules(), before) << "one that came before ours is not passed";
  ASSERT_EQ(output_of("nft insert rule ip filter DOCKER-USER drop"), "");
  look(true);
  EXPECT_THAT(user_chain("ip"), HasSubstr("counter packets 0 bytes 0 accept comment"));
  must(Firewalls::purge());
  const auto left = user_chain("ip");
  for (const char* others : {"192.0.2.66", "192.0.2.67", "\t\tdrop"}) {
    EXPECT_THAT(left, HasSubstr(others));
  }
}

TEST(FirewallsPacketsTest, DeclaredFlowPassesDockersFirewallOnlyWithOurRules) {
  test::MeshBed bed(2);
  bed.add(test::MeshBed::allow(bed[0], bed[1], Proto::kTcp, 7000));
  const test::EchoServer server(bed[1].netns, bed[1].v4, 7000);
  const auto talk = [&](std::chrono::milliseconds limit) {
    return test::talk(bed[0].netns, Proto::kTcp, bed[1].v4, 7000, std::nullopt, limit);
  };
  ASSERT_EQ(talk(test::kPatience), test::Talk::kAnswered);
  ASSERT_EQ(output_of(dockers("ip")), "");
  auto firewalls = must(Firewalls::make());
  EXPECT_THAT(must(firewalls.look(false, bed.settings())), SizeIs(1));
  EXPECT_NE(talk(test::kSilence), test::Talk::kAnswered);
  EXPECT_THAT(must(firewalls.look(true, bed.settings())), IsEmpty());
  EXPECT_EQ(talk(test::kPatience), test::Talk::kAnswered);
  // It opens nothing: ours still has its say.
  EXPECT_NE(test::talk(bed[1].netns, Proto::kTcp, bed[0].v4, 7001), test::Talk::kAnswered);
}

}  // namespace
}  // namespace meshd
