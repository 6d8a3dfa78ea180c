#include "controller/page_source.h"

#include <algorithm>

namespace meshd::controller {

void PageSource::looked(const Moment& now) {
  looked_until_ = now.steady + kLookLasts;
  controller_.looking().note(now.steady);
  if (!next_) next_ = std::max(now.steady, not_before_);
}

std::shared_ptr<const proxy::Overview> PageSource::make(const Moment& now) {
  return overviews_.make(
      {controller_.cluster(), controller_.stale(), controller_.refused_pairs(), *controller_.web(),
       controller_.revision(), controller_.counts().refused_flows,
       controller_.looking().rates(now.steady)},
      now);
}

void PageSource::serve(const Moment& now) {
  if (!next_ || now.steady < *next_) return;
  if (now.steady >= looked_until_) {
    published_.store(nullptr);
    overviews_.forget();
    controller_.looking().forget();
    next_.reset();
    return;
  }
  const auto begin = BootClock::now();
  published_.store(make(now));
  const auto took = BootClock::now() - begin;
  not_before_ = now.steady + std::max<Duration>(kOverviewEvery, took * kOverviewShare);
  next_ = not_before_;
}

}  // namespace meshd::controller
