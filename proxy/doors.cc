#include "proxy/doors.h"

#include <utility>

namespace meshd::proxy {

Result<std::string> Doors::open(const Conversation& caller, const Allow& allow, TimePoint now) {
  const auto upstream = parse_upstream(allow.upstream);
  if (!upstream) return fail(ErrorCode::kInternal, "an upstream that is no address and port");
  const auto key = caller.relay_key(allow);
  const auto path = TRY(relay_->open(key, *upstream, now));
  // Of two requests of one caller the later one counts: it has just been decided about.
  doors_.insert_or_assign(key, Door{caller.of_instance(allow),
                                    allow.upstream,
                                    {allow.id, Proto::kTcp, allow.port},
                                    now,
                                    now,
                                    {}});
  return "unix:" + path;
}

bool Doors::may_go_on(Door& door, TimePoint now, const Decide& decide) const {
  switch (fate_of(decide(door.caller), door.upstream)) {
    case Fate::kGoesOn:
      door.unsure_since.reset();
      return true;
    case Fate::kUnsure:
      if (!door.unsure_since) door.unsure_since = now;
      return now - *door.unsure_since < kUnsureLimit;
    case Fate::kCut:
      break;
  }
  return false;
}

void Doors::sweep(TimePoint now, const Decide& decide, const Refresh& refresh,
                  std::set<policy::PublishKey>& used) {
  relay_->sweep(now);
  for (const auto& key : relay_->busy()) {
    const auto found = doors_.find(key);
    if (found == doors_.end() || !may_go_on(found->second, now, decide)) {
      relay_->cut(key);
      if (found != doors_.end()) doors_.erase(found);
      ++cut_;
      continue;
    }
    auto& door = found->second;
    door.used = now;
    used.insert(door.to);
    const auto& question = door.caller.level_question();
    if (question && now - door.refreshed >= refresh_) {
      door.refreshed = now;
      refresh(*question);
    }
  }
  // The relay has taken these away by now, or does before anybody is sent there again.
  std::erase_if(doors_, [&](const auto& entry) { return now - entry.second.used > kDoorLife; });
}

}  // namespace meshd::proxy
