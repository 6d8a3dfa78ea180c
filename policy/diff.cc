#include "policy/diff.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <functional>
#include <utility>

namespace meshd::policy {
namespace {

using Run = std::span<const Element>;
using RunsOfSets = std::array<std::vector<Run>, kSetCount>;

// Cuts runs where the set changes, or the order breaks off.
RunsOfSets by_set(std::span<const Run> runs) {
  RunsOfSets sets;
  const auto breaks = [](const Element& a, const Element& b) { return a.set != b.set || !(a < b); };
  for (Run rest : runs) {
    while (!rest.empty()) {
      const auto last = std::ranges::adjacent_find(rest, breaks);
      const auto count =
          last == rest.end() ? rest.size() : static_cast<std::size_t>(last - rest.begin()) + 1;
      sets[static_cast<std::size_t>(rest.front().set)].push_back(rest.first(count));
      rest = rest.subspan(count);
    }
  }
  return sets;
}

}  // namespace

Comparison::Comparison(std::span<const Element> wanted)
    : wanted_(wanted), slots_(std::bit_ceil(wanted.size() * 2 + 1)), there_(wanted.size()) {
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto hash = std::hash<Element>{}(wanted[i]);
    std::size_t slot = hash & (slots_.size() - 1);
    while (slots_[slot].number != 0) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = {static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(i + 1)};
  }
}

void Comparison::saw(const Element& installed) {
  const auto hash = std::hash<Element>{}(installed);
  for (std::size_t slot = hash & (slots_.size() - 1); slots_[slot].number != 0;
       slot = (slot + 1) & (slots_.size() - 1)) {
    const std::size_t index = slots_[slot].number - 1;
    if (slots_[slot].hash != static_cast<std::uint32_t>(hash) || wanted_[index] != installed) {
      continue;
    }
    there_[index] = true;
    return;
  }
  unwanted_.push_back(installed);
}

void Comparison::forget(SetId set) {
  std::erase_if(unwanted_, [set](const Element& element) { return element.set == set; });
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    if (wanted_[i].set == set) there_[i] = false;
  }
}

Delta Comparison::result() && {
  Delta delta{std::move(unwanted_), {}};
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    if (!there_[i]) delta.add.push_back(wanted_[i]);
  }
  sort_runs(delta.remove);
  sort_runs(delta.add);
  return delta;
}

Delta diff(std::span<const Element> installed, std::span<const Element> wanted) {
  Comparison comparison(wanted);
  for (const auto& element : installed) comparison.saw(element);
  return std::move(comparison).result();
}

void sort_runs(std::vector<Element>& elements) {
  constexpr std::size_t kFew = 64;  // below it the plain sort is faster
  if (elements.size() < kFew) {
    std::ranges::sort(elements);
    elements.erase(std::ranges::unique(elements).begin(), elements.end());
  } else {
    const Run all = elements;
    elements = merged(std::span(&all, 1));
  }
}

std::vector<Element> merged(std::span<const Run> runs) {
  std::size_t count = 0;
  for (const Run run : runs) count += run.size();
  std::vector<Element> all;
  all.reserve(count);
  for (auto& of_set : by_set(runs)) {
    std::ranges::sort(of_set, {}, [](const Run& run) -> const Element& { return run.front(); });
    const auto begin = static_cast<std::ptrdiff_t>(all.size());
    for (const Run run : of_set) all.insert(all.end(), run.begin(), run.end());
    const auto rest = std::ranges::subrange(all.begin() + begin, all.end());
    if (std::ranges::adjacent_find(rest, std::greater_equal()) == rest.end()) continue;
    std::ranges::sort(rest);
    all.erase(std::ranges::unique(rest).begin(), all.end());
  }
  return all;
}

}  // namespace meshd::policy
