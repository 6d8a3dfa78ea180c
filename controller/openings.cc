#include "controller/openings.h"

#include <algorithm>
#include <utility>

#include "controller/installed.h"
#include "controller/opened.h"
#include "policy/profile.h"

namespace meshd::controller {
namespace {

using State = proxy::Opening::State;

State state_of(const policy::Workload& workload) {
  if (!workload.remote) return State::kWaiting;
  if (workload.drains()) return State::kDraining;
  return workload.ready ? State::kReady : State::kAttached;
}

std::vector<IpAddress> own_addresses(const policy::Remote& remote) {
  std::vector<IpAddress> addresses;
  for (const auto family : kFamilies) {
    if (const auto& address = remote.address(family)) addresses.push_back(*address);
  }
  return addresses;
}

proxy::OpenPort open_port(const Cluster& cluster, const std::string& id,
                          const policy::Publication& publication, std::string_view proxy_node) {
  proxy::OpenPort open;
  open.port = publication.port;
  open.http = publication.http;
  open.access = publication.access;
  open.allow_from = publication.allow_from;
  open.label = publication.label;
  open.path = publication.path;
  auto found = installed(cluster, id, publication.proto, publication.port, publication.http);
  if (!found) return open;
  open.ready = found->info->ready();
  const auto& remote = cluster.world().workloads.find(id)->second.remote;
  if (!proxy_node.empty() && remote->node == proxy_node) {
    open.addresses = own_addresses(*remote);
    open.upstream_port = publication.port;
  } else {
    open.addresses = std::move(found->addresses);
    open.upstream_port = found->node_port;
  }
  return open;
}

// Of the cluster's names alone: those of a workflow are nobody's from outside.
std::string service_of(const policy::Declaration& declaration) {
  const auto service = declaration.service();
  return service && service->scope == policy::Scope::kCluster ? service->name : std::string();
}

}  // namespace

std::optional<proxy::Opening> opening_of(const Cluster& cluster, const std::string& id,
                                         const std::set<std::string>& stale,
                                         std::string_view proxy_node) {
  const auto found = cluster.world().workloads.find(id);
  if (found == cluster.world().workloads.end()) return std::nullopt;
  const auto& workload = found->second;
  proxy::Opening opening;
  opening.id = id;
  opening.owner = workload.declaration.owner;
  opening.service = service_of(workload.declaration);
  opening.request = cluster.launch(id).request;
  opening.state = state_of(workload);
  opening.stale = workload.remote && stale.contains(workload.remote->node);
  for (const auto& publication : policy::publications_of(workload)) {
    if (publication.proto != Proto::kTcp) continue;
    opening.ports.push_back(open_port(cluster, id, publication, proxy_node));
  }
  opening.full = workload.opened.size() >= kMaxOpenedPorts;
  return opening;
}

std::optional<proxy::Target> web_target(const Cluster& cluster, const policy::OutsideKey& key) {
  const auto& given = cluster.outside(OutsideUse::kWeb).given;
  const auto found = given.find(key);
  if (found == given.end() || found->second.rests_until) return std::nullopt;
  const auto& holder = found->second.holder;
  if (holder.service.empty()) return proxy::InstanceTarget{holder.id, holder.port};
  return proxy::ServiceTarget{holder.service, holder.port};
}

void Openings::update(const Cluster& cluster, const Touched& touched,
                      const std::set<std::string>& stale, TimePoint now) {
  auto ids = touched.workloads;
  for (const auto& node : touched.nodes) {  // its addresses may be others
    const auto& placed = cluster.placed_on(node);
    ids.insert(placed.begin(), placed.end());
  }
  for (const auto& id : ids) {
    auto opening = opening_of(cluster, id, stale, proxy_node_);
    if (opening) {
      writer_.set(*std::move(opening));
    } else {
      writer_.end(id, now);
    }
  }
  for (const auto& key : touched.web_ports) {
    const auto target = web_target(cluster, key);
    if (target) {
      writer_.set_port(key.port, *target);
    } else {
      writer_.remove_port(key.port);
    }
  }
}

void Openings::set_alias(const std::string& name, std::optional<proxy::Target> target) {
  target ? writer_.set_alias(name, *std::move(target)) : writer_.remove_alias(name);
}

std::vector<proxy::Target> web_targets(const Cluster& cluster, const std::string& id,
                                       std::uint16_t port) {
  const auto opening = opening_of(cluster, id, {});
  const auto* open = opening ? opening->open_port(port) : nullptr;
  if (open == nullptr || !open->http) return {};
  std::vector<proxy::Target> targets;
  if (!opening->service.empty()) {
    const bool first = open == opening->first_http();
    targets.emplace_back(proxy::ServiceTarget{
        opening->service, first ? std::nullopt : std::optional<std::uint16_t>(port)});
  }
  targets.emplace_back(proxy::InstanceTarget{id, port});
  const auto& ports = cluster.outside(OutsideUse::kWeb);
  for (const auto& holder : holders_of(*cluster.declaration(id), OutsideUse::kWeb)) {
    const auto key = holder.port == port ? ports.find(holder) : std::nullopt;
    if (key && !ports.given.at(*key).rests_until)
      targets.emplace_back(proxy::PortTarget{key->port});
  }
  return targets;
}

std::vector<std::string> web_urls(const Cluster& cluster, const proxy::Site& site,
                                  const std::string& id, std::uint16_t port) {
  const auto opening = opening_of(cluster, id, {});
  const auto* open = opening ? opening->open_port(port) : nullptr;
  std::vector<std::string> urls;
  for (const auto& target : web_targets(cluster, id, port)) {
    auto url = proxy::url_of(site, target, open->path);
    if (!url.empty()) urls.push_back(std::move(url));
  }
  return urls;
}

}  // namespace meshd::controller
