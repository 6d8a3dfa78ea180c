#include "proxy/nginx_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>

#include "tests/support/temp_dir.h"
#include "tests/support/text_file.h"

namespace meshd::proxy {
namespace {

using testing::HasSubstr;
using testing::Not;

NginxSite example() {
  NginxSite site;
  site.names.zone = "mesh.example.org";
  site.certificate = "/etc/ssl/certs/mesh.example.org.pem";
  site.certificate_key = "/etc/ssl/private/mesh.example.org.key";
  return site;
}

std::string rendered(const NginxSite& site) {
  const auto text = render_nginx_config(site);
  EXPECT_TRUE(text) << text.error().what;
  return text.value_or("");
}

std::string why_not(const NginxSite& site) {
  const auto text = render_nginx_config(site);
  return text ? "" : text.error().what;
}

TEST(ProxyNginxConfigTest, NothingIsLeftToFillIn) {
  const auto text = rendered(example());
  EXPECT_THAT(text, Not(HasSubstr("<<")));
  EXPECT_THAT(text, Not(HasSubstr(">>")));
  EXPECT_THAT(text, HasSubstr("server unix:/run/mesh-controller/web.sock;"));
  EXPECT_THAT(text, HasSubstr("server_name *.mesh.example.org;"));
}

TEST(ProxyNginxConfigTest, EveryHeaderOfTheEndpointIsThere) {
  const auto text = rendered(example());
  for (const auto header : {kHostHeader, kLineHostHeader, kUriHeader, kMethodHeader, kClientHeader,
                            kUpgradeHeader, kOriginHeader, kCookieHeader, kAuthorizationHeader,
                            kStatusHeader, kArvadosUserHeader, kUserHeader, kFetchSiteHeader}) {
    EXPECT_THAT(text, HasSubstr("proxy_set_header " + std::string(header) + " ")) << header;
  }
  for (auto header :
       {kUpstreamHeader, kUserHeader, kArvadosUserHeader, kCookieHeader, kAuthorizationHeader,
        kSetCookieHeader, kStatusHeader, kLocationHeader, kTextHeader}) {
    std::string variable("$upstream_http_");
    for (const char c : header) {
      variable += c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    EXPECT_THAT(text, HasSubstr(" " + variable + ";")) << header;
  }
}

TEST(ProxyNginxConfigTest, OtherSpellingsOfOurHeadersAreStripped) {
  const auto text = rendered(example());
  for (const auto* const name :
       {"X_Arvados-User-UUID", "X-Arvados_User-UUID", "X-Arvados-User_UUID", "X_Arvados_User-UUID",
        "X_Arvados-User_UUID", "X-Arvados_User_UUID", "X_Arvados_User_UUID", "X_Mesh-User",
        "X-Mesh_User", "X_Mesh_User"}) {
    EXPECT_THAT(text, HasSubstr("proxy_set_header " + std::string(name) + " \"\";")) << name;
  }
}

TEST(ProxyNginxConfigTest, ASiteWithoutWildcardNamesHasItsPorts) {
  auto site = example();
  site.names = {"", 443, "mesh.example.org", 9000, 9099};
  const auto text = rendered(site);
  EXPECT_THAT(text, HasSubstr("listen 9000-9099 ssl http2;"));
  EXPECT_THAT(text, HasSubstr("server_name mesh.example.org;"));
  EXPECT_THAT(text, Not(HasSubstr("server_name *.")));
}

TEST(ProxyNginxConfigTest, WhatCouldMeanSomethingToNginxIsRefused) {
  for (const std::string bad : {"", "relative.pem", "/a b", "/a;b", "/a{b", "/a}b", "/$a", "/a\"b",
                                "/a'b", "/a\nb", "/a\\b", "/a#b", "/a*"}) {
    auto site = example();
    site.certificate = bad;
    EXPECT_THAT(why_not(site), testing::StartsWith("certificate: ")) << bad;
    site = example();
    site.certificate_key = bad;
    EXPECT_THAT(why_not(site), testing::StartsWith("certificate_key: ")) << bad;
    site = example();
    site.access_log = bad;
    EXPECT_THAT(why_not(site), testing::StartsWith("access_log: ")) << bad;
    site = example();
    site.endpoint = bad;
    EXPECT_THAT(why_not(site), testing::StartsWith("endpoint: ")) << bad;
    site = example();
    site.names.zone = "mesh.example.org/" + bad;
    EXPECT_THAT(why_not(site), testing::StartsWith("zone: ")) << bad;
  }
}

TEST(ProxyNginxConfigTest, TheEndpointIsOnThisHost) {
  auto site = example();
  for (const auto* const endpoint : {"127.0.0.1:9480", "[::1]:9480"}) {
    site.endpoint = endpoint;
    EXPECT_THAT(rendered(site), HasSubstr("  server " + std::string(endpoint) + ";"));
  }
  for (const auto* const endpoint : {"192.0.2.1:9480", "localhost:9480", "127.0.0.1", "127.0.0.1:0",
                                     "127.0.0.1:99999", "::1:9480"}) {
    site.endpoint = endpoint;
    EXPECT_THAT(why_not(site), testing::StartsWith("endpoint: ")) << endpoint;
  }
}

// What a command says; its status first.
std::string output_of(const std::string& command) {
  std::string text;
  auto* pipe = popen((command + " 2>&1").c_str(), "re");
  if (pipe == nullptr) return "not started";
  char bytes[4096];
  for (std::size_t got = 0; (got = fread(bytes, 1, sizeof bytes, pipe)) > 0;)
    text.append(bytes, got);
  const int status = pclose(pipe);
  return "exit " + std::to_string(WEXITSTATUS(status)) + "\n" + text;
}

TEST(ProxyNginxConfigTest, NginxTakesIt) {
  const TempDir dir;
  NginxSite site;
  site.names = {"mesh.example.org", 24443, "one.example.org", 24500, 24509};
  site.certificate = dir / "site.pem";
  site.certificate_key = dir / "site.key";
  site.endpoint = dir / "web.sock";
  site.access_log = dir / "access.log";
  ASSERT_THAT(output_of("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
                        "-days 1 -subj /CN=mesh.example.org -keyout " +
                        site.certificate_key + " -out " + site.certificate),
              testing::StartsWith("exit 0\n"));
  ASSERT_TRUE(write_file(dir / "mesh.conf", rendered(site)));
  ASSERT_TRUE(write_file(dir / "nginx.conf",
                         "pid " + (dir / "nginx.pid") + ";\nerror_log " + (dir / "error.log") +
                             ";\nevents {}\nhttp {\n  include " + (dir / "mesh.conf") + ";\n}\n"));
  const auto said = output_of("/usr/sbin/nginx -t -e " + (dir / "error.log") + " -p " + dir.path() +
                              " -c " + (dir / "nginx.conf"));
  EXPECT_THAT(said, testing::StartsWith("exit 0\n"));
  EXPECT_THAT(said, Not(HasSubstr("[warn]"))) << "clean";
}

TEST(ProxyNginxConfigTest, ThePageHasAServerOfItsOwn) {
  EXPECT_THAT(rendered(example()),
              HasSubstr("  listen 443 ssl http2;\n  listen [::]:443 ssl http2;\n"
                        "  server_name mesh.mesh.example.org;"));
  auto site = example();
  site.names = {"", 443, "one.example.org", 8400, 8499};
  EXPECT_THAT(rendered(site),
              HasSubstr("  listen [::]:443 ssl http2;\n  server_name one.example.org;"));
}

}  // namespace
}  // namespace meshd::proxy
