// What may be opened from outside, as it is at one moment. Immutable once published; the next one
// shares all that did not change.
//
// Threads:   a DirectoryWriter belongs to one thread; a Directory that it made is read by all
//            through Published<const Directory>.
// Owns:      everything it refers to, by shared pointers.
// Invariant: who has ended is remembered for kRemembered, so that people are told so.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ip.h"
#include "policy/declaration.h"
#include "proxy/target.h"

namespace meshd::proxy {

inline constexpr auto kRemembered = std::chrono::hours(1);
// A site that ends more within the hour tells the oldest that there is no such name.
inline constexpr std::size_t kMaxEnded = 20'000;

// A TCP port of a workload that is published, by declaration or on demand.
struct OpenPort {
  std::uint16_t port = 0;            // inside
  bool http = false;                 // else raw: not for browsers
  std::vector<IpAddress> addresses;  // where the proxy reaches it: the node's, or its own
  std::uint16_t upstream_port = 0;   // there
  bool ready = false;                // somebody listens
  policy::Access access = policy::Access::kOwner;
  std::optional<std::vector<Prefix>> allow_from;  // absent: anybody
  std::string label, path;
  bool operator==(const OpenPort&) const = default;
};

struct Opening {
  enum class State : std::uint8_t {
    kWaiting,   // declared, or queued at Arvados
    kAttached,  // it runs; each port says for itself whether it is ready
    kReady,
    kDraining,  // what is open goes on, nothing new
    kEnded,
  };
  std::string id, owner;
  std::string service;  // its name, when that is one of the cluster; else empty
  std::string request;  // the Arvados container request; else empty
  State state = State::kWaiting;
  std::vector<OpenPort> ports;  // as declared, then on demand
  bool stale = false;           // its node has not been heard of for a while
  bool full = false;            // no more ports of it are opened on demand
  bool operator==(const Opening&) const = default;

  [[nodiscard]] const OpenPort* open_port(std::uint16_t port) const;  // null: not published
  [[nodiscard]] const OpenPort* first_http() const;
};
using OpeningPtr = std::shared_ptr<const Opening>;

// A map of which a copy costs its shards' pointers, and a change one shard.
template <class Value>
class SharedMap {
 public:
  [[nodiscard]] const Value* find(std::string_view key) const {
    const auto& shard = shards_[shard_of(key)];
    if (shard == nullptr) return nullptr;
    const auto found = shard->find(key);
    return found == shard->end() ? nullptr : &found->second;
  }
  void set(const std::string& key, Value value) {
    own(key).insert_or_assign(key, std::move(value));
  }
  void erase(const std::string& key) {
    if (find(key) != nullptr) own(key).erase(key);
  }

 private:
  using Shard = std::map<std::string, Value, std::less<>>;
  // 20,000 workloads are 40 a shard, copied in microseconds; so are 512 pointers.
  static constexpr std::size_t kShards = 512;
  static std::size_t shard_of(std::string_view key) {
    return std::hash<std::string_view>{}(key) % kShards;
  }
  Shard& own(std::string_view key) {
    auto& shard = shards_[shard_of(key)];
    auto copy = shard == nullptr ? std::make_shared<Shard>() : std::make_shared<Shard>(*shard);
    auto& result = *copy;
    shard = std::move(copy);
    return result;
  }

  std::array<std::shared_ptr<const Shard>, kShards> shards_;
};

class Directory {
 public:
  using Openings = std::vector<OpeningPtr>;  // by id

  [[nodiscard]] const Opening* by_id(std::string_view id) const;
  [[nodiscard]] const Openings& of_service(std::string_view name) const;
  [[nodiscard]] const Openings& of_request(std::string_view uuid) const;
  // What a name that nobody declared stands for (Arvados' links), or a port of a site without
  // wildcard names. Null: nothing. It is never an alias itself.
  [[nodiscard]] const Target* by_alias(std::string_view name) const { return names_.find(name); }
  [[nodiscard]] const Target* by_port(std::uint16_t outside) const;

 private:
  friend class DirectoryWriter;
  SharedMap<OpeningPtr> ids_;
  SharedMap<Openings> services_, requests_;
  SharedMap<Target> names_, ports_;
};

class DirectoryWriter {
 public:
  // Whole, in place of what was known of that id. One that is kEnded already goes by end().
  void set(Opening opening);
  void end(const std::string& id, TimePoint now);
  void forget_ended(TimePoint now);
  void set_alias(const std::string& name, Target target);
  void remove_alias(const std::string& name);
  void set_port(std::uint16_t outside, Target target);
  void remove_port(std::uint16_t outside);
  // Rises with each change: what was set again as it was is none.
  [[nodiscard]] std::uint64_t changes() const { return changes_; }

  // As it is now; nothing that is done here later changes it.
  [[nodiscard]] std::shared_ptr<const Directory> directory() const {
    return std::make_shared<const Directory>(now_);
  }

 private:
  void put(OpeningPtr opening);
  void remove(const std::string& id);

  Directory now_;
  std::uint64_t changes_ = 0;
  // In the order in which they ended; one that came back meanwhile has a later entry or none.
  std::deque<std::pair<TimePoint, OpeningPtr>> ended_;
};

}  // namespace meshd::proxy
