#include "arvados/sweep.h"

#include <fmt/format.h>

#include <algorithm>

#include "arvados/paths.h"

namespace meshd::arvados {
namespace {

// A page of rows that goes on from where the last one ended. Absent: it does, and `after` is moved.
template <class Row>
std::optional<Failure> follow(const std::vector<Row>& rows, std::size_t limit, std::string& after) {
  if (rows.size() > limit) return Failure{Fault::kAway, "the page has more than was asked for"};
  for (const auto& row : rows) {
    // Also what ends the loop, whatever the API says.
    if (row.uuid <= after) return Failure{Fault::kAway, "the page is not in the order of uuids"};
    after = row.uuid;
  }
  return std::nullopt;
}

}  // namespace

std::optional<Ask> Sweep::next() const {
  switch (step_) {
    case Step::kWho:
      return Ask{current_user_path(), true, kMaxRecordBytes};
    case Step::kRequests:
      return Ask{requests_page_path(after_, limit_, bare_), true, kMaxAnswerBytes};
    case Step::kLinks:
      return Ask{links_page_path(after_, limit_, bare_), true, kMaxAnswerBytes};
    case Step::kMissing:
      return Ask{live_containers_path(asked_), true, kMaxRecordBytes};
    case Step::kWhole:
      break;
  }
  return std::nullopt;
}

Answer<void> Sweep::take(const Reply& reply) {
  switch (step_) {
    case Step::kWho:
      return take_who(reply);
    case Step::kRequests:
      return take_requests(reply);
    case Step::kLinks:
      return take_links(reply);
    case Step::kMissing:
      return take_missing(reply);
    case Step::kWhole:
      break;
  }
  return {};
}

Answer<void> Sweep::take_who(const Reply& reply) {
  const auto user = TRY(read_user(reply));
  if (!user.is_admin || !user.is_active) {
    return std::unexpected(Failure{
        Fault::kForbidden,
        fmt::format("the controller's token is of {}, who is no administrator", user.uuid)});
  }
  step_ = Step::kRequests;
  return {};
}

Answer<void> Sweep::take_requests(const Reply& reply) {
  auto page = read_requests(reply, bare_);
  if (!page) return ask_for_less(std::move(page).error());
  if (auto wrong = follow(*page, limit_, after_)) return std::unexpected(*std::move(wrong));
  rows_ += page->size();
  if (rows_ > kMaxRows) {
    return std::unexpected(Failure{Fault::kAway, fmt::format("more than {} requests", kMaxRows)});
  }
  // Only an empty page is the last: the API gives fewer rows where they are large.
  if (page->empty()) {
    step_ = Step::kLinks;
    after_.clear();
    rows_ = 0;
    limit_ = kPage;
    bare_ = false;
    return {};
  }
  for (auto& request : *page) {
    missing_.erase(request.container);
    listing_.requests.add(std::move(request));
  }
  page_was_good();
  return {};
}

Answer<void> Sweep::take_links(const Reply& reply) {
  auto page = read_links(reply);
  if (!page) return ask_for_less(std::move(page).error());
  if (auto wrong = follow(*page, limit_, after_)) return std::unexpected(*std::move(wrong));
  rows_ += page->size();
  if (page->empty() || rows_ > kMaxRows) {
    begin_missing();
    return {};
  }
  for (auto& link : *page) {
    if (++links_of_[link.owner] <= kMaxLinksPerOwner) listing_.links.push_back(std::move(link));
  }
  page_was_good();
  return {};
}

Answer<void> Sweep::take_missing(const Reply& reply) {
  std::set<std::string> ended(asked_.begin(), asked_.end());
  for (const auto& container : TRY(read_live_containers(reply))) {
    if (ended.erase(container) == 0) {
      return std::unexpected(Failure{Fault::kAway, "the answer is about other containers"});
    }
  }
  listing_.ended.merge(ended);
  begin_missing();
  return {};
}

void Sweep::begin_missing() {
  asked_.clear();
  while (!missing_.empty() && asked_.size() < kIdsPerQuestion) {
    asked_.push_back(std::move(missing_.extract(missing_.begin()).value()));
  }
  step_ = asked_.empty() ? Step::kWhole : Step::kMissing;
}

Answer<void> Sweep::ask_for_less(Failure failure) {
  if (failure.fault != Fault::kTooLarge) return std::unexpected(std::move(failure));
  if (limit_ > 1) {
    limit_ = std::max<std::size_t>(limit_ / 4, 1);
    return {};
  }
  // One record alone: what its author filled it with is left out.
  if (!bare_) {
    bare_ = true;
    return {};
  }
  return std::unexpected(std::move(failure));
}

void Sweep::page_was_good() {
  bare_ = false;
  limit_ = std::min(limit_ * 4, kPage);
}

}  // namespace meshd::arvados
