#include "meshd/slice.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "policy/from_proto.h"
#include "policy/name.h"
#include "policy/outside_ports.h"
#include "policy/profile.h"
#include "policy/read_yaml.h"
#include "policy/slice_hash.h"
#include "policy/truth.h"

namespace meshd {
namespace {

namespace pb = mesh::v1;
using Kind = pb::SliceKey::Kind;
using policy::quote;
using Texts = google::protobuf::RepeatedPtrField<std::string>;

// An age of more is one: the hold that it counts for is over long since.
constexpr std::uint64_t kMaxAgeMs = std::uint64_t{1000} * 3600 * 24 * 365;
constexpr std::size_t kMaxKeyBytes = 256;

std::unexpected<Error> refuse(std::string_view field, std::string_view reason) {
  return fail(ErrorCode::kInvalid, fmt::format("{}: {}", field, reason));
}

Status check_count(std::string_view field, int count, int limit) {
  if (count <= limit) return {};
  return refuse(field, fmt::format("has {} entries, {} are allowed", count, limit));
}

bool is_plain(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
}

Result<IpAddress> read_address(const std::string& field, const std::string& text) {
  const auto address = is_plain(text) ? IpAddress::parse(text)
                                      : fail(ErrorCode::kInvalid, quote(text) + " is no address");
  if (!address) return refuse(field, address.error().what);
  return *address;
}

Result<Prefix> read_prefix(const std::string& field, const std::string& text) {
  const auto prefix = is_plain(text) ? Prefix::parse(text)
                                     : fail(ErrorCode::kInvalid, quote(text) + " is no prefix");
  if (!prefix) return refuse(field, prefix.error().what);
  return *prefix;
}

using Pair = std::pair<std::optional<IpAddress>, std::optional<IpAddress>>;  // v4, v6

// At most one of each family, each in its pool.
Result<Pair> read_pair(const std::string& field, const Texts& texts,
                       const std::optional<Prefix>& pool4, const std::optional<Prefix>& pool6) {
  CHECK_OK(check_count(field, texts.size(), 2));
  Pair pair;
  for (int i = 0; i < texts.size(); ++i) {
    const auto here = fmt::format("{}[{}]", field, i);
    const auto address = TRY(read_address(here, texts[i]));
    auto& slot = address.is_v4() ? pair.first : pair.second;
    if (slot) return refuse(here, "a second one of its family");
    const auto& pool = address.is_v4() ? pool4 : pool6;
    if (!pool) return refuse(here, texts[i] + ": the cluster does not have that family");
    if (!pool->contains(address)) {
      return refuse(here, fmt::format("{} is not in {}", texts[i], pool->to_string()));
    }
    slot = address;
  }
  return pair;
}

Status check_label(std::string_view field, policy::LabelKind kind, const std::string& text) {
  const auto problem = policy::label_problem(kind, text);
  if (problem.empty()) return {};
  return refuse(field, quote(text) + " " + problem);
}

bool is_port(std::uint32_t port) { return port >= 1 && port <= 65535; }

Result<policy::PortRange> read_range(const std::string& field, const pb::PortRange& message) {
  const auto end = message.end_port() == 0 ? message.port() : message.end_port();
  if (!is_port(message.port()) || !is_port(end) || end < message.port()) {
    return refuse(field, fmt::format("{}-{} is no range of ports", message.port(), end));
  }
  return policy::PortRange{message.protocol() == pb::Protocol::UDP ? Proto::kUdp : Proto::kTcp,
                           static_cast<std::uint16_t>(message.port()),
                           static_cast<std::uint16_t>(end)};
}

// An optional part of Welcome.
Result<std::optional<Prefix>> read_pool(const std::string& field, const std::string& text,
                                        Family family) {
  if (text.empty()) return std::nullopt;
  const auto prefix = TRY(read_prefix(field, text));
  if (prefix.family() != family) return refuse(field, text + " is of the other family");
  return prefix;
}

Status read_gateway_ports(const std::string& text, ClusterTerms& terms) {
  if (text.empty()) return {};
  const auto range = policy::parse_port_span(text);
  if (!range) return refuse("gateway_ports", range.error().what);
  terms.gateway_first = range->first;
  terms.gateway_last = range->last;
  return {};
}

Status check_share(std::string_view field, const std::optional<Prefix>& pool,
                   const std::optional<Prefix>& block) {
  if (pool.has_value() != block.has_value()) {
    return refuse(field, pool ? "the node has no share of the pool" : "there is no pool");
  }
  if (!pool || pool->contains(*block)) return {};
  return refuse(field, fmt::format("{} is not in {}", block->to_string(), pool->to_string()));
}

Status check_apart(std::string_view field, const std::optional<Prefix>& pool,
                   const std::optional<Prefix>& vips) {
  if (!pool || !vips || !pool->overlaps(*vips)) return {};
  return refuse(field, fmt::format("{} overlaps {}", vips->to_string(), pool->to_string()));
}

// Reads one item; errors have the field only.
class ItemReader {
 public:
  ItemReader(const SliceReader& reader, const std::string& key, SliceUpdate& into)
      : r_(reader), key_(key), into_(into) {}

