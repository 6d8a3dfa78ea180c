#include "netlink/nft_decode.h"

#include <algorithm>
#include <chrono>

#include "netlink/nft_numbers.h"

extern "C" {
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
}

namespace meshd::netlink {
namespace {

// The family; the attributes follow the 4 bytes of nfgenmsg.
std::optional<std::uint8_t> family_of(AttributeBytes payload) {
  if (payload.size() < sizeof(nfgenmsg)) return std::nullopt;
  return static_cast<std::uint8_t>(payload[0]);
}

AttributeBytes attributes_of(AttributeBytes payload) { return payload.subspan(sizeof(nfgenmsg)); }

std::vector<KeyType> unpack_types(std::uint32_t packed) {
  std::vector<KeyType> types;
  for (; packed != 0; packed >>= 6) types.push_back(static_cast<KeyType>(packed & 0x3f));
  std::ranges::reverse(types);
  return types;
}

// nft's comment in a rule's user data: entries of a type, a length and that many bytes.
std::string comment_of(std::span<const std::uint8_t> data) {
  while (data.size() >= 2) {
    const std::size_t length = data[1];
    if (length > data.size() - 2) return {};
    if (data[0] == 0) {  // NFTNL_UDATA_RULE_COMMENT
      const std::string_view text(reinterpret_cast<const char*>(data.data() + 2), length);
      return std::string(text.substr(0, text.find('\0')));
    }
    data = data.subspan(2 + length);
  }
  return {};
}

// And iptables', which is a match that always does; its data is text. Whoever saves and restores
// the rules by iptables turns the one into the other.
std::optional<std::string> iptables_comment(AttributeBytes element) {
  const Attributes<NFTA_EXPR_MAX + 1> expr(element);
  if (expr.text(NFTA_EXPR_NAME) != "match") return std::nullopt;
  const Attributes<NFTA_MATCH_MAX + 1> match(expr.bytes(NFTA_EXPR_DATA));
  if (match.text(NFTA_MATCH_NAME) != "comment") return std::nullopt;
  return std::string(match.text(NFTA_MATCH_INFO));
}

void decode_base(const Attributes<NFTA_CHAIN_MAX + 1>& a, ChainInfo& info) {
  const Attributes<NFTA_HOOK_MAX + 1> hook(a.bytes(NFTA_CHAIN_HOOK));
  const auto number = name_of(kHooks, hook.be32(NFTA_HOOK_HOOKNUM));
  const auto type = a.text(NFTA_CHAIN_TYPE);
  const auto* known = std::ranges::find(kChainTypes, type,
                                        [](auto& entry) { return std::string_view(entry.second); });
  if (!number || !hook.has(NFTA_HOOK_HOOKNUM) || hook.has(NFTA_HOOK_DEV) ||
      hook.has(NFTA_HOOK_DEVS) || known == kChainTypes.end()) {
    info.foreign = "its hook or type";
    return;
  }
  BaseChain base;
  base.type = known->first;
  base.hook = *number;
  base.priority = static_cast<std::int32_t>(hook.be32(NFTA_HOOK_PRIORITY));
  base.policy = a.has(NFTA_CHAIN_POLICY) && a.be32(NFTA_CHAIN_POLICY) == NF_DROP ? Policy::kDrop
                                                                                 : Policy::kAccept;
  info.chain.spec.base = base;
}

// The expressions that each element of a set carries: a counter, or foreign.
void decode_set_exprs(const Attributes<NFTA_SET_MAX + 1>& a, SetInfo& info) {
  const auto take = [&info](AttributeBytes expr) {
    const auto name = Attributes<3>(expr).text(NFTA_EXPR_NAME);
    if (name == "counter" && !info.spec.counter) {
      info.spec.counter = true;
    } else {
      info.foreign = "an expression of its elements";
    }
  };
  if (a.has(NFTA_SET_EXPR)) take(a.bytes(NFTA_SET_EXPR));
  for_each_attribute(a.bytes(NFTA_SET_EXPRESSIONS),
                     [&](std::uint16_t, AttributeBytes expr) { take(expr); });
}

ByteSpan value_in(AttributeBytes nest) {
  const Attributes<NFTA_DATA_VALUE + 1> data(nest);
  const auto bytes = data.octets(NFTA_DATA_VALUE);
  return bytes.size() <= kMaxKeyBytes ? bytes : ByteSpan();
}

void decode_element_counter(AttributeBytes expr, ElementView& element) {
  const Attributes<3> head(expr);
  if (head.text(NFTA_EXPR_NAME) != "counter") return;
  const Attributes<NFTA_COUNTER_PACKETS + 1> counter(head.bytes(NFTA_EXPR_DATA));
  element.packets = counter.be64(NFTA_COUNTER_PACKETS);
  element.bytes = counter.be64(NFTA_COUNTER_BYTES);
}

}  // namespace

std::optional<TableInfo> decode_nft_table(AttributeBytes payload) {
  const auto family = family_of(payload);
  if (!family) return std::nullopt;
  const Attributes<NFTA_TABLE_MAX + 1> a(attributes_of(payload));
  if (!a.has(NFTA_TABLE_NAME)) return std::nullopt;
  return TableInfo{*family, std::string(a.text(NFTA_TABLE_NAME)), a.be32(NFTA_TABLE_FLAGS),
                   a.be32(NFTA_TABLE_OWNER)};
}

std::optional<ChainInfo> decode_nft_chain(AttributeBytes payload) {
  const auto family = family_of(payload);
  if (!family) return std::nullopt;
  const Attributes<NFTA_CHAIN_MAX + 1> a(attributes_of(payload));
  if (!a.has(NFTA_CHAIN_TABLE) || !a.has(NFTA_CHAIN_NAME)) return std::nullopt;
  ChainInfo info;
  info.family = *family;
  info.table = a.text(NFTA_CHAIN_TABLE);
  info.chain.spec.name = a.text(NFTA_CHAIN_NAME);
  info.chain.handle = a.be64(NFTA_CHAIN_HANDLE);
  if (a.has(NFTA_CHAIN_HOOK)) decode_base(a, info);
  // NFT_CHAIN_BASE says only that there is a hook.
  if ((a.be32(NFTA_CHAIN_FLAGS) & ~std::uint32_t{NFT_CHAIN_BASE}) != 0) info.foreign = "its flags";
  return info;
}

std::optional<RuleInfo> decode_nft_rule(AttributeBytes payload) {
  const auto family = family_of(payload);
  if (!family) return std::nullopt;
  const Attributes<NFTA_RULE_MAX + 1> a(attributes_of(payload));
  if (!a.has(NFTA_RULE_TABLE) || !a.has(NFTA_RULE_CHAIN)) return std::nullopt;
  RuleInfo info;
  info.family = *family;
  info.table = a.text(NFTA_RULE_TABLE);
  info.rule.chain = a.text(NFTA_RULE_CHAIN);
  info.rule.handle = a.be64(NFTA_RULE_HANDLE);
  info.rule.comment = comment_of(a.octets(NFTA_RULE_USERDATA));
  CounterDump counter;
  for_each_attribute(a.bytes(NFTA_RULE_EXPRESSIONS), [&](std::uint16_t, AttributeBytes element) {
    if (auto comment = iptables_comment(element)) {
      info.rule.comment = *std::move(comment);
    } else {
      info.rule.exprs.push_back(decode_nft_expr(element, counter));
    }
  });
  info.rule.packets = counter.packets;
  info.rule.bytes = counter.bytes;
  return info;
}

std::optional<SetInfo> decode_nft_set(AttributeBytes payload) {
  const auto family = family_of(payload);
  if (!family) return std::nullopt;
  const Attributes<NFTA_SET_MAX + 1> a(attributes_of(payload));
  if (!a.has(NFTA_SET_TABLE) || !a.has(NFTA_SET_NAME)) return std::nullopt;
  SetInfo info;
  info.family = *family;
  info.table = a.text(NFTA_SET_TABLE);
  SetSpec& spec = info.spec;
  spec.name = a.text(NFTA_SET_NAME);
  spec.key = unpack_types(a.be32(NFTA_SET_KEY_TYPE));
  if (key_length(spec.key) != a.be32(NFTA_SET_KEY_LEN)) info.foreign = "its key's length";
  const auto flags = a.be32(NFTA_SET_FLAGS);
  constexpr std::uint32_t kKnown = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_INTERVAL |
                                   NFT_SET_MAP | NFT_SET_TIMEOUT | NFT_SET_EVAL | NFT_SET_CONCAT;
  if ((flags & ~kKnown) != 0) info.foreign = "its flags";
  info.anonymous = (flags & NFT_SET_ANONYMOUS) != 0;
  spec.interval = (flags & NFT_SET_INTERVAL) != 0;
  spec.dynamic = (flags & NFT_SET_EVAL) != 0;
  spec.has_timeout = (flags & NFT_SET_TIMEOUT) != 0;
  spec.timeout = std::chrono::milliseconds(a.be64(NFTA_SET_TIMEOUT));
  if ((flags & NFT_SET_MAP) != 0) {
    info.verdicts = a.be32(NFTA_SET_DATA_TYPE) == NFT_DATA_VERDICT;
    spec.data =
        info.verdicts ? std::vector{KeyType::kVerdict} : unpack_types(a.be32(NFTA_SET_DATA_TYPE));
    if (!info.verdicts && key_length(spec.data) != a.be32(NFTA_SET_DATA_LEN)) {
      info.foreign = "its data's length";
    }
    if (info.verdicts) info.foreign = "its verdicts";
  }
  const Attributes<NFTA_SET_DESC_SIZE + 1> description(a.bytes(NFTA_SET_DESC));
  spec.size = description.be32(NFTA_SET_DESC_SIZE);
  decode_set_exprs(a, info);
  return info;
}

bool decode_nft_elements(AttributeBytes payload, ElementList& elements) {
  if (!family_of(payload)) return true;
  bool room = true;
  for_each_attribute(attributes_of(payload), [&](std::uint16_t type, AttributeBytes list) {
    if (type != NFTA_SET_ELEM_LIST_ELEMENTS) return;
    for_each_attribute(list, [&](std::uint16_t, AttributeBytes bytes) {
      const Attributes<NFTA_SET_ELEM_EXPRESSIONS + 1> a(bytes);
      ElementView element;
      element.key = value_in(a.bytes(NFTA_SET_ELEM_KEY));
      if (element.key.empty() || !room) return;
      element.key_end = value_in(a.bytes(NFTA_SET_ELEM_KEY_END));
      element.data = value_in(a.bytes(NFTA_SET_ELEM_DATA));
      element.timeout = std::chrono::milliseconds(a.be64(NFTA_SET_ELEM_TIMEOUT));
      if (a.has(NFTA_SET_ELEM_EXPR)) {
        decode_element_counter(a.bytes(NFTA_SET_ELEM_EXPR), element);
      } else if (a.has(NFTA_SET_ELEM_EXPRESSIONS)) {
        for_each_attribute(
            a.bytes(NFTA_SET_ELEM_EXPRESSIONS),
            [&](std::uint16_t, AttributeBytes expr) { decode_element_counter(expr, element); });
      }
      const bool end = (a.be32(NFTA_SET_ELEM_FLAGS) & NFT_SET_ELEM_INTERVAL_END) != 0;
      room = elements.add(element, end);
    });
  });
  return room;
}

std::optional<ObjectInfo> decode_nft_object(AttributeBytes payload) {
  const auto family = family_of(payload);
  if (!family) return std::nullopt;
  const Attributes<NFTA_OBJ_MAX + 1> a(attributes_of(payload));
  if (!a.has(NFTA_OBJ_TABLE) || !a.has(NFTA_OBJ_NAME)) return std::nullopt;
  ObjectInfo info;
  info.family = *family;
  info.table = a.text(NFTA_OBJ_TABLE);
  info.values.name = a.text(NFTA_OBJ_NAME);
  info.counter = a.be32(NFTA_OBJ_TYPE) == NFT_OBJECT_COUNTER;
  if (info.counter) {
    const Attributes<NFTA_COUNTER_MAX + 1> counter(a.bytes(NFTA_OBJ_DATA));
    info.values.packets = counter.be64(NFTA_COUNTER_PACKETS);
    info.values.bytes = counter.be64(NFTA_COUNTER_BYTES);
  }
  return info;
}

std::optional<GenerationInfo> decode_nft_generation(AttributeBytes payload) {
  if (!family_of(payload)) return std::nullopt;
  const Attributes<NFTA_GEN_MAX + 1> a(attributes_of(payload));
  if (!a.has(NFTA_GEN_ID)) return std::nullopt;
  return GenerationInfo{a.be32(NFTA_GEN_ID), a.be32(NFTA_GEN_PROC_PID),
                        std::string(a.text(NFTA_GEN_PROC_NAME))};
}

}  // namespace meshd::netlink
