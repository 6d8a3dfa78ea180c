#include "netlink/nft_batch.h"

#include <endian.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "netlink/nft_numbers.h"
#include "netlink/nft_objects.h"

extern "C" {
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter/nfnetlink.h>
}

namespace meshd::netlink {
namespace {

// The longest message: 64 expressions of kMaxExprBytes, or a list of elements, whose
// attribute has a length of 16 bits.
constexpr std::size_t kScratchBytes = 72 * 1024;
// An element with its interval's end: four values of 64 bytes, their headers, a timeout.
constexpr std::size_t kMaxElementBytes = 384;
// What one list of elements may take; the last one begun must still fit.
constexpr std::size_t kMaxListBytes = 0xffff - kMaxElementBytes;

// What a message without expressions and elements takes at most: three names, some numbers.
constexpr std::size_t kMaxObjectBytes = 1024;
constexpr std::size_t kMaxExprBytes = 512;

constexpr std::uint32_t kBeginSequence = 1;
constexpr std::uint32_t kFirstSequence = 2;
constexpr std::size_t kMarkBytes = sizeof(nlmsghdr) + sizeof(nfgenmsg);

nlmsghdr* put_header(void* at, std::uint16_t type, std::uint8_t family, std::uint16_t flags,
                     std::uint32_t sequence) {
  nlmsghdr* header = mnl_nlmsg_put_header(at);
  header->nlmsg_type = type;
  header->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  header->nlmsg_seq = sequence;
  auto* extra = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(nfgenmsg)));
  extra->nfgen_family = family;
  extra->version = NFNETLINK_V0;
  // Begin and end name the subsystem here; in messages it is 0.
  extra->res_id = family == AF_UNSPEC ? htons(NFNL_SUBSYS_NFTABLES) : std::uint16_t{0};
  return header;
}

std::uint32_t packed_types(std::span<const KeyType> types) {
  std::uint32_t packed = 0;
  for (const auto type : types) packed = packed << 6 | static_cast<std::uint32_t>(type);
  return packed;
}

std::uint32_t set_flags(const SetSpec& set) {
  std::uint32_t flags = 0;
  if (set.interval) flags |= NFT_SET_INTERVAL;
  if (set.is_concat_interval()) flags |= NFT_SET_CONCAT;
  if (set.dynamic) flags |= NFT_SET_EVAL;
  if (set.has_timeout) flags |= NFT_SET_TIMEOUT;
  if (!set.data.empty()) flags |= NFT_SET_MAP;
  return flags;
}

// nft prints numbers by the byte order that stands in the set's user data: entries of a
// type (0: key, 1: data), a length and 4 bytes. 1 is host order, 2 network order, 0 for a
// concatenation, whose components know theirs.
void add_byte_order(Bytes& user_data, std::uint8_t entry, std::span<const KeyType> types) {
  const std::uint32_t order = types.size() > 1 ? 0 : is_host_order(types[0]) ? 1 : 2;
  user_data.push_back(entry);
  user_data.push_back(sizeof order);
  const auto bytes = host_bytes(order);
  user_data.insert(user_data.end(), bytes.begin(), bytes.end());
}

Bytes comment_data(std::string_view comment) {
  Bytes data = {0 /* NFTNL_UDATA_RULE_COMMENT */, static_cast<std::uint8_t>(comment.size() + 1)};
  data.insert(data.end(), comment.begin(), comment.end());
  data.push_back(0);
  return data;
}

void put_value(nlmsghdr* message, std::uint16_t type, ByteSpan value) {
  nlattr* nest = mnl_attr_nest_start(message, type);
  mnl_attr_put(message, NFTA_DATA_VALUE, value.size(), value.data());
  mnl_attr_nest_end(message, nest);
}

