#include "policy/profile.h"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>

#include "policy/interval.h"

namespace meshd::policy {
namespace {

// FNV-1a: the same on every machine and in every version, so that a restart finds the
// numbers that the kernel already holds.
std::uint32_t hash(std::string_view content) {
  std::uint64_t value = 0xcbf29ce484222325;
  for (const char c : content) {
    value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return static_cast<std::uint32_t>(value ^ value >> 32);
}

std::string text_of(const EgressPiece& piece) {
  return fmt::format("{}.{}.{}-{}", piece.prefix.to_string(), piece.proto, piece.first, piece.last);
}

}  // namespace

std::vector<Prefix> normalise(std::vector<Prefix> prefixes) {
  std::ranges::sort(prefixes, {}, [](const Prefix& p) { return std::pair(p.length(), p); });
  std::vector<Prefix> result;
  for (const auto& prefix : prefixes) {
    const bool covered =
        std::ranges::any_of(result, [&](const Prefix& wide) { return wide.contains(prefix); });
    if (!covered) result.push_back(prefix);
  }
  std::ranges::sort(result);
  return result;
}

std::vector<Prefix> sources_of(const Settings& settings, const Publication& publication) {
  if (!publication.http) {
    return publication.allow_from ? *publication.allow_from : settings.publish_allow_from;
  }
  auto proxies = settings.proxies;
  proxies.insert(proxies.end(), settings.cluster_proxies.begin(), settings.cluster_proxies.end());
  return proxies;
}

std::vector<IpAddress> gateway_addresses(const World& world) {
  std::vector<IpAddress> all;
  for (const auto& [name, node] : world.nodes) {
    if (node.gateway) all.insert(all.end(), node.underlay.begin(), node.underlay.end());
  }
  return all;
}

std::vector<Prefix> admitted_to(const World& world, const Publication& publication) {
  auto sources = sources_of(world.settings, publication);
  if (publication.http) return sources;
  for (const auto& address : gateway_addresses(world)) {
    sources.push_back(Prefix::of(address, address.is_v4() ? 32 : 128));
  }
  return sources;
}

std::vector<Publication> publications_of(const Workload& workload) {
  auto all = workload.declaration.publish;
  for (const auto port : workload.opened) {
    const bool declared = std::ranges::any_of(workload.declaration.publish, [&](const auto& p) {
      return p.proto == Proto::kTcp && p.port == port;
    });
    if (declared) continue;
    auto& opened = all.emplace_back();
    opened.port = port;
    opened.http = opened.on_demand = true;
  }
  return all;
}

std::vector<EgressPiece> rows_of(const EgressRule& rule) {
  std::vector<EgressPiece> rows;
  for (const auto& ports : rule.ports) {
    rows.push_back({rule.cidr, static_cast<std::uint8_t>(ports.proto), ports.first, ports.last});
  }
  if (!rule.ports.empty()) return rows;
  const auto icmp = static_cast<std::uint8_t>(
      rule.cidr.family() == Family::kV4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6});
  for (const std::uint8_t proto : {std::uint8_t{IPPROTO_TCP}, std::uint8_t{IPPROTO_UDP}, icmp}) {
    // From 0: the rule reads two bytes of an ICMP header where ports would be.
    rows.push_back({rule.cidr, proto, 0, 65535});
  }
  return rows;
}

std::uint32_t row_number(const EgressPiece& row) { return hash("r " + text_of(row)); }

std::vector<CountedPiece> pieces_by_row(const std::vector<EgressRule>& rules) {
  // By protocol, then the widest prefix first, then as sorted: by ports.
  std::map<std::uint8_t, std::map<std::pair<int, Prefix>, std::vector<EgressPiece>>> by_proto;
  for (const auto& rule : rules) {
    for (const auto& row : rows_of(rule)) {
      by_proto[row.proto][{row.prefix.length(), row.prefix}].push_back(row);
    }
  }
  std::vector<CountedPiece> pieces;
  for (auto& [proto, prefixes] : by_proto) {
    std::map<std::pair<int, Prefix>, std::vector<Interval>> covered;
    for (auto& [key, rows] : prefixes) {
      std::vector<Interval> wider;
      for (const auto& [other, ports] : covered) {
        if (!other.second.contains(key.second)) continue;
        wider.insert(wider.end(), ports.begin(), ports.end());
      }
      wider = join(std::move(wider));
      auto& own = covered[key];
      std::ranges::sort(rows);
      int next = 0;
      for (const auto& row : rows) {
        own.push_back({row.first, row.last});
        if (row.last < next) continue;
        for (const auto& left : subtract({{std::max<int>(row.first, next), row.last}}, wider)) {
          pieces.push_back({{row.prefix, row.proto, static_cast<std::uint16_t>(left.first),
                             static_cast<std::uint16_t>(left.last)},
                            row_number(row)});
        }
        next = row.last + 1;
      }
      own = join(std::move(own));
    }
  }
  std::ranges::sort(pieces);
  return pieces;
}

std::vector<EgressPiece> normalise(const std::vector<EgressRule>& rules) {
  std::vector<EgressPiece> pieces;
  for (const auto& [piece, row] : pieces_by_row(rules)) {
    const bool goes_on = !pieces.empty() && pieces.back().prefix == piece.prefix &&
                         pieces.back().proto == piece.proto &&
                         pieces.back().last + 1 == piece.first;
    if (goes_on) {
      pieces.back().last = piece.last;
    } else {
      pieces.push_back(piece);
    }
  }
  return pieces;
}

Element egress_count(const IpAddress& container, std::uint32_t row) {
  const auto set = container.is_v4() ? SetId::kEgressCount4 : SetId::kEgressCount6;
  return ElementBuilder(set).number(row).addr(container).build();
}

Element publication_count(const IpAddress& container, Proto proto, std::uint16_t port) {
  const auto set = container.is_v4() ? SetId::kPubCount4 : SetId::kPubCount6;
  return ElementBuilder(set).addr(container).proto(proto).port(port).build();
}

std::uint32_t Profiles::acquire(const std::string& content) {
  for (std::uint32_t number = std::max(hash(content), 1U);; number = std::max(number + 1, 1U)) {
    const auto [entry, free] = by_number_.try_emplace(number, Entry{content, 0});
    if (!free && entry->second.content != content) continue;
    ++entry->second.users;
    return number;
  }
}

void Profiles::release(std::uint32_t number) {
  const auto entry = by_number_.find(number);
  if (entry != by_number_.end() && --entry->second.users == 0) by_number_.erase(entry);
}

std::string content_of(const std::vector<Prefix>& sources) {
  std::string text = "s";
  for (const auto& prefix : sources) text += " " + prefix.to_string();
  return text;
}

std::string content_of(const std::vector<CountedPiece>& pieces) {
  std::string text = "e";
  for (const auto& [piece, row] : pieces) text += fmt::format(" {}={}", text_of(piece), row);
  return text;
}

}  // namespace meshd::policy
