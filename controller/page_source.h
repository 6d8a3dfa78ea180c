// Keeps the page's overview up while somebody looks, and no longer.
//
// Threads:   the controller's loop; what is published is read by the endpoint's thread.
// Invariant: made at most once a second, and so seldom that it takes a twentieth of the loop's time
//            at most, whatever the cluster's size. Nothing is made, kept or asked of nodes when
//            nobody looks.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/published.h"
#include "controller/controller.h"
#include "controller/overview.h"
#include "proxy/overview.h"

namespace meshd::controller {

inline constexpr auto kOverviewEvery = std::chrono::seconds(1);
inline constexpr int kOverviewShare = 20;
// The page asks every two seconds; one that is hidden does not.
inline constexpr auto kLookLasts = std::chrono::seconds(8);

class PageSource {
 public:
  explicit PageSource(Controller& controller) : controller_(controller) {}

  [[nodiscard]] const Published<const proxy::Overview>& overviews() const { return published_; }
  void looked(const Moment& now);
  // Once next() is due.
  void serve(const Moment& now);
  [[nodiscard]] std::optional<TimePoint> next() const { return next_; }

 private:
  [[nodiscard]] std::shared_ptr<const proxy::Overview> make(const Moment& now);

  Controller& controller_;
  Overviews overviews_;
  Published<const proxy::Overview> published_;
  TimePoint looked_until_{};
  TimePoint not_before_{};
  std::optional<TimePoint> next_;
};

}  // namespace meshd::controller
