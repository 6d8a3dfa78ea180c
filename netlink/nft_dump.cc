#include "netlink/nft_dump.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <map>
#include <utility>

#include "netlink/nft_decode.h"
#include "netlink/nft_numbers.h"

extern "C" {
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
}

namespace meshd::netlink {
namespace {

// One question to the kernel and its whole answer.
class Request {
 public:
  Request(std::uint16_t type, std::uint8_t family, std::uint16_t flags) {
    header_ = mnl_nlmsg_put_header(buffer_);
    header_->nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type);
    header_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    auto* extra = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(header_, sizeof(nfgenmsg)));
    extra->nfgen_family = family;
    extra->version = NFNETLINK_V0;
  }
  // Names are checked: two of them always fit.
  Request& text(std::uint16_t attribute, std::string_view value) {
    mnl_attr_put_strz(header_, attribute, std::string(value).c_str());
    return *this;
  }

  // Calls fn(payload) for each message of the answer. A dump that the kernel says to be
  // inconsistent is an EINTR.
  template <class Fn>
  Status run(Socket& socket, Fn&& fn) {
    const bool dump = (header_->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    const std::uint32_t sequence = socket.next_sequence();
    header_->nlmsg_seq = sequence;
    socket.drain();
    CHECK_OK(socket.send(std::as_bytes(std::span(buffer_, header_->nlmsg_len))));
    bool done = false, interrupted = false;
    int sys_errno = 0;
    while (!done) {
      const auto datagram = TRY(socket.receive());
      for_each_message(datagram, [&](const MessageView& view) {
        if (view.sequence != sequence || done) return;
        interrupted = interrupted || (view.flags & NLM_F_DUMP_INTR) != 0;
        if (view.type == NLMSG_ERROR || view.type == NLMSG_DONE) {
          sys_errno = -static_cast<int>(read_host<std::int32_t>(view.payload).value_or(0));
          done = true;
        } else {
          fn(view.payload);
          done = !dump;
        }
      });
    }
    if (sys_errno != 0) return fail_errno("read from nf_tables", sys_errno);
    if (interrupted) return fail_errno("the ruleset changed while it was read", EINTR);
    return {};
  }

 private:
  alignas(nlmsghdr) char buffer_[512];
  nlmsghdr* header_;
};

Error too_many(std::string_view what, std::size_t limit) {
  return {ErrorCode::kInternal, fmt::format("more than {} {} in one table", limit, what), 0};
}

// The answer to a question about all of one table's objects.
template <class Fn>
Status dump_of(Socket& socket, std::uint16_t type, std::string_view table, Fn&& fn) {
  // The table's name is attribute 1 of each kind; kernels that do not filter by it (chains)
  // send all, so the callers look at the name again.
  return Request(type, NFPROTO_INET, NLM_F_DUMP).text(NFTA_RULE_TABLE, table).run(socket, fn);
}

Status read_table_info(Socket& socket, NftDump& dump) {
  bool found = false;
  auto status = Request(NFT_MSG_GETTABLE, NFPROTO_INET, 0)
                    .text(NFTA_TABLE_NAME, dump.table)
                    .run(socket, [&](AttributeBytes payload) {
                      const auto info = decode_nft_table(payload);
                      if (!info || info->name != dump.table) return;
                      dump.flags = info->flags;
                      dump.owner = info->owner;
                      found = true;
                    });
  if (!status && status.error().sys_errno != ENOENT) return status;
  if (found) return {};
  return fail(ErrorCode::kNotFound, fmt::format("there is no table inet {}", dump.table));
}

Status read_chains(Socket& socket, NftDump& dump) {
  return dump_of(socket, NFT_MSG_GETCHAIN, dump.table, [&](AttributeBytes payload) {
    auto info = decode_nft_chain(payload);
    if (!info || info->table != dump.table || info->family != NFPROTO_INET) return;
    if (!info->foreign.empty()) {
      dump.foreign.push_back(fmt::format("chain {}: {}", info->chain.spec.name, info->foreign));
    }
    dump.chains.push_back(std::move(info->chain));
  });
}

Status read_rules(Socket& socket, NftDump& dump) {
  // The kernel goes by its own order of chains; within one, the order is what matters.
  std::map<std::string, std::vector<RuleDump>> chains;
  std::size_t count = 0;
  CHECK_OK(dump_of(socket, NFT_MSG_GETRULE, dump.table, [&](AttributeBytes payload) {
    auto info = decode_nft_rule(payload);
    if (!info || info->table != dump.table || info->family != NFPROTO_INET) return;
    if (++count <= kMaxDumpedRules) chains[info->rule.chain].push_back(std::move(info->rule));
  }));
  if (count > kMaxDumpedRules) return std::unexpected(too_many("rules", kMaxDumpedRules));
  for (auto& [chain, rules] : chains) std::ranges::move(rules, std::back_inserter(dump.rules));
  return {};
}

Result<std::vector<SetInfo>> read_sets(Socket& socket, std::string_view table) {
  std::vector<SetInfo> sets;
  bool full = false;
  CHECK_OK(dump_of(socket, NFT_MSG_GETSET, table, [&](AttributeBytes payload) {
    auto info = decode_nft_set(payload);
    if (!info || info->table != table || info->family != NFPROTO_INET) return;
    full = full || sets.size() >= kMaxDumpedSets;
    if (!full) sets.push_back(std::move(*info));
  }));
  if (full) return std::unexpected(too_many("sets", kMaxDumpedSets));
  return sets;
}

Status read_elements_into(Socket& socket, std::string_view table, std::string_view set,
                          ElementList& elements) {
  bool room = true;
  CHECK_OK(Request(NFT_MSG_GETSETELEM, NFPROTO_INET, NLM_F_DUMP)
               .text(NFTA_SET_ELEM_LIST_TABLE, table)
               .text(NFTA_SET_ELEM_LIST_SET, set)
               .run(socket, [&](AttributeBytes payload) {
                 room = room && decode_nft_elements(payload, elements);
               }));
  if (!room) return std::unexpected(too_many("elements", ElementList::kMaxElements));
  return {};
}

// What stands in the rules themselves.
using InlineSets = std::map<std::string, InSet, std::less<>>;

Status read_set_elements(Socket& socket, NftDump& dump, InlineSets& inline_sets) {
  for (auto& info : TRY(read_sets(socket, dump.table))) {
    if (!info.foreign.empty() && !info.anonymous) {
      dump.foreign.push_back(fmt::format("set {}: {}", info.spec.name, info.foreign));
    }
    ElementList elements;
    std::size_t damaged = 0;
    // Dynamic sets belong to the kernel's packet path: their content is nobody's plan.
    if (!info.spec.dynamic) {
      CHECK_OK(read_elements_into(socket, dump.table, info.spec.name, elements));
      // To sort the keys of a large set takes longer than to read them, and nobody needs it.
      if (info.anonymous || info.spec.interval) damaged = elements.finish(info.spec);
    }
    if (!info.anonymous) {
      dump.sets.push_back({std::move(info.spec), std::move(elements), damaged});
      continue;
    }
    // Intervals and maps in a rule are not ours: such a rule keeps its Lookup, and differs.
    if (info.spec.interval || !info.spec.data.empty() || !info.foreign.empty()) continue;
    InSet set{.types = info.spec.key};
    for (std::size_t i = 0; i < elements.size(); ++i) {
      const auto key = elements[i].key;
      set.keys.emplace_back(key.begin(), key.end());
    }
    inline_sets.emplace(info.spec.name, std::move(set));
  }
  return {};
}

void resolve_inline_sets(NftDump& dump, const InlineSets& inline_sets) {
  for (auto& rule : dump.rules) {
    for (auto& expr : rule.exprs) {
      const auto* lookup = std::get_if<Lookup>(&expr);
      if (lookup == nullptr || lookup->to || lookup->verdict) continue;
      const auto found = inline_sets.find(lookup->set);
      if (found == inline_sets.end()) continue;
      InSet set = found->second;
      set.from = lookup->from;
      set.inverted = lookup->inverted;
      expr = std::move(set);
    }
  }
}

Status read_objects(Socket& socket, std::string_view table, std::vector<CounterDump>& counters,
                    std::vector<std::string>& foreign) {
  CHECK_OK(dump_of(socket, NFT_MSG_GETOBJ, table, [&](AttributeBytes payload) {
    auto info = decode_nft_object(payload);
    if (!info || info->table != table || info->family != NFPROTO_INET) return;
    if (counters.size() + foreign.size() >= kMaxDumpedSets) return;
    if (info->counter) {
      counters.push_back(std::move(info->values));
    } else {
      foreign.push_back("object " + info->values.name);
    }
  }));
  std::ranges::sort(counters, {}, &CounterDump::name);
  return {};
}

// A flow table lets packets past the chains, so its presence is no detail.
Status read_flowtables(Socket& socket, NftDump& dump) {
  auto status = dump_of(socket, NFT_MSG_GETFLOWTABLE, dump.table, [&](AttributeBytes payload) {
    if (payload.size() < sizeof(nfgenmsg)) return;
    const Attributes<NFTA_FLOWTABLE_MAX + 1> a(payload.subspan(sizeof(nfgenmsg)));
    if (a.text(NFTA_FLOWTABLE_TABLE) != dump.table) return;
    dump.foreign.push_back(fmt::format("flowtable {}", a.text(NFTA_FLOWTABLE_NAME)));
  });
  // A kernel without them has none.
  if (!status && status.error().sys_errno == EOPNOTSUPP) return {};
  return status;
}

Result<NftDump> read_once(Socket& socket, std::string_view table) {
  NftDump dump;
  dump.table = table;
  dump.generation = TRY(read_generation(socket));
  CHECK_OK(read_table_info(socket, dump));
  CHECK_OK(read_chains(socket, dump));
  CHECK_OK(read_rules(socket, dump));
  InlineSets inline_sets;
  CHECK_OK(read_set_elements(socket, dump, inline_sets));
  resolve_inline_sets(dump, inline_sets);
  CHECK_OK(read_objects(socket, dump.table, dump.counters, dump.foreign));
  CHECK_OK(read_flowtables(socket, dump));
  if (TRY(read_generation(socket)) != dump.generation) {
    return fail_errno("the ruleset changed while it was read", EINTR);
  }
  std::ranges::sort(dump.chains, {}, [](const ChainDump& c) { return c.spec.name; });
  std::ranges::sort(dump.sets, {}, [](const SetDump& s) { return s.spec.name; });
  std::ranges::sort(dump.foreign);
  return dump;
}

// What a concurrent change looks like from here: the kernel says so, or an object named by
// an earlier answer is gone.
bool is_interruption(const Error& error) {
  return error.code == ErrorCode::kSystem &&
         (error.sys_errno == EINTR || error.sys_errno == ENOENT || error.sys_errno == ENOBUFS);
}

}  // namespace

