// The nodes of the cluster as every other node is told of them: one list for all, and for each
// session how far along it is. With a list for each node, two that know each other would cost the
// controller an entry each, twenty-five million in a cluster of five thousand.
//
// Threads:   not thread-safe; one owner (the slices).
// Invariant: a node stands where it changed last, so whoever is told all after its place knows
//            the newest of each; nobody is told of itself. One that is gone is kept until all
//            who may know of it have been told.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace meshd::controller {

class NodeList {
 public:
  // How far somebody has been told. What was gone before `begun` was never known there.
  struct Place {
    std::uint64_t told = 0, begun = 0;
  };
  struct Entry {
    std::string value;
    std::uint64_t hash = 0, changed = 0;
    bool gone = false;
  };

  // Whether that changes anything.
  bool put(const std::string& name, std::string value);
  bool drop(const std::string& name);
  [[nodiscard]] bool contains(const std::string& name) const;
  // The sum of the items' hashes, without that of `name`.
  [[nodiscard]] std::uint64_t hash_for(const std::string& name) const;
  [[nodiscard]] std::vector<std::string> names_for(const std::string& name) const;

  [[nodiscard]] Place told_nothing() const { return {0, last_}; }
  [[nodiscard]] Place told_all() const { return {last_, last_}; }
  // What `name` is to be told next, null when that is nothing.
  [[nodiscard]] const std::pair<const std::string, Entry>* next(Place& place,
                                                                const std::string& name) const;
  [[nodiscard]] std::size_t left(Place place, const std::string& name) const;
  // Nobody is less far along than that.
  void forget_gone(std::uint64_t told);
  [[nodiscard]] std::size_t gone() const { return entries_.size() - present_; }

 private:
  using Entries = std::map<std::string, Entry>;
  void touch(Entries::iterator entry);

  Entries entries_;
  std::map<std::uint64_t, Entries::const_iterator> order_;  // by when they changed last
  std::uint64_t last_ = 0, hash_ = 0;
  std::size_t present_ = 0;
};

}  // namespace meshd::controller