void put_interval_end(nlmsghdr* message, ByteSpan last) {
  std::array<std::uint8_t, kMaxKeyBytes> end{};
  std::ranges::copy(last, end.begin());
  // The kernel keeps the first key that is no longer in it; none after the last of all.
  std::size_t i = last.size();
  while (i > 0 && ++end[i - 1] == 0) --i;
  if (i == 0) return;
  nlattr* nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
  mnl_attr_put_u32(message, NFTA_SET_ELEM_FLAGS, htonl(NFT_SET_ELEM_INTERVAL_END));
  put_value(message, NFTA_SET_ELEM_KEY, ByteSpan(end.data(), last.size()));
  mnl_attr_nest_end(message, nest);
}

void put_element(nlmsghdr* message, const SetSpec& set, const ElementView& element, bool remove) {
  const ByteSpan last = element.key_end.empty() ? element.key : element.key_end;
  nlattr* nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
  put_value(message, NFTA_SET_ELEM_KEY, element.key);
  if (set.is_concat_interval()) put_value(message, NFTA_SET_ELEM_KEY_END, last);
  if (!remove && !element.data.empty()) put_value(message, NFTA_SET_ELEM_DATA, element.data);
  if (!remove && element.timeout.count() > 0) {
    mnl_attr_put_u64(message, NFTA_SET_ELEM_TIMEOUT,
                     htobe64(static_cast<std::uint64_t>(element.timeout.count())));
  }
  mnl_attr_nest_end(message, nest);
  if (set.interval && !set.is_concat_interval()) put_interval_end(message, last);
}

std::string_view element_fault(const SetSpec& set, const ElementView& element, bool remove,
                               std::size_t key_bytes, std::size_t data_bytes) {
  if (element.key.size() != key_bytes) return "a key has not the set's length";
  if (!element.key_end.empty()) {
    if (!set.interval) return "an interval in a set without intervals";
    if (element.key_end.size() != key_bytes) return "a last key has not the set's length";
    const bool ordered = set.is_concat_interval() ||
                         !std::ranges::lexicographical_compare(element.key_end, element.key);
    if (!ordered) return "an interval ends before it begins";
  }
  if (!remove && element.data.size() != data_bytes) return "data has not the map's length";
  if (element.timeout.count() < 0 || (element.timeout.count() > 0 && !set.has_timeout)) {
    return "a timeout in a set without them";
  }
  return {};
}

}  // namespace

NftBatch::NftBatch(std::string table, std::optional<std::uint32_t> generation, TableFamily family)
    : table_(std::move(table)),
      family_(static_cast<std::uint8_t>(number_of(kTableFamilies, family))),
      scratch_(std::make_unique_for_overwrite<std::byte[]>(kScratchBytes)) {
  nlmsghdr* first = put_header(scratch_.get(), NFNL_MSG_BATCH_BEGIN, AF_UNSPEC, 0, kBeginSequence);
  if (generation) mnl_attr_put_u32(first, NFNL_BATCH_GENID, htonl(*generation));
  buffer_.assign(scratch_.get(), scratch_.get() + first->nlmsg_len);
  nlmsghdr* last = put_header(scratch_.get(), NFNL_MSG_BATCH_END, AF_UNSPEC, 0, kFirstSequence);
  buffer_.insert(buffer_.end(), scratch_.get(), scratch_.get() + last->nlmsg_len);
  if (auto named = check_name("table", table_); !named) {
    failed_ = named.error();
    table_.clear();  // nothing of it may reach a message: they have room for checked names
  }
}

nlmsghdr* NftBatch::begin(std::uint16_t type, std::uint16_t flags, std::size_t room) {
  // libmnl 1.0.4 leaves the padding behind attributes as it finds it: equal input would
  // give different bytes, and what the memory held before would go to the kernel.
  std::memset(scratch_.get(), 0, std::min(room, kScratchBytes));
  const auto sequence = kFirstSequence + static_cast<std::uint32_t>(messages_.size());
  return put_header(scratch_.get(), static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type),
                    family_, flags, sequence);
}

