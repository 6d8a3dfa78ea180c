#include "meshd/store_rows.h"

#include <fmt/format.h>

#include <map>
#include <optional>
#include <utility>

#include "policy/from_proto.h"
#include "proto/workload.pb.h"

namespace meshd {
namespace {

using policy::FamilyReady;
using schema::kGatewayPorts;
using schema::kProxies;
using schema::Table;

Value whole(std::uint64_t number) {  // SQLite's integers are signed: only the bits count
  return static_cast<std::int64_t>(number);
}
Value time(TimePoint when) { return std::int64_t{when.time_since_epoch().count()}; }
Value bytes(std::span<const std::uint8_t> data) { return Blob{{data.begin(), data.end()}}; }
Value address(const std::optional<IpAddress>& ip) {
  return ip ? bytes(ip->bytes()) : Value(std::monostate{});
}

std::string ports_text(const std::map<std::uint16_t, FamilyReady>& ports) {
  std::string text;
  for (const auto& [port, families] : ports) {
    text += fmt::format("{}{}:{}{}", text.empty() ? "" : " ", port, families.v4 ? "4" : "",
                        families.v6 ? "6" : "");
  }
  return text;
}

Value prefix(const std::optional<Prefix>& range) {
  return range ? range->to_string() : std::string();
}

std::string prefixes_text(const std::vector<Prefix>& prefixes) {
  std::string text;
  for (const auto& one : prefixes) text += (text.empty() ? "" : " ") + one.to_string();
  return text;
}

std::string ranges_text(const std::vector<policy::PortRange>& ranges) {
  std::string text;
  for (const auto& range : ranges) {
    text += fmt::format("{}{}:{}-{}", text.empty() ? "" : " ", std::to_underlying(range.proto),
                        range.first, range.last);
  }
  return text;
}

Row key_row(const policy::ServiceKey& key) {
  return {whole(std::to_underlying(key.scope)), key.workflow, key.name};
}
Row key_row(const policy::PublishKey& key) {
  return {key.id, whole(std::to_underlying(key.proto)), whole(key.port)};
}

template <class... More>
Row with(Row row, More... more) {
  (row.push_back(std::move(more)), ...);
  return row;
}

RowWrite put(Table table, Row row) { return {table, RowAction::kPut, std::move(row)}; }
RowWrite drop(Table table, Row key) { return {table, RowAction::kDrop, std::move(key)}; }

using Writes = std::vector<RowWrite>;

Writes attachment_gone(const std::string& id) {
  return {drop(Table::kReady, {id}), drop(Table::kDraining, {id}), drop(Table::kAttachments, {id})};
}

struct ToRows {
  std::int64_t wall_s;