  Status workload(const std::string& value) {
    pb::SliceWorkload message;
    if (!message.ParseFromString(value)) return refuse("value", "is no workload");
    auto declaration = TRY(policy::from_proto(message.declaration()));
    if (declaration.id != key_) {
      return refuse("declaration.id", fmt::format("{} is not the key", quote(declaration.id)));
    }
    if (message.own()) {
      auto opened = TRY(read_opened(message));
      into_.own.emplace(key_,
                        OwnWorkload{std::move(declaration), std::move(opened), message.drained()});
      return {};
    }
    policy::Workload workload;
    workload.declaration = std::move(declaration);
    CHECK_OK(place(message, workload));
    into_.others.emplace(key_, std::move(workload));
    return {};
  }

  Status service(const std::string& value) {
    const auto key = service_key_of(key_);
    CHECK_OK(check_label("name", policy::LabelKind::kName, key.name));
    if (key.scope == policy::Scope::kWorkflow) {
      CHECK_OK(check_label("workflow", policy::LabelKind::kWorkflow, key.workflow));
    }
    pb::SliceService message;
    if (!message.ParseFromString(value)) return refuse("value", "is no service");
    policy::Service service;
    if (const auto problem = policy::owner_problem(message.owner()); !problem.empty()) {
      return refuse("owner", quote(message.owner()) + " " + problem);
    }
    service.owner = message.owner();
    std::tie(service.vip4, service.vip6) =
        TRY(read_pair("vips", message.vips(), r_.terms.vip4, r_.terms.vip6));
    service.declared_at = r_.now;
    into_.services.emplace(key, std::move(service));
    return {};
  }

  Status node(const std::string& value) {
    CHECK_OK(check_label("name", policy::LabelKind::kPortName, key_));
    if (key_ == r_.node) return refuse("name", "is this node's own");
    pb::SliceNode message;
    if (!message.ParseFromString(value)) return refuse("value", "is no node");
    CHECK_OK(check_count("blocks", message.blocks().size(), kMaxNodeAddresses));
    CHECK_OK(check_count("underlay", message.underlay().size(), kMaxNodeAddresses));
    policy::RemoteNode node;
    node.name = key_;
    for (int i = 0; i < message.blocks().size(); ++i) {
      node.blocks.push_back(TRY(block(fmt::format("blocks[{}]", i), message.blocks(i))));
    }
    for (int i = 0; i < message.underlay().size(); ++i) {
      const auto field = fmt::format("underlay[{}]", i);
      const auto address = TRY(read_address(field, message.underlay(i)));
      if (is_mesh(address)) return refuse(field, message.underlay(i) + " is a container's");
      node.underlay.push_back(address);
    }
    node.gateway = message.gateway();
    into_.nodes.emplace(key_, std::move(node));
    return {};
  }

