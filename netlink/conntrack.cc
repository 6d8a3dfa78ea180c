#include "netlink/conntrack.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>

#include <algorithm>
#include <cerrno>

namespace meshd::netlink {
namespace {

constexpr std::uint8_t kAfUnspec = 0;
constexpr std::uint8_t kAfInet = 2;
constexpr std::uint8_t kAfInet6 = 10;

constexpr std::uint16_t message_type(int message) {
  return static_cast<std::uint16_t>((NFNL_SUBSYS_CTNETLINK << 8) | message);
}

Message conntrack_message(int type, std::uint8_t family) {
  nfgenmsg header{};
  header.nfgen_family = family;
  header.version = NFNETLINK_V0;
  Message message(message_type(type), 0);
  message.header(header);
  return message;
}

std::uint8_t family_number(std::optional<Family> family) {
  if (!family) return kAfUnspec;
  return *family == Family::kV4 ? kAfInet : kAfInet6;
}

std::uint16_t port_of(ByteView bytes) {
  const auto* const data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  return bytes.size() < 2 ? std::uint16_t{0} : static_cast<std::uint16_t>(data[0] << 8 | data[1]);
}

std::uint32_t be32_of(ByteView bytes) {
  const auto value = read_host<std::uint32_t>(bytes).value_or(0);
  return std::endian::native == std::endian::little ? std::byteswap(value) : value;
}

// False when the tuple lacks an address. Walks the attributes without a table of them:
// this runs twice for each of some hundred thousand entries.
bool decode_tuple(ByteView bytes, ConntrackTuple& tuple, std::uint8_t& proto) {
  bool has_source = false;
  bool has_destination = false;
  const auto take = [](ByteView data, IpAddress& into) {
    const auto address = read_address(data);
    if (address) into = *address;
    return address.has_value();
  };
  for_each_attribute(bytes, [&](std::uint16_t part, ByteView content) {
    if (part == CTA_TUPLE_IP) {
      for_each_attribute(content, [&](std::uint16_t type, ByteView data) {
        if (type == CTA_IP_V4_SRC || type == CTA_IP_V6_SRC) has_source = take(data, tuple.source);
        if (type == CTA_IP_V4_DST || type == CTA_IP_V6_DST) {
          has_destination = take(data, tuple.destination);
        }
      });
    } else if (part == CTA_TUPLE_PROTO) {
      for_each_attribute(content, [&](std::uint16_t type, ByteView data) {
        if (type == CTA_PROTO_NUM) proto = read_host<std::uint8_t>(data).value_or(0);
        if (type == CTA_PROTO_SRC_PORT) tuple.source_port = port_of(data);
        if (type == CTA_PROTO_DST_PORT) tuple.destination_port = port_of(data);
      });
    }
  });
  return has_source && has_destination;
}

std::uint8_t tcp_state_of(ByteView protoinfo) {
  std::uint8_t state = 0;
  for_each_attribute(protoinfo, [&](std::uint16_t protocol, ByteView content) {
    if (protocol != CTA_PROTOINFO_TCP) return;
    for_each_attribute(content, [&](std::uint16_t type, ByteView data) {
      if (type == CTA_PROTOINFO_TCP_STATE) state = read_host<std::uint8_t>(data).value_or(0);
    });
  });
  return state;
}

}  // namespace

// What a delete needs of an entry, as the kernel wrote it.
struct Conntrack::Victim {
  std::uint8_t family = 0;
  std::vector<std::byte> tuple;  // content of CTA_TUPLE_ORIG
  std::uint32_t id = 0;
  std::uint16_t zone = 0;
};

std::optional<ConntrackEntry> decode_conntrack(ByteView content) {
  if (content.size() < sizeof(nfgenmsg)) return std::nullopt;
  ConntrackEntry entry;
  std::uint8_t reply_proto = 0;
  bool original = false;
  bool reply = false;
  for_each_attribute(after(content, sizeof(nfgenmsg)), [&](std::uint16_t type, ByteView data) {
    switch (type) {
      case CTA_TUPLE_ORIG:
        original = decode_tuple(data, entry.original, entry.proto);
        break;
      case CTA_TUPLE_REPLY:
        reply = decode_tuple(data, entry.reply, reply_proto);
        break;
      case CTA_STATUS:
        entry.status = be32_of(data);
        break;
      case CTA_PROTOINFO:
        entry.tcp_state = tcp_state_of(data);
        break;
      case CTA_MARK:
        entry.mark = be32_of(data);
        break;
      case CTA_ID:
        entry.id = be32_of(data);
        break;
      case CTA_ZONE:
        entry.zone = port_of(data);
        break;
      default:
        break;
    }
  });
  if (!original || !reply) return std::nullopt;
  return entry;
}

EraseMatcher::EraseMatcher(const EraseWish& wish)
    : addresses_(wish.addresses), translations_(wish.translations), also_(wish.also) {
  std::ranges::sort(addresses_);
  std::ranges::sort(translations_, {}, &Translation::from);
}

bool EraseMatcher::touches(const ConntrackTuple& tuple) const {
  return std::ranges::binary_search(addresses_, tuple.source) ||
         std::ranges::binary_search(addresses_, tuple.destination);
}

bool EraseMatcher::matches(const ConntrackEntry& entry) const {
  if (!addresses_.empty() && (touches(entry.original) || touches(entry.reply))) return true;
  if (also_ && also_(entry)) return true;
  if (translations_.empty()) return false;
  const auto candidates =
      std::ranges::equal_range(translations_, entry.original.destination, {}, &Translation::from);
  return std::ranges::any_of(candidates, [&entry](const Translation& one) {
    const std::uint16_t port = entry.original.destination_port;
    return entry.proto == static_cast<std::uint8_t>(one.proto) && port >= one.first_port &&
           port <= one.last_port && entry.reply.source == one.to &&
           (!one.only_unanswered || (entry.status & IPS_SEEN_REPLY) == 0);
  });
}

std::optional<Family> EraseMatcher::family() const {
  bool v4 = false;
  bool v6 = false;
  const auto note = [&](const IpAddress& address) { (address.is_v4() ? v4 : v6) = true; };
  for (const IpAddress& address : addresses_) note(address);
  // Both sides of a translation are of one family.
  for (const Translation& one : translations_) note(one.from);
  if (also_ || v4 == v6) return std::nullopt;
  return v4 ? Family::kV4 : Family::kV6;
}

bool EraseMatcher::only_translated() const {
  return addresses_.empty() && !also_ &&
         std::ranges::none_of(translations_,
                              [](const Translation& one) { return one.from == one.to; });
}

Result<Conntrack> Conntrack::open() {
  return Conntrack(TRY(Channel::open(Channel::Protocol::kNetfilter)));
}

Result<std::vector<ConntrackEntry>> Conntrack::list(const Filter& filter, std::size_t limit) {
  std::vector<ConntrackEntry> entries;
  CHECK_OK(channel_.dump(
      conntrack_message(IPCTNL_MSG_CT_GET, kAfUnspec), "list conntrack",
      [&entries] { entries.clear(); },
      [&](std::uint16_t type, ByteView content) {
        if (type != message_type(IPCTNL_MSG_CT_NEW) || entries.size() >= limit) return;
        const auto entry = decode_conntrack(content);
        if (entry && (!filter || filter(*entry))) entries.push_back(*entry);
      }));
  return entries;
}

Result<std::vector<Conntrack::Victim>> Conntrack::find_victims(const EraseMatcher& matcher) {
  std::vector<Victim> victims;
  const auto visit = [&](std::uint16_t type, ByteView content) {
    if (type != message_type(IPCTNL_MSG_CT_NEW) || victims.size() >= kMaxErasePerWalk) return;
    const auto entry = decode_conntrack(content);
    if (!entry || !matcher.matches(*entry)) return;
    Victim victim{.family = family_number(entry->original.source.family()),
                  .tuple = {},
                  .id = entry->id,
                  .zone = entry->zone};
    for_each_attribute(after(content, sizeof(nfgenmsg)), [&](std::uint16_t part, ByteView data) {
      if (part == CTA_TUPLE_ORIG) victim.tuple.assign(data.begin(), data.end());
    });
    victims.push_back(std::move(victim));
  };
  Message message = conntrack_message(IPCTNL_MSG_CT_GET, family_number(matcher.family()));
  if (matcher.only_translated()) {
    // Spares the kernel from writing the others. Kernels that do not know the mask yet send
    // all, and the matcher decides as ever.
    message.put_be32(CTA_STATUS, IPS_DST_NAT).put_be32(CTA_STATUS_MASK, IPS_DST_NAT);
  }
  CHECK_OK(channel_.dump(
      std::move(message), "find conntrack entries to erase", [&victims] { victims.clear(); },
      visit));
  return victims;
}

Result<std::size_t> Conntrack::erase_victims(std::span<const Victim> victims) {
  static constexpr std::string_view kWhat = "erase conntrack entries";
  std::size_t erased = 0;
  while (!victims.empty()) {
    const auto part = victims.first(std::min(victims.size(), Channel::kMaxBatch));
    std::vector<Message> messages;
    messages.reserve(part.size());
    for (const Victim& victim : part) {
      Message& message =
          messages.emplace_back(conntrack_message(IPCTNL_MSG_CT_DELETE, victim.family));
      message.put(CTA_TUPLE_ORIG | NLA_F_NESTED, victim.tuple).put_be32(CTA_ID, victim.id);
      if (victim.zone != 0) message.put_be16(CTA_ZONE, victim.zone);
    }
    for (const int error : TRY(channel_.change_many(messages, kWhat))) {
      if (error == 0) ++erased;
      // ENOENT: it ended by itself, or a newer one has its tuple.
      if (error != 0 && error != ENOENT) return fail_errno(std::string(kWhat), error);
    }
    victims = victims.subspan(part.size());
  }
  return erased;
}

Result<std::size_t> Conntrack::erase(const EraseWish& wish) {
  const EraseMatcher matcher(wish);
  std::size_t erased = 0;
  if (matcher.empty()) return erased;
  for (int walk = 0; walk < kMaxWalks; ++walk) {
    const std::vector<Victim> victims = TRY(find_victims(matcher));
    erased += TRY(erase_victims(victims));
    if (victims.size() < kMaxErasePerWalk) return erased;
  }
  return fail(ErrorCode::kExhausted,
              "erase conntrack entries: more appeared than " + std::to_string(erased) + " erased");
}

Result<std::uint32_t> Conntrack::count() {
  static constexpr std::string_view kWhat = "count conntrack entries";
  std::optional<std::uint32_t> count;
  const bool found =
      TRY(channel_.get(conntrack_message(IPCTNL_MSG_CT_GET_STATS, kAfUnspec), kWhat,
                       [&count](std::uint16_t, ByteView content) {
                         const Attributes<4> attributes(after(content, sizeof(nfgenmsg)));
                         if (attributes.has(CTA_STATS_GLOBAL_ENTRIES)) {
                           count = attributes.be32(CTA_STATS_GLOBAL_ENTRIES);
                         }
                       }));
  if (!found || !count) return fail(ErrorCode::kUnsupported, std::string(kWhat) + ": no answer");
  return *count;
}

}  // namespace meshd::netlink
