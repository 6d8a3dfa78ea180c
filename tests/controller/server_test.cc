// Who comes to a controller that serves on loopback, and what they may.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/controller/server_bed.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;
using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

class ServerTest : public ServerBed {};

TEST_F(ServerTest, AMachineJoinsWithATicketAndIsWelcomed) {
  give(pki::Role::kAdmin, "ada");
  const auto ticket = administrate("token create --uses 2");
  const auto joined = join(ticket, "n1");
  ASSERT_TRUE(joined.status.ok()) << joined.status.error_message();
  const auto certificate = pki::parse_certificate(joined.reply.certificate()).value();
  ASSERT_TRUE(pki::write_identity(dir_ / "n1.pem", joined.key, certificate));

  const auto session = open_session("n1");
  pb::ToNode answer;
  ASSERT_TRUE(session->stream->Read(&answer));
  EXPECT_EQ(answer.welcome().cluster(), "lab");
  EXPECT_EQ(answer.welcome().controller(), "c1");
  EXPECT_THAT(answer.welcome().block4(), HasSubstr("/24"));

  give(pki::Role::kReader, "eve");
  EXPECT_THAT(meshctl("list nodes", "eve"), HasSubstr("connected"));
  // Under the name of a node that is there, nobody else comes in, whatever they have.
  EXPECT_EQ(join(ticket, "n1").status.error_message(), kTokenRefused);
  EXPECT_TRUE(join(ticket, "n2").status.ok());
  EXPECT_EQ(join(ticket, "n3").status.error_message(), kTokenRefused) << "used up";
}

TEST_F(ServerTest, ARevokedTicketLetsNobodyIn) {
  give(pki::Role::kAdmin, "ada");
  const auto ticket = administrate("token create");
  const auto token = pki::decode_ticket(ticket).value().token;
  const auto id = token.substr(0, token.find('.'));
  EXPECT_THAT(administrate("token list"), HasSubstr(id + "  good"));
  EXPECT_EQ(administrate("token revoke " + id), id + ": revoked\n");
  EXPECT_EQ(join(ticket, "n1").status.error_message(), kTokenRefused);
  EXPECT_THAT(administrate("token list"), HasSubstr(id + "  revoked"));
  EXPECT_EQ(administrate("token revoke 77"), "1: token revoke: there is none of that id");
}

TEST_F(ServerTest, EachRoleMayDoItsOwn) {
  std::ofstream(dir_ / "w.yaml") << "workloads: [{id: db, owner: ann, serves: [{port: 1}]}]";
  const auto apply = "apply -f " + dir_ / "w.yaml";
  give(pki::Role::kReader, "eve");
  give(pki::Role::kNode, "n1");
  give(pki::Role::kDispatcher, "slurm");
  EXPECT_EQ(meshctl(apply, "eve"), "1: mesh://lab/reader/eve may not do that");
  EXPECT_EQ(meshctl(apply, "n1"), "1: mesh://lab/node/n1 may not do that");
  EXPECT_EQ(meshctl("list workloads", "n1"), "1: mesh://lab/node/n1 may not do that");
  EXPECT_THAT(meshctl(apply, "slurm"), HasSubstr("db"));
  EXPECT_THAT(meshctl("list workloads", "eve"), HasSubstr("DECLARED"));
  EXPECT_EQ(administrate("token create", "slurm"),
            "1: mesh://lab/dispatcher/slurm may not do that");
  EXPECT_EQ(administrate("token list", "eve"), "1: mesh://lab/reader/eve may not do that");
  EXPECT_EQ(meshctl("delete db", "slurm"), "db: deleted\n");
  EXPECT_EQ(bed_.controller->cluster().declaration("db"), nullptr);
}

TEST_F(ServerTest, StatusIsThatOfAController) {
  give(pki::Role::kReader, "eve");
  EXPECT_THAT(meshctl("status", "eve"), HasSubstr("controller c1: healthy\n"));
  EXPECT_THAT(meshctl("status -o json", "eve"), HasSubstr("\"controller\": \"c1\""));
}

TEST_F(ServerTest, OnesOwnFilesAreCheckedFirst) {
  give(pki::Role::kReader, "old", pki::real_now() - 2 * pki::kNodeLifetime);
  EXPECT_THAT(meshctl("status", "old"), HasSubstr("1: " + dir_ / "old.pem: certificate of old: "
                                                                 "expired"));
  EXPECT_EQ(meshctl("status", "nobody"), "1: " + dir_ / "nobody.pem: no such file");
  const pki::SampleAuthority other(pki::real_now());
  const auto files = other.write(dir_.path(), pki::holder_of("lab", pki::Role::kReader, "mallory"),
                                 pki::real_now());
  EXPECT_THAT(meshctl("status", "mallory"), HasSubstr("1: " + files.identity + ": "));
}

TEST_F(ServerTest, AClusterOfTheSameNameByAnotherAuthorityIsAnother) {
  const pki::SampleAuthority other(pki::real_now());
  const auto files = other.write(dir_.path(), pki::holder_of("lab", pki::Role::kAdmin, "mallory"),
                                 pki::real_now());
  EXPECT_EQ(meshctl("status --authorities " + files.authorities, "mallory"),
            "1: controller at " + address() + ": TLS: it is no controller by our authorities");
  // And where we trust it, it does not trust us.
  const auto both = other.certificate.to_pem() + bed_.authority.certificate.to_pem();
  ASSERT_TRUE(pki::write_authorities(files.authorities, both));
  EXPECT_THAT(meshctl("status --authorities " + files.authorities, "mallory"),
              HasSubstr("it hangs up: it does not take our certificate"));
}

TEST_F(ServerTest, TheNextControllerIsAskedWhenOneIsAway) {
  give(pki::Role::kReader, "eve");
  // Nobody can listen on port 1 of this machine but root, who does not.
  EXPECT_THAT(meshctl("status", "eve", "127.0.0.1:1," + address()), HasSubstr("controller c1"));
  EXPECT_EQ(meshctl("status", "eve", "127.0.0.1:1"),
            "3: cannot reach the controller at 127.0.0.1:1: Connection refused");
}

TEST_F(ServerTest, WhomAnAdministratorCertifiesMayComeIn) {
  give(pki::Role::kAdmin, "ada");
  std::filesystem::create_directory(dir_ / "home");
  const auto made = administrate("certify reader grafana --days 30 -o " + dir_ / "home/g.pem");
  EXPECT_EQ(made, dir_ / "home/g.pem" + ": reader grafana of cluster lab, good for 30 days\n");
  EXPECT_THAT(meshctl("status", dir_ / "home/g.pem"), HasSubstr("healthy"));
  EXPECT_EQ(administrate("certify reader grafana -o " + dir_ / "home/g.pem"),
            "1: " + dir_ / "home/g.pem: there already");
  EXPECT_THAT(administrate("node dismiss n9"), HasSubstr("1: node dismiss: no node n9"));
}

}  // namespace
}  // namespace meshd::controller
