#include "controller/node_list.h"

#include <utility>

#include "policy/slice_hash.h"
#include "proto/controller.pb.h"

namespace meshd::controller {

bool NodeList::put(const std::string& name, std::string value) {
  const auto [found, fresh] = entries_.try_emplace(name);
  auto& entry = found->second;
  const bool was_there = !fresh && !entry.gone;
  if (was_there && entry.value == value) return false;
  const auto hash = policy::slice_item_hash(mesh::v1::SliceKey::Kind::NODE, name, value);
  hash_ += hash - (was_there ? entry.hash : 0);
  present_ += was_there ? 0 : 1;
  entry.value = std::move(value);
  entry.hash = hash;
  entry.gone = false;
  touch(found);
  return true;
}

bool NodeList::drop(const std::string& name) {
  const auto found = entries_.find(name);
  if (found == entries_.end() || found->second.gone) return false;
  auto& entry = found->second;
  hash_ -= entry.hash;
  --present_;
  entry.value.clear();
  entry.gone = true;
  touch(found);
  return true;
}

void NodeList::touch(Entries::iterator entry) {
  order_.erase(entry->second.changed);
  entry->second.changed = ++last_;
  order_.emplace(last_, entry);
}

bool NodeList::contains(const std::string& name) const {
  const auto found = entries_.find(name);
  return found != entries_.end() && !found->second.gone;
}

std::uint64_t NodeList::hash_for(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() || found->second.gone ? hash_ : hash_ - found->second.hash;
}

std::vector<std::string> NodeList::names_for(const std::string& name) const {
  std::vector<std::string> names;
  for (const auto& [other, entry] : entries_) {
    if (other != name && !entry.gone) names.push_back(other);
  }
  return names;
}

const std::pair<const std::string, NodeList::Entry>* NodeList::next(Place& place,
                                                                    const std::string& name) const {
  for (auto at = order_.upper_bound(place.told); at != order_.end(); ++at) {
    const auto& entry = *at->second;
    if (entry.first != name && !(entry.second.gone && at->first <= place.begun)) return &entry;
    place.told = at->first;
  }
  return nullptr;
}

std::size_t NodeList::left(Place place, const std::string& name) const {
  std::size_t count = 0;
  while (const auto* entry = next(place, name)) {
    place.told = entry->second.changed;
    ++count;
  }
  return count;
}

void NodeList::forget_gone(std::uint64_t told) {
  std::erase_if(order_, [&](const auto& at) {
    if (at.first > told || !at.second->second.gone) return false;
    entries_.erase(at.second);
    return true;
  });
}

}  // namespace meshd::controller
