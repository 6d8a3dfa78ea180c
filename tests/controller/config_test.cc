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

std::string web_refusal(const std::string& fields) {
  const auto config = parse_config("f", "web: {" + fields + "}");
  return config ? "it was taken" : config.error().what;
}

TEST(ControllerConfigTest, WithoutWebNothingIsOpened) {
  EXPECT_FALSE(parse_config("f", "{}")->web);
}

TEST(ControllerConfigTest, AZoneIsAllThatWebNeeds) {
  const auto config = parse_config("f", "dir: /d\nweb: {zone: mesh.example.org}\n");
  ASSERT_TRUE(config) << config.error().what;
  const auto& web = *config->web;
  EXPECT_EQ(web.nginx.names.zone, "mesh.example.org");
  EXPECT_EQ(web.nginx.names.port, 443);
  EXPECT_EQ(web.nginx.endpoint, "/run/mesh-controller/web.sock");
  EXPECT_EQ(web.relay_dir, "/run/mesh-controller/relay");
  EXPECT_EQ(web.tokens, "/d/web-tokens");
  EXPECT_EQ(web.nginx.certificate, "/etc/ssl/certs/mesh.example.org.pem");
  EXPECT_EQ(web.nginx.certificate_key, "/etc/ssl/private/mesh.example.org.key");
  EXPECT_EQ(web.keep_good, std::chrono::seconds(60));
  EXPECT_EQ(web.keep_bad, std::chrono::seconds(5));
  EXPECT_EQ(web.open_idle, std::chrono::minutes(10));
}

TEST(ControllerConfigTest, WebsFieldsAreAllTaken) {
  const auto config = parse_config(
      "f",
      "web: {zone: z.example.org, port: 8443, host: h.example.org, ports: 8500-8599, "
      "listen: /s/web.sock, group: www-data, tokens: /t/tokens, keep_good_s: 9, keep_bad_s: 2, "
      "open_idle_s: 30, certificate: /c.pem, certificate_key: /c.key, access_log: /l.log}");
  ASSERT_TRUE(config) << config.error().what;
  const auto& web = *config->web;
  EXPECT_EQ(web.nginx.names.port, 8443);
  EXPECT_EQ(web.nginx.names.host, "h.example.org");
  EXPECT_EQ(web.nginx.names.first_port, 8500);
  EXPECT_EQ(web.nginx.names.last_port, 8599);
  EXPECT_EQ(web.nginx.endpoint, "/s/web.sock");
  EXPECT_EQ(web.relay_dir, "/s/relay");
  EXPECT_EQ(web.group, "www-data");
  EXPECT_EQ(web.tokens, "/t/tokens");
  EXPECT_EQ(web.keep_good, std::chrono::seconds(9));
  EXPECT_EQ(web.keep_bad, std::chrono::seconds(2));
  EXPECT_EQ(web.open_idle, std::chrono::seconds(30));
  EXPECT_EQ(web.nginx.certificate, "/c.pem");
  EXPECT_EQ(web.nginx.certificate_key, "/c.key");
  EXPECT_EQ(web.nginx.access_log, "/l.log");
}

TEST(ControllerConfigTest, WhatWebCannotBeIsNamedWithItsField) {
  EXPECT_THAT(web_refusal(""), HasSubstr("f:1: web.zone: neither a zone nor a host"));
  EXPECT_THAT(web_refusal("zone: 'a b'"), HasSubstr("f:1: web.zone: "));
  EXPECT_THAT(web_refusal("zone: \"z; }\""), HasSubstr("web.zone: "));
  EXPECT_THAT(web_refusal("zone: z.example.org, port: 70000"), HasSubstr("web.port: must be 1 to"));
  EXPECT_THAT(web_refusal("zone: z.example.org, ports: 8400-8499"), HasSubstr("web.ports: are"));
  EXPECT_THAT(web_refusal("host: h.example.org"), HasSubstr("web.ports: are FIRST-LAST"));
  EXPECT_THAT(web_refusal("host: h.example.org, ports: '84'"), HasSubstr("web.ports: '84' is not"));
  const std::string zone = "zone: z.example.org, ";
  EXPECT_THAT(web_refusal(zone + "listen: \"0.0.0.0:80\""), HasSubstr("web.listen: is a socket"));
  EXPECT_THAT(web_refusal(zone + "listen: /" + std::string(110, 'a')), HasSubstr("web.listen: "));
  EXPECT_THAT(web_refusal(zone + "relay_dir: relay"), HasSubstr("web.relay_dir: is not an abs"));
  EXPECT_THAT(web_refusal(zone + "relay_dir: /run/mesh-controller"),
              HasSubstr("web.relay_dir: is where `listen`"));
  EXPECT_THAT(web_refusal(zone + "tokens: t"), HasSubstr("web.tokens: is not an absolute path"));
  EXPECT_THAT(web_refusal(zone + "keep_good_s: 3601"), HasSubstr("web.keep_good_s: 3601 is not"));
  EXPECT_THAT(web_refusal(zone + "open_idle_s: 0"), HasSubstr("web.open_idle_s: "));
  EXPECT_THAT(web_refusal(zone + "open_idle_s: 2592001"), HasSubstr("web.open_idle_s: 2592001 is"));
  EXPECT_THAT(web_refusal(zone + "certificate: \"/a;b\""), HasSubstr("web.certificate: holds"));
  EXPECT_THAT(web_refusal(zone + "access_log: \"/a b\""), HasSubstr("web.access_log: holds"));
  EXPECT_THAT(web_refusal(zone + "group: \"\""), HasSubstr("web.group: is empty"));
}

}  // namespace
}  // namespace meshd::controller
