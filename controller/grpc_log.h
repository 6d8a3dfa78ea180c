// gRPC's own lines, taken into our log: they would stand on stderr as they are, whatever is
// configured. Among them are the only words about handshakes that come to nothing.
//
// Threads: take_grpc_log() before gRPC is used; the rest from any.
#pragma once

#include <cstdint>

namespace meshd::controller {

void take_grpc_log();
// TLS handshakes that failed since then.
[[nodiscard]] std::uint64_t refused_handshakes();

}  // namespace meshd::controller