Result<NftDump> NftDump::read(Socket& socket, std::string_view table) {
  CHECK_OK(check_name("table", table));
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    auto dump = read_once(socket, table);
    if (dump) return dump;
    if (!is_interruption(dump.error())) {
      return std::unexpected(std::move(dump.error()).in(fmt::format("table {}", table)));
    }
  }
  return fail_errno(
      fmt::format("table {}: changed {} times while it was read", table, kMaxAttempts), EAGAIN);
}

const SetDump* NftDump::find_set(std::string_view name) const {
  const auto found = std::ranges::find(
      sets, name, [](const SetDump& s) -> std::string_view { return s.spec.name; });
  return found == sets.end() ? nullptr : &*found;
}

Result<ElementList> read_elements(Socket& socket, std::string_view table, const SetSpec& set) {
  CHECK_OK(check_name("table", table));
  CHECK_OK(check_set(set));
  ElementList elements;
  auto status = read_elements_into(socket, table, set.name, elements);
  if (!status) return std::unexpected(std::move(status.error()).in("elements of " + set.name));
  elements.finish(set);
  return elements;
}

Result<std::vector<CounterDump>> read_counters(Socket& socket, std::string_view table) {
  CHECK_OK(check_name("table", table));
  std::vector<CounterDump> counters;
  std::vector<std::string> foreign;
  CHECK_OK(read_objects(socket, table, counters, foreign));
  return counters;
}

