// One reading of everything the API knows of live containers: who we are, pages of requests,
// pages of links, and the end of those that are listed no more. Pure: next() asks, take() hears.
//
// Invariant: whole or nothing: a failure ends it, and what was heard so far counts for nothing.
//            It begins by asking whether our token is an administrator's: another one would be
//            shown fewer containers, and the rest would look ended. A container counts as ended
//            only once the API, asked about it by name, does not say that it goes on.
// Threads:   one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "arvados/access.h"
#include "arvados/answers.h"
#include "arvados/limits.h"
#include "arvados/requests.h"

namespace meshd::arvados {

class Sweep {
 public:
  // `known`: the containers that must be asked about when they are not listed.
  explicit Sweep(std::set<std::string> known) : missing_(std::move(known)) {}

  // Absent: it is whole.
  [[nodiscard]] std::optional<Ask> next() const;
  [[nodiscard]] Answer<void> take(const Reply& reply);
  [[nodiscard]] Listing listing() && { return std::move(listing_); }

 private:
  enum class Step : std::uint8_t { kWho, kRequests, kLinks, kMissing, kWhole };

  [[nodiscard]] Answer<void> take_who(const Reply& reply);
  [[nodiscard]] Answer<void> take_requests(const Reply& reply);
  [[nodiscard]] Answer<void> take_links(const Reply& reply);
  [[nodiscard]] Answer<void> take_missing(const Reply& reply);
  // After a page was too large; the failure where nothing smaller is left.
  [[nodiscard]] Answer<void> ask_for_less(Failure failure);
  void page_was_good();
  void begin_missing();

  Step step_ = Step::kWho;
  std::string after_;  // the last uuid that was heard of
  std::size_t limit_ = kPage;
  bool bare_ = false;
  std::size_t rows_ = 0;
  std::set<std::string> missing_;
  std::vector<std::string> asked_;  // of the missing
  std::map<std::string, std::size_t> links_of_;
  Listing listing_;
};

}  // namespace meshd::arvados
