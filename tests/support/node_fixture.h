// A Node on a real store and a kernel in memory, for tests that tell it what happened and
// look at what it did. Time stands still unless the test moves it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dns/name.h"
#include "meshd/node.h"
#include "policy/from_proto.h"
#include "policy/render.h"
#include "tests/support/fake_kernel.h"
#include "tests/support/temp_dir.h"

namespace meshd {

// Of one command: empty until it is answered.
using Answer = std::shared_ptr<std::optional<Status>>;

class NodeFixture : public testing::Test {
 protected:
  NodeFixture() { restart(); }

  static policy::Settings settings() {
    policy::Settings s;
    s.node_name = "n1";
    s.pool4 = Prefix::parse("10.213.0.0/24").value();
    s.pool6 = Prefix::parse("fd00:0:0:1::/64").value();
    s.vip_pool4 = Prefix::parse("10.213.128.0/24").value();
    s.vip_pool6 = Prefix::parse("fd00:0:0:2::/64").value();
    s.resolver4[0] = ip("169.254.77.53");
    s.resolver4[1] = ip("169.254.77.54");
    s.resolver6[0] = ip("fd00::53");
    s.resolver6[1] = ip("fd00::54");
    s.publish_addresses = {ip("192.0.2.1")};
    return s;
  }
  static IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

  // The daemon's process begins, on what the one before left: kill -9 is start() again.
  void start() {
    node_.reset();
    store_.reset();
    auto opened = open_store();
    ASSERT_TRUE(opened) << opened.error().what;
    store_ = std::make_unique<Store>(std::move(*opened));
    dns::ZoneSettings zone;
    zone.zone = dns::to_wire("mesh.internal").value();
    names_ = std::make_unique<Names>(zone);
    NodeOptions options;
    options.idle_release = idle_release_;
    options.wall_clock = [this] {  // goes with now_
      const auto since_boot = std::chrono::floor<std::chrono::seconds>(now_.time_since_epoch());
      return std::chrono::system_clock::time_point(wall_start_ + since_boot);
    };
    node_ = std::make_unique<Node>(
        settings_, *store_, kernel_, *names_,
        [this](mesh::v1::Event e) { events_.push_back(std::move(e)); }, std::move(options));
    const auto loaded = node_->load(now_);
    ASSERT_TRUE(loaded) << loaded.error().what;
  }
  void restart() {
    start();
    const auto status = node_->converge(now_);
    ASSERT_TRUE(status) << status.error().what;
  }
  virtual Result<Store> open_store() {
    StoreOptions options;
    options.boot_id = "boot-1";
    options.now = now_;
    return Store::open(temp_ / "state", options);
  }

  Answer apply(std::string_view yaml) {
    auto declarations = policy::read_declarations("test", yaml);
    EXPECT_TRUE(declarations) << declarations.error().what;
    auto answer = std::make_shared<std::optional<Status>>();
    if (declarations)
      node_->apply(std::move(*declarations), now_, into<mesh::v1::ApplyReply>(answer));
    return answer;
  }
  Answer attach(const std::string& id, std::uint64_t netns = 0) {
    auto answer = std::make_shared<std::optional<Status>>();
    node_->attach(spec(id, netns), now_, into<policy::Attachment>(answer));
    return answer;
  }
  // A namespace of each id's own unless the test says which.
  static AttachSpec spec(const std::string& id, std::uint64_t netns = 0) {
    AttachSpec result;
    result.id = id;
    result.netns = {4, netns != 0 ? netns : std::hash<std::string>{}(id) | 1};
    result.netns_path = "/run/netns/" + id;
    result.ifname = "eth0";
    return result;
  }
  Answer detach(const std::string& id) {
    auto answer = std::make_shared<std::optional<Status>>();
    node_->detach(id, now_, into<mesh::v1::DetachReply>(answer));
    return answer;
  }
  Answer drain(const std::string& id) {
    auto answer = std::make_shared<std::optional<Status>>();
    node_->drain(id, now_, into<mesh::v1::Empty>(answer));
    return answer;
  }
  Answer remove(const std::string& id, bool force = false) {
    auto answer = std::make_shared<std::optional<Status>>();
    node_->remove(id, force, now_, into<mesh::v1::DetachReply>(answer));
    return answer;
  }
  void listens(const std::string& id, std::uint16_t port, policy::FamilyReady on = {true, true}) {
    node_->on_listening(id, {{port, on}}, {}, now_);
  }
  // A little at a time, as the loop would.
  void pass(Duration time) {
    const auto end = now_ + time;
    int steps = 0;
    for (auto next = node_->next_timer(); next && *next <= end; next = node_->next_timer()) {
      constexpr int kFarMoreThanThereAreTimers = 10'000;
      ASSERT_LT(++steps, kFarMoreThanThereAreTimers) << "a timer that is served stays due";
      now_ = std::max(now_, *next);
      node_->on_timer(now_);
    }
    now_ = end;
    node_->on_timer(now_);
  }

