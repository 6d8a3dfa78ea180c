#include "controller/cluster.h"

#include <fmt/format.h>

#include <algorithm>

#include "controller/opened.h"
#include "policy/from_proto.h"
#include "policy/outside_ports.h"
#include "policy/truth.h"

namespace meshd::controller {
namespace {

const std::string kNone;
const std::set<std::string> kNobody;
const Launch kNoLaunch;

std::unexpected<Error> unreadable(const Write& write, std::string_view why) {
  return fail(ErrorCode::kInvalid,
              fmt::format("store: object {}/{}: {}", mesh::v1::ObjectKind::Value_Name(write.kind),
                          write.key, why));
}

template <class Message>
Result<Message> parse(const Write& write) {
  Message message;
  if (!message.ParseFromString(*write.value)) return unreadable(write, "is damaged");
  return message;
}

template <class Range>
Status read_addresses(const Write& write, const Range& texts,
                      const std::function<void(const IpAddress&)>& take) {
  for (const auto& text : texts) {
    const auto address = IpAddress::parse(text);
    if (!address) return unreadable(write, address.error().what);
    take(*address);
  }
  return {};
}

Result<std::optional<Prefix>> optional_prefix(const Write& write, const std::string& text) {
  if (text.empty()) return std::nullopt;
  const auto prefix = Prefix::parse(text);
  if (!prefix) return unreadable(write, prefix.error().what);
  return *prefix;
}

template <class Key>
void erase_from(std::map<Key, std::set<std::string>>& index, const Key& key,
                const std::string& id) {
  const auto found = index.find(key);
  if (found == index.end()) return;
  found->second.erase(id);
  if (found->second.empty()) index.erase(found);
}

}  // namespace

Status Cluster::fold(const Write& write, const Moment& now, Touched& touched) {
  switch (write.kind) {
    case kind::ObjectKind::SETTINGS:
      return fold_settings(write);
    case kind::ObjectKind::DECLARATION:
      return fold_declaration(write, touched);
    case kind::ObjectKind::SERVICE:
      return fold_service(write, now, touched);
    case kind::ObjectKind::NODE:
      return fold_node(write, touched);
    case kind::ObjectKind::ENDPOINT:
      return fold_endpoint(write, touched);
    case kind::ObjectKind::RESTING:
      return fold_resting(write, now);
    case kind::ObjectKind::TOKEN:
      return fold_token(write);
    case kind::ObjectKind::DISMISSAL:
      return fold_dismissal(write);
    case kind::ObjectKind::OUTSIDE:
      return fold_outside(write, now, outside_, touched.outside);
    case kind::ObjectKind::WEB_PORT:
      return fold_outside(write, now, web_ports_, touched.web_ports);
    case kind::ObjectKind::OPENED:
      return fold_opened(write, now, touched);
    default:
      return unreadable(write, "is of a kind that this version does not know");
  }
}

Status Cluster::fold_settings(const Write& write) {
  if (!write.value) return unreadable(write, "cannot go");
  settings_ = TRY(parse<mesh::v1::StoredSettings>(write));
  world_.settings.zone = settings_.zone();
  world_.settings.pool4 = TRY(optional_prefix(write, settings_.pool4()));
  world_.settings.pool6 = TRY(optional_prefix(write, settings_.pool6()));
  world_.settings.vip_pool4 = TRY(optional_prefix(write, settings_.vip4()));
  world_.settings.vip_pool6 = TRY(optional_prefix(write, settings_.vip6()));
  return {};
}

Status Cluster::fold_declaration(const Write& write, Touched& touched) {
  touched.workloads.insert(write.key);
  std::optional<policy::Declaration> declaration;
  mesh::v1::StoredDeclaration stored;
  if (write.value) {
    stored = TRY(parse<mesh::v1::StoredDeclaration>(write));
    auto checked = policy::from_proto(stored.declaration());
    if (!checked) return unreadable(write, checked.error().what);
    if (checked->id != write.key) return unreadable(write, "is another id's");
    declaration = *std::move(checked);
  }
  if (const auto* before = this->declaration(write.key)) unindex(*before);
  if (!declaration) {
    if (const auto found = world_.workloads.find(write.key); found != world_.workloads.end()) {
      displace(found->second);
    }
    world_.workloads.erase(write.key);
    origins_.erase(write.key);
    return {};
  }
  index(*declaration);
  world_.workloads[write.key].declaration = *std::move(declaration);
  origins_[write.key] = {
      stored.author(), stored.pinned(), {stored.drained(), stored.request(), stored.service()}};
  world_.workloads[write.key].drained = stored.drained();
  place(write.key);
  return {};
}

Status Cluster::fold_service(const Write& write, const Moment& now, Touched& touched) {
  const auto key = parse_service_key(write.key);
  touched.services.insert(key);
  if (const auto before = world_.services.find(key); before != world_.services.end()) {
    for (const auto family : kFamilies) {
      if (before->second.vip(family)) services_at_.erase(*before->second.vip(family));
    }
  }
  const auto note_vips = [&](void (policy::AddressRuns::*note)(const IpAddress&)) {
    const auto known = world_.services.find(key);
    if (known == world_.services.end()) return;
    for (const auto family : kFamilies) {
      if (known->second.vip(family)) (vips_.*note)(*known->second.vip(family));
    }
  };
  if (!write.value) {
    note_vips(&policy::AddressRuns::remove);
    world_.services.erase(key);
    return {};
  }
  const auto stored = TRY(parse<mesh::v1::StoredService>(write));
  policy::Service service;
  service.owner = stored.owner();
  CHECK_OK(read_addresses(write, stored.vips(), [&](const IpAddress& vip) {
    (vip.is_v4() ? service.vip4 : service.vip6) = vip;
    services_at_.insert_or_assign(vip, key);
  }));
  service.declared_at = now.past(stored.declared_at_ms());
  if (stored.endpoint_lost_at_ms() != 0) {
    service.endpoint_lost_at = now.past(stored.endpoint_lost_at_ms());
  }
  note_vips(&policy::AddressRuns::remove);
  world_.services.insert_or_assign(key, std::move(service));
  note_vips(&policy::AddressRuns::add);
  return {};
}

Status Cluster::fold_node(const Write& write, Touched& touched) {
  touched.nodes.insert(write.key);
  if (!write.value) {
    forget_node(write.key);
    return {};
  }
  const auto stored = TRY(parse<mesh::v1::StoredNode>(write));
  NodeState node;
  for (const auto& text : stored.blocks()) {
    node.blocks.push_back(*TRY(optional_prefix(write, text)));
  }
  CHECK_OK(read_addresses(write, stored.underlay(),
                          [&](const IpAddress& address) { node.underlay.push_back(address); }));
  node.boot_id = stored.boot_id();
  node.gateway = stored.gateway();
  CHECK_OK(read_addresses(write, stored.gateway_addresses(), [&](const IpAddress& address) {
    node.gateway_addresses.push_back(address);
  }));
  forget_node(write.key);
  blocks_.insert(node.blocks.begin(), node.blocks.end());
  for (const auto& address : node.underlay) underlay_.insert_or_assign(address, write.key);
  nodes_.insert_or_assign(write.key, std::move(node));
  return {};
}

void Cluster::forget_node(const std::string& name) {
  const auto known = nodes_.find(name);
  if (known == nodes_.end()) return;
  for (const auto& block : known->second.blocks) blocks_.erase(block);
  for (const auto& address : known->second.underlay) underlay_.erase(address);
  nodes_.erase(known);
}

Status Cluster::fold_endpoint(const Write& write, Touched& touched) {
  touched.workloads.insert(write.key);
  if (const auto before = placements_.find(write.key); before != placements_.end()) {
    erase_from(on_node_, before->second.node, write.key);
    placements_.erase(before);
  }
  if (write.value) {
    auto stored = TRY(parse<mesh::v1::StoredEndpoint>(write));
    CHECK_OK(read_addresses(write, stored.reported().addresses(), [](const IpAddress&) {}));
    on_node_[stored.node()].insert(write.key);
    placements_.insert_or_assign(write.key,
                                 Placement{stored.node(), std::move(*stored.mutable_reported())});
  }
  place(write.key);
  return {};
}

Status Cluster::fold_resting(const Write& write, const Moment& now) {
  const auto what = Prefix::parse(write.key);
  if (!what) return unreadable(write, what.error().what);
  std::optional<TimePoint> until;
  if (write.value) until = now.future(TRY(parse<mesh::v1::StoredRest>(write)).until_ms());
  if (what->host_bits() == 0) {
    if (until) {
      resting_.insert_or_assign(what->address(), *until);
    } else {
      resting_.erase(what->address());
    }
  } else if (until) {
    resting_blocks_.insert_or_assign(*what, *until);
  } else {
    resting_blocks_.erase(*what);
  }
  return {};
}

Status Cluster::fold_token(const Write& write) {
  if (!write.value) {
    tokens_.erase(write.key);
    return {};
  }
  const auto stored = TRY(parse<mesh::v1::StoredToken>(write));
  Token token;
  token.id = write.key;
  if (stored.secret_hash().size() != token.secret_hash.size()) {
    return unreadable(write, "has no digest of 32 bytes");
  }
  std::ranges::copy(stored.secret_hash(), token.secret_hash.begin());
  token.terms.expires_at = pki::UtcTime(std::chrono::seconds(stored.expires_at_s()));
  for (const auto& text : stored.sources()) {
    token.terms.sources.push_back(*TRY(optional_prefix(write, text)));
  }
  if (stored.uses_left() >= 0) {
    token.terms.uses_left = static_cast<std::uint32_t>(stored.uses_left());
  }
  token.terms.name_prefix = stored.name_prefix();
  token.revoked = stored.revoked();
  tokens_.insert_or_assign(write.key, std::move(token));
  return {};
}

Status Cluster::fold_dismissal(const Write& write) {
  if (!write.value) {
    dismissals_.erase(write.key);
    return {};
  }
  const auto stored = TRY(parse<mesh::v1::StoredDismissal>(write));
  dismissals_.insert_or_assign(write.key, Dismissal{stored.at_ms(), stored.enrolled_key()});
  return {};
}

Status Cluster::fold_outside(const Write& write, const Moment& now, OutsidePorts& ports,
                             std::set<policy::OutsideKey>& touched) {
  const auto key = policy::parse_outside_key(write.key);
  if (!key) return unreadable(write, "is no outside port");
  touched.insert(*key);
  if (const auto before = ports.given.find(*key); before != ports.given.end()) {
    const auto of = ports.of.find(before->second.holder);
    if (of != ports.of.end() && of->second == *key) ports.of.erase(of);
    ports.given.erase(before);
  }
  if (!write.value) return {};
  const auto stored = TRY(parse<mesh::v1::StoredOutside>(write));
  OutsidePort port;
  port.holder = {stored.service(), stored.id(), key->proto,
                 static_cast<std::uint16_t>(stored.port())};
  if (stored.until_ms() != 0) port.rests_until = now.future(stored.until_ms());
  ports.of.insert_or_assign(port.holder, *key);
  ports.given.insert_or_assign(*key, std::move(port));
  return {};
}

Status Cluster::fold_opened(const Write& write, const Moment& now, Touched& touched) {
  const auto key = parse_opened_key(write.key);
  if (!key) return unreadable(write, key.error().what);
  if (write.value) {
    const auto stored = TRY(parse<mesh::v1::StoredOpened>(write));
    opened_.insert_or_assign(*key, Opened{stored.by(), now.past(stored.used_at_ms())});
  } else {
    opened_.erase(*key);
  }
  const auto found = world_.workloads.find(key->id);
  if (found == world_.workloads.end()) return {};
  auto& ports = found->second.opened;
  if (write.value ? ports.insert(key->port).second : ports.erase(key->port) > 0) {
    touched.workloads.insert(key->id);
  }
  return {};
}

// Its addresses are its own no longer.
void Cluster::displace(policy::Workload& workload) {
  for (const auto family : kFamilies) {
    if (!workload.remote || !workload.remote->address(family)) continue;
    const auto found = ids_.find(*workload.remote->address(family));
    if (found != ids_.end() && found->second == workload.declaration.id) ids_.erase(found);
  }
  workload.remote.reset();
}

// Brings the world's workload up to where its placement says it is.
void Cluster::place(const std::string& id) {
  const auto found = world_.workloads.find(id);
  if (found == world_.workloads.end()) return;
  auto& workload = found->second;
  displace(workload);
  workload.draining = workload.ready = false;
  workload.tcp_ready.clear();
  const auto* placement = this->placement(id);
  if (placement == nullptr || placement->reported.addresses().empty()) return;
  const auto& reported = placement->reported;
  policy::Remote remote;
  remote.node = placement->node;
  for (const auto& text : reported.addresses()) {
    const auto address = *IpAddress::parse(text);  // fold_endpoint() has read it
    (address.is_v4() ? remote.v4 : remote.v6) = address;
    ids_.insert_or_assign(address, id);
  }
  workload.remote = std::move(remote);
  workload.draining = reported.draining();
  workload.ready = reported.ready();
  for (const auto& port : reported.ready_ports()) {
    workload.tcp_ready[static_cast<std::uint16_t>(port.port())] = {port.v4(), port.v6()};
  }
}

void Cluster::index(const policy::Declaration& declaration) {
  for (const auto use : {OutsideUse::kGateway, OutsideUse::kWeb}) {
    auto& published = use == OutsideUse::kWeb ? web_ports_.published : outside_.published;
    for (const auto& holder : holders_of(declaration, use)) {
      published[holder].insert(declaration.id);
    }
  }
  if (const auto key = declaration.service()) index_.members[*key].insert(declaration.id);
  if (!declaration.workflow.empty()) workflows_[declaration.workflow].insert(declaration.id);
  for (const auto& peer : declaration.peers) {
    if (const auto key = policy::peer_service(declaration, peer)) {
      index_.consumers[*key].insert(declaration.id);
    } else {
      index_.id_consumers[peer.id].insert(declaration.id);
    }
  }
}

void Cluster::unindex(const policy::Declaration& declaration) {
  for (const auto use : {OutsideUse::kGateway, OutsideUse::kWeb}) {
    auto& published = use == OutsideUse::kWeb ? web_ports_.published : outside_.published;
    for (const auto& holder : holders_of(declaration, use)) {
      erase_from(published, holder, declaration.id);
    }
  }
  if (const auto key = declaration.service()) erase_from(index_.members, *key, declaration.id);
  erase_from(workflows_, declaration.workflow, declaration.id);
  for (const auto& peer : declaration.peers) {
    if (const auto key = policy::peer_service(declaration, peer)) {
      erase_from(index_.consumers, *key, declaration.id);
    } else {
      erase_from(index_.id_consumers, peer.id, declaration.id);
    }
  }
}

std::vector<OutsideHolder> holders_of(const policy::Declaration& declaration, OutsideUse use) {
  std::vector<OutsideHolder> holders;
  const bool http = use == OutsideUse::kWeb;
  auto service = declaration.service();
  // From outside, the names of a workflow are nobody's.
  if (http && service && service->scope != policy::Scope::kCluster) service.reset();
  for (const auto& publication : declaration.publish) {
    if (publication.http != http) continue;
    holders.push_back({service ? service_key_text(*service) : std::string(),
                       service ? std::string() : declaration.id, publication.proto,
                       publication.port});
  }
  return holders;
}

std::optional<policy::OutsideKey> OutsidePorts::find(const OutsideHolder& holder) const {
  const auto found = of.find(holder);
  return found == of.end() ? std::nullopt : std::optional(found->second);
}

const policy::Declaration* Cluster::declaration(const std::string& id) const {
  const auto found = world_.workloads.find(id);
  return found == world_.workloads.end() ? nullptr : &found->second.declaration;
}

const std::string& Cluster::author(const std::string& id) const {
  const auto found = origins_.find(id);
  return found == origins_.end() ? kNone : found->second.author;
}

const std::string& Cluster::pinned(const std::string& id) const {
  const auto found = origins_.find(id);
  return found == origins_.end() ? kNone : found->second.pinned;
}

const Launch& Cluster::launch(const std::string& id) const {
  const auto found = origins_.find(id);
  return found == origins_.end() ? kNoLaunch : found->second.launch;
}

const Placement* Cluster::placement(const std::string& id) const {
  const auto found = placements_.find(id);
  return found == placements_.end() ? nullptr : &found->second;
}

const std::string& Cluster::underlay_owner(const IpAddress& address) const {
  const auto found = underlay_.find(address);
  return found == underlay_.end() ? kNone : found->second;
}

const std::set<std::string>& Cluster::placed_on(const std::string& node) const {
  const auto found = on_node_.find(node);
  return found == on_node_.end() ? kNobody : found->second;
}

const std::string& Cluster::id_at(const IpAddress& address) const {
  const auto found = ids_.find(address);
  return found == ids_.end() ? kNone : found->second;
}

std::optional<policy::ServiceKey> Cluster::service_at(const IpAddress& address) const {
  const auto found = services_at_.find(address);
  return found == services_at_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace meshd::controller
