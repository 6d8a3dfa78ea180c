// From what is installed to what is wanted: the elements that differ.
//
// Invariants: applying the delta to `installed` gives `wanted`; it is empty when both are
//             equal. A map's element with other data is removed and added. What it lists
//             is sorted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "policy/ruleset.h"

namespace meshd::policy {

// Both without repetition, in any order: the kernel lists a set's elements in its own, and
// to sort hundred thousands of them takes longer than to find each.
[[nodiscard]] Delta diff(std::span<const Element> installed, std::span<const Element> wanted);

// The same with what is installed shown one by one.
class Comparison {
 public:
  explicit Comparison(std::span<const Element> wanted);  // must live as long
  void saw(const Element& installed);
  // As if nothing of that set had been shown.
  void forget(SetId set);
  [[nodiscard]] Delta result() &&;

 private:
  struct Slot {
    std::uint32_t hash = 0;    // its low half
    std::uint32_t number = 0;  // of the wanted element, and one; 0: free
  };
  std::span<const Element> wanted_;
  std::vector<Slot> slots_;  // a power of two, at most half of them taken
  std::vector<bool> there_;  // of `wanted_`
  std::vector<Element> unwanted_;
};

// The elements of the runs, sorted, each once. Fast where what is sorted in them does not
// overlap in one set, as with the fragments of workloads, each of which is the consumer.
[[nodiscard]] std::vector<Element> merged(std::span<const std::span<const Element>> runs);
// Sorts what is one run after another, and none twice.
void sort_runs(std::vector<Element>& elements);

}  // namespace meshd::policy
