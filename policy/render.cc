#include "policy/render.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace meshd::policy {
namespace {

using Bytes = std::span<const std::uint8_t>;

std::string_view type_name(Component component) {
  switch (component) {
    case Component::kIfname:
      return "ifname";
    case Component::kEther:
      return "ether_addr";
    case Component::kAddr4:
      return "ipv4_addr";
    case Component::kAddr6:
      return "ipv6_addr";
    case Component::kProto:
      return "inet_proto";
    case Component::kPort:
      return "inet_service";
    case Component::kMark:
    case Component::kSlot:  // nft has no type of plain numbers that a set may be declared with
      return "mark";
    case Component::kUid:
      return "uid";
  }
  return {};
}

std::string type_text(std::span<const Component> components) {
  std::string text;
  for (const auto component : components) {
    if (!text.empty()) text += " . ";
    text += type_name(component);
  }
  return text;
}

std::string protocol_text(std::uint8_t number) {
  switch (number) {
    case 1:
      return "icmp";
    case 6:
      return "tcp";
    case 17:
      return "udp";
    case 58:
      return "ipv6-icmp";
    default:
      return std::to_string(number);
  }
}

std::string component_text(Component component, Bytes bytes, bool interval) {
  const auto number = [bytes, interval] {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);
    return interval ? std::byteswap(value) : value;
  };
  switch (component) {
    case Component::kIfname: {
      const std::string_view name(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return fmt::format("\"{}\"", name.substr(0, name.find('\0')));
    }
    case Component::kEther:
      return fmt::format("{:02x}", fmt::join(bytes, ":"));
    case Component::kAddr4:
      return IpAddress::v4(bytes.first<4>()).to_string();
    case Component::kAddr6:
      return IpAddress::v6(bytes.first<16>()).to_string();
    case Component::kProto:
      return protocol_text(bytes[0]);
    case Component::kPort:
      return std::to_string(bytes[0] << 8 | bytes[1]);
    case Component::kMark:
      return fmt::format("0x{:08x}", number());
    case Component::kSlot:
    case Component::kUid:
      return std::to_string(number());
  }
  return {};
}

// A key, or an interval's first and last key.
std::string key_text(std::span<const Component> components, Bytes first, Bytes last) {
  std::string text;
  std::size_t offset = 0;
  for (const auto component : components) {
    const auto size = component_size(component);
    if (offset > 0) text += " . ";
    text += component_text(component, first.subspan(offset, size), !last.empty());
    if (!last.empty() &&
        !std::ranges::equal(first.subspan(offset, size), last.subspan(offset, size))) {
      text += "-" + component_text(component, last.subspan(offset, size), true);
    }
    offset += (size + 3) / 4 * 4;
  }
  return text;
}

std::string concat_text(const std::vector<Field>& fields) {
  std::string text;
  for (const Field field : fields) {
    if (!text.empty()) text += " . ";
    text += field_info(field).text;
  }
  return text;
}

// Field values: protocols and packet types by name, so that a reader need not know numbers.
std::string value_text(Field field, const Value& value) {
  if (const auto* address = std::get_if<IpAddress>(&value)) return address->to_string();
  const auto number = std::get<std::uint32_t>(value);
  if (field_info(field).kind == Component::kProto && number != 44) {
    return protocol_text(static_cast<std::uint8_t>(number));
  }
  if (field == Field::kPkttype && number == 0) return "host";
  if (field == Field::kCtDirection) return number == 0 ? "original" : "reply";
  return std::to_string(number);
}

struct PartText {
  std::string operator()(const Match& part) const {
    std::string values;
    for (const auto& value : part.values) {
      if (!values.empty()) values += ", ";
      values += value_text(part.field, value);
    }
    if (part.values.size() != 1) values = "{ " + values + " }";
    return fmt::format("{} {}{}", field_info(part.field).text, part.negated ? "!= " : "", values);
  }
  std::string operator()(const CtState& part) const {
    constexpr std::array<std::pair<std::uint32_t, std::string_view>, 4> kNames = {
        {{kCtInvalid, "invalid"},
         {kCtEstablished, "established"},
         {kCtRelated, "related"},
         {kCtNew, "new"}}};
    std::string names;
    for (const auto& [bit, name] : kNames) {
      if ((part.any_of & bit) == 0) continue;
      if (!names.empty()) names += ",";
      names += name;
    }
    return "ct state " + names;
  }
  std::string operator()(const CtTranslated&) const { return "ct status dnat"; }
  std::string operator()(const CtConfirmed&) const { return "ct status confirmed"; }
  std::string operator()(const InSet& part) const {
    return fmt::format("{} {}@{}", concat_text(part.key), part.negated ? "!= " : "", part.set);
  }
  std::string operator()(const InProfile& part) const {
    const auto owner = concat_text(part.owner);
    auto text = fmt::format("{} map @{} . {} {}@{}", owner, part.map, concat_text(part.rest),
                            part.by_row ? "map " : "", part.set);
    if (part.counts.empty()) return text;
    return fmt::format("{}{}{} @{}", text, part.by_row ? " . " : " ", owner, part.counts);
  }
  std::string operator()(const Meter& part) const {
    return fmt::format("update @{} {{ {} limit rate {}{}/second burst {} packets }}", part.set,
                       field_info(part.key).text, part.over ? "over " : "", part.rate, part.burst);
  }
  std::string operator()(const ConnectionsOver& part) const {
    return fmt::format("add @{} {{ {} ct count over {} }}", part.set, field_info(part.key).text,
                       part.limit);
  }
  std::string operator()(const RateLimit& part) const {
    return fmt::format("limit rate {}/second burst {} packets", part.rate, part.burst);
  }
  std::string operator()(const ClampSegments&) const { return "tcp option maxseg size set rt mtu"; }
  std::string operator()(const Count& part) const {
    return fmt::format("counter name {}", part.counter);
  }
  std::string operator()(const LogTo& part) const {
    return fmt::format("log prefix \"{}\" group {} snaplen {}", part.prefix, part.group,
                       part.snaplen);
  }
  std::string operator()(const Notrack&) const { return "notrack"; }
  std::string operator()(const Verdict& part) const {
    constexpr std::array<std::string_view, 4> kNames = {"accept", "drop", "jump ", "goto "};
    return std::string(kNames[static_cast<std::size_t>(part.kind)]) + part.chain;
  }
  std::string operator()(const Reject& part) const {
    return part.kind == RejectKind::kTcpReset ? "reject with tcp reset"
                                              : "reject with icmpx type port-unreachable";
  }
  std::string operator()(const TranslateTo& part) const {
    return fmt::format("{} {} to {}", part.source ? "snat" : "dnat",
                       part.address.is_v4() ? "ip" : "ip6", part.address.to_string());
  }
  std::string operator()(const TranslateByMap& part) const {
    return fmt::format("dnat {} to {} map @{}", part.family == Family::kV4 ? "ip" : "ip6",
                       concat_text(part.key), part.map);
  }
  std::string operator()(const Masquerade&) const { return "masquerade fully-random"; }
};

void render_set(const SetInfo& info, std::span<const Element> elements, std::string& text) {
  text += fmt::format("  {} {} {{\n    type {}", info.data.empty() ? "set" : "map", info.name,
                      type_text(info.key));
  if (!info.data.empty()) text += " : " + type_text(info.data);
  // Written as the kernel has it, so that this text and the byte code make the same table.
  const bool twice = is_number_map(info);
  if (twice) text += " . " + type_text(info.data);
  text += "\n";
  if (info.size > 0) text += fmt::format("    size {}\n", info.size);
  if (info.interval) text += "    flags interval\n";
  if (info.counter) text += "    counter\n";
  if (!elements.empty()) {
    text += "    elements = {\n";
    for (const auto& element : elements) {
      text += "      " + element_text(element);
      if (twice) text += " . " + key_text(info.data, element.data(), {});
      text += ",\n";
    }
    text += "    }\n";
  }
  text += "  }\n";
}

void render_dynamic(const DynamicSet& set, std::string& text) {
  text += fmt::format("  set {} {{\n    type {}\n    size {}\n    flags dynamic\n", set.name,
                      type_name(set.key), set.size);
  if (set.timeout.count() > 0) text += fmt::format("    timeout {}s\n", set.timeout.count());
  text += "  }\n";
}

void render_chain(const Chain& chain, std::string& text) {
  constexpr std::array<std::string_view, 5> kHooks = {"prerouting", "input", "forward", "output",
                                                      "postrouting"};
  text += fmt::format("  chain {} {{\n", chain.name);
  if (chain.base) {
    text += fmt::format("    type {} hook {} priority {}; policy accept;\n",
                        chain.base->nat ? "nat" : "filter",
                        kHooks[static_cast<std::size_t>(chain.base->hook)], chain.base->priority);
  }
  for (const auto& rule : chain.rules) {
    text += nft_can_write(rule) ? "    " : "    # ";
    text += render_rule(rule) + "\n";
  }
  text += "  }\n";
}

}  // namespace

