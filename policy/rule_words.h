// Words that rules are written with in base_table.cc: matches and verdicts by short names,
// and what differs between the two IP versions, so that each rule is written once.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "policy/base_table.h"
#include "policy/rule.h"
#include "policy/ruleset.h"

namespace meshd::policy::words {

using enum Field;

// IANA protocol numbers.
inline constexpr std::uint32_t kTcpNumber = 6, kUdpNumber = 17, kIcmpNumber = 1, kIcmp6Number = 58;

// ICMP errors: unreachable, time exceeded, bad parameter; with IPv6 too big.
inline constexpr std::uint32_t kIcmpErrors[] = {3, 11, 12}, kIcmp6Errors[] = {1, 2, 3, 4};

// Everything that exists once per IP version.
struct V {
  Family family;
  Field source, dest;
  std::uint32_t echo_request, unreachable, port_unreachable, icmp;
  Field icmp_type, icmp_code, quoted_protocol, quoted_port;

  [[nodiscard]] std::string name(SetId v4) const {
    // The two versions of a set follow each other in SetId.
    const int offset = family == Family::kV4 ? 0 : 1;
    return std::string(set_name(static_cast<SetId>(static_cast<int>(v4) + offset)));
  }
  [[nodiscard]] std::string name(std::string_view stem) const {
    return std::string(stem) + (family == Family::kV4 ? "4" : "6");
  }
  [[nodiscard]] std::vector<Field> flow() const { return {source, dest, kL4proto, kDestPort}; }
  [[nodiscard]] std::vector<Field> flow_block() const {
    return {source, dest, kL4proto, kDestBlock};
  }
  [[nodiscard]] std::vector<Field> flow_back() const {
    return {dest, source, kL4proto, kSourcePort};
  }
  [[nodiscard]] std::vector<Field> flow_back_block() const {
    return {dest, source, kL4proto, kSourceBlock};
  }
};
inline constexpr V kV4{
    Family::kV4, kIp4Source,       kIp4Dest,        8, 3, 3, kIcmpNumber, kIcmpType,
    kIcmpCode,   kQuoted4Protocol, kQuoted4DestPort};
inline constexpr V kV6{
    Family::kV6, kIp6Source,         kIp6Dest,        128, 1, 4, kIcmp6Number, kIcmp6Type,
    kIcmp6Code,  kQuoted6NextHeader, kQuoted6DestPort};
inline constexpr V kBoth[] = {kV4, kV6};

inline Match is(Field field, std::uint32_t value) { return {field, {Value(value)}}; }
inline Match is(Field field, const IpAddress& value) { return {field, {Value(value)}}; }
inline Match is_not(Field field, std::uint32_t value) { return {field, {Value(value)}, true}; }
inline Match one_of(Field field, std::span<const std::uint32_t> values, bool negated = false) {
  Match match{field, {}, negated};
  for (const auto value : values) match.values.emplace_back(value);
  return match;
}
inline Match one_of(Field field, std::initializer_list<std::uint32_t> values) {
  return one_of(field, std::span(values.begin(), values.size()));
}
inline Match none_of(Field field, std::initializer_list<std::uint32_t> values) {
  return one_of(field, std::span(values.begin(), values.size()), true);
}
inline InSet in(std::vector<Field> key, std::string set) {
  return {std::move(key), std::move(set)};
}
inline InSet not_in(Field key, std::string set) { return {{key}, std::move(set), true}; }
inline Verdict accept() { return {VerdictKind::kAccept}; }
inline Verdict drop() { return {VerdictKind::kDrop}; }
inline Verdict jump(std::string chain) { return {VerdictKind::kJump, std::move(chain)}; }
inline Verdict go(std::string chain) { return {VerdictKind::kGoto, std::move(chain)}; }
inline Verdict refuse() { return go("refuse"); }

inline const Match kFromMesh = is(kIifgroup, kMeshGroup);

}  // namespace meshd::policy::words
