// The network driver's conversation, with what dockerd 20.10 was seen to say.
#include "engines/docker_plugin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engines/docker_api.h"
#include "engines/docker_driver.h"

namespace meshd::engines {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using Kind = PluginCall::Kind;

const std::string kNetwork = "f15df9f7dcc3ccec5ed98ebf47b114dbdb914ac7acb3b7d2956b42bcb716c2c4";
const std::string kEndpoint = "56b63b09c33a03969c548b29b15bd74faa40acd299a06b44470be1b78e9516a6";
const std::string kContainer = "3db9bbc74ee864ea5afb3758f52eabb19cd76bf1ecdfc9218f2e7752cea65521";

std::string reply(std::string_view path, std::string_view body) {
  const auto call = parse_plugin_call(path, body);
  return call ? call->reply : "error: " + call.error().what;
}

std::string of_endpoint(std::string_view more = "") {
  return R"({"NetworkID":")" + kNetwork + R"(","EndpointID":")" + kEndpoint + '"' +
         std::string(more) + "}\n";
}

std::string description(std::string_view member) {
  return R"({"Name":"N","Id":")" + kNetwork + R"(","Containers":{")" + std::string(member) +
         R"(":{"Name":"db","EndpointID":")" + kEndpoint +
         R"(","MacAddress":"","IPv4Address":"192.0.0.8/32","IPv6Address":""}},"Options":{}})";
}

TEST(DockerPluginTest, WhatItIs) {
  EXPECT_EQ(reply("/Plugin.Activate", ""), R"({"Implements":["NetworkDriver","IpamDriver"]})");
  EXPECT_THAT(reply("/NetworkDriver.GetCapabilities", ""), HasSubstr(R"("Scope":"local")"));
  EXPECT_THAT(reply("/IpamDriver.GetCapabilities", ""), HasSubstr("false"));
  EXPECT_THAT(reply("/IpamDriver.GetDefaultAddressSpaces", ""), HasSubstr("mesh"));
}

TEST(DockerPluginTest, NetworkIsMade) {
  const auto* const pool =
      R"({"AddressSpace":"mesh","Pool":"","SubPool":"","Options":{},"V6":false})"
      "\n";
  EXPECT_EQ(reply("/IpamDriver.RequestPool", pool),
            R"({"PoolID":"mesh","Pool":"192.0.0.8/32","Data":{}})");
  EXPECT_EQ(reply("/IpamDriver.RequestAddress",
                  R"({"PoolID":"mesh","Address":"",)"
                  R"("Options":{"RequestAddressType":"com.docker.network.gateway"}})"),
            R"({"Address":"169.254.1.1/32","Data":{}})");
  const auto create = R"({"NetworkID":")" + kNetwork +
                      R"(","Options":{"com.docker.network.enable_ipv6":false,)"
                      R"("com.docker.network.generic":{}},"IPv4Data":[{"AddressSpace":"mesh",)"
                      R"("Gateway":"169.254.1.1/32","Pool":"0.0.0.0/0"}],"IPv6Data":[]})";
  EXPECT_EQ(reply("/NetworkDriver.CreateNetwork", create), "{}");
  EXPECT_EQ(reply("/NetworkDriver.DeleteNetwork", R"({"NetworkID":")" + kNetwork + "\"}"), "{}");
}

