// When the API is asked what: everything every few seconds, and at once for a container that a
// node waits for. Pure: time comes in as an argument, requests go out as values.
//
// Use:       while next() gives a question, put it to the API with the controller's token; take()
//            its reply; read news(); call again at next_timer().
// Threads:   one owner.
// Invariant: at most two questions are under way, one of everything and one for those who wait.
//            While the API is away it is asked ever more rarely, and what was heard before stays.
// Units:     times as base/clock.h counts them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "arvados/access.h"
#include "arvados/limits.h"
#include "arvados/requests.h"
#include "arvados/sweep.h"
#include "base/clock.h"

namespace meshd::arvados {

struct Question {
  std::uint64_t number = 0;
  Ask ask;
};

// Of containers that were waited for. What no request is of, the API does not know or has ended.
struct Found {
  RequestSet requests;
  std::vector<std::string> unknown;
};
// Why everything could not be read; empty: it was, again.
struct Trouble {
  std::string why;
};
using News = std::variant<Listing, Found, Trouble>;

class Poller {
 public:
  struct Options {
    Duration pause = kPause;
  };
  // `known`: containers that were declared when this process began.
  Poller(Options options, std::set<std::string> known)
      : options_(options), known_(std::move(known)) {}
  // Declared by another controller, or before.
  void know(std::set<std::string> containers) { known_.merge(containers); }

  // A node waits for it. Refused when too many are waited for already.
  [[nodiscard]] bool want(const std::string& container, TimePoint now);

  [[nodiscard]] std::optional<Question> next(TimePoint now);
  // Of a number that is not under way: ignored.
  void take(std::uint64_t number, const Reply& reply, TimePoint now);
  [[nodiscard]] std::vector<News> news() { return std::exchange(news_, {}); }
  // When next() may have something though nothing happened; absent: it is waiting for replies.
  [[nodiscard]] std::optional<TimePoint> next_timer() const;

 private:
  [[nodiscard]] std::optional<Question> next_of_wanted(TimePoint now);
  [[nodiscard]] std::optional<Question> next_of_sweep(TimePoint now);
  void take_sweep(const Reply& reply, TimePoint now);
  void take_wanted(const Reply& reply, TimePoint now);
  void found(std::vector<ContainerRequest> requests, TimePoint now);
  void sweep_failed(const Failure& failure, TimePoint now);
  void forget_old(TimePoint now);

  const Options options_;
  std::set<std::string> known_;  // to be asked about when they are not listed
  std::optional<Sweep> sweep_;
  std::uint64_t last_number_ = 0;
  std::uint64_t sweep_number_ = 0;      // under way; 0: none
  std::uint64_t wanted_number_ = 0;     // under way; 0: none
  TimePoint sweep_at_{}, wanted_at_{};  // not before
  unsigned sweep_failures_ = 0, wanted_failures_ = 0;
  std::string trouble_;

  std::map<std::string, TimePoint> wanted_;   // until when they are asked about
  std::map<std::string, TimePoint> unknown_;  // until when that counts
  std::vector<std::string> asked_;            // of the wanted, under way
  bool one_by_one_ = false;                   // the last answer was too large for several
  std::vector<News> news_;
};

}  // namespace meshd::arvados
