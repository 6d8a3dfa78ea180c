#include "proxy/people_source.h"

#include <time.h>

#include <utility>

namespace meshd::proxy {
namespace {

std::int64_t nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// File systems count in ticks of the kernel, of which one is 10 ms at most; some in seconds.
constexpr std::int64_t kSettledNs = 2'000'000'000;

bool is_fresh(std::int64_t changed_ns) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const auto age = nanoseconds(now) - changed_ns;
  return age >= 0 && age < kSettledNs;
}

}  // namespace

PeopleSource::Mark PeopleSource::mark() const {
  struct stat found{};
  if (stat(path_.c_str(), &found) != 0) return {};
  return {true, found.st_dev, found.st_ino, found.st_size, nanoseconds(found.st_ctim)};
}

Result<bool> PeopleSource::refresh() {
  const auto now = mark();
  if (now == seen_ && !again_) return false;
  if (now != seen_) error_.clear();
  seen_ = now;
  again_ = now.exists && is_fresh(now.changed_ns);
  auto people = read_people(path_);
  if (!people) {
    if (std::exchange(error_, people.error().what) == error_) return false;
    return std::unexpected(std::move(people).error());
  }
  error_.clear();
  if (*people == people_) return false;
  people_ = *std::move(people);
  return true;
}

}  // namespace meshd::proxy
