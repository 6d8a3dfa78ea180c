// What the controller does while somebody looks at its page.
#include "base/log.h"
#include "controller/controller.h"

namespace meshd::controller {

void Controller::note_look(const Moment& now) {
  looked_until_ = now.steady + kLookAgain;
  if (now.steady < look_again_at_) return;
  look_again_at_ = now.steady + kLookAgain;
  for (auto& [node, session] : sessions_) ask_traffic(session);
}

// A node that does not know it, of an earlier version, leaves it.
void Controller::ask_traffic(Session& session) const {
  mesh::v1::ToNode message;
  message.mutable_look()->set_for_s(static_cast<std::uint32_t>(kLookFor.count()));
  session.stream->send(std::move(message));
}

void Controller::on_traffic(const std::string& node, const mesh::v1::Traffic& traffic,
                            const Moment& now) {
  // Nobody looks any more, and nothing is kept for nobody.
  if (now.steady >= looked_until_ + kLookFor) {
    ++counts_.refused["traffic"];
    return;
  }
  const auto problem = traffic_.take(cluster_, node, traffic, now.steady);
  if (!problem) return;
  ++counts_.refused["traffic"];
  log::warning("node {}: tells of traffic: {}", node, *problem);
}

std::shared_ptr<const proxy::Overview> Controller::overview(const Moment& now) {
  return overviews_.make({cluster_, stale_, refused_.pairs(), *options_.web, revision_,
                          refused_.changes(), traffic_.rates(now.steady)},
                         now);
}

void Controller::forget_overview() {
  overviews_.forget();
  traffic_.clear();
}

}  // namespace meshd::controller
