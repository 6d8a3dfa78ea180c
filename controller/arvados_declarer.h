// What the Arvados API lists, declared: one workload for each container that has not ended, each
// by itself, so that none can stop another one.
//
// Threads:   the controller's loop. Borrows the controller.
// Invariant: a workload goes when the API says that its container has ended and no node has it
//            attached any more; until then its open connections stay. Nothing else that is read,
//            or not read, ends one. What was refused is declared closed, and tried again with
//            each reading.
// Errors:    none: why a workload is not as its author wrote it is told in the controller's launch
//            report, a store that is away is tried again with the next reading.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "arvados/poller.h"
#include "arvados/requests.h"
#include "controller/controller.h"

namespace meshd::controller {

// Of one commit: what a store takes in some ten milliseconds.
inline constexpr std::size_t kLaunchesPerCommit = 256;
// With one reading, each a commit of its own: half a second of the loop at most.
inline constexpr std::size_t kForgottenPerReading = 200;

class ArvadosDeclarer {
 public:
  explicit ArvadosDeclarer(Controller& controller) : controller_(controller) {}

  void take(const arvados::Listing& listing, const arvados::Site& site, const Moment& now);
  void take(const arvados::Found& found, const Moment& now);
  // Empty: the API answers. `why` is told with the time since when.
  void set_trouble(const std::string& why, const Moment& now);

  // Declared for containers of Arvados, by whichever controller.
  [[nodiscard]] std::set<std::string> known() const;

 private:
  struct Counts {  // of one change set
    std::size_t declared = 0, changed = 0, closed = 0, drained = 0, resumed = 0, forgotten = 0;
  };
  void carry_out(const arvados::Site& site, const std::set<std::string>& ended, const Moment& now);
  [[nodiscard]] std::map<std::string, arvados::Declared> have() const;
  // False: the store is away.
  [[nodiscard]] bool declare(std::span<const arvados::Listed> items, const Moment& now);
  [[nodiscard]] bool declare_closed(const arvados::Listed& item, const Moment& now);
  [[nodiscard]] bool drain_ended(const std::string& id, const std::string& node, const Moment& now);
  void forget(const std::vector<std::string>& ids, const Moment& now);
  void count(const arvados::Listed& item);
  void note_problem(const std::string& id, std::string why);
  void note_links(const arvados::Site& site);
  void tell();
  void audit() const;

  Controller& controller_;
  std::map<std::string, arvados::Declared> have_;  // before the change set
  Counts counts_;
  std::map<std::string, std::string> problems_;
  LaunchReport report_;
  std::string trouble_, since_;
};

}  // namespace meshd::controller
