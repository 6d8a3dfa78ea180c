// A plugin of netavark's, by the examples of its description: no engine has been seen.
#include "engines/netavark.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

#include "base/unique_fd.h"
#include "engines/files.h"
#include "engines/json.h"
#include "engines/netavark_run.h"
#include "proto/node.pb.h"

namespace meshd::engines {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const std::string kNumber = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9";
const std::string kContainer = "752947ff91f961eb3cb47ffe9315016979f3ffbec09e4d96a4fae3fb03391697";

std::string network(std::string_view subnets = "[]", std::string_view options = "{}") {
  return R"({"name":"example1","id":")" + kNumber +
         R"(","driver":"mesh-netavark","network_interface":"enp1","subnets":)" +
         std::string(subnets) +
         R"(,"ipv6_enabled":false,"internal":false,"dns_enabled":true,)"
         R"("ipam_options":{"driver":"host-local"},"options":)" +
         std::string(options) + "}";
}

std::string setup(std::string_view ports = "[]", std::string_view static_ips = "null",
                  std::string_view options = "null") {
  return R"({"container_id":")" + kContainer + R"(","container_name":"testctr","port_mappings":)" +
         std::string(ports) + R"(,"network":)" + network("null", options) +
         R"(,"network_options":{"aliases":["752947ff91f9"],"interface_name":"eth0",)"
         R"("static_ips":)" +
         std::string(static_ips) + R"(,"static_mac":null}})";
}

mesh::v1::AttachReply reply() {
  mesh::v1::AttachReply reply;
  reply.set_id("db");
  reply.set_ifname("eth0");
  reply.set_mac("02:00:0a:d5:00:05");
  reply.add_addresses("10.213.0.5");
  reply.add_addresses("fd00::5");
  reply.add_gateways("169.254.1.1");
  reply.add_gateways("fe80::1");
  reply.add_resolvers("169.254.1.1");
  reply.add_search("svc.mesh.internal");
  return reply;
}

// What the program prints, given that on its standard input.
NetavarkAnswer run(std::vector<std::string> arguments, std::string_view input) {
  std::array<int, 2> ends{};
  EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd in(ends[0]);
  UniqueFd out(ends[1]);
  EXPECT_TRUE(write_all(out.get(), input));
  out.reset();
  // A daemon that is not there answers at once.
  arguments.insert(arguments.end(), {"--run-dir", "/nonexistent", "--state-dir", "/nonexistent"});
  return run_netavark(std::move(arguments), in.get(), BootClock::now() + std::chrono::seconds(2));
}

TEST(NetavarkTest, NetworkIsKeptButForAddressesAndNames) {
  const auto made = read_json(make_network(network()).value()).value();
  EXPECT_EQ(made.text_at("name"), "example1");
  EXPECT_EQ(made.text_at("id"), kNumber);
  EXPECT_EQ(made.text_at("driver"), "mesh-netavark");
  EXPECT_EQ(made.text_at("network_interface"), "enp1");
  EXPECT_EQ(made.find("ipam_options")->text_at("driver"), "none");
  EXPECT_EQ(made.find("dns_enabled")->text, "false");
}

TEST(NetavarkTest, NetworkOfWishesThatAreNotFulfilled) {
  EXPECT_THAT(make_network(network(R"([{"subnet":"10.0.0.0/16"}])")).error().what,
              StartsWith("subnets"));
  EXPECT_THAT(make_network(network("[]", R"({"mtu":"9000"})")).error().what,
              StartsWith("option mtu"));
  EXPECT_FALSE(make_network(network("[]", R"({"run_dir":"here"})")));
  EXPECT_TRUE(make_network(network("null", R"({"run_dir":"/run/here","state_dir":"/x"})")));
}

