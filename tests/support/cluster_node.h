// One machine of a cluster: a real Node on a real store and a kernel in memory, and the queues
// between it and the controller, which the test lets run or holds up.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "controller/controller.h"
#include "dns/name.h"
#include "meshd/node.h"
#include "meshd/node_cluster.h"
#include "policy/from_proto.h"
#include "policy/render.h"
#include "tests/support/fake_kernel.h"
#include "tests/support/node_fixture.h"
#include "tests/support/temp_dir.h"

namespace meshd {

// Its kernel and its disk outlive the daemon.
class ClusterNode final : public ClusterLink, public controller::NodeStream {
 public:
  ClusterNode(std::string node, const TimePoint& now) : name(std::move(node)), now_(now) {}

  // The daemon begins, on what the one before left: kill -9 is start() again.
  void start() { start(true); }
  // Before it was told of a controller, and told of one again.
  void declare_by_itself(const std::string& workloads) {
    start(false);
    const auto answer = std::make_shared<std::optional<Status>>();
    process->apply(policy::read_declarations("test", "workloads: [" + workloads + "]").value(),
                   now_, into<mesh::v1::ApplyReply>(answer));
    EXPECT_EQ(told(answer), "OK");
    start(true);
  }
  void forget_by_itself(const std::string& id) {
    const auto answer = std::make_shared<std::optional<Status>>();
    process->remove(id, false, now_, into<mesh::v1::DetachReply>(answer));
    EXPECT_EQ(told(answer), "OK");
  }

  void start(bool with_controller) {
    process.reset();
    store_.reset();
    StoreOptions options;
    options.boot_id = boot;
    options.now = now_;
    options.vfs = vfs;
    auto opened = Store::open(temp_ / "state", options);
    ASSERT_TRUE(opened) << opened.error().what;
    store_ = std::make_unique<Store>(*std::move(opened));
    dns::ZoneSettings zone;
    zone.zone = dns::to_wire("mesh.internal").value();
    names_ = std::make_unique<Names>(zone);
    policy::Settings settings;
    settings.node_name = name;
    settings.pool4 = Prefix::parse("10.99.0.0/24").value();  // of a node by itself
    settings.vip_pool4 = Prefix::parse("10.98.0.0/24").value();
    settings.resolver4[0] = IpAddress::parse("169.254.77.53").value();
    settings.publish_addresses = {IpAddress::parse("192.0.2.1").value()};
    if (!underlay.empty()) settings.publish_addresses = underlay;
    settings.gateway = gateway;
    NodeOptions node_options;
    node_options.wall_clock = [this] {
      return std::chrono::system_clock::time_point(
          std::chrono::floor<std::chrono::seconds>(now_.time_since_epoch()));
    };
    if (with_controller) {
      node_options.cluster =
          ClusterOptions{.version = "test", .underlay = underlay, .gateway = gateway};
    }
    process = std::make_unique<Node>(
        settings, *store_, kernel, *names_,
        [this](mesh::v1::Event event) { events.push_back(std::move(event)); },
        std::move(node_options));
    const auto loaded = process->load(now_);
    ASSERT_TRUE(loaded) << loaded.error().what;
    const auto status = process->converge(now_);
    ASSERT_TRUE(status) << status.error().what;
  }
  [[nodiscard]] ClusterPart& part() const { return *process->cluster(); }

  // ClusterLink, and the controller's end of the same stream.
  void send(mesh::v1::FromNode message) override { up.push_back(std::move(message)); }
  void send(mesh::v1::ToNode message) override { down.push_back(std::move(message)); }
  void close() override { closed = true; }

  Answer attach(const std::string& id, TimePoint deadline = TimePoint::max()) {
    auto answer = std::make_shared<std::optional<Status>>();
    AttachSpec spec;
    spec.id = id;
    spec.netns = {4, std::hash<std::string>{}(id) | 1};
    spec.netns_path = "/run/netns/" + id;
    spec.ifname = "eth0";
    spec.deadline = deadline;
    process->attach(spec, now_, into<policy::Attachment>(answer));
    return answer;
  }
  Answer detach(const std::string& id) {
    auto answer = std::make_shared<std::optional<Status>>();
    process->detach(id, now_, into<mesh::v1::DetachReply>(answer));
    return answer;
  }
  template <class T>
  static Reply<T> into(const Answer& answer) {
    return [answer](Result<T> result) {
      EXPECT_FALSE(answer->has_value()) << "answered twice";
      *answer = result ? Status() : Status(std::unexpected(result.error()));
    };
  }
  [[nodiscard]] std::string address(const std::string& id, Family family = Family::kV4) const {
    const auto& workloads = process->world().workloads;
    const auto found = workloads.find(id);
    if (found == workloads.end() || !found->second.address(family)) return "nowhere";
    return found->second.address(family)->to_string();
  }
  [[nodiscard]] bool attached(const std::string& id) const {
    const auto& workloads = process->world().workloads;
    const auto found = workloads.find(id);
    return found != workloads.end() && found->second.attachment.has_value();
  }
  // In the kernel, of sets whose names begin so: "allow4 10.213.1.1 . 10.213.0.1 . tcp . 1".
  [[nodiscard]] std::vector<std::string> elements(std::string_view set = "") const {
    std::vector<std::string> lines;
    for (const auto& element : kernel.elements()) {
      const auto text = std::string(set_name(element.set)) + " " + element_text(element);
      if (text.starts_with(set)) lines.push_back(text);
    }
    return lines;
  }

  const std::string name;
  std::string boot = "boot-1", vfs;  // of the next start()
  std::vector<IpAddress> underlay;
  bool gateway = false;
  FakeKernel kernel;
  std::unique_ptr<Node> process;
  std::vector<mesh::v1::Event> events;
  std::deque<mesh::v1::FromNode> up;
  std::deque<mesh::v1::ToNode> down;
  std::vector<mesh::v1::FromNode> said;  // what has reached the controller
  bool connected = false, closed = false;
  bool deaf = false;  // what is said to it waits
  bool mute = false;  // what it says waits

 private:
  const TimePoint& now_;
  TempDir temp_{TempDir::memory()};
  std::unique_ptr<Store> store_;
  std::unique_ptr<Names> names_;
};

}  // namespace meshd
