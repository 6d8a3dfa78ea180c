// The cluster that ./dev bench cluster plays: which containers there are, where they are, and who
// calls whom. Pure.
//
// A workflow is twenty containers on ten nodes: a database, two replicas of an API before it, and
// workers that call both. Of every hundred workflows one also has a service that a worker of each
// of them calls (scope CLUSTER). So a node has twenty containers of ten workflows, whatever the
// cluster's size, and what a change concerns stays the same while the cluster grows.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace meshd::bench {

inline constexpr int kPerWorkflow = 20, kNodesOfWorkflow = 10;
inline constexpr int kSharers = 100;  // workflows that call one shared service

class ClusterWorld {
 public:
  explicit ClusterWorld(int nodes);
  [[nodiscard]] int nodes() const { return nodes_; }
  [[nodiscard]] int workflows() const { return nodes_; }
  [[nodiscard]] int containers() const { return static_cast<int>(node_of_.size()); }
  [[nodiscard]] int node_of(int container) const { return node_of_[at(container)]; }
  [[nodiscard]] const std::set<int>& on(int node) const { return on_[at(node)]; }
  void move(int container, int node);

  [[nodiscard]] static std::string id(int container);
  [[nodiscard]] int container(std::string_view id) const;  // -1: none of ours
  // As it is declared; the other way round it serves a port more.
  [[nodiscard]] static std::string declaration(int container, bool other_way);
  [[nodiscard]] static std::vector<int> serves(int container);

  // The database of a workflow, one of its workers, and the service that a hundred share.
  [[nodiscard]] static int database(int workflow) { return workflow * kPerWorkflow; }
  [[nodiscard]] static int worker(int workflow, int which);
  [[nodiscard]] static int workers() { return 10; }
  [[nodiscard]] static int shared(int workflow);

  [[nodiscard]] std::vector<int> providers(int container) const;
  // Nodes other than its own with somebody whom it may call, who may call it, or its replica.
  [[nodiscard]] std::set<int> concerned(int container) const;
  // Of a node's consumers, the pairs whose provider is on another node.
  [[nodiscard]] std::size_t pairs(int node) const;

 private:
  [[nodiscard]] static std::size_t at(int index) { return static_cast<std::size_t>(index); }
  [[nodiscard]] std::vector<int> related(int container) const;

  int nodes_;
  std::vector<int> node_of_;
  std::vector<std::set<int>> on_;
};

}  // namespace meshd::bench