TEST(DockerPluginTest, NetworkOfWishesThatAreNotFulfilled) {
  EXPECT_THAT(reply("/IpamDriver.RequestPool",
                    R"({"AddressSpace":"mesh","Pool":"10.0.0.0/8","SubPool":"","V6":false})"),
              StartsWith("error: --subnet"));
  EXPECT_THAT(reply("/IpamDriver.RequestPool", R"({"Pool":"","SubPool":"10.0.0.0/9"})"),
              StartsWith("error: --subnet"));
  EXPECT_THAT(reply("/IpamDriver.RequestPool", R"({"Pool":"","V6":true})"),
              StartsWith("error: --ipv6"));
  EXPECT_THAT(reply("/IpamDriver.RequestAddress", R"({"PoolID":"mesh","Address":"10.0.0.7"})"),
              StartsWith("error: --ip"));
  EXPECT_THAT(reply("/NetworkDriver.CreateNetwork",
                    R"({"NetworkID":")" + kNetwork +
                        R"(","Options":{"com.docker.network.generic":{"a":"b"}},"IPv4Data":[]})"),
              StartsWith("error: -o a"));
  EXPECT_THAT(reply("/NetworkDriver.CreateNetwork",
                    R"({"NetworkID":")" + kNetwork +
                        R"(","Options":{"com.docker.network.internal":true},"IPv4Data":[]})"),
              StartsWith("error: --internal"));
  // Docker's own IPAM would give addresses that nobody has.
  EXPECT_THAT(reply("/NetworkDriver.CreateNetwork",
                    R"({"NetworkID":")" + kNetwork +
                        R"(","Options":{},"IPv4Data":[{"AddressSpace":"LocalDefault",)"
                        R"("Gateway":"172.18.0.1/16","Pool":"172.18.0.0/16"}]})"),
              StartsWith("error: --ipam-driver mesh"));
}

TEST(DockerPluginTest, ContainerStarts) {
  EXPECT_EQ(reply("/IpamDriver.RequestAddress", R"({"PoolID":"mesh","Address":"","Options":null})"),
            R"({"Address":"192.0.0.8/32","Data":{}})");
  EXPECT_EQ(reply("/NetworkDriver.CreateEndpoint",
                  of_endpoint(R"(,"Interface":{"Address":"192.0.0.8/32","AddressIPv6":"",)"
                              R"("MacAddress":""},"Options":{"com.docker.network.portmap":[]})")),
            R"({"Interface":{}})");
  const auto call =
      parse_plugin_call("/NetworkDriver.Join",
                        of_endpoint(R"(,"SandboxKey":"/run/docker/netns/b0368b979a61",)"
                                    R"("Options":{"com.docker.network.portmap":[]})"))
          .value();
  EXPECT_EQ(call.kind, Kind::kJoin);
  EXPECT_EQ(call.network, kNetwork);
  EXPECT_EQ(call.endpoint, kEndpoint);
  EXPECT_EQ(call.sandbox, "/run/docker/netns/b0368b979a61");
  EXPECT_EQ(call.reply, R"({"DisableGatewayService":true})");
  EXPECT_EQ(reply("/NetworkDriver.EndpointOperInfo", of_endpoint()), R"({"Value":{}})");
}

TEST(DockerPluginTest, PublishedPortsAreRefused) {
  EXPECT_THAT(reply("/NetworkDriver.Join",
                    of_endpoint(R"(,"SandboxKey":"/run/x","Options":{)"
                                R"("com.docker.network.portmap":[{"Proto":6,"IP":"","Port":80,)"
                                R"("HostIP":"","HostPort":80,"HostPortEnd":80}]})")),
              StartsWith("error: -p"));
}

TEST(DockerPluginTest, ContainerEnds) {
  const auto call = parse_plugin_call("/NetworkDriver.Leave", of_endpoint()).value();
  EXPECT_EQ(call.kind, Kind::kLeave);
  EXPECT_EQ(call.reply, "{}");
  EXPECT_EQ(reply("/NetworkDriver.DeleteEndpoint", of_endpoint()), "{}");
  EXPECT_EQ(reply("/IpamDriver.ReleaseAddress", R"({"PoolID":"mesh","Address":"192.0.0.8"})"),
            "{}");
}

TEST(DockerPluginTest, EmptyBodyIsAnError) {
  for (const auto* path :
       {"/NetworkDriver.Join", "/NetworkDriver.Leave", "/NetworkDriver.CreateEndpoint",
        "/NetworkDriver.DeleteEndpoint", "/NetworkDriver.CreateNetwork", "/IpamDriver.RequestPool",
        "/IpamDriver.RequestAddress", "/IpamDriver.ReleaseAddress"}) {
    for (const auto* body : {"", "[]", "null", "{", "\xff"}) {
      EXPECT_FALSE(parse_plugin_call(path, body)) << path << body;
    }
  }
}