  Status outside(const std::string& value) {
    const auto key = policy::parse_outside_key(key_);
    if (!key) return refuse("key", "is no outside port");
    if (key->port < r_.terms.gateway_first || key->port > r_.terms.gateway_last) {
      return refuse("key",
                    fmt::format("is not in {}-{}", r_.terms.gateway_first, r_.terms.gateway_last));
    }
    pb::SliceOutside message;
    if (!message.ParseFromString(value)) return refuse("value", "is no outside port");
    policy::Outside outside;
    CHECK_OK(check_label("id", policy::LabelKind::kId, message.id()));
    outside.id = message.id();
    if (!is_port(message.port())) return refuse("port", "must be 1 to 65535");
    if (!is_port(message.node_port())) return refuse("node_port", "must be 1 to 65535");
    outside.port = static_cast<std::uint16_t>(message.port());
    outside.node_port = static_cast<std::uint16_t>(message.node_port());
    CHECK_OK(check_count("node_addresses", message.node_addresses().size(), 2));
    for (int i = 0; i < message.node_addresses().size(); ++i) {
      const auto field = fmt::format("node_addresses[{}]", i);
      const auto address = TRY(read_address(field, message.node_addresses(i)));
      if (is_mesh(address)) return refuse(field, message.node_addresses(i) + " is a container's");
      auto& slot = address.is_v4() ? outside.v4 : outside.v6;
      if (slot) return refuse(field, "a second one of its family");
      slot = address;
    }
    CHECK_OK(check_count("allow_from", message.allow_from().size(), kMaxOutsideSources));
    for (int i = 0; i < message.allow_from().size(); ++i) {
      outside.allow_from.push_back(
          TRY(read_prefix(fmt::format("allow_from[{}]", i), message.allow_from(i))));
    }
    into_.outside.emplace(*key, std::move(outside));
    return {};
  }

 private:
  static Result<std::set<std::uint16_t>> read_opened(const pb::SliceWorkload& message) {
    CHECK_OK(check_count("opened", message.opened().size(), kMaxOpened));
    std::set<std::uint16_t> opened;
    for (const auto port : message.opened()) {
      if (!is_port(port)) return refuse("opened", fmt::format("must be 1 to 65535, not {}", port));
      opened.insert(static_cast<std::uint16_t>(port));
    }
    return opened;
  }

  // Where another node has it.
  Status place(const pb::SliceWorkload& message, policy::Workload& workload) {
    if (!message.node().empty()) {
      CHECK_OK(check_label("node", policy::LabelKind::kPortName, message.node()));
    }
    if (message.node() == r_.node) return refuse("node", "is this node, and it is not its own");
    const auto [v4, v6] =
        TRY(read_pair("addresses", message.addresses(), r_.terms.pool4, r_.terms.pool6));
    for (const auto* address : {&v4, &v6}) {
      if (*address && is_ours(**address)) {
        return refuse("addresses", (*address)->to_string() + " is of this node's own block");
      }
    }
    if (!v4 && !v6) return {};  // declared, and nowhere
    if (message.node().empty()) return refuse("node", "is missing");
    workload.remote = policy::Remote{message.node(), v4, v6, message.stale()};
    workload.draining = message.draining();
    workload.ready = message.ready();
    CHECK_OK(check_count("ready_ports", message.ready_ports().size(), kMaxReadyPorts));
    for (const auto& port : message.ready_ports()) {
      if (!is_port(port.port())) {
        return refuse("ready_ports", fmt::format("must be 1 to 65535, not {}", port.port()));
      }
      workload.tcp_ready[static_cast<std::uint16_t>(port.port())] = {port.v4(), port.v6()};
    }
    return {};
  }

  Result<Prefix> block(const std::string& field, const std::string& text) const {
    const auto block = TRY(read_prefix(field, text));
    const auto& pool = block.family() == Family::kV4 ? r_.terms.pool4 : r_.terms.pool6;
    const auto& own = block.family() == Family::kV4 ? r_.terms.block4 : r_.terms.block6;
    if (!pool || !pool->contains(block)) {
      return refuse(field, fmt::format("{} is not in the cluster's pool", text));
    }
    if (own && own->overlaps(block)) {
      return refuse(field, fmt::format("{} overlaps this node's {}", text, own->to_string()));
    }
    return block;
  }
  bool is_ours(const IpAddress& address) const {
    const auto& own = address.is_v4() ? r_.terms.block4 : r_.terms.block6;
    return own && own->contains(address);
  }
  bool is_mesh(const IpAddress& address) const {
    return std::ranges::any_of(
        std::initializer_list<const std::optional<Prefix>*>{&r_.terms.pool4, &r_.terms.pool6,
                                                            &r_.terms.vip4, &r_.terms.vip6},
        [&](const auto* pool) { return *pool && (*pool)->contains(address); });
  }

