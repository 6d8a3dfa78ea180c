#include "controller/grpc_log.h"

#include <grpc/support/log.h>

#include <atomic>
#include <string_view>

#include "base/log.h"

namespace meshd::controller {
namespace {

std::atomic<std::uint64_t> handshakes{0};

void take(gpr_log_func_args* args) {
  const std::string_view message(args->message);
  // src/core/tsi/ssl_transport_security.cc of gRPC 1.51.
  constexpr std::string_view kHandshake = "Handshake failed";
  if (message.starts_with(kHandshake)) {
    handshakes.fetch_add(1, std::memory_order_relaxed);
    return log::warning("handshake refused: {}", message);
  }
  if (args->severity == GPR_LOG_SEVERITY_ERROR) log::warning("grpc: {}", message);
}

}  // namespace

void take_grpc_log() {
  gpr_set_log_function(&take);
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
}

std::uint64_t refused_handshakes() { return handshakes.load(std::memory_order_relaxed); }

}  // namespace meshd::controller
