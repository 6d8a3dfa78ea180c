// A controller and nodes in one process, for tests of what they come to together: a real
// Controller on a store in memory, and between it and the nodes what the test lets through. Time
// stands still unless the test moves it.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "controller/controller.h"
#include "policy/from_proto.h"
#include "tests/controller/memory_store.h"
#include "tests/support/cluster_node.h"

namespace meshd {

class ClusterNodesTest : public testing::Test {
 protected:
  void SetUp() override {
    mesh::v1::StoredSettings settings;
    settings.set_cluster("test");
    settings.set_zone("mesh.internal");
    settings.set_pool4("10.213.0.0/16");
    settings.set_pool6("fd00:1::/64");
    settings.set_vip4("10.214.0.0/16");
    settings.set_vip6("fd00:2::/64");
    settings.set_block_bits4(24);
    settings.set_block_bits6(112);
    controller::MemoryStore store(memory_);
    ASSERT_TRUE(store.commit(0, {controller::put(mesh::v1::ObjectKind::SETTINGS, "", settings)}));
    new_controller("c1");
    add("n1");
    add("n2");
  }
  void add(const std::string& name) {
    nodes_.emplace(name, std::make_unique<ClusterNode>(name, now_.steady));
    node(name).start();
    connect(name);
    pump();
  }
  [[nodiscard]] ClusterNode& node(const std::string& name) { return *nodes_.at(name); }

  // Another one, which knows what is stored and nothing else; every session ends.
  void new_controller(const std::string& name, bool node_declarations = true,
                      std::vector<Prefix> proxies = {}, policy::PortSpan gateway_ports = {}) {
    controller_with({.name = name,
                     .node_declarations = node_declarations,
                     .proxies = std::move(proxies),
                     .gateway_ports = gateway_ports});
  }
  void controller_with(controller::ControllerOptions options) {
    for (auto& [node_name, one] : nodes_) disconnect(node_name);
    auto made = controller::Controller::make(std::make_unique<controller::MemoryStore>(memory_),
                                             std::move(options), now_);
    ASSERT_TRUE(made) << made.error().what;
    controller_ = *std::move(made);
  }
  void connect(const std::string& name) {
    auto& one = node(name);
    one.connected = true;
    one.closed = false;
    one.part().on_connected(one, now_.steady);
    mesh::v1::FromNode message;
    *message.mutable_hello() = one.part().hello();
    one.up.push_front(std::move(message));
  }
  void disconnect(const std::string& name) {
    auto& one = node(name);
    if (!one.connected) return;
    one.connected = false;
    one.up.clear();
    one.down.clear();
    if (controller_) controller_->on_closed(one, now_);
    one.part().on_disconnected("cut", now_.steady);
  }
  void connect_all() {
    for (auto& [name, one] : nodes_) connect(name);
    pump();
  }
  bool pump_once() {
    bool more = false;
    for (auto& [name, one] : nodes_) {
      if (one->connected && !one->mute && !one->up.empty()) {
        auto message = std::move(one->up.front());
        one->up.pop_front();
        one->said.push_back(message);
        controller_->on_message(name, *one, message, now_);
        more = true;
      }
      if (one->connected && !one->deaf && !one->down.empty()) {
        auto message = std::move(one->down.front());
        one->down.pop_front();
        one->part().on_message(message, now_.steady);
        more = true;
      }
      if (one->connected && one->closed && one->down.empty()) disconnect(name);
    }
    return more;
  }
  // Until nobody has anything to say.
  void pump() {
    constexpr int kFarMore = 10'000;
    for (int step = 0; pump_once(); ++step) ASSERT_LT(step, kFarMore) << "they never come to rest";
  }
  // Nobody decides anything any more; what is stored stays.
  void lose_controller() {
    for (auto& [name, one] : nodes_) disconnect(name);
    controller_.reset();
  }
  // Time in which each node does what is due by itself.
  void pass_alone(Duration time) {
    const auto begin = now_.steady, end = now_.steady + time;
    while (now_.steady < end) {
      auto next = end;
      for (auto& [name, one] : nodes_)
        next = std::min(next, one->process->next_timer().value_or(end));
      now_.steady = std::max(next, now_.steady);
      for (auto& [name, one] : nodes_) {
        const auto due = one->process->next_timer();
        if (due && *due <= now_.steady) one->process->on_timer(now_.steady);
      }
    }
    now_.wall_ms += std::chrono::duration_cast<std::chrono::milliseconds>(end - begin).count();
  }
  // A little at a time, as the loops would.
  void pass(Duration time) {
    const auto end = now_.steady + time;
    const auto step = std::chrono::milliseconds(100);
    while (now_.steady < end) {
      now_.steady += step;
      now_.wall_ms += step.count();
      for (auto& [name, one] : nodes_) {
        const auto next = one->process->next_timer();
        if (next && *next <= now_.steady) one->process->on_timer(now_.steady);
      }
      const auto next = controller_->next_timer();
      if (next && *next <= now_.steady) controller_->on_timer(now_);
      pump();
    }
  }

  // Workloads in flow style, separated by commas.
  void declare(const std::string& workloads) {
    auto read = policy::read_declarations("test", "workloads: [" + workloads + "]");
    ASSERT_TRUE(read) << read.error().what;
    const auto status = controller_->declare({controller::Author::Role::kDispatcher, "d"},
                                             *std::move(read), "", now_);
    ASSERT_TRUE(status) << status.error().what;
    pump();
  }
  void forget(const std::string& id) {
    const auto status =
        controller_->forget({controller::Author::Role::kAdmin, "a"}, id, true, now_);
    ASSERT_TRUE(status) << status.error().what;
    pump();
  }
  void attach(const std::string& name, const std::string& id) {
    const auto answer = node(name).attach(id);
    pump();
    ASSERT_EQ(told(answer), "OK");
  }
  void listens(const std::string& name, const std::string& id, std::uint16_t port) {
    node(name).process->on_listening(id, {{port, {true, true}}}, {}, now_.steady);
    pump();
  }
  void expect_hashes_agree() {
    for (const auto& [name, one] : nodes_) {
      EXPECT_EQ(one->part().hash(), controller_->slices().hash(name)) << name;
    }
  }

  std::shared_ptr<controller::Memory> memory_ = std::make_shared<controller::Memory>();
  controller::Moment now_{TimePoint(std::chrono::hours(1)), 1'000'000'000};
  std::unique_ptr<controller::Controller> controller_;
  std::map<std::string, std::unique_ptr<ClusterNode>> nodes_;
};

}  // namespace meshd
