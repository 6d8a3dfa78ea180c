// Why a flow between any two containers of the cluster is allowed, refused or held: policy's
// answer, with what the controller knows of the nodes on its way. Pure.
#pragma once

#include "controller/controller.h"
#include "proto/node.pb.h"

namespace meshd::controller {

[[nodiscard]] Result<mesh::v1::ExplainReply> explain_reply(Controller& controller,
                                                           const mesh::v1::ExplainRequest& request,
                                                           TimePoint now);

}  // namespace meshd::controller
