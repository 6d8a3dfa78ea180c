// The cluster as the page shows it (proxy/overview.h). Pure but for Overviews, which remembers what
// it made last, so that what did not change is not made, or sent, again.
//
// Threads:   not thread-safe; one owner (the controller's loop).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "controller/cluster.h"
#include "policy/refused_pairs.h"
#include "proxy/overview.h"

namespace meshd::controller {

[[nodiscard]] proxy::Shape shape_of(const Cluster& cluster, const std::set<std::string>& stale,
                                    const proxy::Site& site);
// Of those whose consumer is declared, and which would be refused still.
[[nodiscard]] std::vector<proxy::ShownRefusal> refusals_of(const Cluster& cluster,
                                                           const policy::RefusedPairs& pairs);

class Overviews {
 public:
  struct Facts {
    const Cluster& cluster;
    const std::set<std::string>& stale;
    const policy::RefusedPairs& pairs;
    const proxy::Site& site;
    std::uint64_t revision = 0;  // of the cluster
    std::uint64_t refused = 0;   // rises with each refusal that is told
    std::vector<proxy::FlowRate> traffic;
  };
  [[nodiscard]] std::shared_ptr<const proxy::Overview> make(Facts facts, const Moment& now);
  // Nobody looks any more: what was made is given back.
  void forget();

 private:
  proxy::Overview last_;
  // What the shape and the refusals were made from.
  std::uint64_t revision_ = 0, refused_ = 0;
  std::set<std::string> stale_;
};

}  // namespace meshd::controller
