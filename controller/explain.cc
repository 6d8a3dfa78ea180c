#include "controller/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "policy/explain.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;

pb::Verdict::Value verdict_of(policy::FlowVerdict verdict) {
  switch (verdict) {
    case policy::FlowVerdict::kAllowed:
      return pb::Verdict::ALLOWED;
    case policy::FlowVerdict::kHeld:
      return pb::Verdict::HELD;
    case policy::FlowVerdict::kRefused:
      break;
  }
  return pb::Verdict::REFUSED;
}

// What is wrong with a node that the flow goes by.
void add_trouble(const std::vector<NodeStatus>& all, const std::string& node,
                 pb::ExplainReply& reply) {
  const auto found = std::ranges::find(all, node, &NodeStatus::name);
  if (found == all.end()) return;
  if (!found->connected) {
    reply.add_lines(fmt::format("node {} is not connected{}", node,
                                found->stale ? ", and has not been heard of for a while" : ""));
  }
  if (!found->trouble.empty()) {
    reply.add_lines(fmt::format("node {} refused its slice: {}", node, found->trouble));
  }
}

}  // namespace

Result<pb::ExplainReply> explain_reply(Controller& controller, const pb::ExplainRequest& request,
                                       TimePoint now) {
  if (request.port() == 0 || request.port() > 65535) {
    return fail(ErrorCode::kInvalid, "explain: port: must be 1 to 65535");
  }
  const auto why =
      TRY(policy::explain(controller.world_at(now), request.src(), request.dst(),
                          request.protocol() == pb::Protocol::UDP ? Proto::kUdp : Proto::kTcp,
                          static_cast<std::uint16_t>(request.port()),
                          [&](const std::string& consumer, const std::string& provider) {
                            return controller.slices().is_confirmed(consumer, provider);
                          }));
  pb::ExplainReply reply;
  reply.set_verdict(verdict_of(why.verdict));
  reply.set_reason(why.reason);
  for (const auto& line : why.lines) reply.add_lines(line);
  const auto all = controller.node_status();
  for (const auto& node : why.nodes) add_trouble(all, node, reply);
  if (const auto& launches = controller.launch_report()) {
    for (const auto& id : {request.src(), request.dst()}) {
      const auto problem = launches->problems.find(id);
      if (problem != launches->problems.end()) {
        reply.add_lines(fmt::format("{}: {}", id, problem->second));
      }
    }
  }
  if (!why.missing.empty()) reply.add_lines("missing " + why.missing);
  return reply;
}

}  // namespace meshd::controller
