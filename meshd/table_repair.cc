#include "meshd/table_repair.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "meshd/lower_ruleset.h"
#include "policy/base_table.h"
#include "policy/diff.h"

namespace meshd {
namespace {

using policy::Element;
using policy::SetId;

// One comparison, and the batch that ends it.
class Repair {
 public:
  Repair(const policy::Table& table, std::span<const Element> wanted, std::uint32_t flags,
         const netlink::NftDump* installed)
      : table_(table), wanted_(wanted), flags_(flags), installed_(installed) {}

  Result<std::vector<std::string>> put(netlink::NftBatch& batch) &&;

 private:
  enum class Have : std::uint8_t { kMissing, kWrong, kRight };

  void compare();
  void compare_flags();
  void compare_chains();
  void compare_rules(const policy::Chain& chain);
  void compare_sets();
  void compare_counters();
  Have compare_set(const netlink::SetSpec& spec);
  void compare_elements();
  void count_elements(std::string_view what, const std::vector<Element>& elements);
  [[nodiscard]] bool is_foreign(std::string_view kind, std::string_view name) const;

  Status put_shape(netlink::NftBatch& batch) const;
  Status remove_wrong(netlink::NftBatch& batch) const;
  Status put_sets(netlink::NftBatch& batch) const;

  const policy::Table& table_;
  std::span<const Element> wanted_;
  std::uint32_t flags_;
  const netlink::NftDump* installed_;

