#include "netlink/nft_spec.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace meshd::netlink {
namespace {

std::size_t aligned(std::size_t length) { return (length + 3) & ~std::size_t{3}; }

std::string hex(ByteSpan bytes) {
  std::string text = "0x";
  for (const auto byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

std::uint64_t number(ByteSpan bytes, bool host_order) {
  std::uint64_t value = 0;
  if (host_order) {
    std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  } else {
    for (const auto byte : bytes) value = value << 8 | byte;
  }
  return value;
}

std::string component_text(ByteSpan bytes, KeyType type) {
  char text[INET6_ADDRSTRLEN] = "";
  switch (type) {
    case KeyType::kIpv4:
      return inet_ntop(AF_INET, bytes.data(), text, sizeof text);
    case KeyType::kIpv6:
      return inet_ntop(AF_INET6, bytes.data(), text, sizeof text);
    case KeyType::kEther:
      return fmt::format("{:02x}", fmt::join(bytes, ":"));
    case KeyType::kIfname: {
      const std::string_view name(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return fmt::format("\"{}\"", name.substr(0, name.find('\0')));
    }
    default:
      return std::to_string(number(bytes, is_host_order(type)));
  }
}

}  // namespace

std::size_t type_length(KeyType type) {
  switch (type) {
    case KeyType::kNfproto:
    case KeyType::kProto:
    case KeyType::kIcmpType:
    case KeyType::kIcmp6Type:
    case KeyType::kPkttype:
      return 1;
    case KeyType::kEtherType:
    case KeyType::kPort:
      return 2;
    case KeyType::kIpv4:
    case KeyType::kMark:
    case KeyType::kIfindex:
    case KeyType::kUid:
    case KeyType::kCtState:
    case KeyType::kDevgroup:
      return 4;
    case KeyType::kEther:
      return 6;
    case KeyType::kIpv6:
    case KeyType::kIfname:
    case KeyType::kVerdict:
      return 16;
  }
  return 0;  // a type of nft's that we do not use, read from a foreign set
}

bool is_host_order(KeyType type) {
  switch (type) {
    case KeyType::kNfproto:
    case KeyType::kMark:
    case KeyType::kIfindex:
    case KeyType::kUid:
    case KeyType::kCtState:
    case KeyType::kPkttype:
    case KeyType::kDevgroup:
    case KeyType::kIfname:
      return true;
    default:
      return false;
  }
}

std::size_t key_length(std::span<const KeyType> types) {
  if (types.size() == 1) return type_length(types[0]);
  std::size_t length = 0;
  for (const auto type : types) length += aligned(type_length(type));
  return length;
}

std::string key_text(ByteSpan key, std::span<const KeyType> types) {
  if (types.empty() || key.size() != key_length(types)) return hex(key);
  std::string text;
  std::size_t offset = 0;
  for (const auto type : types) {
    const std::size_t length = type_length(type);
    if (length == 0) return hex(key);
    if (offset > 0) text += " . ";
    text += component_text(key.subspan(offset, length), type);
    offset += aligned(length);
  }
  return text;
}

Status check_name(std::string_view kind, std::string_view name) {
  // The kernel takes more; what nft could not name again is not worth allowing.
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.' || c == '/';
  };
  if (name.empty() || name.size() > kMaxNameBytes || !std::ranges::all_of(name, allowed)) {
    return fail(ErrorCode::kInvalid, fmt::format("{} name \"{}\": 1 to {} of [A-Za-z0-9_-./]", kind,
                                                 name.substr(0, kMaxNameBytes), kMaxNameBytes));
  }
  return {};
}

Status check_set(const SetSpec& set) {
  CHECK_OK(check_name("set", set.name));
  const auto invalid = [&set](std::string_view why) {
    return fail(ErrorCode::kInvalid, fmt::format("set {}: {}", set.name, why));
  };
  if (set.key.empty() || set.key.size() > kMaxComponents) {
    return invalid(fmt::format("a key has 1 to {} components", kMaxComponents));
  }
  if (set.data.size() > kMaxComponents) {
    return invalid(fmt::format("data has at most {} components", kMaxComponents));
  }
  const auto unknown = [](KeyType type) { return type_length(type) == 0; };
  if (std::ranges::any_of(set.key, unknown) || std::ranges::any_of(set.data, unknown)) {
    return invalid("a component's type is not known");
  }
  const auto is_verdict = [](KeyType type) { return type == KeyType::kVerdict; };
  if (std::ranges::any_of(set.key, is_verdict) || std::ranges::any_of(set.data, is_verdict)) {
    return invalid("verdict maps cannot be written");
  }
  if (key_length(set.key) > kMaxKeyBytes || key_length(set.data) > kMaxKeyBytes) {
    return invalid(fmt::format("key and data have at most {} bytes", kMaxKeyBytes));
  }
  if (set.timeout.count() < 0 || (set.timeout.count() > 0 && !set.has_timeout)) {
    return invalid("a default timeout needs has_timeout and is not negative");
  }
  // The kernel compares bytes from the first on, which orders network-order numbers only.
  if (set.interval && set.key.size() == 1 && is_host_order(set.key[0])) {
    return invalid("intervals of a host-order type");
  }
  if (set.dynamic && set.interval) return invalid("a dynamic set cannot hold intervals");
  return {};
}

std::string_view family_name(TableFamily family) {
  switch (family) {
    case TableFamily::kInet:
      return "inet";
    case TableFamily::kIp:
      return "ip";
    case TableFamily::kIp6:
      return "ip6";
  }
  return "?";
}

}  // namespace meshd::netlink
