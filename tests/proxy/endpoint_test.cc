// The endpoint with its token file, as nginx comes to it.
#include "proxy/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include "pki/files.h"
#include "tests/proxy/endpoint_bed.h"

namespace meshd::proxy {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(EndpointTest, WhoMayIsLetInWithTheUpstreamAndTheirName) {
  const auto token = make_token("alice");
  start();
  auto said = with_token(token);
  said.cookie += "; theme=dark";
  const auto reply = ask("/auth", said);
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.header("X-Mesh-Upstream"), "192.0.2.7:20001");
  EXPECT_EQ(reply.header("X-Mesh-User"), "alice");
  EXPECT_EQ(reply.header("X-Mesh-Cookie"), "theme=dark");
  EXPECT_EQ(reply.header("X-Mesh-Set-Cookie"), own_cookie(kContainerCookie, "w1"));
  EXPECT_TRUE(comes_true([&] { return verdicts("allow") == 1; }));
  EXPECT_TRUE(comes_true([&] { return used().contains({"w1", Proto::kTcp, 8888}); }));
}

TEST_F(EndpointTest, WhoMayNotGetsTheStatusAndThePageThatSaysWhy) {
  const auto stranger = make_token("carol");
  start();
  auto browser = Said();
  browser.more = "Accept: text/html\r\n";
  const auto refused = ask("/auth", browser);
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(refused.header("X-Mesh-Status"), "401");
  EXPECT_EQ(refused.header("X-Mesh-Text"), "Please sign in");
  EXPECT_EQ(refused.header("X-Mesh-Upstream"), "");
  const auto page = ask("/answer", browser);
  EXPECT_EQ(page.status, 401);
  EXPECT_THAT(page.body, HasSubstr("<h1>Please sign in</h1>"));
  EXPECT_EQ(page.header("Cache-Control"), "no-store");
  const auto json = ask("/answer", with_token(stranger));
  EXPECT_EQ(json.status, 404);
  EXPECT_THAT(json.body, HasSubstr("{\"errors\":["));
  EXPECT_TRUE(comes_true([&] { return verdicts("sign-in") == 1; }));
  EXPECT_EQ(verdicts("not-readable"), 0U) << "what /answer repeats is not counted again";
}

TEST_F(EndpointTest, ATokenInTheAddressBecomesACookie) {
  start();
  Said said;
  said.uri = "/lab?x=1&api_token=mesh_abc";
  const auto refused = ask("/auth", said);
  EXPECT_EQ(refused.header("X-Mesh-Status"), "303");
  EXPECT_EQ(refused.header("X-Mesh-Location"), "/lab?x=1");
  const auto cookie = own_cookie(kTokenCookie, to_base64url("mesh_abc"));
  EXPECT_EQ(refused.header("X-Mesh-Set-Cookie"), cookie);
  const auto reply = ask("/answer", said);
  EXPECT_EQ(reply.status, 303);
  EXPECT_EQ(reply.header("Location"), "/lab?x=1");
  EXPECT_EQ(reply.header("Set-Cookie"), cookie);
  EXPECT_EQ(reply.header("Referrer-Policy"), "no-referrer");
}

TEST_F(EndpointTest, AContainerThatDoesNotAnswerIsTold) {
  const auto token = make_token("alice");
  start();
  auto said = with_token(token);
  EXPECT_EQ(ask("/answer", said).status, 303) << "what would be let in now is to come again";
  said.more = "X-Mesh-Status: 502\r\n";
  EXPECT_EQ(ask("/answer", said).status, 502);
  EXPECT_TRUE(comes_true([&] { return verdicts("does-not-answer") == 1; }));
  said.more = "";
  said.method = "POST";
  EXPECT_EQ(ask("/answer", said).status, 503) << "a browser would not repeat it";
}

TEST_F(EndpointTest, ATokenThatIsTakenAwayIsGoodNoMore) {
  const auto alice = make_token("alice");
  const auto id = last_id_;
  Person admin;
  admin.user = "root";
  admin.admin = true;
  const auto other = make_token(admin);
  start();
  EXPECT_EQ(ask("/auth", with_token(alice)).status, 200);
  remove_token(id);
  EXPECT_TRUE(comes_true([&] { return ask("/auth", with_token(alice)).status == 403; }));
  EXPECT_EQ(ask("/auth", with_token(other)).status, 200);
  const auto again = make_token("alice");
  EXPECT_TRUE(comes_true([&] { return ask("/auth", with_token(again)).status == 200; }));
}

TEST_F(EndpointTest, ItDoesNotStartWithATokenFileThatIsBroken) {
  ASSERT_TRUE(pki::write_secrets(options_.people, "nonsense\n"));
  const auto broken = Endpoint::start(options_, directory_, nullptr, hooks_);
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().what, HasSubstr("people: "));
  EXPECT_THAT(broken.error().what, HasSubstr(":1: line: "));
}