void NftBatch::append(const nlmsghdr* message, std::string object, std::vector<KeyType> key) {
  // Only the last message asks for an acknowledgement.
  const auto set_ack = [this](std::size_t offset, bool on) {
    nlmsghdr header;
    std::memcpy(&header, buffer_.data() + offset, sizeof header);
    header.nlmsg_flags = static_cast<std::uint16_t>(on ? header.nlmsg_flags | NLM_F_ACK
                                                       : header.nlmsg_flags & ~NLM_F_ACK);
    std::memcpy(buffer_.data() + offset, &header, sizeof header);
  };
  if (!messages_.empty()) set_ack(messages_.back().offset, false);
  const std::size_t offset = buffer_.size() - kMarkBytes;  // over the old end message
  buffer_.erase(buffer_.begin() + static_cast<std::ptrdiff_t>(offset), buffer_.end());
  const auto* bytes = reinterpret_cast<const std::byte*>(message);
  buffer_.insert(buffer_.end(), bytes, bytes + message->nlmsg_len);
  messages_.push_back({offset, std::move(object), std::move(key)});
  set_ack(offset, true);
  const auto sequence = kFirstSequence + static_cast<std::uint32_t>(messages_.size());
  const nlmsghdr* last = put_header(scratch_.get(), NFNL_MSG_BATCH_END, AF_UNSPEC, 0, sequence);
  const auto* end = reinterpret_cast<const std::byte*>(last);
  buffer_.insert(buffer_.end(), end, end + last->nlmsg_len);
}

Status NftBatch::remember(Status status) {
  if (status && buffer_.size() > kMaxBatchBytes) {
    status = fail(ErrorCode::kExhausted,
                  fmt::format("a transaction of more than {} bytes", kMaxBatchBytes));
  }
  if (!status && !failed_) failed_ = status.error();
  if (status && failed_) return std::unexpected(*failed_);
  return status;
}

Status NftBatch::put_table(std::uint32_t flags) {
  auto table = new_table();
  nftnl_table_set_str(table.get(), NFTNL_TABLE_NAME, table_.c_str());
  nftnl_table_set_u32(table.get(), NFTNL_TABLE_FLAGS, flags);
  nlmsghdr* message = begin(NFT_MSG_NEWTABLE, NLM_F_CREATE, kMaxObjectBytes);
  nftnl_table_nlmsg_build_payload(message, table.get());
  append(message, "table " + table_);
  return remember({});
}

Status NftBatch::delete_table() {
  nlmsghdr* message = begin(NFT_MSG_DELTABLE, 0, kMaxObjectBytes);
  mnl_attr_put_strz(message, NFTA_TABLE_NAME, table_.c_str());
  append(message, "delete table " + table_);
  return remember({});
}

Status NftBatch::put_chain(const ChainSpec& chain) {
  CHECK_OK(remember(check_name("chain", chain.name)));
  auto object = new_chain();
  nftnl_chain_set_str(object.get(), NFTNL_CHAIN_TABLE, table_.c_str());
  nftnl_chain_set_str(object.get(), NFTNL_CHAIN_NAME, chain.name.c_str());
  if (chain.base) {
    const auto& base = *chain.base;
    const auto* type = std::ranges::find(kChainTypes, base.type, [](auto& t) { return t.first; });
    nftnl_chain_set_str(object.get(), NFTNL_CHAIN_TYPE, type->second);
    nftnl_chain_set_u32(object.get(), NFTNL_CHAIN_HOOKNUM, number_of(kHooks, base.hook));
    nftnl_chain_set_s32(object.get(), NFTNL_CHAIN_PRIO, base.priority);
    nftnl_chain_set_u32(object.get(), NFTNL_CHAIN_POLICY,
                        base.policy == Policy::kAccept ? NF_ACCEPT : NF_DROP);
  }
  nlmsghdr* message = begin(NFT_MSG_NEWCHAIN, NLM_F_CREATE, kMaxObjectBytes);
  nftnl_chain_nlmsg_build_payload(message, object.get());
  append(message, "chain " + chain.name);
  return remember({});
}