std::string element_text(const Element& element) {
  if (!is_well_formed(element)) {
    return fmt::format("0x{:02x}", fmt::join(element.bytes, ""));
  }
  const SetInfo& info = set_info(element.set);
  auto text = key_text(info.key, element.key(), element.key_end());
  if (!info.data.empty()) text += " : " + key_text(info.data, element.data(), {});
  return text;
}

bool nft_can_write(const Rule& rule) {
  return std::ranges::none_of(rule, [](const Part& part) {
    if (std::holds_alternative<InProfile>(part)) return true;
    const auto* translate = std::get_if<TranslateByMap>(&part);
    return translate != nullptr &&
           std::ranges::find(translate->key, Field::kRandomSlot) != translate->key.end();
  });
}

std::string render_rule(const Rule& rule) {
  std::string text;
  for (const auto& part : rule) {
    if (!text.empty()) text += " ";
    text += std::visit(PartText{}, part);
  }
  return text;
}

std::string render(const Table& table, std::span<const Element> elements) {
  std::string text = fmt::format("table inet {} {{\n", table.name);
  for (const auto& counter : table.counters) text += fmt::format("  counter {} {{ }}\n", counter);
  for (std::size_t i = 0; i < kSetCount; ++i) {
    const auto id = static_cast<SetId>(i);
    const auto own = std::ranges::equal_range(elements, id, {}, &Element::set);
    render_set(set_info(id), own, text);
  }
  for (const auto& set : table.dynamic_sets) render_dynamic(set, text);
  for (const auto& chain : table.chains) render_chain(chain, text);
  text += "}\n";
  return text;
}

}  // namespace meshd::policy
