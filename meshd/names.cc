#include "meshd/names.h"

#include <algorithm>

#include "dns/name.h"

namespace meshd {
namespace {

// Our own names are checked labels: they always have a wire form.
std::string wire(std::string_view text) {
  return dns::to_wire(text).value_or(std::string(1, '\0'));
}

}  // namespace

void NameChanges::merge(std::vector<std::shared_ptr<const policy::ViewPlan>> changed,
                        std::vector<IpAddress> gone) {
  for (const auto& address : gone) views[address] = nullptr;
  for (const auto& view : changed) {
    for (const auto& address : view->addresses) views[address] = view;
  }
}

dns::View lower_view(const policy::ViewPlan& plan, std::string_view zone) {
  dns::View view;
  view.client = plan.client;
  view.forward = plan.forward;
  for (const auto& name : plan.names) {
    const auto fqdn = wire(name.fqdn);
    const dns::NameData data{name.v4, name.v6, {}, name.stale};
    view.add(fqdn, data, zone);
    for (const auto& alias : name.aliases) view.add(wire(alias), data, zone);
    for (const auto& address : {name.v4, name.v6}) {
      if (address) view.pointers.emplace(*address, fqdn);
    }
    for (const auto& srv : name.srv) {
      const auto owner =
          wire("_" + srv.label + "._" + std::string(proto_name(srv.proto)) + "." + name.fqdn);
      auto entry = dns::NameData();
      if (const auto known = view.names.find(owner); known != view.names.end()) {
        entry = known->second;  // replicas may serve it on several ports
      }
      entry.srv.push_back({srv.port, fqdn, name.v4, name.v6});
      entry.stale = name.stale;
      view.add(owner, std::move(entry), zone);
    }
  }
  for (const auto& [name, reason] : plan.withheld) view.withheld.emplace(wire(name), reason);
  return view;
}

Names::Names(dns::ZoneSettings settings)
    : settings_(std::make_shared<const dns::ZoneSettings>(std::move(settings))),
      current_(settings_) {
  publish_current();
}

void Names::publish_current() { published_.store(std::make_shared<const dns::Snapshot>(current_)); }

// With the last view of a client goes what it was told.
void Names::forget(const IpAddress& client) {
  const auto found = plans_.find(client);
  if (found == plans_.end()) return;
  const auto named = addresses_.find(found->second->client);
  named->second.erase(client);
  if (named->second.empty()) {
    why_.erase(named->first);
    addresses_.erase(named);
  }
  plans_.erase(found);
}

void Names::set(const IpAddress& client, const std::shared_ptr<const policy::ViewPlan>& plan,
                Lowered& lowered) {
  const auto known = plans_.find(client);
  if (!plan || (known != plans_.end() && known->second->client != plan->client)) forget(client);
  if (!plan) {
    current_.remove(client);
    return;
  }
  plans_[client] = plan;
  addresses_[plan->client].insert(client);
  auto& shared = lowered[plan.get()];
  if (!shared) {
    auto view = lower_view(*plan, settings_->zone);
    if (const auto why = why_.find(plan->client); why != why_.end()) view.why = why->second;
    shared = std::make_shared<const dns::View>(std::move(view));
  }
  current_.set(client, shared);
}

void Names::publish(NameChanges changes) {
  if (changes.views.empty()) return;
  Lowered lowered;
  for (const auto& [client, plan] : changes.views) set(client, plan, lowered);
  publish_current();
}

void Names::set_settings(dns::ZoneSettings settings) {
  settings_ = std::make_shared<const dns::ZoneSettings>(std::move(settings));
  current_ = dns::Snapshot(settings_);
  Lowered lowered;
  for (const auto& [client, plan] : std::map(plans_)) set(client, plan, lowered);
  publish_current();
}

void Names::set_why(const std::string& client, std::vector<std::string> lines) {
  const auto addresses = addresses_.find(client);
  if (addresses == addresses_.end()) return;
  if (lines.empty() && !why_.contains(client)) return;
  if (lines.empty()) {
    why_.erase(client);
  } else {
    why_[client] = std::move(lines);
  }
  Lowered lowered;
  for (const auto& address : addresses->second) {
    set(address, std::shared_ptr(plans_.at(address)), lowered);
  }
  publish_current();
}

}  // namespace meshd