TEST(NetavarkTest, ContainerIsKnownByItsName) {
  const auto call = parse_netavark(setup("[]", "null", R"({"run_dir":"/run/here"})"), {}).value();
  EXPECT_THAT(ids_of(call.launch), ElementsAre("testctr", kContainer.substr(0, 12)));
  EXPECT_EQ(call.place.key, "netavark:" + kNumber + "/" + kContainer + "/eth0");
  EXPECT_EQ(call.place.ifname, "eth0");
  EXPECT_TRUE(call.place.default_route);
  EXPECT_EQ(call.places.run_dir, "/run/here");
  EXPECT_EQ(call.places.state_dir, "/var/lib/meshd");
  EXPECT_EQ(call.wish, "");
}

TEST(NetavarkTest, WishesOfAContainer) {
  const auto* const port =
      R"([{"container_port":80,"host_ip":"127.0.0.1","host_port":8080,"protocol":"tcp",)"
      R"("range":1}])";
  EXPECT_THAT(parse_netavark(setup(port), {})->wish, StartsWith("published ports"));
  EXPECT_THAT(parse_netavark(setup("null", R"(["10.88.0.50"])"), {})->wish,
              StartsWith("static addresses"));
}

TEST(NetavarkTest, StatusHasWhatWasMade) {
  EXPECT_EQ(render_status(reply()),
            R"({"dns_search_domains":["svc.mesh.internal"],"dns_server_ips":["169.254.1.1"],)"
            R"("interfaces":{"eth0":{"mac_address":"02:00:0a:d5:00:05","subnets":[)"
            R"({"ipnet":"10.213.0.5/32","gateway":"169.254.1.1"},)"
            R"({"ipnet":"fd00::5/128","gateway":"fe80::1"}]}}})");
}

TEST(NetavarkTest, InfoNeedsNobody) {
  const auto answer = run({"info"}, "");
  EXPECT_EQ(answer.exit, 0);
  const auto info = read_json(answer.text).value();
  EXPECT_EQ(info.text_at("api_version"), "1.0.0");
  EXPECT_EQ(info.text_at("version"), kNetavarkVersion);
}

TEST(NetavarkTest, CreateAnswersTheNetwork) {
  const auto answer = run({"create"}, network());
  EXPECT_EQ(answer.exit, 0);
  EXPECT_EQ(read_json(answer.text)->text_at("id"), kNumber);
}

TEST(NetavarkTest, SetupOfOneThatNobodyDeclaredSaysSo) {
  const auto answer = run({"setup", "/proc/self/ns/net"}, setup());
  EXPECT_EQ(answer.exit, 1);
  EXPECT_THAT(std::string(read_json(answer.text)->text_at("error")),
              HasSubstr("nobody declared this container"));
}

TEST(NetavarkTest, SetupSaysWhyNot) {
  for (const auto& [path, input, why] :
       {std::tuple("/nonexistent", setup(), "/nonexistent"),
        std::tuple("/proc/self/ns/net", std::string("{}"), "network"),
        std::tuple("/proc/self/ns/net", std::string(), "standard input"),
        std::tuple("/proc/self/ns/net", setup("null", R"(["10.88.0.50"])"), "static addresses")}) {
    const auto answer = run({"setup", path}, input);
    EXPECT_EQ(answer.exit, 1);
    EXPECT_THAT(std::string(read_json(answer.text)->text_at("error")), HasSubstr(why));
  }
}

TEST(NetavarkTest, TeardownSucceedsWhateverIsLeft) {
  const auto answer = run({"teardown", "/nonexistent"}, setup(R"([{"container_port":80}])"));
  EXPECT_EQ(answer.exit, 0);
  EXPECT_EQ(answer.text, "");
}

TEST(NetavarkTest, UsageIsAnErrorObjectToo) {
  for (const auto& arguments : {std::vector<std::string>{}, {"fly"}, {"setup"}, {"info", "x"}}) {
    const auto answer = run(arguments, "");
    EXPECT_EQ(answer.exit, 1);
    EXPECT_THAT(std::string(read_json(answer.text)->text_at("error")), StartsWith("usage"));
  }
}

}  // namespace
}  // namespace meshd::engines
