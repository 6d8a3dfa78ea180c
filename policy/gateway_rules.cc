#include "policy/gateway_rules.h"

#include "policy/others_rules.h"
#include "policy/rule_words.h"

namespace meshd::policy::words {
namespace {

InSet addressed_there(const V& v) {
  return in({v.dest, kL4proto, kDestPort}, v.name(SetId::kGated4));
}

}  // namespace

std::vector<Rule> gateway_targets(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.gateway) return rules;
  // Containers do not go round by the outside: what they may reach is declared.
  for (const V& v : kBoth) {
    rules.push_back(
        {is_not(kIifgroup, kMeshGroup),
         TranslateByMap{v.family, {v.dest, kL4proto, kDestPort}, v.name(SetId::kGate4), true}});
  }
  return rules;
}

std::vector<Rule> gateway_sources(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.gateway) return rules;
  for (const V& v : kBoth) {
    rules.push_back({addressed_there(v), CtTranslated{}, Masquerade{}});
  }
  return rules;
}

// `inward` refuses whom it does not let in. After each jump a drop, so that nothing opens while
// that chain is empty for a moment.
std::vector<Rule> gateway_judgement(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.gateway) return rules;
  for (const V& v : kBoth) {
    const auto there = addressed_there(v);
    rules.push_back({there, CtTranslated{}, is(kCtDirection, 0), jump("inward")});
    rules.push_back({there, CtTranslated{}, is(kCtDirection, 0), Count{"c_refused"}, drop()});
  }
  return rules;
}

std::vector<Rule> gateway_forward(const Settings& settings) {
  std::vector<Rule> rules;
  if (!settings.gateway) return rules;
  for (const V& v : kBoth) {
    const auto back = in({v.source, kL4proto, kSourcePort}, v.name(SetId::kGated4));
    rules.push_back({addressed_there(v), CtTranslated{}, is(kCtDirection, 0), accept()});
    rules.push_back({back, CtTranslated{}, is(kCtDirection, 1), jump("inward_back")});
    rules.push_back({back, CtTranslated{}, is(kCtDirection, 1), Count{"c_refused"}, drop()});
  }
  // Not by an outside port: the provider's node judges it. But of an engine's container it is told,
  // by masquerading, that it is this node, which it admits whoever asks.
  for (const V& v : kBoth) {
    const auto there = addressed_there(v);
    rules.push_back({by_engine(v), there, is(kCtDirection, 0), jump("inward")});
    rules.push_back({by_engine(v), there, is(kCtDirection, 0), Count{"c_refused"}, drop()});
  }
  // Such as that a packet is too big, also where the node forwarded nothing before.
  rules.push_back({one_of(kL4proto, {kIcmpNumber, kIcmp6Number}), CtState{kCtRelated},
                   CtTranslated{}, accept()});
  return rules;
}

}  // namespace meshd::policy::words
