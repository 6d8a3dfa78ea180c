// Elements by hundred thousands, found by their bytes: each once, with a number of uses.
// They lie one after another in memory, and a table of numbers beside them finds one with
// two accesses: a map with a node for each took 0.4 s of a start with 100,000 flows.
//
// Threads: not thread-safe; one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "policy/ruleset.h"

namespace meshd::policy {

class ElementIndex {
 public:
  // Room for that many in all, where it is known beforehand.
  void reserve(std::size_t count);
  // One use more; true when it is the first.
  bool add(const Element& element);
  // One use less; true when it was the last. The element must be there.
  bool remove(const Element& element);

  [[nodiscard]] bool contains(const Element& element) const;
  [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Element element;
    std::uint32_t uses = 0;
  };
  struct Slot {
    std::uint32_t hash = 0;   // its low half
    std::uint32_t entry = 0;  // number of the entry and one; 0: free
  };
  [[nodiscard]] std::size_t slot_of(const Element& element, std::uint32_t hash) const;
  [[nodiscard]] std::size_t next(std::size_t slot) const {
    return (slot + 1) & (slots_.size() - 1);
  }
  void grow(std::size_t slots);
  void free_slot(std::size_t slot);

  std::vector<Entry> entries_;
  std::vector<Slot> slots_;  // a power of two, or none; at most three in four are taken
};

}  // namespace meshd::policy
