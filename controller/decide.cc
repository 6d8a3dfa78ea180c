#include "controller/decide.h"

#include <fmt/format.h>

#include <algorithm>

#include "controller/opened.h"
#include "policy/from_proto.h"
#include "policy/name.h"

namespace meshd::controller {
namespace {

mesh::v1::StoredService stored(const policy::Service& service, const Moment& now) {
  mesh::v1::StoredService result;
  result.set_owner(service.owner);
  for (const auto family : kFamilies) {
    if (service.vip(family)) result.add_vips(service.vip(family)->to_string());
  }
  result.set_declared_at_ms(now.wall_of(service.declared_at));
  if (service.endpoint_lost_at != TimePoint()) {
    result.set_endpoint_lost_at_ms(
        std::max<std::int64_t>(now.wall_of(service.endpoint_lost_at), 1));  // 0 is "never"
  }
  return result;
}

Write rest(const std::string& what, TimePoint until, const Moment& now) {
  mesh::v1::StoredRest resting;
  resting.set_until_ms(now.wall_of(until));
  return put(kind::ObjectKind::RESTING, what, resting);
}

// What policy came to, as writes; without its declarations, which have an author here.
void take(const policy::Outcome& outcome, const Moment& now, Writes& writes) {
  for (const auto& [key, service] : outcome.services) {
    writes.push_back(put(kind::ObjectKind::SERVICE, service_key_text(key), stored(service, now)));
  }
  for (const auto& key : outcome.services_gone) {
    writes.push_back(drop(kind::ObjectKind::SERVICE, service_key_text(key)));
  }
  for (const auto& [address, until] : outcome.quarantine) {
    writes.push_back(rest(address.to_string(), until, now));
  }
}

// Who declared it may change it; people may change what any of them declared. What Arvados
// declares would be as its API has it a moment later.
Status check_author(const Cluster& cluster, const Author& author, const std::string& id,
                    const Limits& limits) {
  const auto& before = cluster.author(id);
  if (before.empty() || before == author.text()) return {};
  const bool by_arvados = before == arvados_author().text();
  if (author.role != Author::Role::kNode && author.role != Author::Role::kArvados &&
      !(by_arvados && limits.arvados)) {
    return {};
  }
  return fail(ErrorCode::kConflict,
              fmt::format("workload {}: declared by {}, not {}'s to say{}", id, before,
                          author.text(), by_arvados ? ": it follows its container request" : ""));
}

Status check_here(const Cluster& cluster, const Author& author, const std::string& id) {
  const auto* placement = cluster.placement(id);
  if (author.role != Author::Role::kNode || placement == nullptr ||
      placement->node == author.name) {
    return {};
  }
  return fail(ErrorCode::kConflict, fmt::format("workload {}: is on node {}", id, placement->node));
}

bool is_attached(const Placement* placement) {
  return placement != nullptr && !placement->reported.addresses().empty();
}

Write put_declaration(const policy::Declaration& declaration, const std::string& author,
                      const std::string& pinned, const Launch& launch) {
  mesh::v1::StoredDeclaration object;
  *object.mutable_declaration() = policy::to_proto(declaration);
  object.set_author(author);
  object.set_pinned(pinned);
  object.set_drained(launch.drained);
  object.set_request(launch.request);
  object.set_service(launch.is_service);
  return put(kind::ObjectKind::DECLARATION, declaration.id, object);
}

mesh::v1::StoredEndpoint assigned(const std::string& node, const std::string& id) {
  mesh::v1::StoredEndpoint endpoint;
  endpoint.set_node(node);
  endpoint.mutable_reported()->set_id(id);
  return endpoint;
}

// Whether somebody stands behind the service when `without` does not.
bool has_endpoint(const Cluster& cluster, const policy::ServiceKey& key,
                  const std::set<std::string>& without) {
  const auto members = cluster.index().members.find(key);
  if (members == cluster.index().members.end()) return false;
  return std::ranges::any_of(members->second, [&](const std::string& id) {
    const auto& workload = cluster.world().workloads.find(id)->second;
    return !without.contains(id) && workload.remote && workload.ready && !workload.drains();
  });
}

// Services whose last endpoint is among `gone`: their consumers are held from now on.
void note_lost(const Cluster& cluster, const std::set<std::string>& gone, const Moment& now,
               Writes& writes) {
  std::set<policy::ServiceKey> keys;
  for (const auto& id : gone) {
    const auto* declaration = cluster.declaration(id);
    if (declaration == nullptr) continue;
    if (const auto key = declaration->service()) keys.insert(*key);
  }
  for (const auto& key : keys) {
    const auto service = cluster.world().services.find(key);
    if (service == cluster.world().services.end()) continue;
    if (!has_endpoint(cluster, key, {}) || has_endpoint(cluster, key, gone)) continue;
    auto lost = service->second;
    lost.endpoint_lost_at = now.steady;
    writes.push_back(put(kind::ObjectKind::SERVICE, service_key_text(key), stored(lost, now)));
  }
}

// The first aligned block of that length in the pool that nobody has and that does not rest.
std::optional<Prefix> free_block(const Cluster& cluster, const Prefix& pool, int length) {
  // Past 2^20 nodes other things have broken.
  const int bits = std::min(length - pool.length(), 20);
  const int host_bits = pool.host_bits() - (length - pool.length());
  auto address = pool.address();
  for (std::uint32_t index = 0; index < (1U << bits); ++index) {
    const auto block = Prefix::of(address, length);
    if (!cluster.blocks().contains(block) && !cluster.resting_blocks().contains(block)) {
      return block;
    }
    // A block of IPv6 may hold more than 64 bits count: they are stepped over in two.
    if (host_bits < 64) {
      address = address.plus(std::uint64_t{1} << host_bits);
    } else {
      address = block.last().plus(1);
    }
  }
  return std::nullopt;
}

Status give_blocks(const Cluster& cluster, mesh::v1::StoredNode& node) {
  const auto& settings = cluster.settings();
  const std::pair<const std::optional<Prefix>&, std::uint32_t> families[] = {
      {cluster.world().settings.pool4, settings.block_bits4()},
      {cluster.world().settings.pool6, settings.block_bits6()}};
  for (const auto& [pool, length] : families) {
    if (!pool) continue;
    const auto block = free_block(cluster, *pool, static_cast<int>(length));
    if (!block) {
      return fail(ErrorCode::kExhausted,
                  fmt::format("join: no block of /{} is free in {}", length, pool->to_string()));
    }
    node.add_blocks(block->to_string());
  }
  return {};
}

bool same_addresses(const mesh::v1::NodeEndpoint& one, const mesh::v1::NodeEndpoint& other) {
  return std::ranges::equal(one.addresses(), other.addresses());
}

// Why the controller does not believe it; empty: it does.
std::string endpoint_problem(const Cluster& cluster, const std::string& node,
                             const mesh::v1::NodeEndpoint& endpoint) {
  if (cluster.declaration(endpoint.id()) == nullptr) return "is not declared";
  const auto* placement = cluster.placement(endpoint.id());
  if (placement != nullptr && placement->node != node && is_attached(placement)) {
    return fmt::format("is attached to node {}", placement->node);
  }
  const auto& pinned = cluster.pinned(endpoint.id());
  if (!pinned.empty() && pinned != node) return fmt::format("may run on node {} only", pinned);
  const auto known = cluster.nodes().find(node);
  if (known == cluster.nodes().end()) return "the node has not joined";
  bool seen[2] = {false, false};
  for (const auto& text : endpoint.addresses()) {
    const auto address = IpAddress::parse(text);
    if (!address) return address.error().what;
    if (std::exchange(seen[address->is_v4() ? 0 : 1], true)) return "has two of one family";
    const bool ours = std::ranges::any_of(
        known->second.blocks, [&](const Prefix& block) { return block.contains(*address); });
    if (!ours) return fmt::format("{} is not of node {}'s block", text, node);
  }
  for (const auto& port : endpoint.ready_ports()) {
    if (port.port() < 1 || port.port() > 65535) return "ready_ports: port is 1 to 65535";
  }
  return {};
}

}  // namespace

std::string Author::text() const {
  constexpr std::string_view kRoles[] = {"node", "dispatcher", "admin", "arvados"};
  return fmt::format("{}/{}", kRoles[static_cast<std::size_t>(role)], name);
}

Author arvados_author() { return {Author::Role::kArvados, "api"}; }

Result<Writes> declare(const Cluster& cluster, const Author& author,
                       std::vector<policy::Declaration> declarations, const std::string& pinned,
                       const Limits& limits, const Moment& now, const Launches& launches) {
  if (author.role == Author::Role::kNode && !limits.node_declarations) {
    return fail(ErrorCode::kConflict,
                "apply: nodes of this cluster do not declare (allow_node_declarations)");
  }
  for (const auto& declaration : declarations) {
    CHECK_OK(check_author(cluster, author, declaration.id, limits));
    CHECK_OK(check_here(cluster, author, declaration.id));
  }
  const auto directory = cluster.directory();
  const auto outcome = TRY(policy::declare(cluster.world(), std::move(declarations),
                                           cluster.resting(), nullptr, kAddressRest, &directory));
  Writes writes;
  const auto launch_of = [&](const std::string& id) {
    if (const auto said = launches.find(id); said != launches.end()) return said->second;
    // Whoever takes it over says nothing of the kind.
    return cluster.author(id) == author.text() ? cluster.launch(id) : Launch();
  };
  for (const auto& [id, declaration] : outcome.declarations) {
    writes.push_back(put_declaration(declaration, author.text(),
                                     author.role == Author::Role::kNode ? author.name : pinned,
                                     launch_of(id)));
    const auto* before = cluster.declaration(id);
    if (before != nullptr && before->owner != declaration.owner) shut_all(cluster, id, writes);
    // What a node declares runs there.
    if (author.role == Author::Role::kNode && cluster.placement(id) == nullptr) {
      writes.push_back(put(kind::ObjectKind::ENDPOINT, id, assigned(author.name, id)));
    }
  }
  for (const auto& id : outcome.unchanged) {
    if (launch_of(id) == cluster.launch(id)) continue;
    writes.push_back(put_declaration(*cluster.declaration(id), cluster.author(id),
                                     cluster.pinned(id), launch_of(id)));
  }
  std::set<std::string> drained;
  for (const auto& [id, launch] : launches) {
    if (launch.drained && !cluster.launch(id).drained) drained.insert(id);
  }
  note_lost(cluster, drained, now, writes);
  take(outcome, now, writes);
  return writes;
}

Result<Writes> forget(const Cluster& cluster, const Author& author, const std::string& id,
                      bool force, const Moment& now, const Limits& limits) {
  if (cluster.declaration(id) == nullptr) {
    return fail(ErrorCode::kNotFound, fmt::format("delete: no workload {}", id));
  }
  CHECK_OK(check_author(cluster, author, id, limits));
  const auto* placement = cluster.placement(id);
  if (is_attached(placement) && !force) {
    return fail(ErrorCode::kConflict,
                fmt::format("delete: {} is attached to node {} (--force detaches it)", id,
                            placement->node));
  }
  Writes writes;
  const auto directory = cluster.directory();
  const auto outcome = policy::forget(cluster.world(), id, kAddressRest, &directory);
  shut_all(cluster, id, writes);  // while it is known whose they are
  writes.push_back(drop(kind::ObjectKind::DECLARATION, id));
  if (placement != nullptr) writes.push_back(drop(kind::ObjectKind::ENDPOINT, id));
  note_lost(cluster, {id}, now, writes);
  take(outcome, now, writes);
  return writes;
}

Result<Writes> release(const Cluster& cluster, const Author& author, const std::string& name,
                       const Moment& now) {
  if (author.role == Author::Role::kNode) {
    return fail(ErrorCode::kConflict, "name release: not a node's to say");
  }
  const auto outcome =
      TRY(policy::release(cluster.world(), {policy::Scope::kCluster, {}, name}, kAddressRest));
  Writes writes;
  take(outcome, now, writes);
  return writes;
}

Result<Writes> admit(const Cluster& cluster, const std::string& node, const std::string& boot_id,
                     const std::vector<IpAddress>& underlay, const Moment& now,
                     const GatewayFacts& gateway) {
  mesh::v1::StoredNode object;
  const auto known = cluster.nodes().find(node);
  Writes writes;
  if (known == cluster.nodes().end()) {
    CHECK_OK(give_blocks(cluster, object));
  } else {
    for (const auto& block : known->second.blocks) object.add_blocks(block.to_string());
    if (known->second.boot_id != boot_id) {
      // Its containers went with the boot; where they were started they may come again.
      std::set<std::string> gone;
      for (const auto& id : cluster.placed_on(node)) {
        if (!is_attached(cluster.placement(id))) continue;
        gone.insert(id);
        writes.push_back(put(kind::ObjectKind::ENDPOINT, id, assigned(node, id)));
        shut_all(cluster, id, writes);
      }
      note_lost(cluster, gone, now, writes);
    }
  }
  for (const auto& address : underlay) {
    const auto& owner = cluster.underlay_owner(address);
    if (!owner.empty() && owner != node) {
      return fail(ErrorCode::kConflict,
                  fmt::format("join: {} is node {}'s address", address.to_string(), owner));
    }
    object.add_underlay(address.to_string());
  }
  object.set_boot_id(boot_id);
  object.set_gateway(gateway.is_one);
  for (const auto& address : gateway.addresses) {
    object.add_gateway_addresses(address.to_string());
  }
  const bool same = known != cluster.nodes().end() && known->second.boot_id == boot_id &&
                    known->second.underlay == underlay && known->second.gateway == gateway.is_one &&
                    known->second.gateway_addresses == gateway.addresses;
  if (!same) writes.push_back(put(kind::ObjectKind::NODE, node, object));
  return writes;
}

Writes dismiss(const Cluster& cluster, const std::string& node, const Moment& now) {
  Writes writes;
  std::set<std::string> gone;
  for (const auto& id : cluster.placed_on(node)) {
    gone.insert(id);
    writes.push_back(drop(kind::ObjectKind::ENDPOINT, id));
    shut_all(cluster, id, writes);
  }
  note_lost(cluster, gone, now, writes);
  const auto known = cluster.nodes().find(node);
  if (known == cluster.nodes().end()) return writes;
  for (const auto& block : known->second.blocks) {
    writes.push_back(rest(block.to_string(), now.steady + kBlockRest, now));
  }
  writes.push_back(drop(kind::ObjectKind::NODE, node));
  return writes;
}

Result<Writes> start(const Cluster& cluster, const std::string& node, const std::string& id) {
  if (cluster.declaration(id) == nullptr) {
    return fail(ErrorCode::kNotFound, fmt::format("attach: {} is not declared", id));
  }
  const auto* placement = cluster.placement(id);
  if (placement != nullptr && placement->node == node) return Writes();
  const auto& pinned = cluster.pinned(id);
  if (!pinned.empty() && pinned != node) {
    return fail(ErrorCode::kConflict,
                fmt::format("attach: {} may run on node {} only", id, pinned));
  }
  if (is_attached(placement)) {
    return fail(ErrorCode::kNotInForce,
                fmt::format("attach: {} is attached to node {}", id, placement->node));
  }
  return Writes{put(kind::ObjectKind::ENDPOINT, id, assigned(node, id))};
}

Judged report(const Cluster& cluster, const std::string& node, const mesh::v1::Report& report,
              const Moment& now) {
  Judged judged;
  if (static_cast<std::size_t>(report.endpoints().size()) > kMaxEndpoints) {
    judged.refused.emplace_back(node,
                                fmt::format("a report names at most {} containers", kMaxEndpoints));
    return judged;
  }
  std::set<std::string> named, lost;
  for (const auto& endpoint : report.endpoints()) {
    if (!named.insert(endpoint.id()).second) {
      judged.refused.emplace_back(endpoint.id(), "is named twice");
      continue;
    }
    if (auto problem = endpoint_problem(cluster, node, endpoint); !problem.empty()) {
      judged.refused.emplace_back(endpoint.id(), std::move(problem));
      continue;
    }
    auto object = assigned(node, endpoint.id());
    *object.mutable_reported() = endpoint;
    const auto* before = cluster.placement(endpoint.id());
    if (before != nullptr && before->node == node &&
        before->reported.SerializeAsString() == endpoint.SerializeAsString()) {
      continue;
    }
    if (endpoint.addresses().empty() || endpoint.draining() || !endpoint.ready()) {
      lost.insert(endpoint.id());
    }
    if (before != nullptr && !same_addresses(before->reported, endpoint)) {
      shut_all(cluster, endpoint.id(), judged.writes);  // detached and attached meanwhile
    }
    judged.writes.push_back(put(kind::ObjectKind::ENDPOINT, endpoint.id(), object));
  }
  const auto detached = [&](const std::string& id) {
    const auto* before = cluster.placement(id);
    if (before == nullptr || before->node != node || !is_attached(before)) return;
    lost.insert(id);
    // It stays assigned: attached again it needs nobody.
    judged.writes.push_back(put(kind::ObjectKind::ENDPOINT, id, assigned(node, id)));
    shut_all(cluster, id, judged.writes);
  };
  for (const auto& id : report.gone()) {
    if (named.insert(id).second) detached(id);
  }
  if (report.all()) {
    for (const auto& id : cluster.placed_on(node)) {
      if (!named.contains(id)) detached(id);
    }
  }
  note_lost(cluster, lost, now, judged.writes);
  return judged;
}

Write put_token(const Token& token) {
  mesh::v1::StoredToken stored;
  stored.set_secret_hash(std::string(token.secret_hash.begin(), token.secret_hash.end()));
  stored.set_expires_at_s(token.terms.expires_at.time_since_epoch().count());
  for (const auto& source : token.terms.sources) stored.add_sources(source.to_string());
  stored.set_uses_left(token.terms.uses_left ? std::int64_t{*token.terms.uses_left} : -1);
  stored.set_name_prefix(token.terms.name_prefix);
  stored.set_revoked(token.revoked);
  return put(kind::ObjectKind::TOKEN, token.id, stored);
}

Result<Writes> spend(const Cluster& cluster, std::string_view token, const IpAddress& source,
                     const std::string& node, pki::UtcTime now) {
  const auto presented = TRY(parse_token(token));
  const auto known = cluster.tokens().find(presented.id);
  const auto* found = known == cluster.tokens().end() ? nullptr : &known->second;
  if (auto refusal = check_token(found, presented, source, node, now)) {
    return std::unexpected(std::move(refusal->for_log));
  }
  if (!found->terms.uses_left) return Writes();
  return Writes{put_token(spent(*found))};
}

Write put_dismissal(const std::string& node, const Moment& now) {
  mesh::v1::StoredDismissal stored;
  stored.set_at_ms(now.wall_ms);
  return put(kind::ObjectKind::DISMISSAL, node, stored);
}

std::optional<Write> put_enrolled(const Cluster& cluster, const std::string& node,
                                  const std::string& key) {
  const auto found = cluster.dismissals().find(node);
  if (found == cluster.dismissals().end()) return std::nullopt;
  mesh::v1::StoredDismissal stored;
  stored.set_at_ms(found->second.at_ms);
  stored.set_enrolled_key(key);
  return put(kind::ObjectKind::DISMISSAL, node, stored);
}

bool is_dismissed(const Cluster& cluster, const std::string& node, const std::string& key,
                  pki::UtcTime since) {
  const auto found = cluster.dismissals().find(node);
  if (found == cluster.dismissals().end()) return false;
  if (found->second.enrolled_key == key) return false;
  return since <= pki::UtcTime(std::chrono::seconds(found->second.at_ms / 1000));
}

Writes sweep(const Cluster& cluster, const Moment& now) {
  Writes writes;
  const pki::UtcTime utc{std::chrono::seconds(now.wall_ms / 1000)};
  for (const auto& [id, token] : cluster.tokens()) {
    if (token.terms.expires_at + kTokenKept <= utc) {
      writes.push_back(drop(kind::ObjectKind::TOKEN, id));
    }
  }
  for (const auto& [node, dismissal] : cluster.dismissals()) {
    if (pki::UtcTime(std::chrono::seconds(dismissal.at_ms / 1000)) + kDismissalKept <= utc) {
      writes.push_back(drop(kind::ObjectKind::DISMISSAL, node));
    }
  }
  for (const auto& [address, until] : cluster.resting()) {
    if (until <= now.steady) {
      writes.push_back(drop(kind::ObjectKind::RESTING, address.to_string()));
    }
  }
  for (const auto& [block, until] : cluster.resting_blocks()) {
    if (until <= now.steady) writes.push_back(drop(kind::ObjectKind::RESTING, block.to_string()));
  }
  return writes;
}

}  // namespace meshd::controller