  Writes operator()(const PutDeclaration& c) const {
    return {put(Table::kDeclarations, {c.id, Blob{encode_declaration(c.declaration)}, wall_s})};
  }
  Writes operator()(const DropDeclaration& c) const {
    auto writes = attachment_gone(c.id);
    writes.push_back({Table::kNodePorts, RowAction::kDropAll, {c.id}});
    writes.push_back(drop(Table::kDeclarations, {c.id}));
    return writes;
  }
  Writes operator()(const PutAttachment& c) const {
    const auto& a = c.attachment;
    auto writes = attachment_gone(c.id);
    writes.pop_back();  // the row itself is replaced
    writes.push_back(put(Table::kAttachments,
                         {c.id, whole(a.netns.dev), whole(a.netns.ino), a.netns_path, a.ifname,
                          a.host_ifname, bytes(a.mac.bytes), address(a.v4), address(a.v6),
                          whole(a.default_route), whole(a.prepared), time(a.attached_at)}));
    return writes;
  }
  Writes operator()(const DropAttachment& c) const { return attachment_gone(c.id); }
  Writes operator()(const PutDraining& c) const {
    return {c.draining ? put(Table::kDraining, {c.id}) : drop(Table::kDraining, {c.id})};
  }
  Writes operator()(const PutReady& c) const {
    return {put(Table::kReady, {c.id, whole(c.ready), ports_text(c.tcp_ready)})};
  }
  Writes operator()(const PutService& c) const {
    const auto& s = c.service;
    return {
        put(Table::kServices, with(key_row(c.key), Value(s.owner), address(s.vip4), address(s.vip6),
                                   time(s.declared_at), time(s.endpoint_lost_at)))};
  }
  Writes operator()(const DropService& c) const { return {drop(Table::kServices, key_row(c.key))}; }
  Writes operator()(const PutNodePort& c) const {
    return {put(Table::kNodePorts, with(key_row(c.key), whole(c.node_port)))};
  }
  Writes operator()(const DropNodePort& c) const {
    return {drop(Table::kNodePorts, key_row(c.key))};
  }
  Writes operator()(const PutQuarantine& c) const {
    return {put(Table::kQuarantine, {bytes(c.address.bytes()), time(c.until)})};
  }
  Writes operator()(const DropQuarantine& c) const {
    return {drop(Table::kQuarantine, {bytes(c.address.bytes())})};
  }
  Writes operator()(const PutIdleName& c) const {
    return {put(Table::kIdleNames, {c.name, c.since_s})};
  }
  Writes operator()(const DropIdleName& c) const { return {drop(Table::kIdleNames, {c.name})}; }
  Writes operator()(const PutLeftNetns& c) const {
    const auto& [netns, path] = c.left;
    return {put(Table::kLeftNetns, {c.id, whole(netns.dev), whole(netns.ino), path})};
  }
  Writes operator()(const DropLeftNetns& c) const { return {drop(Table::kLeftNetns, {c.id})}; }
  Writes operator()(const PutSysctl& c) const { return {put(Table::kSysctls, {c.key, c.value})}; }
  Writes operator()(const DropSysctl& c) const { return {drop(Table::kSysctls, {c.key})}; }
  Writes operator()(const PutCluster& c) const {
    const auto& t = c.cluster.terms;
    return {put(Table::kCluster,
                {t.cluster, t.zone, prefix(t.pool4), prefix(t.pool6), prefix(t.vip4),
                 prefix(t.vip6), prefix(t.block4), prefix(t.block6), whole(c.cluster.revision)})};
  }
  Writes operator()(const PutLooseTerms& c) const {
    return {put(Table::kTerms, {std::string(kProxies), prefixes_text(c.proxies)}),
            put(Table::kTerms, {std::string(kGatewayPorts),
                                ranges_text({{Proto::kTcp, c.gateway_first, c.gateway_last}})})};
  }
  Writes operator()(const PutSliceItem& c) const {
    return {put(Table::kSlice, {std::int64_t{c.key.kind}, c.key.key, Blob{c.value}})};
  }
  Writes operator()(const DropSliceItem& c) const {
    return {drop(Table::kSlice, {std::int64_t{c.key.kind}, c.key.key})};
  }
  Writes operator()(const PutConfirmation& c) const {
    const auto& s = c.said;
    return {put(Table::kConfirmed, {c.consumer, c.provider, address(s.from4), address(s.from6),
                                    address(s.to4), address(s.to6), ranges_text(s.ranges)})};
  }
  Writes operator()(const DropConfirmation& c) const {
    return {drop(Table::kConfirmed, {c.consumer, c.provider})};
  }
};

}  // namespace

std::vector<RowWrite> rows_of(const StoreChange& change, std::int64_t wall_s) {
  return std::visit(ToRows{wall_s}, change);
}

std::string encode_declaration(const policy::Declaration& declaration) {
  return policy::to_proto(declaration).SerializeAsString();
}

std::uint32_t row_sum(std::string_view table, const Row& row) {
  std::uint32_t sum = 0x811c9dc5;
  const auto add = [&](std::string_view data) {
    for (const char c : data) sum = (sum ^ static_cast<unsigned char>(c)) * 0x01000193;
  };
  const auto add_number = [&](std::uint64_t n) {
    for (int shift = 0; shift < 64; shift += 8) {
      sum = (sum ^ static_cast<std::uint8_t>(n >> shift)) * 0x01000193;
    }
  };
  add(table);
  for (const auto& value : row) {
    add_number(value.index());
    if (const auto* n = std::get_if<std::int64_t>(&value)) {
      add_number(static_cast<std::uint64_t>(*n));
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      add_number(text->size());
      add(*text);
    } else if (const auto* blob = std::get_if<Blob>(&value)) {
      add_number(blob->bytes.size());
      add(blob->bytes);
    }
  }
  return sum;
}

}  // namespace meshd
