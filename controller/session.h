// What the controller knows of one node that is connected: where it stands in the protocol, and
// what waits on its account.
//
// Threads: the controller's loop only. Borrows the stream.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "controller/controller_types.h"
#include "proto/controller.pb.h"

namespace meshd::controller {

struct Awaited {  // an attach
  std::uint64_t call = 0;
  TimePoint until;                      // its client has gone long ago
  std::optional<TimePoint> refused_at;  // unless what stands in its way has passed
};

struct Session {
  NodeStream* stream = nullptr;
  bool greeted = false;
  std::uint64_t last_report = 0;
  std::deque<mesh::v1::Report> kept;       // not stored yet
  std::map<std::string, Awaited> awaited;  // by id
  std::optional<TimePoint> retry_at;       // of a slice that was refused
  std::optional<TimePoint> refused_at;     // when it told of refused flows last
  NodeStatus status;
};

}  // namespace meshd::controller