  std::vector<std::string> what_;
  bool claim_ = false;     // only the table's flags differ
  bool shape_ = false;     // chains, rules, sets or counters differ
  bool recreate_ = false;  // the whole table must go
  std::set<std::string, std::less<>> wrong_chains_, wrong_sets_, wrong_counters_;  // to delete
  std::array<Have, policy::kSetCount> sets_{};
  std::array<bool, policy::kSetCount> flush_{};  // holds something that cannot be removed singly
  std::set<std::string, std::less<>> right_sets_;
  policy::Delta delta_;
};

bool Repair::is_foreign(std::string_view kind, std::string_view name) const {
  return std::ranges::any_of(installed_->foreign, [&](const std::string& text) {
    return text.starts_with(fmt::format("{} {}:", kind, name));
  });
}

void Repair::compare_flags() {
  const auto& have = *installed_;
  if (have.flags == flags_) return;
  // An orphan, left by an owner that ended, can be claimed. A table that never had an owner
  // cannot, and one with flags that we do not want keeps them.
  const bool orphan = have.owner == 0 && have.flags == (flags_ & ~netlink::kTableOwner) &&
                      (have.flags & netlink::kTablePersist) != 0;
  if (orphan) {
    claim_ = true;
    what_.emplace_back("the table had no owner");
    return;
  }
  recreate_ = true;
  what_.push_back(fmt::format("the table had flags {:#x}, not {:#x}", have.flags, flags_));
}

void Repair::compare_rules(const policy::Chain& chain) {
  const auto rules =
      std::ranges::equal_range(installed_->rules, chain.name, {}, &netlink::RuleDump::chain);
  const bool same = std::ranges::equal(
      chain.rules, rules, {}, [](const policy::Rule& rule) { return lower_rule(rule); },
      &netlink::RuleDump::exprs);
  if (same) return;
  shape_ = true;
  what_.push_back(fmt::format("rules of chain {} differed ({}, not {})", chain.name,
                              std::ranges::size(rules), chain.rules.size()));
}

void Repair::compare_chains() {
  for (const auto& have : installed_->chains) {
    const auto& name = have.spec.name;
    if (std::ranges::find(table_.chains, name, &policy::Chain::name) != table_.chains.end()) {
      continue;
    }
    wrong_chains_.insert(name);
    what_.push_back(fmt::format("chain {} was not ours", name));
  }
  for (const auto& chain : table_.chains) {
    const auto spec = lower_chain(chain);
    const auto have = std::ranges::find(installed_->chains, chain.name,
                                        [](const auto& dump) { return dump.spec.name; });
    if (have == installed_->chains.end()) {
      shape_ = true;
      what_.push_back(fmt::format("chain {} was missing", chain.name));
      continue;
    }
    if (have->spec != spec || is_foreign("chain", chain.name)) {
      shape_ = true;
      what_.push_back(fmt::format("chain {} had another hook or policy", chain.name));
      auto with_policy = have->spec;
      if (with_policy.base && spec.base) with_policy.base->policy = spec.base->policy;
      if (with_policy != spec || is_foreign("chain", chain.name)) wrong_chains_.insert(chain.name);
    }
    compare_rules(chain);
  }
  shape_ = shape_ || !wrong_chains_.empty();
}

Repair::Have Repair::compare_set(const netlink::SetSpec& spec) {
  const auto* have = installed_->find_set(spec.name);
  if (have == nullptr) {
    what_.push_back(fmt::format("set {} was missing", spec.name));
    return Have::kMissing;
  }
  if (have->spec != spec || is_foreign("set", spec.name)) {
    what_.push_back(fmt::format("set {} was of another type", spec.name));
    wrong_sets_.insert(spec.name);
    return Have::kWrong;
  }
  right_sets_.insert(spec.name);
  return Have::kRight;
}

void Repair::compare_sets() {
  bool all = true;
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    sets_[i] = compare_set(lower_set(static_cast<SetId>(i)));
    all = all && sets_[i] == Have::kRight;
  }
  for (const auto& set : table_.dynamic_sets)
    all = compare_set(lower_set(set)) == Have::kRight && all;
  for (const auto& have : installed_->sets) {
    const auto& name = have.spec.name;
    if (right_sets_.contains(name) || wrong_sets_.contains(name)) continue;
    wrong_sets_.insert(name);
    what_.push_back(fmt::format("set {} was not ours", name));
  }
  shape_ = shape_ || !all || !wrong_sets_.empty();
}

void Repair::compare_counters() {
  const auto has = [](const auto& counters, const auto& name, auto projection) {
    return std::ranges::find(counters, name, projection) != counters.end();
  };
  for (const auto& name : table_.counters) {
    if (has(installed_->counters, name, &netlink::CounterDump::name)) continue;
    shape_ = true;
    what_.push_back(fmt::format("counter {} was missing", name));
  }
  for (const auto& have : installed_->counters) {
    if (has(table_.counters, have.name, std::identity())) continue;
    shape_ = true;
    wrong_counters_.insert(have.name);
    what_.push_back(fmt::format("counter {} was not ours", have.name));
  }
}

void Repair::count_elements(std::string_view what, const std::vector<Element>& elements) {
  for (auto it = elements.begin(); it != elements.end();) {
    const auto next =
        std::find_if(it, elements.end(), [&](const Element& e) { return e.set != it->set; });
    what_.push_back(
        fmt::format("{} elements of {} {}", next - it, policy::set_name(it->set), what));
    it = next;
  }
}

// Of sets that stay; what is to be filled from nothing counts as empty.
void Repair::compare_elements() {
  policy::Comparison comparison(wanted_);
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    if (sets_[i] != Have::kRight) continue;
    const auto id = static_cast<SetId>(i);
    const auto* set = installed_->find_set(policy::set_name(id));
    flush_[i] = set->damaged > 0;
    for (std::size_t n = 0; n < set->elements.size() && !flush_[i]; ++n) {
      if (const auto element = raise_element(id, set->elements[n])) {
        comparison.saw(*element);
      } else {
        flush_[i] = true;
      }
    }
    if (!flush_[i]) continue;
    comparison.forget(id);
    what_.push_back(fmt::format("set {} held elements that cannot be ours", policy::set_name(id)));
  }
  delta_ = std::move(comparison).result();
  count_elements("were not wanted", delta_.remove);
  count_elements("were missing", delta_.add);
}