// A message of the table's name and one more.
Status NftBatch::name_only(std::uint16_t type, std::string_view kind, std::string_view name,
                           std::uint16_t attribute) {
  CHECK_OK(check_name(kind, name));
  nlmsghdr* message = begin(type, 0, kMaxObjectBytes);
  // The table's attribute has number 1 in every kind of message (NFTA_CHAIN_TABLE, ...).
  mnl_attr_put_strz(message, NFTA_CHAIN_TABLE, table_.c_str());
  mnl_attr_put_strz(message, attribute, std::string(name).c_str());
  append(message, fmt::format("{} {}", kind, name));
  return {};
}

Status NftBatch::delete_chain(std::string_view chain) {
  return remember(name_only(NFT_MSG_DELCHAIN, "delete chain", chain, NFTA_CHAIN_NAME));
}

Status NftBatch::flush_chain(std::string_view chain) {
  return remember(name_only(NFT_MSG_DELRULE, "flush chain", chain, NFTA_RULE_CHAIN));
}

Status NftBatch::flush_rules() {
  nlmsghdr* message = begin(NFT_MSG_DELRULE, 0, kMaxObjectBytes);
  mnl_attr_put_strz(message, NFTA_RULE_TABLE, table_.c_str());
  append(message, "flush rules of table " + table_);
  return remember({});
}

Status NftBatch::delete_set(std::string_view set) {
  return remember(name_only(NFT_MSG_DELSET, "delete set", set, NFTA_SET_NAME));
}

Status NftBatch::flush_set(std::string_view set) {
  return remember(name_only(NFT_MSG_DELSETELEM, "flush set", set, NFTA_SET_ELEM_LIST_SET));
}

