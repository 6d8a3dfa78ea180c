#include "controller/cli.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <sstream>

#include "controller/admin_client.h"
#include "pki/secret.h"
#include "proxy/people.h"
#include "tests/support/temp_dir.h"

namespace meshd::controller {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Result<AdminCommand> parse_line(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> args;
  for (std::string word; stream >> word;) args.push_back(word);
  return parse_admin(args);
}
template <class T>
T action_of(const std::string& line) {
  const auto command = parse_line(line);
  EXPECT_TRUE(command) << line << ": " << command.error().what;
  if (!command || !std::holds_alternative<T>(command->action)) {
    ADD_FAILURE() << line << " is another command";
    return {};
  }
  return std::get<T>(command->action);
}
std::string refusal_of(const std::string& line) {
  const auto command = parse_line(line);
  if (command) return "it was taken";
  EXPECT_EQ(command.error().code, ErrorCode::kInvalid);
  return command.error().what;
}

TEST(AdminCliTest, ATokensTermsAreTaken) {
  const auto plain = action_of<CreateToken>("token create").request;
  EXPECT_EQ(plain.lifetime_s(), 24U * 3600);
  EXPECT_EQ(plain.uses(), 0U);
  const auto full = action_of<CreateToken>(
                        "token create --hours 2 --uses=3 --source 192.0.2.0/24 "
                        "--source 2001:db8::/64 --name-prefix gpu-")
                        .request;
  EXPECT_EQ(full.lifetime_s(), 7200U);
  EXPECT_EQ(full.uses(), 3U);
  EXPECT_THAT(full.sources(), ElementsAre("192.0.2.0/24", "2001:db8::/64"));
  EXPECT_EQ(full.name_prefix(), "gpu-");
}

TEST(AdminCliTest, EveryCommandIsTaken) {
  action_of<ListTokens>("token list");
  EXPECT_EQ(action_of<RevokeToken>("token revoke 0123").id, "0123");
  EXPECT_EQ(action_of<DismissNode>("node dismiss n1").name, "n1");
  EXPECT_EQ(action_of<MakeBackup>("backup /var/b.db").path, "/var/b.db");
  const auto certify = action_of<Certify>("certify reader grafana --days 30 -o g.pem");
  EXPECT_EQ(certify.role, "reader");
  EXPECT_EQ(certify.name, "grafana");
  EXPECT_EQ(certify.lifetime_s, 30U * 24 * 3600);
  EXPECT_EQ(certify.out, "g.pem");
  action_of<AdminHelp>("token --help");
  for (const auto* word : {"token", "node", "backup", "certify", "proxy-config"}) {
    EXPECT_TRUE(is_admin_command(word)) << word;
  }
  for (const auto* word : {"init", "--config", "tok", "token create", ""}) {
    EXPECT_FALSE(is_admin_command(word)) << word;
  }
}

TEST(AdminCliTest, WhereTheControllerIsMayStandAnywhere) {
  const auto command =
      parse_line("--controller c1:7443,c2:7443 token --identity me.pem list --dir /d");
  ASSERT_TRUE(command) << command.error().what;
  EXPECT_EQ(command->where.controllers, "c1:7443,c2:7443");
  EXPECT_EQ(command->where.identity, "me.pem");
  EXPECT_EQ(command->where.dir, "/d");
}

TEST(AdminCliTest, WhatCannotBeMeantIsRefusedWithItsReason) {
  EXPECT_EQ(refusal_of("token create --hours 0"), "--hours: '0' is no number from 1 to 8760");
  EXPECT_EQ(refusal_of("token create --uses"), "--uses: needs a value");
  EXPECT_THAT(refusal_of("token create --source here"), HasSubstr("'here' is no prefix"));
  EXPECT_EQ(refusal_of("token list --hours 2"), "token list: --hours does not belong to it");
  EXPECT_EQ(refusal_of("token"), "token: one of create, list, revoke, and add, people, remove");
  EXPECT_EQ(refusal_of("token revoke"), "token revoke: needs ID");
  EXPECT_EQ(refusal_of("node dismiss a b"), "node dismiss: 'b' is too much");
  EXPECT_THAT(refusal_of("backup b.db"), HasSubstr("an absolute path"));
  EXPECT_THAT(refusal_of("certify node n1 -o f"), HasSubstr("none of dispatcher, admin, reader"));
  EXPECT_THAT(refusal_of("certify reader A.b -o f"), HasSubstr("certify: 'A.b'"));
  EXPECT_THAT(refusal_of("certify reader bo"), HasSubstr("-o FILE"));
  EXPECT_THAT(refusal_of("token list --controller c1"), HasSubstr("--controller: 'c1'"));
}

TEST(AdminCliTest, PeopleAreAddedWithWhatTheyMay) {
  const auto plain = action_of<AddPerson>("token add ada");
  EXPECT_EQ(plain.terms.user, "ada");
  EXPECT_FALSE(plain.terms.admin);
  EXPECT_FALSE(plain.days);
  const auto full = action_of<AddPerson>(
      "token add --admin eve --level CAN_READ:ada --level=CAN_MANAGE:bob --expires 30 --dir /d");
  EXPECT_EQ(full.terms.user, "eve") << "--admin takes no value";
  EXPECT_TRUE(full.terms.admin);
  EXPECT_THAT(full.terms.grants, ElementsAre(proxy::Grant{proxy::Access::kCanRead, "ada"},
                                             proxy::Grant{proxy::Access::kCanManage, "bob"}));
  EXPECT_EQ(full.days, 30U);
  action_of<ListPeople>("token people");
  EXPECT_EQ(action_of<RemovePerson>("token remove 0123").id, "0123");
  EXPECT_THAT(refusal_of("token add"), HasSubstr("needs USER"));
  EXPECT_THAT(refusal_of("token add Ada!"), HasSubstr("token add: 'Ada!' "));
  EXPECT_THAT(refusal_of("token add ada --level OWNER:bob"), HasSubstr("--level: 'OWNER:bob': "));
  EXPECT_THAT(refusal_of("token add ada --expires 9999"), HasSubstr("no number from 1 to 3652"));
  EXPECT_THAT(refusal_of("token add ada --controller c1:1"), HasSubstr("does not belong to it"));
  EXPECT_THAT(refusal_of("token create --admin"), HasSubstr("does not belong to it"));
}

// What is asked of no controller, on files of its own.
class WebCommandsTest : public testing::Test {
 protected:
  WebCommandsTest() {
    std::ofstream(dir_ / "config") << "dir: " << dir_.path() << "\nweb: {zone: mesh.example.org}\n";
  }
  [[nodiscard]] std::string run(const std::string& line) const {
    const auto command = parse_line(line + " --config " + dir_ / "config");
    if (!command) return "usage: " + command.error().what;
    const auto output = run_admin(*command, [] { return pki::UtcTime(std::chrono::days(20'000)); });
    return output ? output->text : output.error().what;
  }
  TempDir dir_;
};

TEST_F(WebCommandsTest, ATokenIsShownOnceAndKnownByItsDigest) {
  auto token = run("token add ada --level CAN_READ:bob --expires 1");
  ASSERT_TRUE(token.ends_with('\n'));
  token.pop_back();
  const auto people = proxy::read_people(dir_ / "web-tokens").value();
  ASSERT_EQ(people.size(), 1U);
  EXPECT_EQ(people[0].digest, pki::sha256(token));
  EXPECT_EQ(
      run("token people"),
      fmt::format("ID            USER                              STATE    UNTIL             "
                  "    LEVELS\n{}  ada                               good     "
                  "2024-10-05T00:00:00Z  CAN_READ:bob\n",
                  people[0].id));
  EXPECT_EQ(run("token remove " + people[0].id), people[0].id + ": removed\n");
  EXPECT_THAT(run("token remove " + people[0].id), HasSubstr("there is none"));
}

TEST_F(WebCommandsTest, NginxsTextIsThatOfTheConfigurationOrOfTheOptions) {
  EXPECT_THAT(run("proxy-config"), HasSubstr("server_name *.mesh.example.org;"));
  const auto other = run("proxy-config --zone z.example.net --port 8443 --listen 127.0.0.1:9480");
  EXPECT_THAT(other, HasSubstr("server_name *.z.example.net;"));
  EXPECT_THAT(other, HasSubstr("listen 8443 ssl"));
  EXPECT_THAT(other, HasSubstr("ssl_certificate /etc/ssl/certs/z.example.net.pem;"));
  EXPECT_THAT(other, HasSubstr("server 127.0.0.1:9480;"));
  EXPECT_THAT(run("proxy-config --host h.example.net --ports 8500-8599"),
              HasSubstr("listen 8500-8599 ssl"));
}

TEST_F(WebCommandsTest, NothingWrongReachesNginxsText) {
  EXPECT_THAT(run("proxy-config --zone a;b"), HasSubstr("proxy-config: zone: "));
  EXPECT_THAT(run("proxy-config --certificate /a;b"), HasSubstr("proxy-config: certificate: "));
  EXPECT_THAT(run("proxy-config --key $x"), HasSubstr("proxy-config: certificate_key: "));
  EXPECT_THAT(run("proxy-config --listen 0.0.0.0:1"), HasSubstr("proxy-config: endpoint: "));
  EXPECT_THAT(run("proxy-config --access-log a"), HasSubstr("proxy-config: access_log: "));
  EXPECT_THAT(run("proxy-config --host h --ports 9-8"), HasSubstr("--ports: "));
  std::ofstream(dir_ / "config") << "dir: /d\n";
  EXPECT_THAT(run("proxy-config"), HasSubstr("the configuration has no `web`"));
}

TEST(AdminCliTest, AControllerIsFoundFromItsOwnMachine) {
  EXPECT_THAT(local_addresses("[::]:7443"), ElementsAre("127.0.0.1:7443", "[::1]:7443"));
  EXPECT_THAT(local_addresses("0.0.0.0:1"), ElementsAre("127.0.0.1:1"));
  EXPECT_THAT(local_addresses("192.0.2.1:7443"), ElementsAre("192.0.2.1:7443"));
}

}  // namespace
}  // namespace meshd::controller