TEST(DockerPluginTest, NumbersAndPathsAreLookedAt) {
  const auto join = [](std::string_view network, std::string_view sandbox) {
    return parse_plugin_call("/NetworkDriver.Join",
                             R"({"NetworkID":")" + std::string(network) + R"(","EndpointID":")" +
                                 kEndpoint + R"(","SandboxKey":")" + std::string(sandbox) + "\"}");
  };
  EXPECT_TRUE(join(kNetwork, "/x"));
  EXPECT_FALSE(join(kNetwork.substr(1), "/x"));
  EXPECT_FALSE(join("../" + kNetwork.substr(3), "/x"));
  EXPECT_FALSE(join(kNetwork, "x"));
  EXPECT_FALSE(join(kNetwork, "/" + std::string(5000, 'x')));
}

TEST(DockerPluginTest, UnknownCallIsNotFound) {
  const DriverOptions options;
  const auto by = BootClock::now();
  EXPECT_EQ(answer_plugin("/NetworkDriver.AllocateNetwork", "{}", options, by).status, 404);
  const auto answer = answer_plugin("/NetworkDriver.Join", "", options, by);
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.body, StartsWith(R"({"Err":"mesh: )"));
  EXPECT_NE(answer.refusal, "");
}

TEST(DockerPluginTest, WhoIsOnANetwork) {
  const auto starts = parse_member(description("ep-" + kEndpoint), kEndpoint).value();
  EXPECT_EQ(starts.name, "db");
  EXPECT_EQ(starts.container, "");
  const auto runs = parse_member(description(kContainer), kEndpoint).value();
  EXPECT_EQ(runs.container, kContainer);
  EXPECT_EQ(parse_member(description(kContainer), kNetwork).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(parse_member(R"({"Containers":{"ep-1":{"Name":"a/../b","EndpointID":"1"}}})", "1"));
  EXPECT_FALSE(parse_member("[]", kEndpoint));
}

TEST(DockerPluginTest, ContainerOfAName) {
  const auto list = R"([{"Id":")" + kNetwork + R"(","Names":["/axb","/other/a.b"]},{"Id":")" +
                    kContainer + R"(","Names":["/a.b"]}])";
  EXPECT_EQ(parse_container_id(list, "a.b").value(), kContainer);
  EXPECT_FALSE(parse_container_id(list, "a"));
  EXPECT_FALSE(parse_container_id(R"([{"Id":"../../etc","Names":["/a"]}])", "a"));
}

TEST(DockerPluginTest, WhatTheLauncherChose) {
  const auto config = parse_host_config(R"({"Runtime":"mesh","Dns":["192.0.2.53"]})").value();
  EXPECT_EQ(config.runtime, "mesh");
  EXPECT_TRUE(config.own_dns);
  EXPECT_FALSE(parse_host_config(R"({"Runtime":"runc","Dns":null})")->own_dns);
}

TEST(DockerPluginTest, AddressesTakeTheDummysPlace) {
  EXPECT_EQ(with_addresses("127.0.0.1\tlocalhost\n192.0.0.8\t332f7be10fe7\n192.0.0.80 x\n",
                           {"10.213.0.5", "fd00::5"}),
            "127.0.0.1\tlocalhost\n10.213.0.5\t332f7be10fe7\nfd00::5\t332f7be10fe7\n"
            "192.0.0.80 x\n");
  EXPECT_EQ(with_addresses("127.0.0.1\tlocalhost\n", {"10.213.0.5"}), std::nullopt);
  EXPECT_EQ(with_addresses("192.0.0.8\tx\n", {}), "");
}

TEST(DockerPluginTest, AnswersOfDockerd) {
  EXPECT_EQ(parse_http_reply("HTTP/1.0 200 OK\r\nServer: Docker\r\n\r\n{}").value(), "{}");
  EXPECT_EQ(parse_http_reply("HTTP/1.1 404 Not Found\r\n\r\n{}").error().code,
            ErrorCode::kNotFound);
  for (const auto* text : {"", "HTTP/1.0 200 OK\r\n", "HTTP/1.0", "HTTP/1.0 500 \r\n\r\n",
                           "HTTP/1.0 2x0 OK\r\n\r\n{}", "SSH-2.0\r\n\r\n"}) {
    EXPECT_FALSE(parse_http_reply(text)) << text;
  }
}

}  // namespace
}  // namespace meshd::engines
