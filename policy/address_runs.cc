#include "policy/address_runs.h"

#include <iterator>

namespace meshd::policy {

// The run that has it, or the end.
AddressRuns::Runs::const_iterator AddressRuns::run_of(const IpAddress& address) const {
  const auto after = runs_.upper_bound(address);
  if (after == runs_.begin()) return runs_.end();
  const auto found = std::prev(after);
  return address < found->second ? found : runs_.end();
}

bool AddressRuns::contains(const IpAddress& address) const {
  return run_of(address) != runs_.end();
}

IpAddress AddressRuns::free_from(const IpAddress& address) const {
  const auto run = run_of(address);
  return run == runs_.end() ? address : run->second;
}

void AddressRuns::add(const IpAddress& address) {
  if (contains(address)) return;
  auto from = address, until = address.plus(1);
  const auto after = runs_.upper_bound(address);
  const bool joins_before = after != runs_.begin() && std::prev(after)->second == address;
  if (joins_before) from = std::prev(after)->first;
  if (after != runs_.end() && after->first == until) {
    until = after->second;
    runs_.erase(after);
  }
  runs_.insert_or_assign(from, until);
}

void AddressRuns::remove(const IpAddress& address) {
  const auto found = run_of(address);
  if (found == runs_.end()) return;
  const auto [from, until] = *found;
  runs_.erase(found);
  if (from != address) runs_.emplace(from, address);
  if (address.plus(1) != until) runs_.emplace(address.plus(1), until);
}

}  // namespace meshd::policy