  const SliceReader& r_;
  const std::string& key_;
  SliceUpdate& into_;
};

Status read_confirmation(const ClusterTerms& terms, const pb::Confirmation& message,
                         SliceUpdate& into) {
  CHECK_OK(check_label("consumer", policy::LabelKind::kId, message.consumer()));
  CHECK_OK(check_label("provider", policy::LabelKind::kId, message.provider()));
  if (message.consumer() == message.provider()) return refuse("provider", "is the consumer");
  policy::Confirmation said;
  std::tie(said.from4, said.from6) =
      TRY(read_pair("from", message.from(), terms.pool4, terms.pool6));
  std::tie(said.to4, said.to6) = TRY(read_pair("to", message.to(), terms.pool4, terms.pool6));
  CHECK_OK(check_count("ports", message.ports().size(), kMaxConfirmedRanges));
  for (int i = 0; i < message.ports().size(); ++i) {
    said.ranges.push_back(TRY(read_range(fmt::format("ports[{}]", i), message.ports(i))));
  }
  said.ranges = policy::normalise(std::move(said.ranges));
  auto& of_consumer = into.confirmed[message.consumer()];
  if (!of_consumer.emplace(message.provider(), std::move(said)).second) {
    return refuse("provider", "is confirmed twice");
  }
  return {};
}

TimePoint ago(TimePoint now, std::uint64_t age_ms) {
  return now - std::chrono::milliseconds(std::min(age_ms, kMaxAgeMs));
}

SliceKey key_of(const pb::SliceKey& key) { return {static_cast<int>(key.kind()), key.key()}; }

}  // namespace

Result<ClusterTerms> read_terms(const pb::Welcome& welcome) {
  const auto read = [&]() -> Result<ClusterTerms> {
    ClusterTerms terms;
    CHECK_OK(check_label("cluster", policy::LabelKind::kPortName, welcome.cluster()));
    if (const auto problem = policy::zone_problem(welcome.zone()); !problem.empty()) {
      return refuse("zone", quote(welcome.zone()) + " " + problem);
    }
    terms.cluster = welcome.cluster();
    terms.zone = welcome.zone();
    terms.pool4 = TRY(read_pool("pool4", welcome.pool4(), Family::kV4));
    terms.pool6 = TRY(read_pool("pool6", welcome.pool6(), Family::kV6));
    terms.vip4 = TRY(read_pool("vip4", welcome.vip4(), Family::kV4));
    terms.vip6 = TRY(read_pool("vip6", welcome.vip6(), Family::kV6));
    terms.block4 = TRY(read_pool("block4", welcome.block4(), Family::kV4));
    terms.block6 = TRY(read_pool("block6", welcome.block6(), Family::kV6));
    if (!terms.pool4 && !terms.pool6) return refuse("pool4", "the cluster has no pool");
    CHECK_OK(check_share("block4", terms.pool4, terms.block4));
    CHECK_OK(check_share("block6", terms.pool6, terms.block6));
    CHECK_OK(check_apart("vip4", terms.pool4, terms.vip4));
    CHECK_OK(check_apart("vip6", terms.pool6, terms.vip6));
    CHECK_OK(check_count("proxies", welcome.proxies().size(), kMaxProxies));
    for (int i = 0; i < welcome.proxies().size(); ++i) {
      terms.proxies.push_back(TRY(read_prefix(fmt::format("proxies[{}]", i), welcome.proxies(i))));
    }
    terms.proxies = policy::normalise(std::move(terms.proxies));
    CHECK_OK(read_gateway_ports(welcome.gateway_ports(), terms));
    return terms;
  };
  auto terms = read();
  if (!terms) return std::unexpected(std::move(terms).error().in("welcome"));
  return terms;
}

policy::Settings with_terms(policy::Settings settings, const ClusterTerms& terms) {
  settings.in_cluster = true;
  settings.zone = terms.zone;
  settings.pool4 = terms.pool4;
  settings.pool6 = terms.pool6;
  settings.vip_pool4 = terms.vip4;
  settings.vip_pool6 = terms.vip6;
  settings.block4 = terms.block4;
  settings.block6 = terms.block6;
  settings.cluster_proxies = terms.proxies;
  settings.gateway_first = terms.gateway_first;
  settings.gateway_last = terms.gateway_last;
  return settings;
}

std::string slice_key_text(const SliceKey& key) {
  const auto text = is_plain(key.key) && key.key.size() <= kMaxKeyBytes ? key.key : quote(key.key);
  switch (key.kind) {
    case Kind::WORKLOAD:
      return "WORKLOAD " + text;
    case Kind::SERVICE:
      return "SERVICE " + text;
    case Kind::NODE:
      return "NODE " + text;
    case Kind::OUTSIDE:
      return "OUTSIDE " + text;
    default:
      return fmt::format("item of kind {} {}", key.kind, text);
  }
}

policy::ServiceKey service_key_of(const std::string& text) {
  const auto slash = text.find('/');
  if (slash == std::string::npos) return {policy::Scope::kCluster, {}, text};
  return {policy::Scope::kWorkflow, text.substr(0, slash), text.substr(slash + 1)};
}

std::uint64_t slice_hash(const SliceBytes& slice) {
  std::uint64_t sum = 0;
  for (const auto& [key, value] : slice) sum += policy::slice_item_hash(key.kind, key.key, value);
  return sum;
}

Status SliceReader::item(const SliceKey& key, const std::string& value, SliceUpdate& into) const {
  const auto read = [&]() -> Status {
    if (key.key.empty() || key.key.size() > kMaxKeyBytes || !is_plain(key.key)) {
      return refuse("key", "is no name");
    }
    if (!into.bytes.emplace(key, value).second) return refuse("key", "is named twice");
    ItemReader reader(*this, key.key, into);
    if (key.kind == Kind::WORKLOAD) return reader.workload(value);
    if (key.kind == Kind::SERVICE) return reader.service(value);
    if (key.kind == Kind::NODE) return reader.node(value);
    if (key.kind == Kind::OUTSIDE) return reader.outside(value);
    return {};
  };
  auto status = read();
  if (status) return status;
  return std::unexpected(std::move(status).error().in(slice_key_text(key)));
}

Result<SliceUpdate> SliceReader::change(const pb::SliceChange& message) const {
  SliceUpdate update;
  update.revision = message.revision();
  update.snapshot = message.snapshot();
  CHECK_OK(check_count("items", message.items().size() + message.gone().size(), kMaxSliceItems));
  CHECK_OK(check_count("confirmed", message.confirmed().size(), kMaxConfirmations));
  for (const auto& entry : message.items()) {
    const auto key = key_of(entry.key());
    CHECK_OK(item(key, entry.value(), update));
    if (key.kind != Kind::SERVICE) continue;
    auto& service = update.services.at(service_key_of(key.key));
    service.declared_at = ago(now, entry.declared_ago_ms());
    if (entry.endpoint_lost_ago_ms() != 0) {
      service.endpoint_lost_at = ago(now, entry.endpoint_lost_ago_ms());
    }
  }
  for (const auto& gone : message.gone()) {
    const auto key = key_of(gone);
    if (update.bytes.contains(key) || std::ranges::find(update.gone, key) != update.gone.end()) {
      return refuse(slice_key_text(key), "key: is named twice");
    }
    update.gone.push_back(key);
  }
  for (const auto& confirmed : message.confirmed()) {
    if (auto status = read_confirmation(terms, confirmed, update); !status) {
      return std::unexpected(std::move(status).error().in(fmt::format(
          "confirmation {} -> {}", quote(confirmed.consumer()), quote(confirmed.provider()))));
    }
  }
  return update;
}

}  // namespace meshd