TEST_F(EndpointTest, AnyPortOfOnesOwnIsOpenedOnDemandAndAskedForOnce) {
  const auto token = make_token("alice");
  start();
  auto said = with_token(token);
  said.host = "db--9000.svc.mesh.example.org";
  for (int i = 0; i < 5; ++i) {
    const auto reply = ask("/auth", said);
    EXPECT_EQ(reply.status, 403);
    EXPECT_EQ(reply.header("X-Mesh-Status"), "503");
  }
  const auto page = ask("/answer", said);
  EXPECT_EQ(page.status, 503);
  EXPECT_EQ(page.header("Retry-After"), "1");
  EXPECT_THAT(opened(), ElementsAre(MakeOpening{"w1", 9000, {"", "alice", false}}));
  auto opening = sample_opening("w1", "db");
  opening.ports.push_back(sample_port(9000, Access::kOwner));
  set(opening);
  EXPECT_EQ(ask("/auth", said).status, 200) << "a change of the directory is seen at once";
}

TEST_F(EndpointTest, WithoutADirectoryNobodyIsLetIn) {
  const auto token = make_token("alice");
  const Published<const Directory> none;
  auto started = Endpoint::start(options_, none, nullptr, hooks_);
  ASSERT_TRUE(started);
  const auto reply = ask("/auth", with_token(token));
  EXPECT_EQ(reply.status, 403);
  EXPECT_EQ(reply.header("X-Mesh-Status"), "503");
}

// --- HTTP ----------------------------------------------------------------------------

TEST_F(EndpointTest, ThereAreTwoPathsAndGetAlone) {
  start();
  for (const std::string line :
       {"GET / HTTP/1.1", "GET /auth/ HTTP/1.1", "POST /auth HTTP/1.1", "PUT /answer HTTP/1.1",
        "GET /AUTH HTTP/1.1", "OPTIONS * HTTP/1.1", "GET //auth HTTP/1.1"}) {
    auto one = client();
    one.send(line + "\r\nHost: x\r\n\r\n");
    EXPECT_EQ(one.read().status, 404) << line;
  }
}

TEST_F(EndpointTest, ABodyIsNotRead) {
  const auto token = make_token("alice");
  start();
  for (const std::string length : {"Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
                                   "Content-Length: 99999999999\r\n"}) {
    auto said = with_token(token);
    said.more = length;
    auto one = client();
    one.send(said.request("/auth") + "hello");
    EXPECT_EQ(one.read().status, 400) << length;
    EXPECT_EQ(one.read().status, 0) << "and the connection ends";
  }
}

