#include "policy/element_index.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace meshd::policy {
namespace {

constexpr std::size_t kLeastSlots = 64;

std::uint32_t hash_of(const Element& element) {
  return static_cast<std::uint32_t>(std::hash<Element>{}(element));
}

std::size_t slots_for(std::size_t count) {
  return std::max(kLeastSlots, std::bit_ceil(count + count / 3 + 1));
}

}  // namespace

// The element's slot, or the free one that ends the search for it.
std::size_t ElementIndex::slot_of(const Element& element, std::uint32_t hash) const {
  std::size_t slot = hash & (slots_.size() - 1);
  for (; slots_[slot].entry != 0; slot = next(slot)) {
    if (slots_[slot].hash == hash && entries_[slots_[slot].entry - 1].element == element) break;
  }
  return slot;
}

void ElementIndex::grow(std::size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& one : old) {
    if (one.entry == 0) continue;
    std::size_t slot = one.hash & (slots - 1);
    while (slots_[slot].entry != 0) slot = next(slot);
    slots_[slot] = one;
  }
}

void ElementIndex::reserve(std::size_t count) {
  if (slots_for(count) > slots_.size()) grow(slots_for(count));
  // Never by a little: whoever reserves before each of many additions still copies seldom.
  if (count > entries_.capacity()) entries_.reserve(std::max(count, entries_.capacity() * 3 / 2));
}

bool ElementIndex::add(const Element& element) {
  reserve(entries_.size() + 1);
  const auto hash = hash_of(element);
  const auto slot = slot_of(element, hash);
  if (slots_[slot].entry != 0) {
    ++entries_[slots_[slot].entry - 1].uses;
    return false;
  }
  entries_.push_back({element, 1});
  slots_[slot] = {hash, static_cast<std::uint32_t>(entries_.size())};
  return true;
}

// What was put further on because this slot was taken moves up: a search ends at a free one.
void ElementIndex::free_slot(std::size_t slot) {
  for (std::size_t at = next(slot); slots_[at].entry != 0; at = next(at)) {
    const std::size_t home = slots_[at].hash & (slots_.size() - 1);
    const std::size_t mask = slots_.size() - 1;
    if (((at - home) & mask) < ((at - slot) & mask)) continue;  // it would lie before its home
    slots_[slot] = slots_[at];
    slot = at;
  }
  slots_[slot] = {};
}

bool ElementIndex::remove(const Element& element) {
  const auto slot = slot_of(element, hash_of(element));
  assert(slots_[slot].entry != 0);  // the caller counts what it has added
  const std::size_t index = slots_[slot].entry - 1;
  if (--entries_[index].uses > 0) return false;
  free_slot(slot);
  if (index + 1 < entries_.size()) {  // the last one takes its place
    const auto& last = entries_.back().element;
    slots_[slot_of(last, hash_of(last))].entry = static_cast<std::uint32_t>(index + 1);
    entries_[index] = entries_.back();
  }
  entries_.pop_back();
  return true;
}

bool ElementIndex::contains(const Element& element) const {
  return !slots_.empty() && slots_[slot_of(element, hash_of(element))].entry != 0;
}

}  // namespace meshd::policy
