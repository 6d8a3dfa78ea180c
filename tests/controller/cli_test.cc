#include "controller/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "controller/admin_client.h"

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
  for (const auto* word : {"token", "node", "backup", "certify"}) {
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
  EXPECT_EQ(refusal_of("token"), "token: one of create, list, revoke");
  EXPECT_EQ(refusal_of("token revoke"), "token revoke: needs ID");
  EXPECT_EQ(refusal_of("node dismiss a b"), "node dismiss: 'b' is too much");
  EXPECT_THAT(refusal_of("backup b.db"), HasSubstr("an absolute path"));
  EXPECT_THAT(refusal_of("certify node n1 -o f"), HasSubstr("none of dispatcher, admin, reader"));
  EXPECT_THAT(refusal_of("certify reader A.b -o f"), HasSubstr("certify: 'A.b'"));
  EXPECT_THAT(refusal_of("certify reader bo"), HasSubstr("-o FILE"));
  EXPECT_THAT(refusal_of("token list --controller c1"), HasSubstr("--controller: 'c1'"));
}

TEST(AdminCliTest, AControllerIsFoundFromItsOwnMachine) {
  EXPECT_THAT(local_addresses("[::]:7443"), ElementsAre("127.0.0.1:7443", "[::1]:7443"));
  EXPECT_THAT(local_addresses("0.0.0.0:1"), ElementsAre("127.0.0.1:1"));
  EXPECT_THAT(local_addresses("192.0.2.1:7443"), ElementsAre("192.0.2.1:7443"));
}

}  // namespace
}  // namespace meshd::controller
