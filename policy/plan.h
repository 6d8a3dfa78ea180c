// What a World comes to: the elements in the kernel and the names each container sees.
// Compiler keeps the outcome per workload, so that one change costs what it touches and
// not what the node holds; the result is the same as compiling from nothing.
//
// Threads:    not thread-safe; one owner (the main loop).
// Invariants: pure: no clock, no I/O. Equal worlds give equal plans whatever the order of
//             the changes that led there. Total: a conflict becomes a rejection, never an error.
// Source:     the truth function is truth.h; nothing here decides who may reach whom.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "policy/ruleset.h"
#include "policy/types.h"

namespace meshd::policy {

struct SrvRecord {
  std::string label;  // "sql": _sql._tcp.<name>
  Proto proto = Proto::kTcp;
  std::uint16_t port = 0;
  auto operator<=>(const SrvRecord&) const = default;
};

// One name as one container sees it.
struct VisibleName {
  std::string fqdn;                  // "db.wf1.wf.mesh.internal"
  std::vector<std::string> aliases;  // bare labels that answer the same: "db"
  std::optional<IpAddress> v4, v6;   // absent: NODATA for that family
  std::vector<SrvRecord> srv;
  bool stale = false;  // all that it leads to is on nodes that have not been heard of for a while
  auto operator<=>(const VisibleName&) const = default;
};

// Everything the resolver tells one container.
struct ViewPlan {
  std::string client;                // workload id
  std::vector<IpAddress> addresses;  // whose queries see this view
  std::vector<VisibleName> names;    // sorted by fqdn
  // Declared as a peer and not available: fqdn and bare labels, sorted.
  std::vector<std::pair<std::string, std::string>> withheld;  // name, text of the reason
  std::vector<std::string> search;                            // search list, fqdns
  bool forward = false;  // has egress: foreign names are forwarded
  bool operator==(const ViewPlan&) const = default;
};

// Which workloads and services a change concerns. Naming too many is only slower. Of a changed
// confirmation it is the consumer.
struct Touched {
  std::set<std::string> workloads;
  std::set<ServiceKey> services;
  bool nodes = false;  // World::nodes
  std::set<OutsideKey> outside;
};

struct PlanDelta {
  Delta elements;
  std::vector<std::shared_ptr<const ViewPlan>> views;  // new or changed
  std::vector<IpAddress> views_gone;                   // addresses without a view now
};

class Compiler {
 public:
  Compiler();
  ~Compiler();
  Compiler(Compiler&&) noexcept;
  Compiler& operator=(Compiler&&) noexcept;

  // Brings the plan up to `world`, which differs from the last one in what `touched`
  // names (and in `now`). Its settings are those of the last rebuild().
  [[nodiscard]] PlanDelta update(const World& world, const Touched& touched);
  // Everything as if from nothing, with the world's settings; the delta is still against
  // what was planned before. The first call of a compiler's life.
  [[nodiscard]] PlanDelta rebuild(const World& world);

  // All elements that should be in the kernel, sorted.
  [[nodiscard]] std::vector<Element> elements() const;
  [[nodiscard]] std::size_t element_count(SetId set) const;
  // What the set comes to at most as long as nothing is applied or attached: every port that
  // is served ready (VIP slots), or none of them (holds). A full set refuses whole
  // transactions, so this is what must fit.
  [[nodiscard]] std::size_t worst_case_count(SetId set) const;
  [[nodiscard]] bool contains(const Element& element) const;
  [[nodiscard]] std::vector<std::shared_ptr<const ViewPlan>> views() const;
  // When the next hold ends: call update() then, with that time as world.now and due().
  [[nodiscard]] std::optional<TimePoint> next_deadline() const;
  [[nodiscard]] Touched due(TimePoint now) const;
  // Endpoints behind one VIP port now, for reports: ids.
  [[nodiscard]] std::vector<std::string> endpoints(const World& world, const ServiceKey& key,
                                                   Proto proto, std::uint16_t port,
                                                   Family family) const;

 private:
  struct State;
  [[nodiscard]] PlanDelta redo(const World& world, Touched affected);
  std::unique_ptr<State> state_;
};

}  // namespace meshd::policy
