// The call `watch` of the service Status: events of the whole cluster, to whoever may read.
#pragma once

#include <grpcpp/grpcpp.h>

#include "controller/calls.h"

namespace meshd::controller {

// Events that a client has not read yet; beyond it the stream ends and says so.
inline constexpr std::size_t kMaxUnreadEvents = 4096;
inline constexpr std::size_t kMaxWatchers = 64;

[[nodiscard]] grpc::ServerWriteReactor<mesh::v1::Event>* start_watch(
    Shared& shared, const Context& context, const mesh::v1::WatchRequest& request);

}  // namespace meshd::controller
