// A Node with two workloads that most of what it does can be seen by: worker, which may call
// the service db, and db, which listens.
#pragma once

#include <string>
#include <string_view>

#include "tests/support/node_fixture.h"

namespace meshd {

inline constexpr std::string_view kDb =
    "workloads: [{id: db, owner: ada, workflow: wf1, name: db, serves: [{port: 6379}]}]";
inline constexpr std::string_view kWorker =
    "workloads: [{id: worker, owner: ada, workflow: wf1, peers: [{name: db}]}]";
inline constexpr std::string_view kWorkerWithoutPeers =
    "workloads: [{id: worker, owner: ada, workflow: wf1}]";
inline constexpr std::string_view kPublished =
    "workloads: [{id: web, owner: ada, workflow: wf1, "
    "publish: [{port: 8080, node_port: 20080, allow_from: [192.0.2.0/24]}]}]";
inline constexpr std::string_view kName = "db.wf1.wf.mesh.internal";

class NodePair : public NodeFixture {
 protected:
  void run_pair() {
    ASSERT_EQ(told(apply(kDb)), "OK");
    ASSERT_EQ(told(apply(kWorker)), "OK");
    ASSERT_EQ(told(attach("db")), "OK");
    ASSERT_EQ(told(attach("worker")), "OK");
    listens("db", 6379);
    ASSERT_EQ(kernel_.count(policy::SetId::kVip4), policy::kSlots);
  }
  [[nodiscard]] std::string vip() const {
    const policy::ServiceKey key{policy::Scope::kWorkflow, "wf1", "db"};
    return node_->world().services.at(key).vip4->to_string();
  }
  [[nodiscard]] IpAddress worker() const { return *attachment("worker").v4; }
};

}  // namespace meshd
