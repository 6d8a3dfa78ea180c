// A controller in memory with an authority of its own, behind App, at a time that the test sets.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controller/app.h"
#include "pki/join_ticket.h"
#include "tests/controller/memory_store.h"
#include "tests/support/pki_samples.h"

namespace meshd::controller {

// What a node's stream was told.
class SilentStream final : public NodeStream {
 public:
  void send(mesh::v1::ToNode message) override { sent.push_back(std::move(message)); }
  void close() override { closed = true; }
  std::vector<mesh::v1::ToNode> sent;
  bool closed = false;
};

class AppBed {
 public:
  explicit AppBed(pki::UtcTime time) : authority(make_authority(time)) {
    now.wall_ms = std::chrono::milliseconds(time.time_since_epoch()).count();
    mesh::v1::StoredSettings settings;
    settings.set_cluster("lab");
    settings.set_zone("mesh.internal");
    settings.set_pool4("10.213.0.0/16");
    settings.set_vip4("10.214.0.0/16");
    settings.set_block_bits4(24);
    settings.set_block_bits6(112);
    settings.add_addresses("192.0.2.1:7443");
    settings.add_join_addresses("192.0.2.1:7444");
    auto own = std::make_unique<MemoryStore>(memory);
    store = own.get();
    EXPECT_TRUE(store->commit(0, {put(kind::ObjectKind::SETTINGS, "", settings)}));
    controller = Controller::make(std::move(own), {.name = "c1"}, now).value();
    app = std::make_unique<App>(*controller, authority, [this] { return now; });
  }

  static Authority make_authority(pki::UtcTime time) {
    auto key = pki::new_key();
    auto certificate = pki::make_authority(key, "lab", time - std::chrono::days(30)).value();
    return {std::move(certificate), std::move(key), "lab"};
  }
  [[nodiscard]] static pki::Peer peer(pki::Role role, const std::string& name) {
    return {.identity = {"lab", role, name}, .until = pki::UtcTime::max(), .key_digest = {}};
  }
  void pass(std::chrono::seconds time) {
    now.steady += time;
    now.wall_ms += std::chrono::milliseconds(time).count();
  }

  // Runs one of App's calls and returns what it answered.
  template <class T, class Call>
  static Result<T> answer_of(Call call) {
    std::optional<Result<T>> result;
    call([&](Result<T> answer) { result.emplace(std::move(answer)); });
    if (!result) return fail(ErrorCode::kInternal, "no answer");
    return *std::move(result);
  }
  Result<mesh::v1::TokenReply> create(const mesh::v1::TokenRequest& request) {
    return answer_of<mesh::v1::TokenReply>([&](auto reply) {
      app->create_token(peer(pki::Role::kAdmin, "ada"), request, std::move(reply));
    });
  }
  // "ID.SECRET" of a new token.
  std::string token(const mesh::v1::TokenRequest& request = {}) {
    const auto reply = create(request);
    EXPECT_TRUE(reply) << reply.error().what;
    return pki::decode_ticket(reply.value().ticket()).value().token;
  }
  Result<mesh::v1::EnrolReply> enrol(const std::string& token_text, const std::string& name = "n1",
                                     std::string_view source = "192.0.2.7") {
    mesh::v1::EnrolRequest request;
    request.set_token(token_text);
    request.set_name(name);
    request.set_csr(pki::make_csr(pki::new_key()).value());
    return answer_of<mesh::v1::EnrolReply>([&](auto reply) {
      app->enrol(request, IpAddress::parse(source).value(), std::move(reply));
    });
  }
  void hello(SilentStream& stream, const std::string& node) {
    mesh::v1::FromNode message;
    message.mutable_hello()->set_protocol(1);
    message.mutable_hello()->set_boot_id("boot");
    app->opened(stream, peer(pki::Role::kNode, node));
    app->message(stream, message);
  }

  Moment now{TimePoint(std::chrono::hours(1)), 0};
  const Authority authority;
  std::shared_ptr<Memory> memory = std::make_shared<Memory>();
  MemoryStore* store = nullptr;
  std::unique_ptr<Controller> controller;
  std::unique_ptr<App> app;
};

}  // namespace meshd::controller
