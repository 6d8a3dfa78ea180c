#include "policy/node_ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace meshd::policy {
namespace {

using After = std::map<std::string, Declaration, std::less<>>;

class Settlement {
 public:
  Settlement(const World& world, const After& after, const ListeningPorts& listening)
      : world_(world), after_(after), listening_(listening) {}

  NodePorts settle() {
    for (const auto& [key, port] : world_.node_ports) {
      if (!after_.contains(key.id)) taken_.emplace(std::pair(key.proto, port), key.id);
    }
    // Declared ports first, then those kept, then new choices: a choice never takes what
    // somebody else in the same change asks for.
    for (const bool had : {true, false}) {
      for_each(true, [&](const PublishKey& key, const Publication& publication) {
        if (has(key, *publication.node_port) == had) claim(key, *publication.node_port);
      });
    }
    std::vector<PublishKey> open;  // no port declared, none kept
    for_each(false, [&](const PublishKey& key, const Publication&) {
      const auto kept = world_.node_ports.find(key);
      if (kept == world_.node_ports.end() ||
          !taken_.emplace(std::pair(key.proto, kept->second), key.id).second) {
        open.push_back(key);
      }
    });
    for (const auto& key : open) choose(key);
    drop_unpublished();
    return std::move(result_);
  }

 private:
  template <class Each>
  void for_each(bool declared, Each each) const {
    for (const auto& [id, declaration] : after_) {
      for (const auto& publication : declaration.publish) {
        if (publication.node_port.has_value() != declared) continue;
        each(PublishKey{id, publication.proto, publication.port}, publication);
      }
    }
  }

  void refuse(ErrorCode code, const PublishKey& key, std::string_view reason) {
    result_.refused.emplace_back(
        key, Error{code, fmt::format("workload {}: publish: {}", key.id, reason)});
    // What it had is another port than it asks for.
    if (world_.node_ports.contains(key)) result_.gone.push_back(key);
  }

  [[nodiscard]] bool has(const PublishKey& key, std::uint16_t port) const {
    const auto known = world_.node_ports.find(key);
    return known != world_.node_ports.end() && known->second == port;
  }

  void claim(const PublishKey& key, std::uint16_t port) {
    const auto [entry, free] = taken_.emplace(std::pair(key.proto, port), key.id);
    if (!free) {
      return refuse(
          ErrorCode::kConflict, key,
          fmt::format("node_port {}/{} is {}'s", port, proto_name(key.proto), entry->second));
    }
    if (listening_.contains({key.proto, port})) {
      taken_.erase(entry);
      return refuse(ErrorCode::kConflict, key,
                    fmt::format("the node itself listens on {}/{}", port, proto_name(key.proto)));
    }
    if (!has(key, port)) result_.given[key] = port;
  }

  void choose(const PublishKey& key) {
    const auto& settings = world_.settings;
    for (std::uint32_t port = settings.publish_first; port <= settings.publish_last; ++port) {
      const std::pair wanted(key.proto, static_cast<std::uint16_t>(port));
      if (taken_.contains(wanted) || listening_.contains(wanted)) continue;
      return claim(key, wanted.second);
    }
    refuse(ErrorCode::kExhausted, key,
           fmt::format("no node port is free in {}-{}", settings.publish_first,
                       settings.publish_last));
  }

  void drop_unpublished() {
    for (const auto& [key, port] : world_.node_ports) {
      const auto declaration = after_.find(key.id);
      if (declaration == after_.end()) continue;
      const bool kept = std::ranges::any_of(declaration->second.publish, [&](const auto& p) {
        return p.proto == key.proto && p.port == key.port;
      });
      if (!kept) result_.gone.push_back(key);
    }
  }

  const World& world_;
  const After& after_;
  const ListeningPorts& listening_;
  std::map<std::pair<Proto, std::uint16_t>, std::string> taken_;
  NodePorts result_;
};

}  // namespace

NodePorts settle_node_ports(const World& world, const After& after,
                            const ListeningPorts& listening) {
  return Settlement(world, after, listening).settle();
}

}  // namespace meshd::policy