Status NftBatch::put_counter(std::string_view name) {
  CHECK_OK(remember(check_name("counter", name)));
  auto object = new_obj();
  nftnl_obj_set_str(object.get(), NFTNL_OBJ_TABLE, table_.c_str());
  nftnl_obj_set_str(object.get(), NFTNL_OBJ_NAME, std::string(name).c_str());
  nftnl_obj_set_u32(object.get(), NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
  // The kernel wants the object's data, be it zeros.
  nftnl_obj_set_u64(object.get(), NFTNL_OBJ_CTR_PKTS, 0);
  nftnl_obj_set_u64(object.get(), NFTNL_OBJ_CTR_BYTES, 0);
  nlmsghdr* message = begin(NFT_MSG_NEWOBJ, NLM_F_CREATE, kMaxObjectBytes);
  nftnl_obj_nlmsg_build_payload(message, object.get());
  append(message, fmt::format("counter {}", name));
  return remember({});
}

Status NftBatch::delete_counter(std::string_view name) {
  CHECK_OK(remember(check_name("counter", name)));
  nlmsghdr* message = begin(NFT_MSG_DELOBJ, 0, kMaxObjectBytes);
  mnl_attr_put_strz(message, NFTA_OBJ_TABLE, table_.c_str());
  mnl_attr_put_strz(message, NFTA_OBJ_NAME, std::string(name).c_str());
  mnl_attr_put_u32(message, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
  append(message, fmt::format("delete counter {}", name));
  return remember({});
}

Status NftBatch::put_rule(std::string_view chain, const Exprs& exprs, std::string_view comment) {
  return remember(try_put_rule(chain, exprs, comment, NLM_F_CREATE | NLM_F_APPEND));
}

Status NftBatch::insert_rule(std::string_view chain, const Exprs& exprs, std::string_view comment) {
  return remember(try_put_rule(chain, exprs, comment, NLM_F_CREATE));
}

Status NftBatch::delete_rule(std::string_view chain, std::uint64_t handle) {
  CHECK_OK(remember(check_name("chain", chain)));
  nlmsghdr* message = begin(NFT_MSG_DELRULE, 0, kMaxObjectBytes);
  mnl_attr_put_strz(message, NFTA_RULE_TABLE, table_.c_str());
  mnl_attr_put_strz(message, NFTA_RULE_CHAIN, std::string(chain).c_str());
  mnl_attr_put_u64(message, NFTA_RULE_HANDLE, htobe64(handle));
  append(message, fmt::format("delete rule {} of chain {}", handle, chain));
  return remember({});
}

Status NftBatch::try_put_rule(std::string_view chain, const Exprs& exprs, std::string_view comment,
                              std::uint16_t flags) {
  CHECK_OK(check_name("chain", chain));
  auto checked = check_exprs(exprs);
  if (!checked) {
    return std::unexpected(std::move(checked.error()).in(fmt::format("rule in chain {}", chain)));
  }
  const bool clean = std::ranges::all_of(comment, [](char c) { return c >= ' ' && c <= '~'; });
  if (comment.size() > kMaxCommentBytes || !clean) {
    return fail(ErrorCode::kInvalid,
                fmt::format("rule in chain {}: a comment has at most {} printable characters",
                            chain, kMaxCommentBytes));
  }
  const std::uint32_t first_set_id = next_set_id_;
  for (const auto& expr : exprs) {
    if (const auto* set = std::get_if<InSet>(&expr)) CHECK_OK(put_inline_set(*set));
  }
  auto rule = new_rule();
  nftnl_rule_set_str(rule.get(), NFTNL_RULE_TABLE, table_.c_str());
  nftnl_rule_set_str(rule.get(), NFTNL_RULE_CHAIN, std::string(chain).c_str());
  add_exprs(rule.get(), exprs, first_set_id);
  if (!comment.empty()) {
    const auto data = comment_data(comment);
    nftnl_rule_set_data(rule.get(), NFTNL_RULE_USERDATA, data.data(),
                        static_cast<std::uint32_t>(data.size()));
  }
  nlmsghdr* message = begin(NFT_MSG_NEWRULE, flags, kMaxObjectBytes + exprs.size() * kMaxExprBytes);
  nftnl_rule_nlmsg_build_payload(message, rule.get());
  append(message, comment.empty() ? fmt::format("rule in chain {}", chain)
                                  : fmt::format("rule \"{}\" in chain {}", comment, chain));
  return {};
}

void NftBatch::put_set_message(const SetSpec& set, std::uint32_t flags, std::uint32_t id) {
  auto object = new_set();
  nftnl_set_set_str(object.get(), NFTNL_SET_TABLE, table_.c_str());
  nftnl_set_set_str(object.get(), NFTNL_SET_NAME, set.name.c_str());
  nftnl_set_set_u32(object.get(), NFTNL_SET_ID, id);
  nftnl_set_set_u32(object.get(), NFTNL_SET_FLAGS, flags);
  nftnl_set_set_u32(object.get(), NFTNL_SET_KEY_TYPE, packed_types(set.key));
  nftnl_set_set_u32(object.get(), NFTNL_SET_KEY_LEN,
                    static_cast<std::uint32_t>(key_length(set.key)));
  Bytes user_data;
  add_byte_order(user_data, 0, set.key);
  if (!set.data.empty()) {
    nftnl_set_set_u32(object.get(), NFTNL_SET_DATA_TYPE, packed_types(set.data));
    nftnl_set_set_u32(object.get(), NFTNL_SET_DATA_LEN,
                      static_cast<std::uint32_t>(key_length(set.data)));
    add_byte_order(user_data, 1, set.data);
  }
  nftnl_set_set_data(object.get(), NFTNL_SET_USERDATA, user_data.data(),
                     static_cast<std::uint32_t>(user_data.size()));
  if (set.size > 0) nftnl_set_set_u32(object.get(), NFTNL_SET_DESC_SIZE, set.size);
  if (set.timeout.count() > 0) {
    nftnl_set_set_u64(object.get(), NFTNL_SET_TIMEOUT,
                      static_cast<std::uint64_t>(set.timeout.count()));
  }
  if (set.is_concat_interval()) {
    Bytes lengths;
    for (const auto type : set.key) {
      lengths.push_back(static_cast<std::uint8_t>(type_length(type)));
    }
    nftnl_set_set_data(object.get(), NFTNL_SET_DESC_CONCAT, lengths.data(),
                       static_cast<std::uint32_t>(lengths.size()));
  }
  if (set.counter) nftnl_set_add_expr(object.get(), new_expr("counter").release());
  nlmsghdr* message = begin(NFT_MSG_NEWSET, NLM_F_CREATE, kMaxObjectBytes);
  nftnl_set_nlmsg_build_payload(message, object.get());
  append(message, "set " + set.name);
}

Status NftBatch::put_set(const SetSpec& set) {
  CHECK_OK(remember(check_set(set)));
  auto limited = set;
  limited.size = std::min(set.size, set_limit_);
  put_set_message(limited, set_flags(set), next_set_id_++);
  return remember({});
}

Status NftBatch::put_inline_set(const InSet& set) {
  SetSpec spec{.name = "__set%d", .key = set.types};
  spec.size = static_cast<std::uint32_t>(set.keys.size());
  const std::uint32_t id = next_set_id_++;
  put_set_message(spec, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT, id);
  nlmsghdr* message =
      begin(NFT_MSG_NEWSETELEM, NLM_F_CREATE, kMaxObjectBytes + set.keys.size() * kMaxElementBytes);
  mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, table_.c_str());
  mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, spec.name.c_str());
  mnl_attr_put_u32(message, NFTA_SET_ELEM_LIST_SET_ID, htonl(id));
  nlattr* list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
  for (const auto& key : set.keys) put_element(message, spec, {.key = key}, false);
  mnl_attr_nest_end(message, list);
  append(message, "set in a rule", set.types);
  return {};
}

