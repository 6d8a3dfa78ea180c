// Addresses that are taken, as runs: where many stand one beside the other, the next free one is
// found without a walk over them.
//
// Invariant: runs neither overlap nor touch, and each is of one family. The last address of a
//            family's space is in none: pools give it to nobody.
#pragma once

#include <map>

#include "base/ip.h"

namespace meshd::policy {

class AddressRuns {
 public:
  void add(const IpAddress& address);
  void remove(const IpAddress& address);
  [[nodiscard]] bool contains(const IpAddress& address) const;
  // The first that is not taken, from this one on.
  [[nodiscard]] IpAddress free_from(const IpAddress& address) const;
  [[nodiscard]] std::size_t size() const { return runs_.size(); }  // in runs
  bool operator==(const AddressRuns&) const = default;

 private:
  using Runs = std::map<IpAddress, IpAddress>;  // from, until before
  [[nodiscard]] Runs::const_iterator run_of(const IpAddress& address) const;

  Runs runs_;
};

}  // namespace meshd::policy
