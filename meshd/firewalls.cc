#include "meshd/firewalls.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "meshd/topology.h"
#include "netlink/nft_batch.h"
#include "policy/base_table.h"

namespace meshd {

namespace nl = netlink;

namespace {

constexpr std::string_view kFilterTable = "filter", kDockerUser = "DOCKER-USER";

// A packet's way in or out.
struct Way {
  nl::MetaKey name, group;
};
constexpr Way kWays[] = {{nl::MetaKey::kIifname, nl::MetaKey::kIifgroup},
                         {nl::MetaKey::kOifname, nl::MetaKey::kOifgroup}};

nl::Exprs match(nl::MetaKey key, nl::Bytes value) {
  return {nl::MetaLoad{key}, nl::Compare{{}, nl::CompareOp::kEqual, std::move(value)}};
}
nl::Exprs by_name(const Way& way) {
  return match(way.name, {kLinkPrefix.begin(), kLinkPrefix.end()});
}

nl::Exprs without_counters(const nl::Exprs& exprs) {
  nl::Exprs rest;
  std::ranges::copy_if(exprs, std::back_inserter(rest), [](const nl::Expr& expr) {
    return !std::holds_alternative<nl::Counter>(expr);
  });
  return rest;
}

bool accepts(const nl::RuleDump& rule, const Way& way) {
  auto exprs = without_counters(rule.exprs);
  if (exprs.empty() || exprs.back() != nl::Expr(nl::Verdict{nl::VerdictKind::kAccept}))
    return false;
  exprs.pop_back();
  return exprs.empty() || exprs == by_name(way) ||
         exprs == match(way.group, nl::host_bytes(kLinkGroup));
}

// Whether no packet gets beyond it.
bool is_last(const nl::RuleDump& rule) {
  const auto exprs = without_counters(rule.exprs);
  const auto* verdict = exprs.size() == 1 ? std::get_if<nl::Verdict>(exprs.data()) : nullptr;
  return verdict != nullptr && verdict->kind != nl::VerdictKind::kJump &&
         verdict->kind != nl::VerdictKind::kContinue;
}

// The first rule that accepts what goes that way, if a packet gets there.
const nl::RuleDump* find_accept(std::span<const nl::RuleDump> rules, const Way& way) {
  for (const auto& rule : rules) {
    if (accepts(rule, way)) return &rule;
    if (is_last(rule)) break;
  }
  return nullptr;
}

bool accepts_all(std::span<const nl::RuleDump> rules) {
  return std::ranges::all_of(kWays,
                             [&](const Way& way) { return find_accept(rules, way) != nullptr; });
}

bool is_docker_user(const nl::NamedChain& chain) {
  return chain.family != nl::TableFamily::kInet && chain.table == kFilterTable &&
         chain.spec.name == kDockerUser;
}

bool drops(const nl::NamedChain& chain) {
  if (chain.family == nl::TableFamily::kInet && chain.table == policy::kTableName) return false;
  const auto& base = chain.spec.base;
  return base && base->hook == nl::Hook::kForward && base->type == nl::ChainType::kFilter &&
         base->policy == nl::Policy::kDrop;
}

}  // namespace

RuleChange docker_user_change(std::span<const nl::RuleDump> rules, bool wanted) {
  RuleChange change;
  std::vector<const nl::RuleDump*> kept;
  for (const auto& way : kWays) {
    if (!wanted) break;
    if (const auto* found = find_accept(rules, way)) {
      kept.push_back(found);
      continue;
    }
    auto exprs = by_name(way);
    exprs.emplace_back(nl::Counter{});  // iptables lists none without
    exprs.emplace_back(nl::Verdict{nl::VerdictKind::kAccept});
    change.insert.push_back(std::move(exprs));
  }
  for (const auto& rule : rules) {
    const bool is_kept = std::ranges::find(kept, &rule) != kept.end();
    if (rule.comment == kRuleMark && !is_kept) change.remove.push_back(rule.handle);
  }
  return change;
}

std::vector<std::string> firewall_troubles(const ForeignChains& chains,
                                           const policy::Settings& settings) {
  std::vector<std::string> troubles;
  for (const auto& [chain, rules] : chains.drops) {
    const bool concerns_us =
        chain.family == nl::TableFamily::kInet ||
        settings.pool(chain.family == nl::TableFamily::kIp ? Family::kV4 : Family::kV6);
    if (!concerns_us || accepts_all(rules)) continue;
    const auto user = std::ranges::find_if(chains.docker_user, [&](const ForeignChain& one) {
      return one.chain.family == chain.family && chain.table == kFilterTable &&
             chain.spec.name == "FORWARD";
    });
    const bool has_user = user != chains.docker_user.end();
    if (has_user && accepts_all(user->rules)) continue;
    const std::string by_hand = fmt::format("accept what comes in or goes out by {}*", kLinkPrefix);
    troubles.push_back(fmt::format(
        "chain {} of table {} {} drops packets between containers by its policy: {}",
        chain.spec.name, nl::family_name(chain.family), chain.table,
        has_user ? fmt::format("set engines.docker_user, or {} in {}", by_hand, kDockerUser)
                 : by_hand + " there"));
  }
  return troubles;
}

Result<Firewalls> Firewalls::make() { return Firewalls(TRY(nl::Socket::open())); }

Result<ForeignChains> Firewalls::read() {
  ForeignChains result;
  result.generation = TRY(nl::read_generation(socket_));
  for (auto& chain : TRY(nl::list_chains(socket_))) {
    auto* const list = is_docker_user(chain) ? &result.docker_user
                       : drops(chain)        ? &result.drops
                                             : nullptr;
    if (list == nullptr) continue;
    auto rules = TRY(nl::read_rules(socket_, chain));
    list->push_back({std::move(chain), std::move(rules)});
  }
  return result;
}

Status Firewalls::apply(const ForeignChain& chain, const RuleChange& change,
                        std::uint32_t generation) {
  nl::NftBatch batch(chain.chain.table, generation, chain.chain.family);
  for (const auto handle : change.remove) {
    CHECK_OK(batch.delete_rule(chain.chain.spec.name, handle));
  }
  for (const auto& exprs : change.insert) {
    CHECK_OK(batch.insert_rule(chain.chain.spec.name, exprs, kRuleMark));
  }
  return std::move(batch).commit(socket_);
}

// By reading again after each change: a family at a time, and whatever others do meanwhile.
Result<ForeignChains> Firewalls::settle(bool docker_user) {
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    auto chains = read();
    if (!chains && chains.error().sys_errno == EINTR) continue;  // changed while it was read
    if (!chains) return chains;
    const auto changed = [&]() -> Result<bool> {
      for (const auto& chain : chains->docker_user) {
        const auto change = docker_user_change(chain.rules, docker_user);
        if (change.empty()) continue;
        auto status = apply(chain, change, chains->generation);
        if (status || status.error().code == ErrorCode::kConflict) return true;
        return std::unexpected(std::move(status.error()).in(std::string(kDockerUser)));
      }
      return false;
    };
    if (!TRY(changed())) return chains;
  }
  return fail(ErrorCode::kConflict,
              fmt::format("the ruleset changed {} times while it was read", kMaxAttempts));
}

Result<std::vector<std::string>> Firewalls::look(bool docker_user,
                                                 const policy::Settings& settings) {
  return firewall_troubles(TRY(settle(docker_user)), settings);
}

Status Firewalls::purge() {
  auto firewalls = TRY(make());
  CHECK_OK(firewalls.settle(false));
  return {};
}

}  // namespace meshd
