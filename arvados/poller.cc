#include "arvados/poller.h"

#include <algorithm>
#include <utility>

#include "arvados/paths.h"

namespace meshd::arvados {
namespace {

// Far more requests on the containers of one question than there are; past it they are asked
// about one by one, so that who crowds one container does not stand before the others.
constexpr std::size_t kRequestsOfWanted = 1'000;

// After so many failures, one after the other.
Duration back_off(unsigned failures) {
  constexpr unsigned kDoublings = 6;
  return std::min<Duration>(kFirstBackOff * (1U << std::min(failures - 1, kDoublings)),
                            kLastBackOff);
}

}  // namespace

bool Poller::want(const std::string& container, TimePoint now) {
  forget_old(now);
  if (!is_uuid(container, kContainerKind) || unknown_.contains(container)) {
    news_.emplace_back(Found{{}, {container}});
    return true;
  }
  if (wanted_.size() >= kMaxWanted && !wanted_.contains(container)) return false;
  wanted_[container] = now + kWantedFor;
  return true;
}

std::optional<Question> Poller::next(TimePoint now) {
  forget_old(now);
  if (auto question = next_of_wanted(now)) return question;
  return next_of_sweep(now);
}

std::optional<Question> Poller::next_of_wanted(TimePoint now) {
  if (wanted_number_ != 0 || wanted_.empty() || now < wanted_at_) return std::nullopt;
  asked_.clear();
  const std::size_t limit = one_by_one_ ? 1 : kIdsPerQuestion;
  for (const auto& [container, until] : wanted_) {
    if (asked_.size() == limit) break;
    asked_.push_back(container);
  }
  wanted_number_ = ++last_number_;
  return Question{wanted_number_,
                  {requests_on_path(asked_, kRequestsOfWanted), true, kMaxAnswerBytes}};
}

std::optional<Question> Poller::next_of_sweep(TimePoint now) {
  if (sweep_number_ != 0) return std::nullopt;
  if (!sweep_) {
    if (now < sweep_at_) return std::nullopt;
    sweep_.emplace(known_);
  }
  auto ask = sweep_->next();
  if (!ask) return std::nullopt;
  sweep_number_ = ++last_number_;
  return Question{sweep_number_, *std::move(ask)};
}

void Poller::take(std::uint64_t number, const Reply& reply, TimePoint now) {
  if (number == 0) return;
  if (number == sweep_number_) {
    sweep_number_ = 0;
    take_sweep(reply, now);
  } else if (number == wanted_number_) {
    wanted_number_ = 0;
    take_wanted(reply, now);
  }
}

void Poller::take_sweep(const Reply& reply, TimePoint now) {
  if (const auto taken = sweep_->take(reply); !taken) {
    return sweep_failed(taken.error(), now);
  }
  if (sweep_->next()) return;
  auto listing = std::move(*sweep_).listing();
  sweep_.reset();
  sweep_at_ = now + options_.pause;
  // Who was found while this went on stays known, and is asked for in the next.
  for (const auto& container : listing.ended) known_.erase(container);
  for (const auto& [container, by_user] : listing.requests.by_container()) {
    known_.insert(container);
    wanted_.erase(container);
  }
  sweep_failures_ = 0;
  if (!std::exchange(trouble_, {}).empty()) news_.emplace_back(Trouble{});
  news_.emplace_back(std::move(listing));
}

void Poller::take_wanted(const Reply& reply, TimePoint now) {
  auto requests = read_requests(reply, false);
  const bool full = requests && requests->size() >= kRequestsOfWanted;
  const bool too_large = !requests && requests.error().fault == Fault::kTooLarge;
  if ((full || too_large) && asked_.size() > 1) {
    one_by_one_ = true;
    return;
  }
  if (too_large) {
    // The sweep takes such a record without what is large in it.
    wanted_.erase(asked_.front());
    if (sweep_failures_ == 0) sweep_at_ = std::min(sweep_at_, now);
    return;
  }
  if (!requests) {
    wanted_at_ = now + back_off(++wanted_failures_);
    return;
  }
  wanted_failures_ = 0;
  one_by_one_ = false;
  found(*std::move(requests), now);
}

void Poller::found(std::vector<ContainerRequest> requests, TimePoint now) {
  Found found;
  for (const auto& container : asked_) {
    wanted_.erase(container);
    const bool known = std::ranges::any_of(
        requests, [&](const auto& request) { return request.container == container; });
    if (known) {
      known_.insert(container);
    } else {
      found.unknown.push_back(container);
      unknown_[container] = now + kUnknownFor;
    }
  }
  for (auto& request : requests) {
    // Whatever else the API tells was not asked.
    if (std::ranges::find(asked_, request.container) == asked_.end()) continue;
    found.requests.add(std::move(request));
  }
  asked_.clear();
  news_.emplace_back(std::move(found));
}

void Poller::sweep_failed(const Failure& failure, TimePoint now) {
  sweep_.reset();
  sweep_at_ = now + back_off(++sweep_failures_);
  if (trouble_ == failure.why) return;
  trouble_ = failure.why;
  news_.emplace_back(Trouble{trouble_});
}

void Poller::forget_old(TimePoint now) {
  std::erase_if(wanted_, [&](const auto& entry) { return entry.second <= now; });
  std::erase_if(unknown_, [&](const auto& entry) { return entry.second <= now; });
}

std::optional<TimePoint> Poller::next_timer() const {
  if (!news_.empty()) return TimePoint{};
  std::optional<TimePoint> at;
  if (sweep_number_ == 0) at = sweep_ ? TimePoint{} : sweep_at_;
  if (wanted_number_ == 0 && !wanted_.empty()) at = at ? std::min(*at, wanted_at_) : wanted_at_;
  return at;
}

}  // namespace meshd::arvados
