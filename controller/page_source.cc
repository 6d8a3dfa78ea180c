#include "controller/page_source.h"

#include <algorithm>

namespace meshd::controller {

void PageSource::looked(const Moment& now) {
  looked_until_ = now.steady + kLookLasts;
  controller_.note_look(now);
  if (!next_) next_ = std::max(now.steady, not_before_);
}

void PageSource::serve(const Moment& now) {
  if (!next_ || now.steady < *next_) return;
  if (now.steady >= looked_until_) {
    published_.store(nullptr);
    controller_.forget_overview();
    next_.reset();
    return;
  }
  const auto begin = BootClock::now();
  published_.store(controller_.overview(now));
  const auto took = BootClock::now() - begin;
  not_before_ = now.steady + std::max<Duration>(kOverviewEvery, took * kOverviewShare);
  next_ = not_before_;
}

}  // namespace meshd::controller