  [[nodiscard]] const policy::Attachment& attachment(const std::string& id) const {
    return *node_->world().workloads.find(id)->second.attachment;
  }
  [[nodiscard]] bool attached(const std::string& id) const {
    const auto& workloads = node_->world().workloads;
    const auto found = workloads.find(id);
    return found != workloads.end() && found->second.attachment.has_value();
  }
  // What the resolver would tell this container: "10.213.128.1", or "NXDOMAIN".
  [[nodiscard]] std::string name_seen_by(const IpAddress& client, std::string_view name) const {
    constexpr std::uint16_t kTypeA = 1;
    const auto resolved = names_->resolve(client, name, kTypeA);
    if (!resolved.answers.empty()) return resolved.answers.front().data;
    return resolved.rcode;
  }
  static std::vector<std::string> texts(const std::vector<policy::Element>& elements) {
    std::vector<std::string> lines;
    for (const auto& element : elements) {
      lines.push_back(std::string(set_name(element.set)) + " " + element_text(element));
    }
    return lines;
  }
  [[nodiscard]] std::vector<std::string> elements_in_kernel() const {
    return texts(kernel_.elements());
  }
  [[nodiscard]] std::vector<std::string> elements_planned() const {
    return texts(node_->compiler().elements());
  }
  void expect_kernel_is_as_planned() const {
    EXPECT_EQ(elements_in_kernel(), elements_planned());
    std::vector<std::string> wanted, there;
    for (const auto& link : node_->links()) wanted.push_back(link.host_ifname);
    for (const auto& [name, link] : kernel_.links()) there.push_back(name);
    EXPECT_THAT(there, testing::UnorderedElementsAreArray(wanted));
  }
  [[nodiscard]] std::size_t events(mesh::v1::Event::Kind::Value kind) const {
    return static_cast<std::size_t>(std::ranges::count(events_, kind, &mesh::v1::Event::kind));
  }

  template <class T>
  static Reply<T> into(const Answer& answer) {
    return [answer](Result<T> result) {
      EXPECT_FALSE(answer->has_value()) << "answered twice";
      *answer = result ? Status() : Status(std::unexpected(result.error()));
    };
  }

  policy::Settings settings_ = settings();          // of the next start()
  std::chrono::days idle_release_{0};               // the same
  std::chrono::seconds wall_start_{1'769'817'600};  // 2026-01-31, when now_ was 0
  TempDir temp_{TempDir::memory()};
  TimePoint now_{std::chrono::seconds(1000)};
  FakeKernel kernel_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Names> names_;
  std::unique_ptr<Node> node_;
  std::vector<mesh::v1::Event> events_;
};

// For EXPECT_THAT: an answer's text, "OK", or "pending".
inline std::string told(const Answer& answer) {
  if (!answer->has_value()) return "pending";
  return **answer ? "OK" : (**answer).error().what;
}

}  // namespace meshd
