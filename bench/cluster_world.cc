#include "bench/cluster_world.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace meshd::bench {
namespace {

// What a member of a workflow is.
constexpr int kDatabase = 0, kApi = 2, kOtherApi = 4, kShared = 6, kSharer = 8, kFirstWorker = 10;

int workflow_of(int container) { return container / kPerWorkflow; }
int member_of(int container) { return container % kPerWorkflow; }
int in_workflow(int workflow, int member) { return workflow * kPerWorkflow + member; }
bool is_api(int member) { return member == kApi || member == kOtherApi; }
bool is_shared(int container) {
  return member_of(container) == kShared && workflow_of(container) % kSharers == 0;
}

}  // namespace

ClusterWorld::ClusterWorld(int nodes) : nodes_(nodes), on_(at(nodes)) {
  const int step = std::max(1, nodes / kNodesOfWorkflow);
  for (int container = 0; container < nodes * kPerWorkflow; ++container) {
    const int place = member_of(container) * kNodesOfWorkflow / kPerWorkflow;
    node_of_.push_back((workflow_of(container) + place * step) % nodes);
    on_[at(node_of_.back())].insert(container);
  }
}

void ClusterWorld::move(int container, int node) {
  on_[at(node_of(container))].erase(container);
  node_of_[at(container)] = node;
  on_[at(node)].insert(container);
}

std::string ClusterWorld::id(int container) {
  return fmt::format("c{:05}-{:02}", workflow_of(container), member_of(container));
}

int ClusterWorld::container(std::string_view id) const {
  int workflow = 0, member = 0;
  if (id.size() != 9 || id[0] != 'c' || id[6] != '-') return -1;
  std::from_chars(id.data() + 1, id.data() + 6, workflow);
  std::from_chars(id.data() + 7, id.data() + 9, member);
  const int found = in_workflow(workflow, member);
  return found < containers() ? found : -1;
}

std::vector<int> ClusterWorld::serves(int container) {
  const int member = member_of(container);
  if (member == kDatabase) return {5432};
  if (is_api(member)) return {8080};
  return is_shared(container) ? std::vector{11434} : std::vector<int>();
}

std::string ClusterWorld::declaration(int container, bool other_way) {
  const int workflow = workflow_of(container), member = member_of(container);
  std::string text =
      fmt::format("- {{id: {0}, owner: o{1:05}, workflow: wf{1:05}", id(container), workflow);
  if (member == kDatabase) return text + ", name: db, serves: [{port: 5432}]}\n";
  if (is_api(member)) return text + ", name: api, serves: [{port: 8080}], peers: [{name: db}]}\n";
  if (is_shared(container)) {
    text +=
        fmt::format(", name: models{}, scope: CLUSTER, admit: CLUSTER, serves: [{{port: 11434}}]",
                    workflow / kSharers);
  }
  text += ", peers: [{name: db}, {name: api}";
  if (member == kSharer)
    text += fmt::format(", {{name: models{}, scope: CLUSTER}}", workflow / kSharers);
  text += "]";
  if (other_way) text += ", serves: [{port: 9}]";
  return text + "}\n";
}

int ClusterWorld::worker(int workflow, int which) {
  return in_workflow(workflow, kFirstWorker + which);
}

int ClusterWorld::shared(int workflow) {
  return in_workflow(workflow / kSharers * kSharers, kShared);
}

std::vector<int> ClusterWorld::providers(int container) const {
  const int workflow = workflow_of(container), member = member_of(container);
  if (member == kDatabase) return {};
  std::vector<int> result{in_workflow(workflow, kDatabase)};
  if (is_api(member)) return result;
  result.push_back(in_workflow(workflow, kApi));
  result.push_back(in_workflow(workflow, kOtherApi));
  if (member == kSharer) result.push_back(shared(workflow));
  return result;
}

std::vector<int> ClusterWorld::related(int container) const {
  const int workflow = workflow_of(container), member = member_of(container);
  auto result = providers(container);
  for (int other = 0; other < kPerWorkflow; ++other) {
    const bool calls = member == kDatabase || (is_api(member) && other != kDatabase);
    if (other != member && calls) result.push_back(in_workflow(workflow, other));
  }
  if (!is_shared(container)) return result;
  for (int sharer = workflow; sharer < std::min(workflow + kSharers, workflows()); ++sharer) {
    result.push_back(in_workflow(sharer, kSharer));
  }
  return result;
}

std::set<int> ClusterWorld::concerned(int container) const {
  std::set<int> result;
  for (const int other : related(container)) result.insert(node_of(other));
  result.erase(node_of(container));
  return result;
}

std::size_t ClusterWorld::pairs(int node) const {
  std::size_t count = 0;
  for (const int consumer : on(node)) {
    for (const int provider : providers(consumer)) count += node_of(provider) != node ? 1 : 0;
  }
  return count;
}

}  // namespace meshd::bench
