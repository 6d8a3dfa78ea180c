// A mesh as tests of the page use it: ada's worker calls her db and bob's store, which admits her
// by name; carol's spy was refused at db.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proxy/overview.h"

namespace meshd::proxy {

inline Shown sample_shown(std::string id, std::string owner, std::string service = {}) {
  Shown shown;
  shown.id = std::move(id);
  shown.owner = std::move(owner);
  shown.service = std::move(service);
  shown.scope = policy::Scope::kCluster;
  shown.state = Opening::State::kReady;
  shown.node = "n1";
  return shown;
}

inline ShownRefusal sample_refusal(std::string consumer, std::string consumer_owner,
                                   std::string provider, std::string provider_owner,
                                   ShownRefusal::Whose whose) {
  return {std::move(consumer),
          std::move(consumer_owner),
          std::move(provider),
          std::move(provider_owner),
          Proto::kTcp,
          5432,
          3,
          1'000,
          "in somewhere: something",
          whose};
}

struct OverviewBed {
  Shape shape;
  std::vector<FlowRate> traffic;
  std::vector<ShownRefusal> refusals;

  // Ids in their order.
  OverviewBed() {
    shape.workloads = {sample_shown("db", "ada", "db"), sample_shown("spy", "carol"),
                       sample_shown("store", "bob", "store"), sample_shown("worker", "ada")};
    shape.edges = {{3, 0, "db", false, {{Proto::kTcp, 5432, 5432}}},
                   {3, 2, "store", true, {{Proto::kTcp, 80, 90}}}};
  }
  [[nodiscard]] Overview overview() const {
    Overview result;
    result.version = 7;
    result.wall_ms = 1'000'000;
    result.shape = std::make_shared<const Shape>(shape);
    result.traffic = std::make_shared<const std::vector<FlowRate>>(traffic);
    result.refusals = std::make_shared<const std::vector<ShownRefusal>>(refusals);
    return result;
  }
};

inline Viewer viewer(std::string owner) {
  Viewer result;
  result.name = owner;
  result.owner = std::move(owner);
  return result;
}
inline Viewer administrator() {
  auto result = viewer("root");
  result.admin = true;
  return result;
}

}  // namespace meshd::proxy
