// A kernel in memory that is as strict as the real one and fails when told to.
//
// Invariant: a failed call changed nothing, as kernel.h promises; set_underlay() keeps the plan.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "meshd/kernel.h"

namespace meshd {

class FakeKernel : public Kernel {
 public:
  // kTransaction: the next change of the table, be it a commit or a converge.
  enum class Call {
    kConnect,
    kDisconnect,
    kCommit,
    kConverge,
    kTransaction,
    kAudit,
    kUnderlay,
    kListening,
    kErase,
    kConnections
  };
  static constexpr int kForEver = 1 << 30;

  // The next `times` calls of that kind fail.
  void fail_next(Call call, int times = 1) { failures_[call] = times; }
  void work_again() { failures_.clear(); }
  [[nodiscard]] int still_failing(Call call) const { return failures_.at(call); }
  // As when a foreign hand changed the table.
  void lose_elements() { elements_.clear(); }
  // As when the container's process ended.
  void lose_link(const std::string& host_ifname) { links_.erase(host_ifname); }

  [[nodiscard]] std::vector<policy::Element> elements() const {
    std::vector<policy::Element> all;
    for (const auto& [key, element] : elements_) all.push_back(element);
    std::ranges::sort(all);
    return all;
  }
  [[nodiscard]] std::size_t count(policy::SetId set) const {
    std::size_t n = 0;
    for (const auto& [key, element] : elements_) n += element.set == set ? 1 : 0;
    return n;
  }
  [[nodiscard]] const std::map<std::string, LinkPlan>& links() const { return links_; }
  [[nodiscard]] const UnderlayPlan& underlay() const { return underlay_; }
  [[nodiscard]] int writes() const { return writes_; }

  std::function<void(const policy::Delta&)> on_commit = [](const policy::Delta&) {};
  std::vector<EraseRequest> erased;  // those that name something
  std::vector<std::function<bool(const policy::LiveConnection&)>> outlived;  // the others' question
  policy::ListeningPorts listening_ports;
  std::set<std::string> foreign_links;  // names of links that are nothing to us
  Connections live;                     // what connection tracking has
  int failure = ENOBUFS;                // what a call fails with

  Status connect(const LinkPlan& plan, int) override {
    if (fails(Call::kConnect)) return refused("link " + plan.host_ifname);
    if (!links_.emplace(plan.host_ifname, plan).second) {
      return fail(ErrorCode::kSystem, "link " + plan.host_ifname + ": File exists", EEXIST);
    }
    ++writes_;
    return {};
  }
  Status disconnect(const std::string& host_ifname) override {
    if (fails(Call::kDisconnect)) return refused("link " + host_ifname);
    writes_ += static_cast<int>(links_.erase(host_ifname));
    return {};
  }
  Result<bool> name_taken(const std::string& host_ifname) override {
    return links_.contains(host_ifname) || foreign_links.contains(host_ifname);
  }
  Result<bool> link_exists(const std::string& host_ifname) override {
    return links_.contains(host_ifname);
  }
  Status commit(const policy::Delta& delta) override {
    on_commit(delta);
    if (fails(Call::kCommit) || fails(Call::kTransaction)) return refused("commit");
    auto next = elements_;
    for (const auto& element : delta.remove) {
      const auto found = next.find(key_of(element));
      if (found == next.end()) return fail(ErrorCode::kSystem, "commit: no such element", ENOENT);
      next.erase(found);
    }
    for (const auto& element : delta.add) {
      if (!next.emplace(key_of(element), element).second) {
        return fail(ErrorCode::kSystem, "commit: element exists", EEXIST);
      }
    }
    elements_ = std::move(next);
    ++writes_;
    return {};
  }
  Result<Repairs> converge(const std::vector<policy::Element>& wanted) override {
    if (fails(Call::kConverge) || fails(Call::kTransaction)) return refused("table");
    std::map<Key, policy::Element> next;
    for (const auto& element : wanted) {
      EXPECT_TRUE(next.emplace(key_of(element), element).second) << "two elements of one key";
    }
    Repairs repairs;
    if (next != elements_) {
      elements_ = std::move(next);
      ++writes_;
      repairs.what.emplace_back("table meshd: elements differed");
    }
    return repairs;
  }
  Result<Repairs> audit(const std::vector<LinkPlan>& plans) override {
    if (fails(Call::kAudit)) return refused("links");
    Repairs repairs;
    std::set<std::string> wanted;
    for (const auto& plan : plans) {
      wanted.insert(plan.host_ifname);
      if (!links_.contains(plan.host_ifname)) repairs.missing.push_back(plan.host_ifname);
    }
    writes_ += static_cast<int>(std::erase_if(links_, [&](const auto& link) {
      if (wanted.contains(link.first)) return false;
      repairs.what.push_back("link " + link.first + ": nobody's");
      return true;
    }));
    return repairs;
  }
  Status set_underlay(const UnderlayPlan& plan) override {
    underlay_ = plan;  // a refused one, too: the next audit tries again
    if (fails(Call::kUnderlay)) return refused("underlay");
    ++writes_;
    return {};
  }
  Result<policy::ListeningPorts> listening() override {
    if (fails(Call::kListening)) return refused("sock_diag");
    return listening_ports;
  }
  Status erase_conntrack(const EraseRequest& request) override {
    if (fails(Call::kErase)) return refused("conntrack");
    if (request.also) outlived.push_back(request.also);
    if (!request.addresses.empty() || !request.translations.empty()) erased.push_back(request);
    return {};
  }
  Result<Connections> connections() override {
    if (fails(Call::kConnections)) return refused("conntrack");
    return live;
  }
  Result<std::vector<ElementCount>> counters(policy::SetId set) override {
    std::vector<ElementCount> counts;
    for (const auto& element : elements()) {
      if (element.set == set) counts.push_back({element, 0, 0});
    }
    return counts;
  }

 private:
  // What the kernel tells elements apart by: not the value of a map.
  using Key = std::pair<policy::SetId, std::vector<std::uint8_t>>;
  static Key key_of(const policy::Element& element) {
    const auto key = element.key();
    const auto end = element.key_end();
    std::vector<std::uint8_t> bytes(key.begin(), key.end());
    bytes.insert(bytes.end(), end.begin(), end.end());
    return {element.set, std::move(bytes)};
  }
  bool fails(Call call) {
    const auto found = failures_.find(call);
    if (found == failures_.end() || found->second == 0) return false;
    --found->second;
    return true;
  }
  [[nodiscard]] std::unexpected<Error> refused(const std::string& what) const {
    return fail_errno(what, failure);
  }

  std::map<Call, int> failures_;
  std::map<Key, policy::Element> elements_;
  std::map<std::string, LinkPlan> links_;
  UnderlayPlan underlay_;
  int writes_ = 0;
};

}  // namespace meshd