void Repair::compare() {
  if (installed_ == nullptr) {
    what_.emplace_back("there was no table");
    shape_ = true;
    delta_.add.assign(wanted_.begin(), wanted_.end());
    return;
  }
  compare_flags();
  for (const auto& text : installed_->foreign) {
    // Chains and sets are removed by name; of what else there may be we cannot.
    if (text.starts_with("chain ") || text.starts_with("set ")) continue;
    recreate_ = true;
    what_.push_back(text + " was not ours");
  }
  compare_chains();
  compare_sets();
  compare_counters();
  if (recreate_) {
    sets_ = {};
    shape_ = true;
  }
  compare_elements();
}

Status Repair::remove_wrong(netlink::NftBatch& batch) const {
  // Rules first: they refer to all the rest.
  CHECK_OK(batch.flush_rules());
  for (const auto& name : wrong_sets_) CHECK_OK(batch.delete_set(name));
  for (const auto& name : wrong_chains_) CHECK_OK(batch.delete_chain(name));
  for (const auto& name : wrong_counters_) CHECK_OK(batch.delete_counter(name));
  return {};
}

Status Repair::put_sets(netlink::NftBatch& batch) const {
  const bool fresh = installed_ == nullptr || recreate_;
  const auto put = [&](const netlink::SetSpec& spec) -> Status {
    if (!fresh && right_sets_.contains(spec.name)) {
      // Elements of a dynamic set carry the limit of the rule that made them.
      return spec.dynamic ? batch.flush_set(spec.name) : Status();
    }
    return batch.put_set(spec);
  };
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    CHECK_OK(put(lower_set(static_cast<SetId>(i))));
  }
  for (const auto& set : table_.dynamic_sets) CHECK_OK(put(lower_set(set)));
  return {};
}

Status Repair::put_shape(netlink::NftBatch& batch) const {
  const bool fresh = installed_ == nullptr || recreate_;
  if (recreate_) CHECK_OK(batch.delete_table());
  CHECK_OK(batch.put_table(flags_));
  if (!fresh) CHECK_OK(remove_wrong(batch));
  for (const auto& name : table_.counters) {
    const bool have =
        !fresh && std::ranges::find(installed_->counters, name, &netlink::CounterDump::name) !=
                      installed_->counters.end();
    if (!have) CHECK_OK(batch.put_counter(name));
  }
  CHECK_OK(put_sets(batch));
  for (const auto& chain : table_.chains) CHECK_OK(batch.put_chain(lower_chain(chain)));
  for (const auto& chain : table_.chains) {
    for (const auto& rule : chain.rules) CHECK_OK(batch.put_rule(chain.name, lower_rule(rule)));
  }
  return {};
}

Result<std::vector<std::string>> Repair::put(netlink::NftBatch& batch) && {
  compare();
  if (shape_ || recreate_) {
    CHECK_OK(put_shape(batch));
  } else if (claim_) {
    CHECK_OK(batch.put_table(flags_));
  }
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    if (flush_[i]) CHECK_OK(batch.flush_set(policy::set_name(static_cast<SetId>(i))));
  }
  CHECK_OK(put_delta(batch, delta_));
  return std::move(what_);
}

}  // namespace

Result<std::vector<std::string>> put_repair(netlink::NftBatch& batch, const policy::Table& table,
                                            std::span<const Element> wanted, std::uint32_t flags,
                                            const netlink::NftDump* installed) {
  return Repair(table, wanted, flags, installed).put(batch);
}

Result<netlink::NftDump> put_bare_table(netlink::NftBatch& batch, std::uint32_t flags) {
  netlink::NftDump dump;
  dump.table = policy::kTableName;
  dump.flags = flags;
  CHECK_OK(batch.put_table(flags));
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    const auto& spec = lower_set(static_cast<SetId>(i));
    CHECK_OK(batch.put_set(spec));
    dump.sets.push_back({spec, {}, 0});
  }
  return dump;
}

}  // namespace meshd