Result<std::vector<std::string>> list_tables(Socket& socket) {
  std::vector<std::string> names;
  CHECK_OK(Request(NFT_MSG_GETTABLE, NFPROTO_INET, NLM_F_DUMP)
               .run(socket, [&names](AttributeBytes payload) {
                 auto info = decode_nft_table(payload);
                 if (info && names.size() < kMaxDumpedSets) names.push_back(std::move(info->name));
               }));
  return names;
}

Result<std::uint32_t> read_generation(Socket& socket) {
  std::optional<GenerationInfo> generation;
  CHECK_OK(Request(NFT_MSG_GETGEN, AF_UNSPEC, 0).run(socket, [&](AttributeBytes payload) {
    generation = decode_nft_generation(payload);
  }));
  if (!generation) return fail(ErrorCode::kInternal, "nf_tables told no generation");
  return generation->id;
}

Result<std::vector<NamedChain>> list_chains(Socket& socket) {
  std::vector<NamedChain> chains;
  bool full = false;
  CHECK_OK(
      Request(NFT_MSG_GETCHAIN, AF_UNSPEC, NLM_F_DUMP).run(socket, [&](AttributeBytes payload) {
        auto info = decode_nft_chain(payload);
        const auto family = info ? name_of(kTableFamilies, info->family) : std::nullopt;
        if (!family) return;
        full = full || chains.size() >= kMaxDumpedRules;
        if (!full) chains.push_back({*family, std::move(info->table), std::move(info->chain.spec)});
      }));
  if (full) return std::unexpected(too_many("chains", kMaxDumpedRules));
  return chains;
}

Result<std::vector<RuleDump>> read_rules(Socket& socket, const NamedChain& chain) {
  CHECK_OK(check_name("table", chain.table));
  CHECK_OK(check_name("chain", chain.spec.name));
  const auto family = static_cast<std::uint8_t>(number_of(kTableFamilies, chain.family));
  std::vector<RuleDump> rules;
  bool full = false;
  CHECK_OK(Request(NFT_MSG_GETRULE, family, NLM_F_DUMP)
               .text(NFTA_RULE_TABLE, chain.table)
               .text(NFTA_RULE_CHAIN, chain.spec.name)
               .run(socket, [&](AttributeBytes payload) {
                 auto info = decode_nft_rule(payload);
                 if (!info || info->family != family || info->table != chain.table ||
                     info->rule.chain != chain.spec.name) {
                   return;
                 }
                 full = full || rules.size() >= kMaxDumpedRules;
                 if (!full) rules.push_back(std::move(info->rule));
               }));
  if (full) return std::unexpected(too_many("rules", kMaxDumpedRules));
  return rules;
}

}  // namespace meshd::netlink
