// The other way of store_rows.cc: rows back into values.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "meshd/store_rows.h"
#include "policy/from_proto.h"
#include "proto/workload.pb.h"

namespace meshd {
namespace {

using policy::FamilyReady;
using schema::kGatewayPorts;
using schema::kProxies;
using schema::Table;

// Takes a row's columns in order. What does not fit is remembered and told once by
// finish(), so that the readers below can be read.
class Columns {
 public:
  explicit Columns(const Row& row) : row_(row) {}

  std::string text() { return take<std::string>(); }
  std::string blob() { return take<Blob>().bytes; }
  std::uint64_t number() { return static_cast<std::uint64_t>(take<std::int64_t>()); }
  std::int64_t signed_number() { return take<std::int64_t>(); }
  template <class T>
  T number_up_to(T limit) {
    const auto n = number();
    if (n > limit) bad();
    return static_cast<T>(n);
  }
  bool flag() { return number_up_to<std::uint8_t>(1) == 1; }
  TimePoint time() { return TimePoint(Duration(take<std::int64_t>())); }
  std::uint16_t port() { return number_up_to(std::numeric_limits<std::uint16_t>::max()); }
  IpAddress address() { return ip_of(blob()); }
  std::optional<IpAddress> maybe_address() {
    if (next_ < row_.size() && std::holds_alternative<std::monostate>(row_[next_])) {
      ++next_;
      return std::nullopt;
    }
    return address();
  }
  Mac mac() {
    const auto data = blob();
    Mac result;
    if (data.size() != result.bytes.size()) {
      bad();
    } else {
      std::ranges::copy(data, result.bytes.begin());
    }
    return result;
  }
  Proto proto() {
    const auto n = number();
    if (n != 6 && n != 17) bad();
    return n == 17 ? Proto::kUdp : Proto::kTcp;
  }
  policy::Scope scope() {
    return number_up_to<std::uint8_t>(1) == 0 ? policy::Scope::kWorkflow : policy::Scope::kCluster;
  }
  std::optional<Prefix> maybe_prefix() {
    const auto written = text();
    if (written.empty()) return std::nullopt;
    const auto prefix = Prefix::parse(written);
    if (prefix) return *prefix;
    bad();
    return std::nullopt;
  }
  std::map<std::uint16_t, FamilyReady> ports();
  std::vector<policy::PortRange> ranges();
  std::vector<Prefix> prefixes();

  void bad() { bad_ = std::min(bad_, next_); }
  Status finish() {
    if (next_ != row_.size()) bad();
    if (bad_ == kNone) return {};
    return fail(ErrorCode::kInvalid, fmt::format("column {}: not a value of ours", bad_));
  }

