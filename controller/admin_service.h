// The service Admin of proto/controller.proto, for the role admin alone.
#pragma once

#include <memory>

namespace grpc {
class Service;
}

namespace meshd::controller {

struct Shared;

// `shared` outlives it.
[[nodiscard]] std::unique_ptr<grpc::Service> make_admin_service(Shared& shared);

}  // namespace meshd::controller