Status NftBatch::put_elements(const SetSpec& set, std::span<const ElementView> elements) {
  return remember(try_elements(set, elements, false));
}

Status NftBatch::del_elements(const SetSpec& set, std::span<const ElementView> elements) {
  return remember(try_elements(set, elements, true));
}

Status NftBatch::try_elements(const SetSpec& set, std::span<const ElementView> elements,
                              bool remove) {
  CHECK_OK(check_set(set));
  const std::size_t key_bytes = key_length(set.key), data_bytes = key_length(set.data);
  for (const auto& element : elements) {
    const auto fault = element_fault(set, element, remove, key_bytes, data_bytes);
    if (fault.empty()) continue;
    return fail(ErrorCode::kInvalid, fmt::format("set {}, element {}: {}", set.name,
                                                 key_text(element.key, set.key), fault));
  }
  const std::string object = (remove ? "delete from set " : "add to set ") + set.name;
  for (std::size_t i = 0; i < elements.size();) {
    if (buffer_.size() > kMaxBatchBytes) break;  // remember() makes an error of it
    const std::size_t room = kMaxObjectBytes + (elements.size() - i) * kMaxElementBytes;
    nlmsghdr* message =
        remove ? begin(NFT_MSG_DELSETELEM, 0, room) : begin(NFT_MSG_NEWSETELEM, NLM_F_CREATE, room);
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, table_.c_str());
    mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, set.name.c_str());
    nlattr* list = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
    for (; i < elements.size() && message->nlmsg_len < kMaxListBytes; ++i) {
      put_element(message, set, elements[i], remove);
    }
    mnl_attr_nest_end(message, list);
    append(message, object, set.key);
  }
  return {};
}

}  // namespace meshd::netlink
