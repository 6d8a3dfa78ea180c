// Ports that the owners of containers open to the proxies on demand, without declaring them: who
// opened which, when it was used last, and when that is over. Pure.
//
// Invariant: a port is open while its container stays attached where it is, its owner is the
//            same, and it is used. It is never shut sooner than `idle` after its last use,
//            whichever of several equal controllers saw that, and by a fifth of it later at most.
// Errors:    kNotFound, kNotInForce, kInvalid, kExhausted: "open: ID tcp/PORT: WHY".
// Units:     times as base/clock.h counts them; a Moment bridges controllers and restarts.
#pragma once

#include <chrono>
#include <map>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "controller/cluster.h"
#include "controller/record.h"
#include "policy/types.h"

namespace meshd::controller {

// A use is stored when the one that is stored is so old: requests come by the thousand a second,
// and each write goes through the disk.
[[nodiscard]] constexpr Duration use_stored(Duration idle) { return idle / 5; }
// Of one container: pages that a person looks at, and each takes a node port.
inline constexpr std::size_t kMaxOpenedPorts = 32;
inline constexpr std::size_t kMaxOpenerBytes = 256;

[[nodiscard]] std::string opened_key(const policy::PublishKey& key);
[[nodiscard]] Result<policy::PublishKey> parse_opened_key(const std::string& text);

// Nothing to write: it is published or open already.
[[nodiscard]] Result<Writes> open_port(const Cluster& cluster, const std::string& id,
                                       std::uint16_t port, const std::string& by,
                                       const Moment& now);
// Of the uses that this controller has seen, those that are to be stored.
using Uses = std::map<policy::PublishKey, TimePoint>;
[[nodiscard]] Writes store_uses(const Cluster& cluster, const Uses& uses, Duration idle,
                                const Moment& now);
// Those that nobody uses any more.
[[nodiscard]] Writes shut_idle(const Cluster& cluster, Duration idle, const Moment& now);
// The container is not where it was, or not whose it was.
void shut_all(const Cluster& cluster, const std::string& id, Writes& writes);

}  // namespace meshd::controller