 private:
  template <class T>
  T take() {
    if (next_ >= row_.size() || !std::holds_alternative<T>(row_[next_])) {
      ++next_;
      bad();
      return {};
    }
    return std::get<T>(row_[next_++]);
  }
  IpAddress ip_of(const std::string& data) {
    const auto* const first = reinterpret_cast<const std::uint8_t*>(data.data());
    if (data.size() == 4) return IpAddress::v4(std::span<const std::uint8_t, 4>(first, 4));
    if (data.size() == 16) return IpAddress::v6(std::span<const std::uint8_t, 16>(first, 16));
    bad();
    return {};
  }

  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  const Row& row_;
  std::size_t next_ = 0;
  std::size_t bad_ = kNone;
};

std::map<std::uint16_t, FamilyReady> Columns::ports() {
  const auto all = text();
  std::map<std::uint16_t, FamilyReady> result;
  const char* at = all.data();
  const char* const end = at + all.size();
  while (at != end) {
    std::uint16_t port = 0;
    const auto [after, error] = std::from_chars(at, end, port);
    if (error != std::errc{} || after == end || *after != ':') {
      bad();
      return result;
    }
    const char* const stop = std::find(after, end, ' ');
    const std::string_view families(after + 1, stop);
    result[port] = {families.contains('4'), families.contains('6')};
    at = stop == end ? end : stop + 1;
  }
  return result;
}

// "6:5432-5432 17:8000-8100"
std::vector<policy::PortRange> Columns::ranges() {
  const auto all = text();
  std::vector<policy::PortRange> result;
  const char* at = all.data();
  const char* const end = at + all.size();
  const auto number = [&](char stop) {
    std::uint16_t value = 0;
    const auto [after, error] = std::from_chars(at, end, value);
    const bool fits = error == std::errc{} && (after == end ? stop == ' ' : *after == stop);
    if (!fits) bad();
    at = !fits || after == end ? end : after + 1;
    return value;
  };
  while (at != end) {
    const auto proto = number(':');
    if (proto != 6 && proto != 17) bad();
    const auto first = number('-');
    result.push_back({proto == 17 ? Proto::kUdp : Proto::kTcp, first, number(' ')});
    if (result.back().last < first) bad();
  }
  return result;
}

// "192.0.2.8/32 2001:db8::/64"
std::vector<Prefix> Columns::prefixes() {
  const auto all = text();
  std::vector<Prefix> result;
  for (std::size_t at = 0; at < all.size();) {
    const auto stop = std::min(all.find(' ', at), all.size());
    const auto prefix = Prefix::parse(std::string_view(all).substr(at, stop - at));
    if (!prefix) {
      bad();
      return result;
    }
    result.push_back(*prefix);
    at = stop + 1;
  }
  return result;
}

// The workload that a row belongs to; its declaration was read before.
policy::Workload* workload_of(StoredState& state, const std::string& id, Columns& columns) {
  const auto found = state.workloads.find(id);
  if (found != state.workloads.end()) return &found->second;
  columns.bad();
  return nullptr;
}

Status read_declaration(Columns& columns, StoredState& into) {
  const auto id = columns.text();
  const auto workload = columns.blob();
  [[maybe_unused]] const auto declared_at = columns.number();  // for people only
  CHECK_OK(columns.finish());
  auto declaration = decode_declaration(workload);
  if (!declaration) return std::unexpected(std::move(declaration).error().in(id));
  if (declaration->id != id) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: holds workload {}", id, declaration->id));
  }
  into.workloads[id].declaration = std::move(*declaration);
  return {};
}

void read_attachment(Columns& columns, StoredState& into) {
  const auto id = columns.text();
  policy::Attachment a;
  a.netns = {columns.number(), columns.number()};
  a.netns_path = columns.text();
  a.ifname = columns.text();
  a.host_ifname = columns.text();
  a.mac = columns.mac();
  a.v4 = columns.maybe_address();
  a.v6 = columns.maybe_address();
  a.default_route = columns.flag();
  a.prepared = columns.flag();
  a.attached_at = columns.time();
  if (auto* const workload = workload_of(into, id, columns)) workload->attachment = std::move(a);
}

void read_ready(Columns& columns, StoredState& into) {
  auto* const workload = workload_of(into, columns.text(), columns);
  const bool ready = columns.flag();
  auto ports = columns.ports();
  if (workload == nullptr) return;
  workload->ready = ready;
  workload->tcp_ready = std::move(ports);
}

void read_service(Columns& columns, StoredState& into) {
  policy::ServiceKey key;
  key.scope = columns.scope();
  key.workflow = columns.text();
  key.name = columns.text();
  auto& service = into.services[key];
  service.owner = columns.text();
  service.vip4 = columns.maybe_address();
  service.vip6 = columns.maybe_address();
  service.declared_at = columns.time();
  service.endpoint_lost_at = columns.time();
}

void read_cluster(Columns& columns, StoredState& into) {
  if (into.cluster) columns.bad();
  auto& terms = into.cluster.emplace().terms;
  terms.cluster = columns.text();
  terms.zone = columns.text();
  terms.pool4 = columns.maybe_prefix();
  terms.pool6 = columns.maybe_prefix();
  terms.vip4 = columns.maybe_prefix();
  terms.vip6 = columns.maybe_prefix();
  terms.block4 = columns.maybe_prefix();
  terms.block6 = columns.maybe_prefix();
  into.cluster->revision = columns.number();
}

void read_term(Columns& columns, StoredState& into) {
  const auto name = columns.text();
  if (!into.cluster || (name != kProxies && name != kGatewayPorts)) return columns.bad();
  auto& terms = into.cluster->terms;
  if (name == kProxies) {
    terms.proxies = columns.prefixes();
    return;
  }
  const auto ports = columns.ranges();
  if (ports.size() != 1) return columns.bad();
  terms.gateway_first = ports.front().first;
  terms.gateway_last = ports.front().last;
}

void read_slice(Columns& columns, StoredState& into) {
  SliceKey key;
  key.kind = static_cast<int>(columns.number_up_to<std::uint32_t>(0x7fffffff));
  key.key = columns.text();
  into.slice[std::move(key)] = columns.blob();
}

void read_confirmed(Columns& columns, StoredState& into) {
  auto& of_consumer = into.confirmed[columns.text()];
  auto& said = of_consumer[columns.text()];
  said.from4 = columns.maybe_address();
  said.from6 = columns.maybe_address();
  said.to4 = columns.maybe_address();
  said.to6 = columns.maybe_address();
  said.ranges = columns.ranges();
}

void read_node_port(Columns& columns, StoredState& into) {
  policy::PublishKey key;
  key.id = columns.text();
  key.proto = columns.proto();
  key.port = columns.port();
  into.node_ports[key] = columns.port();
}

}  // namespace

Status read_row(schema::Table table, const Row& row, StoredState& into) {
  Columns columns(row);
  switch (table) {
    case Table::kDeclarations:
      return read_declaration(columns, into);
    case Table::kAttachments:
      read_attachment(columns, into);
      break;
    case Table::kDraining:
      if (auto* const workload = workload_of(into, columns.text(), columns)) {
        workload->draining = true;
      }
      break;
    case Table::kReady:
      read_ready(columns, into);
      break;
    case Table::kServices:
      read_service(columns, into);
      break;
    case Table::kNodePorts:
      read_node_port(columns, into);
      break;
    case Table::kQuarantine: {
      const auto resting = columns.address();
      into.quarantine[resting] = columns.time();
      break;
    }
    case Table::kIdleNames: {
      auto name = columns.text();
      into.idle_names[std::move(name)] = columns.signed_number();
      break;
    }
    case Table::kLeftNetns: {
      auto& left = into.left_netns[columns.text()];
      left.netns = {columns.number(), columns.number()};
      left.path = columns.text();
      break;
    }
    case Table::kCluster:
      read_cluster(columns, into);
      break;
    case Table::kTerms:
      read_term(columns, into);
      break;
    case Table::kSlice:
      read_slice(columns, into);
      break;
    case Table::kConfirmed:
      read_confirmed(columns, into);
      break;
    case Table::kSysctls: {
      auto key = columns.text();
      into.sysctls[std::move(key)] = columns.text();
      break;
    }
  }
  return columns.finish();
}

Result<policy::Declaration> decode_declaration(const std::string& bytes) {
  mesh::v1::Workload workload;
  if (!workload.ParseFromString(bytes)) return fail(ErrorCode::kInvalid, "not a declaration");
  return policy::from_proto(workload);
}

}  // namespace meshd
