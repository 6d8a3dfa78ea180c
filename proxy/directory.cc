#include "proxy/directory.h"

#include <algorithm>

namespace meshd::proxy {
namespace {

const Directory::Openings kNone;

// By id, so that equal directories are equal.
void add(SharedMap<Directory::Openings>& map, const std::string& key, const OpeningPtr& opening) {
  const auto* found = map.find(key);
  auto openings = found == nullptr ? Directory::Openings() : *found;
  const auto place =
      std::ranges::lower_bound(openings, opening->id, {},
                               [](const OpeningPtr& one) -> const std::string& { return one->id; });
  openings.insert(place, opening);
  map.set(key, std::move(openings));
}

void take_out(SharedMap<Directory::Openings>& map, const std::string& key, const std::string& id) {
  const auto* found = map.find(key);
  if (found == nullptr) return;
  auto openings = *found;
  std::erase_if(openings, [&](const OpeningPtr& one) { return one->id == id; });
  openings.empty() ? map.erase(key) : map.set(key, std::move(openings));
}

const Directory::Openings& openings_of(const SharedMap<Directory::Openings>& map,
                                       std::string_view key) {
  const auto* found = map.find(key);
  return found == nullptr ? kNone : *found;
}

}  // namespace

const OpenPort* Opening::open_port(std::uint16_t port) const {
  const auto found = std::ranges::find(ports, port, &OpenPort::port);
  return found == ports.end() ? nullptr : &*found;
}

const OpenPort* Opening::first_http() const {
  const auto found = std::ranges::find(ports, true, &OpenPort::http);
  return found == ports.end() ? nullptr : &*found;
}

const Opening* Directory::by_id(std::string_view id) const {
  const auto* found = ids_.find(id);
  return found == nullptr ? nullptr : found->get();
}

const Directory::Openings& Directory::of_service(std::string_view name) const {
  return openings_of(services_, name);
}

const Directory::Openings& Directory::of_request(std::string_view uuid) const {
  return openings_of(requests_, uuid);
}

const Target* Directory::by_port(std::uint16_t outside) const {
  return ports_.find(std::to_string(outside));
}

void DirectoryWriter::put(OpeningPtr opening) {
  remove(opening->id);
  ++changes_;
  if (!opening->service.empty()) add(now_.services_, opening->service, opening);
  if (!opening->request.empty()) add(now_.requests_, opening->request, opening);
  const auto& id = opening->id;
  now_.ids_.set(id, opening);
}

void DirectoryWriter::remove(const std::string& id) {
  const auto* found = now_.ids_.find(id);
  if (found == nullptr) return;
  ++changes_;
  const auto before = *found;  // the lists hold it as well, and are about to let go of it
  if (!before->service.empty()) take_out(now_.services_, before->service, id);
  if (!before->request.empty()) take_out(now_.requests_, before->request, id);
  now_.ids_.erase(id);
}

void DirectoryWriter::set(Opening opening) {
  const auto* before = now_.by_id(opening.id);
  if (before != nullptr && *before == opening) return;
  put(std::make_shared<const Opening>(std::move(opening)));
}

void DirectoryWriter::end(const std::string& id, TimePoint now) {
  const auto* before = now_.by_id(id);
  if (before == nullptr || before->state == Opening::State::kEnded) return;
  auto opening = *before;
  opening.state = Opening::State::kEnded;
  for (auto& port : opening.ports) {
    port.addresses.clear();
    port.ready = false;
  }
  auto ended = std::make_shared<const Opening>(std::move(opening));
  put(ended);
  ended_.emplace_back(now, std::move(ended));
  forget_ended(now);
}

void DirectoryWriter::forget_ended(TimePoint now) {
  while (!ended_.empty() &&
         (ended_.size() > kMaxEnded || now - ended_.front().first >= kRemembered)) {
    const auto opening = std::move(ended_.front().second);
    ended_.pop_front();
    // Declared anew since, or ended once more: that is for its own entry to say.
    if (now_.by_id(opening->id) == opening.get()) remove(opening->id);
  }
}

void DirectoryWriter::set_alias(const std::string& name, Target target) {
  const auto* before = now_.names_.find(name);
  if (before != nullptr && *before == target) return;
  ++changes_;
  now_.names_.set(name, std::move(target));
}

void DirectoryWriter::remove_alias(const std::string& name) {
  if (now_.by_alias(name) == nullptr) return;
  ++changes_;
  now_.names_.erase(name);
}

void DirectoryWriter::set_port(std::uint16_t outside, Target target) {
  const auto* before = now_.by_port(outside);
  if (before != nullptr && *before == target) return;
  ++changes_;
  now_.ports_.set(std::to_string(outside), std::move(target));
}

void DirectoryWriter::remove_port(std::uint16_t outside) {
  if (now_.by_port(outside) == nullptr) return;
  ++changes_;
  now_.ports_.erase(std::to_string(outside));
}

}  // namespace meshd::proxy
