// What of the cluster may be opened from outside, brought into the proxy's directory change by
// change. opening_of() is pure; Openings keeps what it says of everybody.
//
// Threads:   one owner (the controller's loop); a directory that was made is anybody's.
// Invariant: an update costs what was touched, whatever the cluster's size. Nobody is sent where
//            their node has not said that it is in force.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "controller/cluster.h"
#include "proxy/directory.h"

namespace meshd::controller {

// Absent: it is not declared, or no longer. `stale`: nodes that have not been heard of for a while.
// What runs on `proxy_node`, where the proxy runs, is reached at the container's own address.
[[nodiscard]] std::optional<proxy::Opening> opening_of(const Cluster& cluster,
                                                       const std::string& id,
                                                       const std::set<std::string>& stale,
                                                       std::string_view proxy_node = {});
// What an outside port of the proxy stands for. Absent: it is nobody's.
[[nodiscard]] std::optional<proxy::Target> web_target(const Cluster& cluster,
                                                      const policy::OutsideKey& key);

class Openings {
 public:
  // Empty: the proxy runs on no node.
  explicit Openings(std::string proxy_node = {}) : proxy_node_(std::move(proxy_node)) {}

  // After the cluster folded what `touched` names.
  void update(const Cluster& cluster, const Touched& touched, const std::set<std::string>& stale,
              TimePoint now);
  // A name that nobody declared; absent: it stands for nothing any more.
  void set_alias(const std::string& name, std::optional<proxy::Target> target);
  // To be called now and then.
  void forget_ended(TimePoint now) { writer_.forget_ended(now); }
  // Rises with each change.
  [[nodiscard]] std::uint64_t changes() const { return writer_.changes(); }
  [[nodiscard]] std::shared_ptr<const proxy::Directory> directory() const {
    return writer_.directory();
  }

 private:
  std::string proxy_node_;
  proxy::DirectoryWriter writer_;
};

// What an http publication is called from outside, the shortest first; none: it is no such one.
[[nodiscard]] std::vector<proxy::Target> web_targets(const Cluster& cluster, const std::string& id,
                                                     std::uint16_t port);
// Where browsers open it: by its service's name, by the container's, by a port of its
// own; those of them that the site has. Empty: no http publication.
[[nodiscard]] std::vector<std::string> web_urls(const Cluster& cluster, const proxy::Site& site,
                                                const std::string& id, std::uint16_t port);

}  // namespace meshd::controller