TEST_F(EndpointTest, WhatMakesNoSenseIsRefused) {
  const auto token = make_token("alice");
  start();
  auto twice = with_token(token);
  twice.more = "x-mesh-host: other.svc.mesh.example.org\r\n";
  EXPECT_EQ(ask("/auth", twice).header("X-Mesh-Status"), "400");
  auto elsewhere = with_token(token);
  elsewhere.host = "www.example.org";
  EXPECT_EQ(ask("/auth", elsewhere).header("X-Mesh-Status"), "421");
  auto nobody = with_token(token);
  nobody.host = "nobody.svc.mesh.example.org";
  EXPECT_EQ(ask("/auth", nobody).header("X-Mesh-Status"), "404");
  auto one = client();
  one.send("GET /auth HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(one.read().header("X-Mesh-Status"), "400") << "nothing is said";
  for (const auto& garbage :
       {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 13), std::string(300'000, 'x'),
        "GET /auth\r\n\r\n" + std::string(100, '\0'), std::string("\r\n\r\n\r\nx\r\n\r\n"),
        "GET /auth HTTP/1.1\r\n" + std::string(200'000, 'a') + ": b\r\n\r\n",
        std::string("GET /auth HTTP/1.1\r\nX-Mesh-Host : x\r\n\r\n")}) {
    auto bad = client();
    bad.send(garbage);
    bad.end();
    EXPECT_NE(bad.read().status, 200);
  }
  EXPECT_EQ(ask("/auth", with_token(token)).status, 200) << "others are served as before";
}

TEST_F(EndpointTest, HeadsOf64KiBComeAndGo) {
  const auto token = make_token("alice");
  start();
  auto said = with_token(token);
  std::string cookies;
  // What is left of 64 KiB beside the rest, in the sizes nginx has.
  for (int i = 0; i < 4; ++i) cookies += fmt::format("; c{}={}", i, std::string(15'800, 'x'));
  said.cookie += cookies;
  const auto reply = ask("/auth", said);
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.header("X-Mesh-Cookie"), cookies.substr(2));
  said.cookie += "; more=" + std::string(3'000, 'x');
  EXPECT_EQ(ask("/auth", said).header("X-Mesh-Status"), "400") << "and longer ones are refused";
  auto redirected = Said();
  redirected.uri = "/?api_token=mesh_a&" + std::string(60'000, 'y');
  EXPECT_EQ(ask("/answer", redirected).header("Location"), "/?" + std::string(60'000, 'y'));
}

TEST_F(EndpointTest, OneConnectionServesManyRequestsAlsoAtOnce) {
  const auto token = make_token("alice");
  start();
  auto one = client();
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(one.ask("/auth", with_token(token)).status, 200);
    EXPECT_EQ(one.ask("/answer").status, 401);
  }
  std::string pipelined;
  for (int i = 0; i < 20; ++i) {
    pipelined += with_token(token).request("/auth") + Said().request("/answer");
  }
  one.send(pipelined);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(one.read().status, 200);
    EXPECT_EQ(one.read().status, 401);
  }
}

TEST_F(EndpointTest, HundredsOfConnectionsAreServedAtOnce) {
  const auto token = make_token("alice");
  start();
  std::vector<HttpClient> clients;
  for (int i = 0; i < 300; ++i) clients.push_back(client());
  EXPECT_TRUE(comes_true([&] { return endpoint_->counts().connections == 300; }));
  for (int round = 0; round < 3; ++round) {
    for (auto& one : clients) one.send(with_token(token).request("/auth"));
    for (auto& one : clients) ASSERT_EQ(one.read().status, 200);
  }
  clients.clear();
  EXPECT_TRUE(comes_true([&] { return endpoint_->counts().connections == 0; }));
}

TEST_F(EndpointTest, OneThatSendsSlowlyHoldsNobodyUp) {
  const auto token = make_token("alice");
  start();
  auto slow = client();
  const auto request = with_token(token).request("/auth");
  for (const char c : request.substr(0, request.size() - 1)) slow.send({&c, 1});
  EXPECT_EQ(ask("/auth", with_token(token)).status, 200);
  slow.send("\n");
  EXPECT_EQ(slow.read().status, 200);
}

// --- where it listens ----------------------------------------------------------------

TEST_F(EndpointTest, ListensOnLoopbackToo) {
  const auto token = make_token("alice");
  for (const std::string listen : {"127.0.0.1:0", "[::1]:0"}) {
    options_.listen = listen;
    start();
    ASSERT_GT(endpoint_->port(), 0);
    const bool v6 = listen.starts_with('[');
    UniqueFd fd(socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in v4_name{};
    v4_name.sin_family = AF_INET;
    v4_name.sin_port = htons(static_cast<std::uint16_t>(endpoint_->port()));
    v4_name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_in6 v6_name{};
    v6_name.sin6_family = AF_INET6;
    v6_name.sin6_port = v4_name.sin_port;
    v6_name.sin6_addr = in6addr_loopback;
    const auto* const name = v6 ? reinterpret_cast<const sockaddr*>(&v6_name)
                                : reinterpret_cast<const sockaddr*>(&v4_name);
    ASSERT_EQ(connect(fd.get(), name, v6 ? sizeof v6_name : sizeof v4_name), 0);
    EXPECT_EQ(HttpClient(std::move(fd)).ask("/auth", with_token(token)).status, 200);
    endpoint_.reset();
  }
}

TEST_F(EndpointTest, TheSocketGoesWithIt) {
  start();
  endpoint_.reset();
  struct stat found{};
  EXPECT_NE(lstat(options_.listen.c_str(), &found), 0);
}

TEST_F(EndpointTest, WhatCannotBeIsNamed) {
  const auto why = [&](auto change) {
    auto options = options_;
    change(options);
    const auto started = Endpoint::start(options, directory_, nullptr, hooks_);
    return started ? "nothing" : started.error().what;
  };
  EXPECT_THAT(why([](auto& o) { o.names = {}; }), HasSubstr("names: "));
  EXPECT_THAT(why([](auto& o) { o.group = "no such group"; }), HasSubstr("group: there is no"));
  EXPECT_THAT(why([](auto& o) { o.listen = "0.0.0.0:80"; }), HasSubstr("listen: '0.0.0.0:80'"));
  EXPECT_THAT(why([](auto& o) { o.relay_dir = "/nowhere/to/be"; }), HasSubstr("relay_dir: "));
  EXPECT_THAT(why([](auto& o) { o.relay_dir = "/" + std::string(61, 'x'); }),
              HasSubstr("relay_dir: is longer than 61 characters"));
}

}  // namespace
}  // namespace meshd::proxy
