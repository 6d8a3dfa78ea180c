// Between the daemon's node and its link to a controller: what the one says the other carries.
//
// Threads: the main loop only.
// Owns:    the link. Borrows the node, which has a ClusterPart and outlives it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "meshd/controller_link.h"
#include "meshd/node.h"

namespace meshd {

class ControllerSession final : public ControllerEvents, public ClusterLink {
 public:
  ControllerSession(LinkOptions options, Node& node)
      : node_(node), link_(ControllerLink::make(std::move(options), *this)) {}
  ~ControllerSession() override { link_->stop(); }
  ControllerSession(const ControllerSession&) = delete;
  ControllerSession& operator=(const ControllerSession&) = delete;

  [[nodiscard]] ControllerLink& link() { return *link_; }

  // ControllerEvents
  mesh::v1::Hello hello() override { return part().hello(); }
  void connected(const std::string&) override { part().on_connected(*this, BootClock::now()); }
  void message(const mesh::v1::ToNode& message) override {
    part().on_message(message, BootClock::now());
  }
  void disconnected(const std::string& why) override {
    part().on_disconnected(why, BootClock::now());
  }
  Status may_move() override { return part().may_move(); }
  void problem(const std::string& text) override { part().on_problem(text); }

  // ClusterLink
  void send(mesh::v1::FromNode message) override { link_->send(std::move(message)); }

 private:
  [[nodiscard]] ClusterPart& part() const { return *node_.cluster(); }

  Node& node_;
  std::unique_ptr<ControllerLink> link_;
};

}  // namespace meshd
