// What can be changed in the node's memory (meshd/store.h), and all that it holds.
//
// Invariant: each change is a value: applied twice, it is as if once.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "meshd/slice_types.h"
#include "policy/types.h"

namespace meshd {

struct PutDeclaration {
  std::string id;
  policy::Declaration declaration;
};
struct DropDeclaration {  // with all that hangs on it: attachment and node ports
  std::string id;
};
struct PutAttachment {  // not draining, not ready
  std::string id;
  policy::Attachment attachment;
};
struct DropAttachment {
  std::string id;
};
struct PutDraining {
  std::string id;
  bool draining = true;
};
struct PutReady {
  std::string id;
  bool ready = false;
  std::map<std::uint16_t, policy::FamilyReady> tcp_ready;
};
struct PutService {
  policy::ServiceKey key;
  policy::Service service;
};
struct DropService {
  policy::ServiceKey key;
};
struct PutNodePort {
  policy::PublishKey key;
  std::uint16_t node_port = 0;
};
struct DropNodePort {
  policy::PublishKey key;
};
struct PutQuarantine {
  IpAddress address;
  TimePoint until{};
};
struct DropQuarantine {
  IpAddress address;
};
struct PutIdleName {  // a CLUSTER name that nobody declares
  std::string name;
  std::int64_t since_s = 0;  // seconds since 1970: it is counted in days, over reboots
};
struct DropIdleName {
  std::string name;
};
// A namespace that `prepare` made, nobody is attached to any more, and the client has not
// said yet that it removed.
struct LeftNetns {
  policy::Netns netns;
  std::string path;
  auto operator<=>(const LeftNetns&) const = default;
};
struct PutLeftNetns {
  std::string id;
  LeftNetns left;
};
struct DropLeftNetns {
  std::string id;
};
struct PutSysctl {  // of the node, as it was before us: for --purge
  std::string key, value;
};
struct DropSysctl {
  std::string key;
};
struct PutCluster {  // the node's only one
  StoredCluster cluster;
};
struct PutLooseTerms {  // that may change any time; PutCluster leaves them alone
  std::vector<Prefix> proxies;
  std::uint16_t gateway_first = 0, gateway_last = 0;
};
struct PutSliceItem {
  SliceKey key;
  std::string value;
};
struct DropSliceItem {
  SliceKey key;
};
struct PutConfirmation {
  std::string consumer, provider;
  policy::Confirmation said;
};
struct DropConfirmation {
  std::string consumer, provider;
};

using StoreChange =
    std::variant<PutDeclaration, DropDeclaration, PutAttachment, DropAttachment, PutDraining,
                 PutReady, PutService, DropService, PutNodePort, DropNodePort, PutQuarantine,
                 DropQuarantine, PutIdleName, DropIdleName, PutLeftNetns, DropLeftNetns, PutSysctl,
                 DropSysctl, PutCluster, PutLooseTerms, PutSliceItem, DropSliceItem,
                 PutConfirmation, DropConfirmation>;

struct StoredState {
  std::map<std::string, policy::Workload, std::less<>> workloads;
  std::map<policy::ServiceKey, policy::Service> services;
  std::map<policy::PublishKey, std::uint16_t> node_ports;
  policy::Quarantine quarantine;
  std::map<std::string, std::int64_t> idle_names;  // CLUSTER names, and since when (1970)
  std::map<std::string, LeftNetns> left_netns;     // by workload id
  std::map<std::string, std::string> sysctls;      // as they were before us
  std::optional<StoredCluster> cluster;
  SliceBytes slice;
  policy::Confirmations confirmed;
  std::uint64_t generation = 0;
};

}  // namespace meshd
