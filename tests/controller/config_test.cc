// mesh-controller's configuration: what of it reaches the controller, and what is refused where.
#include "controller/config.h"

#include <gmock/gmock.h>

namespace meshd::controller {
namespace {

using testing::HasSubstr;

TEST(ControllerConfigTest, ProxiesAreAddressesAndPrefixes) {
  const auto config = parse_config("f", "proxy:\n  addresses: [192.0.2.8, \"2001:db8::/64\"]\n");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_THAT(config->proxies, testing::ElementsAre(Prefix::parse("192.0.2.8").value(),
                                                    Prefix::parse("2001:db8::/64").value()));
}

TEST(ControllerConfigTest, WhatIsNoAddressIsNamedWithItsLine) {
  const auto config = parse_config("f", "name: c1\nproxy:\n  addresses: [192.0.2.8, proxy1]\n");
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().what, HasSubstr("f:3: proxy.addresses[1]: "));
}

TEST(ControllerConfigTest, OutsidePortsAreARange) {
  EXPECT_EQ(parse_config("f", "{}").value().gateway_ports, policy::PortSpan());
  const auto config = parse_config("f", "gateway: {ports: 30000-32767}");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_EQ(config->gateway_ports, (policy::PortSpan{30000, 32767}));
  const auto named = parse_config("f", "gateway: {ports: 30000-32767, nodes: [g1, g2]}");
  EXPECT_THAT(named->gateway_nodes, testing::ElementsAre("g1", "g2"));
  const auto no_name = parse_config("f", "gateway: {ports: 30000-32767, nodes: [G/1]}");
  ASSERT_FALSE(no_name);
  EXPECT_THAT(no_name.error().what, HasSubstr("f:1: gateway.nodes[0]: "));
  const auto wrong = parse_config("f", "gateway: {ports: \"80\"}");
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().what, HasSubstr("f:1: gateway.ports: '80' is not FIRST-LAST"));
}

TEST(ControllerConfigTest, AnArvadosSiteIsItsApiAndAToken) {
  EXPECT_FALSE(parse_config("f", "{}").value().arvados);
  const auto config = parse_config("f",
                                   "arvados:\n  api_host: zzzzz.example.org:8443\n"
                                   "  token_file: /etc/mesh-controller/arvados.token\n");
  ASSERT_TRUE(config) << config.error().what;
  EXPECT_EQ(config->arvados->api_host, "zzzzz.example.org:8443");
  EXPECT_EQ(config->arvados->token_file, "/etc/mesh-controller/arvados.token");
  EXPECT_EQ(config->arvados->poll, std::chrono::seconds(5));
  const auto more =
      parse_config("f", "arvados: {api_host: a.b, token_file: /t, ca_file: /ca.pem, poll_s: 30}");
  ASSERT_TRUE(more) << more.error().what;
  EXPECT_EQ(more->arvados->ca_file, "/ca.pem");
  EXPECT_EQ(more->arvados->poll, std::chrono::seconds(30));
}

TEST(ControllerConfigTest, WhatIsWrongWithAnArvadosSiteIsNamedWithItsLine) {
  const auto why = [](const std::string& arvados) {
    const auto config = parse_config("f", "name: c1\narvados:\n" + arvados);
    return config ? "taken" : config.error().what;
  };
  const std::string host = "  api_host: zzzzz.example.org\n", token = "  token_file: /t\n";
  EXPECT_EQ(why(token), "f:2: arvados.api_host: is missing");
  EXPECT_EQ(why(host), "f:2: arvados.token_file: is missing");
  EXPECT_THAT(why("  api_host: https://zzzzz.example.org\n" + token),
              HasSubstr("f:3: arvados.api_host: is no host name"));
  EXPECT_EQ(why(host + "  token_file: t\n"), "f:4: arvados.token_file: is not an absolute path");
  EXPECT_EQ(why(host + token + "  ca_file: ca.pem\n"),
            "f:5: arvados.ca_file: is not an absolute path");
  EXPECT_EQ(why(host + token + "  poll_s: 3601\n"),
            "f:5: arvados.poll_s: 3601 is not between 1 and 3600");
  EXPECT_EQ(why(host + token + "  poll_s: 0\n"),
            "f:5: arvados.poll_s: is empty; leave it out for the default");
  EXPECT_THAT(why(host + token + "  token: v2/x\n"), HasSubstr("unknown field"));
}

}  // namespace
}  // namespace meshd::controller
