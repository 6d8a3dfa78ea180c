// The controller's way to nginx: a real endpoint at a socket, and a controller on a store in
// memory.
#include "controller/web.h"

#include <gmock/gmock.h>

#include "tests/controller/controller_bed.h"
#include "tests/proxy/endpoint_bed.h"

namespace meshd::controller {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::IsEmpty;
using testing::Key;

class WebTest : public ControllerTest {
 protected:
  void SetUp() override {
    config_.nginx.names.zone = "mesh.example.org";
    config_.nginx.endpoint = dir_ / "web.sock";
    config_.relay_dir = dir_ / "relay";
    config_.tokens = dir_ / "web-tokens";
    web_ = config_.nginx.names;
    ControllerTest::SetUp();
    auto made = Web::start(config_, *controller_, nullptr, now_.steady);
    ASSERT_TRUE(made) << made.error().what;
    served_ = *std::move(made);
  }
  void serve_later() {
    now_.steady += kPublishEvery;
    served_->serve(now_);
  }
  // What nginx will answer, whoever asks.
  std::string status(const std::string& name, const std::string& token = "") {
    proxy::Said said;
    said.host = name + ".svc.mesh.example.org";
    if (!token.empty()) said.cookie = proxy::token_cookie(token);
    proxy::HttpClient client(proxy::connect_unix(config_.nginx.endpoint));
    const auto reply = client.ask("/auth", said);
    return reply.status == 200 ? "200" : reply.header("X-Mesh-Status");
  }
  void attach(std::uint16_t port) {
    mesh::v1::FromNode message;
    message.mutable_report()->set_number(++n1_.reports);
    auto& endpoint = *message.mutable_report()->add_endpoints();
    endpoint.set_id("lab");
    endpoint.add_addresses(n1_.welcome->block4().substr(0, 9) + "1");
    endpoint.set_ready(true);
    auto& published = *endpoint.add_published();
    published.set_port(port);
    published.set_http(true);
    published.set_ready(true);
    published.set_node_port(20000);
    published.add_node_addresses("192.0.2.1");
    say(*controller_, n1_, message);
  }
  void join() {
    mesh::v1::FromNode message;
    message.mutable_hello()->set_protocol(1);
    message.mutable_hello()->set_boot_id("boot");
    message.mutable_hello()->add_underlay("192.0.2.1");
    say(*controller_, n1_, message);
  }
  std::string make_token(const std::string& user) {
    proxy::Person terms;
    terms.user = user;
    const auto made = proxy::make_person(std::move(terms), {1});
    EXPECT_TRUE(proxy::edit_people(config_.tokens, [&](proxy::People& people) {
      return proxy::add_person(people, made->person);
    }));
    return made->token;
  }

  static constexpr const char* kLab =
      "{id: lab, owner: ada, name: lab, scope: CLUSTER, publish: [{port: 80, http: true}]}";
  const policy::PublishKey on_demand_{"lab", Proto::kTcp, 6006};
  TempDir dir_;
  WebConfig config_;
  FakeStream n1_{"n1"};
  std::unique_ptr<Web> served_;
};

TEST_F(WebTest, NginxIsToldWhatTheClusterIs) {
  EXPECT_EQ(status("lab"), "404");
  ASSERT_TRUE(apply(*controller_, kLab));
  serve_later();
  EXPECT_EQ(status("lab"), "401");
  const auto ada = make_token("ada");
  EXPECT_TRUE(proxy::comes_true([&] { return status("lab", ada) == "503"; })) << "not started";
  join();
  attach(80);
  serve_later();
  EXPECT_EQ(status("lab", ada), "200");
  ASSERT_TRUE(controller_->forget({Author::Role::kAdmin, "a"}, "lab", true, now_));
  serve_later();
  EXPECT_EQ(status("lab", ada), "410");
}

TEST_F(WebTest, ABurstOfChangesIsPublishedOnce) {
  ASSERT_TRUE(apply(*controller_, kLab));
  served_->serve(now_);
  EXPECT_EQ(status("lab"), "404");
  EXPECT_EQ(served_->next(), now_.steady + kPublishEvery);
  ASSERT_TRUE(apply(*controller_, "{id: a, owner: ada}"));
  serve_later();
  EXPECT_EQ(status("lab"), "401");
  EXPECT_FALSE(served_->next()) << "nothing is left to publish";
}

TEST_F(WebTest, APortIsOpenedOnDemandAndItsUsesAreKept) {
  ASSERT_TRUE(apply(*controller_, kLab));
  join();
  attach(80);
  serve_later();
  const auto ada = make_token("ada");
  ASSERT_TRUE(proxy::comes_true([&] { return status("lab--6006", ada) == "503"; }));
  ASSERT_TRUE(proxy::is_readable(served_->fd()));
  serve_later();
  ASSERT_THAT(controller_->cluster().opened(), Contains(Key(on_demand_)));
  EXPECT_EQ(controller_->cluster().opened().at(on_demand_).by, "ada");

  attach(6006);
  pass(kOpenIdle);
  serve_later();
  EXPECT_EQ(status("lab--6006", ada), "200");
  ASSERT_TRUE(proxy::is_readable(served_->fd())) << "the endpoint tells of it";
  serve_later();
  pass(5min);
  EXPECT_THAT(controller_->cluster().opened(), Contains(Key(on_demand_))) << "it is used";
  pass(kOpenIdle + use_stored(kOpenIdle));
  EXPECT_THAT(controller_->cluster().opened(), IsEmpty());
}

TEST_F(WebTest, WhatCannotBeServedIsSaidWithItsField) {
  config_.group = "nobody-is-in-this-group";
  config_.nginx.endpoint = dir_ / "other.sock";
  const auto made = Web::start(config_, *controller_, nullptr, now_.steady);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().what, testing::HasSubstr("group"));
}

}  // namespace
}  // namespace meshd::controller
