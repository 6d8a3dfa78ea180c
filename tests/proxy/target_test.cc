#include "proxy/target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meshd::proxy {
namespace {

using testing::HasSubstr;

constexpr std::string_view kContainer = "zzzzz-dz642-a1b2c3d4e5f6g7h";
constexpr std::string_view kRequest = "zzzzz-xvhdp-a1b2c3d4e5f6g7h";

class ProxyTargetTest : public testing::Test {
 protected:
  // As nginx does: its $host is the name in lower case, without port and final dot.
  static std::string line_host_of(std::string_view host) {
    std::string name(host.substr(0, host.find(':')));
    if (name.ends_with('.')) name.pop_back();
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return name;
  }
  [[nodiscard]] std::string target_of(std::string_view host) const {
    const auto target = parse_target(site_, host, line_host_of(host));
    return target ? target_text(*target) : std::to_string(target.error().status);
  }

  Site site_{"example.org", 443, "", 0, 0};
};

TEST_F(ProxyTargetTest, AServiceByNameWithAPortOrWithout) {
  EXPECT_EQ(target_of("db.svc.example.org"), "service db");
  EXPECT_EQ(target_of("db--8080.svc.example.org"), "service db port 8080");
}

TEST_F(ProxyTargetTest, AWorkloadByIdNeedsAPort) {
  EXPECT_EQ(target_of("worker-1--80.example.org"), "workload worker-1 port 80");
  EXPECT_EQ(target_of("worker-1.example.org"), "404");
}

TEST_F(ProxyTargetTest, ArvadosUuidsAsUpstreamWritesThem) {
  const auto host = [](std::string_view uuid, std::string_view rest) {
    return std::string(uuid) + std::string(rest) + ".example.org";
  };
  const auto container = "workload " + std::string(kContainer);
  const auto request = "request " + std::string(kRequest);
  EXPECT_EQ(target_of(host(kContainer, "")), container);
  EXPECT_EQ(target_of(host(kContainer, "-80")), container + " port 80");
  EXPECT_EQ(target_of(host(kContainer, "--80")), container + " port 80");
  EXPECT_EQ(target_of(host(kRequest, "")), request);
  EXPECT_EQ(target_of(host(kRequest, "-8888")), request + " port 8888");
  EXPECT_EQ(target_of(host(kRequest, "--8888")), request + " port 8888");
  EXPECT_EQ(target_of(host("zzzzz-tpzed-a1b2c3d4e5f6g7h", "-80")), "404");
  EXPECT_EQ(target_of(host(kContainer, "-0")), "400");
  EXPECT_EQ(target_of(host(kContainer, "x")), "400");
  EXPECT_EQ(target_of(host(kContainer, "-80x")), "400");
}

TEST_F(ProxyTargetTest, AUrlLeadsToWhatItWasMadeFor) {
  const Site site{"mesh.example.org", 8443, "mesh.example.net", 8400, 8499};
  const Target targets[] = {ServiceTarget{"db", {}},
                            ServiceTarget{"db", 80},
                            InstanceTarget{"worker-1", 80},
                            InstanceTarget{std::string(kContainer), {}},
                            InstanceTarget{std::string(kContainer), 80},
                            RequestTarget{std::string(kRequest), {}},
                            RequestTarget{std::string(kRequest), 65535},
                            PortTarget{8401}};
  for (const auto& target : targets) {
    const auto url = url_of(site, target, "/lab?x");
    ASSERT_TRUE(url.starts_with("https://") && url.ends_with("/lab?x")) << url;
    const auto host = url.substr(8, url.find('/', 8) - 8);
    const auto parsed = parse_target(site, host, line_host_of(host));
    ASSERT_TRUE(parsed) << url;
    EXPECT_EQ(*parsed, target) << url;
  }
}

TEST_F(ProxyTargetTest, WhereTheSiteHasNoNameThereIsNoUrl) {
  EXPECT_EQ(url_of(site_, ServiceTarget{"db", {}}, ""), "https://db.svc.example.org/");
  EXPECT_EQ(url_of(site_, PortTarget{8401}, ""), "");
  EXPECT_EQ(url_of({"", 443, "example.org", 8400, 8499}, ServiceTarget{"db", {}}, ""), "");
  EXPECT_EQ(url_of(site_, InstanceTarget{std::string(59, 'a'), 80}, ""),
            "https://" + std::string(59, 'a') + "--80.example.org/");
  EXPECT_EQ(url_of(site_, InstanceTarget{std::string(60, 'a'), 80}, ""), "")
      << "a label of DNS has 63 bytes";
}

TEST_F(ProxyTargetTest, UpperCaseAndOneFinalDotAreForgiven) {
  EXPECT_EQ(target_of("DB.Svc.EXAMPLE.org"), "service db");
  EXPECT_EQ(target_of("db.svc.example.org."), "service db");
  EXPECT_EQ(target_of("db.svc.example.org.:443"), "service db");
  EXPECT_EQ(target_of("db.svc.example.org.."), "400");
}

TEST_F(ProxyTargetTest, ThePortIsTheSitesOwn) {
  EXPECT_EQ(target_of("db.svc.example.org:443"), "service db");
  EXPECT_EQ(target_of("db.svc.example.org:8443"), "421");
  site_.port = 8443;
  EXPECT_EQ(target_of("db.svc.example.org:8443"), "service db");
  EXPECT_EQ(target_of("db.svc.example.org"), "421") << "that is port 443";
}

TEST_F(ProxyTargetTest, OddPortsAreRefused) {
  for (const auto* const port : {"", "0", "00443", "+443", "-443", "443x", "65536", "99999999999",
                                 " 443", "443 ", "4_43", "443:443"}) {
    EXPECT_EQ(target_of(std::string("db.svc.example.org:") + port), "400") << port;
  }
  for (const auto* const port : {"", "0", "080", "65536", "x", "80-80", "-80"}) {
    EXPECT_EQ(target_of("db--" + std::string(port) + ".svc.example.org"), "400") << port;
    EXPECT_EQ(target_of("id--" + std::string(port) + ".example.org"), "400") << port;
  }
}

TEST_F(ProxyTargetTest, OtherNamesAreMisdirected) {
  for (const auto* const host :
       {"example.com", "example.org", "svc.example.org.evil.com", "db.svc.example.org.evil.com",
        "evilexample.org", "xexample.org", "localhost", "192.0.2.1", "org"}) {
    EXPECT_EQ(target_of(host), "421") << host;
  }
}

TEST_F(ProxyTargetTest, WhatNoNameHoldsIsRefused) {
  using namespace std::string_view_literals;
  for (const auto host : {""sv,
                          "."sv,
                          ":443"sv,
                          " db.svc.example.org"sv,
                          "db.svc.example.org "sv,
                          "db.svc.example.org\t"sv,
                          "db .svc.example.org"sv,
                          "user@db.svc.example.org"sv,
                          "user:pass@db.svc.example.org"sv,
                          "https://db.svc.example.org"sv,
                          "db.svc.example.org/"sv,
                          "db.svc.example.org/path"sv,
                          "db.svc.example.org?x"sv,
                          "db.svc.example.org#x"sv,
                          "db.svc.example.org, evil.com"sv,
                          "db.svc.example.org,db.svc.example.org"sv,
                          "db..svc.example.org"sv,
                          ".svc.example.org"sv,
                          "db_x.svc.example.org"sv,
                          "db%2esvc.example.org"sv,
                          "db.svc.example.org\r\nX: y"sv,
                          "db.svc.example.org\0"sv,
                          "db.svc\0.example.org"sv,
                          "d\xc3\xa4.svc.example.org"sv,
                          "[::1]"sv,
                          "[::1]:443"sv,
                          "*.svc.example.org"sv,
                          "db\\.svc.example.org"sv,
                          "db.svc.example.org;x"sv}) {
    const auto target = parse_target(site_, host, line_host_of(host));
    ASSERT_FALSE(target) << host;
    EXPECT_EQ(target.error().status, 400) << host;
  }
}

TEST_F(ProxyTargetTest, NamesThatNobodyCanHaveAreNobodys) {
  for (const auto* const host :
       {"svc.example.org", "localhost.svc.example.org", "wpad.svc.example.org",
        "-db.svc.example.org", "db-.svc.example.org", "123.svc.example.org", "a.b.svc.example.org",
        "svc.svc.example.org", "a.b.example.org", "www.example.org",
        "zzzzz-dz642-a1b2c3d4e5f6g7h.svc.example.org", "--80.svc.example.org"}) {
    EXPECT_EQ(target_of(host), "404") << host;
  }
  EXPECT_EQ(target_of(std::string(64, 'a') + ".svc.example.org"), "404");
  EXPECT_EQ(target_of(std::string(300, 'a') + ".svc.example.org"), "400");
}

TEST_F(ProxyTargetTest, TheRequestLineAndTheHeaderNameTheSameHost) {
  const auto why = [&](std::string_view host, std::string_view line) {
    const auto target = parse_target(site_, host, line);
    return target ? std::string("taken") : std::string(target.error().why);
  };
  EXPECT_EQ(why("db.svc.example.org", "db.svc.example.org"), "taken");
  EXPECT_THAT(why("db.svc.example.org", "web.svc.example.org"), HasSubstr("another host"));
  EXPECT_THAT(why("db.svc.example.org", ""), HasSubstr("another host"));
  EXPECT_THAT(why("", "db.svc.example.org"), HasSubstr("no name"));
}

TEST_F(ProxyTargetTest, ASiteWithoutWildcardNamesHasAPortForEachService) {
  site_ = {"", 443, "mesh.example.org", 9000, 9099};
  EXPECT_EQ(target_of("mesh.example.org:9000"), "outside port 9000");
  EXPECT_EQ(target_of("MESH.example.org.:9099"), "outside port 9099");
  EXPECT_EQ(target_of("mesh.example.org:9100"), "421");
  EXPECT_EQ(target_of("db.svc.mesh.example.org"), "421");
}

TEST_F(ProxyTargetTest, ASiteMayHaveBoth) {
  site_ = {"example.org", 443, "mesh.example.org", 9000, 9099};
  EXPECT_EQ(target_of("mesh.example.org:9000"), "outside port 9000");
  EXPECT_EQ(target_of("db.svc.example.org"), "service db");
  EXPECT_EQ(target_of("mesh.example.org"), "page") << "of both";
  site_.host = "ports.example.org";
  EXPECT_EQ(target_of("ports.example.org:9000"), "outside port 9000");
  EXPECT_EQ(target_of("ports.example.org"), "421") << "nobody's name, but the host of the ports";
}

TEST_F(ProxyTargetTest, ASiteThatCannotBeNamesTheField) {
  const auto why = [](const Site& site) {
    const auto checked = check_site(site);
    return checked ? std::string() : checked.error().what;
  };
  EXPECT_EQ(why({"example.org", 443, "", 0, 0}), "");
  EXPECT_EQ(why({"example.org", 443, "mesh.example.org", 9000, 9000}), "");
  EXPECT_THAT(why({"", 443, "", 0, 0}), HasSubstr("zone: neither"));
  EXPECT_THAT(why({"Example.org", 443, "", 0, 0}), HasSubstr("zone: is not a DNS label"));
  EXPECT_THAT(why({"example.org;", 443, "", 0, 0}), HasSubstr("zone: "));
  EXPECT_THAT(why({"example.org", 0, "", 0, 0}), HasSubstr("port: "));
  EXPECT_THAT(why({"", 443, "mesh", 9000, 9001}), HasSubstr("host: "));
  EXPECT_THAT(why({"", 443, "mesh.example.org", 9001, 9000}), HasSubstr("ports: "));
  EXPECT_THAT(why({"example.org", 443, "mesh.example.org", 400, 500}), HasSubstr("ports: 443"));
}

TEST_F(ProxyTargetTest, ThePageHasANameThatNoWorkloadCanHave) {
  EXPECT_EQ(target_of("mesh.example.org"), "page");
  EXPECT_EQ(target_of("MESH.example.org.:443"), "page");
  EXPECT_EQ(target_of("mesh.svc.example.org"), "service mesh");
  EXPECT_EQ(target_of("mesh--80.example.org"), "workload mesh port 80");
  EXPECT_EQ(url_of(site_, PageTarget{}, ""), "https://mesh.example.org/");
}

TEST_F(ProxyTargetTest, WithoutWildcardNamesThePageIsTheHostItself) {
  site_ = {"", 443, "one.example.org", 8400, 8499};
  EXPECT_EQ(target_of("one.example.org"), "page");
  EXPECT_EQ(target_of("one.example.org:8400"), "outside port 8400");
  EXPECT_EQ(target_of("one.example.org:444"), "421");
  EXPECT_EQ(url_of(site_, PageTarget{}, ""), "https://one.example.org/");
  site_.port = 8450;
  const auto status = check_site(site_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().what, "ports: 8450 is the page's port");
}

}  // namespace
}  // namespace meshd::proxy
