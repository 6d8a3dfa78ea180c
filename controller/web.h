// The controller's way to nginx: publishes what may be opened, hosts the endpoint that nginx asks
// for each request, and takes what that is told back into the loop.
//
// Threads:   the controller's loop; the endpoint has a thread of its own, which reads what is
//            published and posts.
// Owns:      the endpoint, the published directory and the mailbox. Borrows the controller.
// Invariant: what changed is published within kPublishEvery, and not more often.
// Errors:    of start(): kSystem, kInvalid, as proxy::Endpoint has them.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "base/mailbox.h"
#include "base/published.h"
#include "controller/config.h"
#include "controller/controller.h"
#include "proxy/endpoint.h"

namespace meshd::controller {

// A copy is some thousand pointers, and a burst of reports changes it with each of them.
inline constexpr auto kPublishEvery = std::chrono::milliseconds(5);
// Ports to open, and lists of what was used: who is turned away comes again, or is used again.
inline constexpr std::size_t kMaxWebEvents = 1024;

class Web {
 public:
  // `asker`: who answers in place of the token file; null: nobody. Borrowed.
  [[nodiscard]] static Result<std::unique_ptr<Web>> start(const WebConfig& config,
                                                          Controller& controller,
                                                          proxy::Asker* asker, TimePoint now);

  // Readable when the endpoint has said something.
  [[nodiscard]] int fd() const { return events_.fd(); }
  // What has come, and what has changed: after each turn of the loop.
  void serve(const Moment& now);
  // When to be called although nothing has come.
  [[nodiscard]] std::optional<TimePoint> next() const { return publish_at_; }
  [[nodiscard]] proxy::EndpointCounts counts() const { return endpoint_->counts(); }
  [[nodiscard]] int port() const { return endpoint_->port(); }

 private:
  using Used = std::vector<policy::PublishKey>;
  using Event = std::variant<proxy::MakeOpening, Used>;

  Web(Controller& controller, TimePoint now) : controller_(controller) { publish(now); }
  void publish(TimePoint now);
  void take(const proxy::MakeOpening& wanted, const Moment& now);

  Controller& controller_;
  Published<const proxy::Directory> directory_;
  Mailbox<Event> events_{kMaxWebEvents};
  std::uint64_t published_ = 0;  // of the openings' changes
  TimePoint published_at_{};
  std::optional<TimePoint> publish_at_;
  std::unique_ptr<proxy::Endpoint> endpoint_;  // its thread uses what stands above
};

}  // namespace meshd::controller
