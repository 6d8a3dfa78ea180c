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

const std::vector<Prefix>& sources_of(const Settings& settings, const Publication& publication) {
  if (publication.http) return settings.proxies;
  return publication.allow_from ? *publication.allow_from : settings.publish_allow_from;
}

std::vector<EgressPiece> normalise(const std::vector<EgressRule>& rules) {
  using ByPrefix = std::map<std::pair<int, Prefix>, std::vector<Interval>>;  // widest first
  std::map<std::uint8_t, ByPrefix> by_proto;
  for (const auto& rule : rules) {
    const std::pair key(rule.cidr.length(), rule.cidr);
    for (const auto& ports : rule.ports) {
      by_proto[static_cast<std::uint8_t>(ports.proto)][key].push_back({ports.first, ports.last});
    }
    if (!rule.ports.empty()) continue;
    const auto icmp = static_cast<std::uint8_t>(
        rule.cidr.family() == Family::kV4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6});
    for (const std::uint8_t proto : {std::uint8_t{IPPROTO_TCP}, std::uint8_t{IPPROTO_UDP}, icmp}) {
      // From 0: the rule reads two bytes of an ICMP header where ports would be.
      by_proto[proto][key].push_back({0, 65535});
    }
  }
  std::vector<EgressPiece> pieces;
  for (auto& [proto, prefixes] : by_proto) {
    for (auto& [key, intervals] : prefixes) {
      intervals = join(std::move(intervals));
      for (const auto& [wider, theirs] : prefixes) {
        if (wider.first >= key.first) break;
        if (wider.second.contains(key.second)) intervals = subtract(intervals, theirs);
      }
      for (const auto& interval : intervals) {
        pieces.push_back({key.second, proto, static_cast<std::uint16_t>(interval.first),
                          static_cast<std::uint16_t>(interval.last)});
      }
    }
  }
  std::ranges::sort(pieces);
  return pieces;
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

std::string content_of(const std::vector<EgressPiece>& pieces) {
  std::string text = "e";
  for (const auto& piece : pieces) {
    text +=
        fmt::format(" {}.{}.{}-{}", piece.prefix.to_string(), piece.proto, piece.first, piece.last);
  }
  return text;
}

}  // namespace meshd::policy
