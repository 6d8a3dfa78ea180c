// A Controller on a store in memory, nodes' ends of sessions with it, and time that the test moves.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "controller/controller.h"
#include "policy/from_proto.h"
#include "policy/slice_hash.h"
#include "tests/controller/memory_store.h"

namespace meshd::controller {

// A node's end: takes what comes, and answers slices at once unless told not to.
class FakeStream final : public NodeStream {
 public:
  explicit FakeStream(std::string node) : name(std::move(node)) {}
  void send(mesh::v1::ToNode message) override {
    ASSERT_FALSE(closed) << "nothing is sent after close()";
    if (message.has_look()) ++looks;
    if (message.has_welcome()) welcome = message.welcome();
    if (message.has_farewell()) farewell = message.farewell().reason();
    if (message.has_in_sync()) in_sync = message.in_sync();
    if (message.has_report_taken()) taken.push_back(message.report_taken());
    if (message.has_started()) started.push_back(message.started());
    if (message.has_declare()) declared.push_back(message.declare());
    if (!message.has_slice()) return;
    const auto& change = message.slice();
    revision = change.revision();
    unanswered.push_back(revision);
    for (const auto& item : change.items()) {
      items[{item.key().kind(), item.key().key()}] = item.value();
    }
    for (const auto& gone : change.gone()) items.erase({gone.kind(), gone.key()});
    confirmed += static_cast<std::size_t>(change.confirmed_size());
  }
  void close() override { closed = true; }

  std::uint64_t hash() const {
    std::uint64_t sum = 0;
    for (const auto& [key, value] : items) {
      sum += policy::slice_item_hash(key.kind, key.key, value);
    }
    return sum;
  }

  const std::string name;
  std::optional<mesh::v1::Welcome> welcome;
  std::optional<mesh::v1::InSync> in_sync;
  std::string farewell;
  std::vector<mesh::v1::ReportTaken> taken;
  std::vector<mesh::v1::StartedReply> started;
  std::vector<mesh::v1::DeclareReply> declared;
  std::map<ItemKey, std::string> items;
  std::vector<std::uint64_t> unanswered;
  std::uint64_t revision = 0;
  std::size_t confirmed = 0;
  std::uint64_t reports = 0;
  std::size_t looks = 0;
  bool closed = false;
};

class ControllerTest : public testing::Test {
 protected:
  void SetUp() override {
    mesh::v1::StoredSettings settings;
    settings.set_cluster("test");
    settings.set_zone("mesh.internal");
    settings.set_pool4("10.213.0.0/16");
    settings.set_vip4("10.214.0.0/16");
    settings.set_block_bits4(24);
    settings.set_block_bits6(112);
    MemoryStore store(memory_);
    ASSERT_TRUE(store.commit(0, {put(kind::ObjectKind::SETTINGS, "", settings)}));
    controller_ = make("c1", store_);
  }
  std::unique_ptr<Controller> make(const std::string& name, MemoryStore*& store) {
    auto own = std::make_unique<MemoryStore>(memory_);
    store = own.get();
    auto made = Controller::make(std::move(own),
                                 {.name = name,
                                  .node_declarations = true,
                                  .instance = name,
                                  .web = web_,
                                  .arvados = arvados_},
                                 now_);
    EXPECT_TRUE(made);
    return *std::move(made);
  }

  void pass(Duration time) {
    now_.steady += time;
    now_.wall_ms += std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
    while (controller_->next_timer() && *controller_->next_timer() <= now_.steady) {
      controller_->on_timer(now_);
    }
  }
  void say(Controller& controller, FakeStream& stream, const mesh::v1::FromNode& message) {
    controller.on_message(stream.name, stream, message, now_);
  }
  void hello(Controller& controller, FakeStream& stream, std::uint64_t revision = 0,
             std::uint64_t hash = 0) {
    mesh::v1::FromNode message;
    message.mutable_hello()->set_protocol(1);
    message.mutable_hello()->set_boot_id("boot");
    message.mutable_hello()->set_revision(revision);
    message.mutable_hello()->set_slice_hash(hash);
    say(controller, stream, message);
  }
  void answer(Controller& controller, FakeStream& stream) {
    while (!stream.unanswered.empty()) {
      mesh::v1::FromNode message;
      message.mutable_applied()->set_revision(stream.unanswered.front());
      stream.unanswered.erase(stream.unanswered.begin());
      say(controller, stream, message);
    }
  }
  void report(Controller& controller, FakeStream& stream, const std::string& id,
              const std::string& address) {
    mesh::v1::FromNode message;
    message.mutable_report()->set_number(++stream.reports);
    auto& endpoint = *message.mutable_report()->add_endpoints();
    endpoint.set_id(id);
    endpoint.add_addresses(address);
    endpoint.set_ready(true);
    say(controller, stream, message);
  }
  void report_gone(FakeStream& stream, const std::string& id) {
    mesh::v1::FromNode message;
    message.mutable_report()->set_number(++stream.reports);
    message.mutable_report()->add_gone(id);
    say(*controller_, stream, message);
  }
  void started(Controller& controller, FakeStream& stream, const std::string& id,
               std::uint64_t call) {
    mesh::v1::FromNode message;
    message.mutable_started()->set_call(call);
    message.mutable_started()->set_id(id);
    say(controller, stream, message);
  }
  void started(FakeStream& stream, const std::string& id, std::uint64_t call) {
    started(*controller_, stream, id, call);
  }
  Status apply(Controller& controller, const std::string& workloads) {
    auto read = policy::read_declarations("test", "workloads: [" + workloads + "]");
    if (!read) return std::unexpected(read.error());
    return controller.declare({Author::Role::kDispatcher, "d"}, *std::move(read), "", now_);
  }
  static constexpr const char* kTwo =
      "{id: db, owner: ada, workflow: r1, name: db, serves: [{port: 1}]},"
      "{id: worker, owner: ada, workflow: r1, peers: [{name: db}]}";

  std::shared_ptr<Memory> memory_ = std::make_shared<Memory>();
  MemoryStore* store_ = nullptr;
  bool arvados_ = false;
  std::optional<proxy::Site> web_;  // of controllers that are made from then on
  Moment now_{TimePoint(std::chrono::hours(1)), 1'000'000'000};
  std::unique_ptr<Controller> controller_;
};

}  // namespace meshd::controller
