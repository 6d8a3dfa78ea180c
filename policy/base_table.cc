#include "policy/base_table.h"

#include <algorithm>
#include <limits>
#include <ranges>
#include <set>
#include <string>
#include <utility>

#include "policy/changing_rules.h"
#include "policy/gateway_rules.h"
#include "policy/others_rules.h"
#include "policy/rule_words.h"
#include "policy/trunk_rules.h"

namespace meshd::policy {
namespace words {
namespace {

constexpr std::uint32_t kFragmentHeader = 44, kDns = 53;
constexpr std::uint32_t kLoopbackIndex = 1;  // lo has it in every network namespace
constexpr std::uint32_t kPlainHeaderWords = 5;
constexpr std::uint32_t kToThisHost = 0;  // PACKET_HOST

const Match kToMesh = is(kOifgroup, kMeshGroup);
const Match kTcpOrUdp = one_of(kL4proto, {kTcpNumber, kUdpNumber});
const Match kIcmp = one_of(kL4proto, {kIcmpNumber, kIcmp6Number});

std::vector<std::string> counters_of(const std::vector<Chain>& chains) {
  std::set<std::string> counters;
  for (const auto& rule : chains | std::views::transform(&Chain::rules) | std::views::join) {
    for (const auto& part : rule) {
      if (const auto* const count = std::get_if<Count>(&part)) counters.insert(count->counter);
    }
  }
  return {counters.begin(), counters.end()};
}

class Builder {
 public:
  Builder(const Settings& settings, const TableOptions& options)
      : settings_(settings), options_(options) {}

  Table build() &&;

 private:
  void base(std::string name, bool nat, Hook hook, std::int32_t priority) {
    table_.chains.push_back({std::move(name), Chain::Base{nat, hook, priority}, {}});
  }
  void chain(std::string name) { table_.chains.push_back({std::move(name), {}, {}}); }
  // Appends a rule to the chain begun last.
  void rule(Rule parts) { table_.chains.back().rules.push_back(std::move(parts)); }
  void rules(std::vector<Rule> more) {
    for (auto& one : more) rule(std::move(one));
  }
  Meter meter(std::string set, Field key, std::uint32_t rate, std::uint32_t burst, bool over);
  void dynamic(std::string name, Component key, std::chrono::seconds timeout);
  [[nodiscard]] LogTo log(std::string_view prefix) const {
    return {options_.log_group, std::string(prefix), kLogSnaplen};
  }

  // The resolver's address [0] (asked directly) or [1] (redirected to); empty: no such family.
  [[nodiscard]] std::optional<IpAddress> resolver(const V& v, int which) const {
    if (!settings_.pool(v.family)) return std::nullopt;
    const auto& address =
        v.family == Family::kV4 ? settings_.resolver4[which] : settings_.resolver6[which];
    return address.family() == v.family ? std::optional(address) : std::nullopt;
  }
  template <class Body>
  void with_resolver(int which, Body body) {
    for (const V& v : kBoth) {
      if (const auto address = resolver(v, which)) body(v, *address);
    }
  }

  void guard();
  void forms();
  void raw();
  void destination_nat();
  void translate_vips(const V& v, bool from_mesh_only);
  void source_nat();
  void without_target();
  void forward();
  void decide();
  void back();
  void inward();
  void egress();
  void icmps();
  void endings();
  void input();
  void output();

  const Settings& settings_;
  const TableOptions& options_;
  Table table_;
};

void Builder::dynamic(std::string name, Component key, std::chrono::seconds timeout) {
  // As many as there can be containers: only their addresses, and interfaces, get in.
  table_.dynamic_sets.push_back({std::move(name), key, set_info(SetId::kLocal4).size, timeout});
}

Meter Builder::meter(std::string set, Field key, std::uint32_t rate, std::uint32_t burst,
                     bool over) {
  // Long enough for every burst to be full again.
  dynamic(set, field_info(key).kind, std::chrono::seconds(10));
  return {std::move(set), key, rate, burst, over};
}

// Before defragmentation and connection tracking: what is wrong here leaves no trace.
void Builder::guard() {
  base("guard", false, Hook::kPrerouting, -450);
  rule({kFromMesh, jump("guard_c")});
  rule({kFromMesh, Count{"c_spoof"}, drop()});
  rule({is(kIif, kLoopbackIndex), accept()});
  rules(trunk_guard(settings_));
  for (const V& v : kBoth) {
    rule({in({v.source}, v.name(SetId::kMesh4)), Count{"c_foreign"}, drop()});
  }

  chain("guard_c");
  // Multicast and broadcast: router solicitations, MLD, mDNS. Nobody is there to hear them.
  rule({is_not(kPkttype, kToThisHost), drop()});
  for (const V& v : kBoth) {
    rule({in({kIifname, kEtherSource, v.source}, v.name(SetId::kBind4)), go(v.name("form"))});
  }
  // Per interface: the source is what cannot be believed here. Dropped by the caller.
  rule({meter("spoofers", kIifname, kLogRate, kLogBurst, false), log(kSpoofPrefix)});
}

// What the usual stacks send, and nothing that needs a parser of its own.
void Builder::forms() {
  const auto fragments = [this](const V& v) {
    return meter(v.name("frag"), v.source, kFragmentRate, kFragmentBurst, true);
  };
  // Echo, and the errors that path MTU discovery and connects need. No redirects, no
  // timestamps, no neighbour or router discovery: neighbours are permanent.
  chain("form4");
  rule({is_not(kIp4HeaderWords, kPlainHeaderWords), Count{"c_form"}, drop()});
  rule({is_not(kIp4Fragment, 0), fragments(kV4), Count{"c_form"}, drop()});
  // What there is most of goes first, by plain comparisons; so in `form6`.
  for (const auto usual : {kTcpNumber, kUdpNumber}) rule({is(kIp4Protocol, usual), accept()});
  rule({is_not(kIp4Protocol, kIcmpNumber), Count{"c_form"}, drop()});
  rule({none_of(kIcmpType, {0, 3, 8, 11, 12}), Count{"c_form"}, drop()});
  rule({accept()});

  chain("form6");
  for (const auto usual : {kTcpNumber, kUdpNumber}) rule({is(kIp6NextHeader, usual), accept()});
  rule({none_of(kIp6NextHeader, {kFragmentHeader, kIcmp6Number}), Count{"c_form"}, drop()});
  rule({is(kIp6NextHeader, kFragmentHeader), fragments(kV6), Count{"c_form"}, drop()});
  rule({none_of(kIcmp6Type, {1, 2, 3, 4, 128, 129}), Count{"c_form"}, drop()});
  rule({accept()});
}

void Builder::raw() {
  base("raw_pre", false, Hook::kPrerouting, -300);
  rule({is_not(kIifgroup, kMeshGroup), accept()});
  // Seen again after defragmentation: a fragment may have hidden an extension header.
  rule({none_of(kIp6NextHeader, {kTcpNumber, kUdpNumber, kIcmp6Number}), Count{"c_form"}, drop()});
  rule({kTcpOrUdp, is(kDestPort, kDns), go("dns")});

  chain("dns");
  // The kernel refuses a rate of 0; a burst of two seconds' worth for a starting workflow.
  const auto rate = std::max(settings_.dns_client_rate, 1U);
  const auto burst = rate > std::numeric_limits<std::uint32_t>::max() / 2 ? rate : rate * 2;
  for (const V& v : kBoth) {
    rule({meter(v.name("dnsq"), v.source, rate, burst, true), Count{"c_dnsq"}, drop()});
  }
  // Only address [0]: replies from [1] must be tracked, to be translated back.
  with_resolver(0, [this](const V& v, const IpAddress& address) {
    rule({is(v.dest, address), Notrack{}, accept()});
  });

  base("raw_out", false, Hook::kOutput, -300);
  with_resolver(0, [this](const V& v, const IpAddress& address) {
    rule({is(v.source, address), kTcpOrUdp, is(kSourcePort, kDns), Notrack{}, accept()});
  });
  // "Nobody listens on port 53" is true only while the daemon restarts: silence makes the
  // client ask again, an error would make it give up. The quoted header has no options:
  // `form4` and `form6` let none in.
  for (int which : {0, 1}) {
    with_resolver(which, [this](const V& v, const IpAddress& address) {
      rule({is(v.source, address), is(v.icmp_type, v.unreachable),
            is(v.icmp_code, v.port_unreachable), is(v.quoted_protocol, kUdpNumber),
            is(v.quoted_port, kDns), drop()});
    });
  }
}

// A VIP becomes one of its slots' endpoints; the port stays.
void Builder::translate_vips(const V& v, bool from_mesh_only) {
  for (const auto& [port, set] :
       {std::pair(kDestPort, SetId::kVip4), std::pair(kDestBlock, SetId::kVip4Block)}) {
    Rule parts;
    if (from_mesh_only) parts.emplace_back(kFromMesh);
    parts.emplace_back(
        TranslateByMap{v.family, {v.dest, kL4proto, port, kRandomSlot}, v.name(set), false});
    rule(std::move(parts));
  }
}

void Builder::destination_nat() {
  // Whoever asks: the source is judged in `forw`, on every packet, so that a refused one
  // never falls through to a listener of the node on that port.
  const auto publications = [this] {
    for (const V& v : kBoth) {
      rule({TranslateByMap{v.family, {v.dest, kL4proto, kDestPort}, v.name(SetId::kPub4), true}});
    }
  };
  base("dnat_pre", true, Hook::kPrerouting, -100);
  with_resolver(1, [this](const V& v, const IpAddress& address) {
    rule({kFromMesh, kTcpOrUdp, is(kDestPort, kDns), not_in(v.dest, v.name(SetId::kMesh4)),
          TranslateTo{false, address}});
  });
  for (const V& v : kBoth) translate_vips(v, true);
  publications();
  rules(gateway_targets(settings_));

  base("dnat_out", true, Hook::kOutput, -100);
  for (const V& v : kBoth) translate_vips(v, false);
  publications();
}

void Builder::source_nat() {
  base("snat_post", true, Hook::kPostrouting, 100);
  // A container that meets itself behind a VIP must not see its own address as the source.
  with_resolver(0, [this](const V& v, const IpAddress& address) {
    rule({in({v.source, v.dest}, v.name(SetId::kSelf4)), TranslateTo{true, address}});
  });
  for (const V& v : kBoth) {
    rule({kFromMesh, is_not(kOifgroup, kMeshGroup), not_in(v.dest, v.name(SetId::kMesh4)),
          Masquerade{}});
  }
  rules(gateway_sources(settings_));
}

// Here and not in forward, which IPv6 packets without a route never reach.
void Builder::without_target() {
  base("pre_late", false, Hook::kPrerouting, -90);
  // Nearly every packet ends here: one look-up by hash in place of two in intervals.
  for (const V& v : kBoth) rule({in({v.dest}, v.name(SetId::kLocal4)), accept()});
  for (const V& v : kBoth) {
    const auto mesh = in({v.dest}, v.name(SetId::kMesh4));
    rule({mesh, jump("untargeted")});
    rule({mesh, drop()});
  }
  rules(gateway_judgement(settings_));

  chain("untargeted");
  // Should the resolver's address be taken from the mesh range.
  for (int which : {0, 1}) {
    with_resolver(which, [this](const V& v, const IpAddress& address) {
      rule({is(v.dest, address), accept()});
    });
  }
  rules(replies_elsewhere(settings_));
  for (const V& v : kBoth) {
    rule({in(v.flow(), v.name(SetId::kHold4)), Count{"c_held"}, drop()});
    rule({in(v.flow_block(), v.name(SetId::kHold4Block)), Count{"c_held"}, drop()});
  }
  rules(targets_elsewhere(settings_));
  rule({refuse()});
}

void Builder::forward() {
  base("forw", false, Hook::kForward, -10);
  rules(trunk_forward(settings_));
  rule({kFromMesh, jump("decide")});
  rule({kToMesh, jump("decide")});
  rule({kFromMesh, Count{"c_refused"}, drop()});
  rule({kToMesh, Count{"c_refused"}, drop()});
  for (const V& v : kBoth) {
    for (const Field address : {v.source, v.dest}) {
      rule({in({address}, v.name(SetId::kMesh4)), Count{"c_foreign"}, drop()});
    }
  }
  rules(others_forward(settings_, options_));
  rules(gateway_forward(settings_));
  rules(unforwarded(options_));
  for (auto& one : others_chains()) table_.chains.push_back(std::move(one));
}

// Each look-up takes every packet of both directions, so that an element removed is a flow
// cut. New TCP need not begin with SYN: the first packet seen is judged as if it had, on the
// same key, so it opens nothing more; and flows whose tracking was flushed by somebody go on
// when the client speaks first. Nonsense flags are `invalid` to connection tracking.
void Builder::decide() {
  chain("decide");
  rule({CtState{kCtInvalid}, Count{"c_inv"}, drop()});
  rule({is(kCtDirection, 1), go("back")});
  rule({CtState{kCtNew}, jump("fresh")});
  for (const V& v : kBoth) rule({in(v.flow(), v.name(SetId::kAllow4)), go("pass")});
  // Behind what most packets meet: no element of a flow is of such a protocol. So in `back`.
  rule({kIcmp, go("icmps")});
  for (const V& v : kBoth) rule({in(v.flow_block(), v.name(SetId::kAllow4Block)), go("pass")});
  rule({kFromMesh, go("egress")});
  // A mesh source has no publication's profile, whatever interface it comes by.
  for (const V& v : kBoth) rule({in({v.source}, v.name(SetId::kMesh4)), refuse()});
  rule({CtTranslated{}, go("inward")});
  rule({refuse()});

  // Who drains takes nothing new. Before any element counts the packet as passed.
  chain("fresh");
  for (const V& v : kBoth) rule({in({v.dest}, v.name(SetId::kDrain4)), refuse()});
}

void Builder::back() {
  chain("back");
  for (const V& v : kBoth) rule({in(v.flow_back(), v.name(SetId::kAllow4)), accept()});
  rule({kIcmp, go("icmps")});
  for (const V& v : kBoth) rule({in(v.flow_back_block(), v.name(SetId::kAllow4Block)), accept()});
  rule({kToMesh, go("egress_back")});
  for (const V& v : kBoth) rule({in({v.dest}, v.name(SetId::kMesh4)), refuse()});
  rule({CtTranslated{}, go("inward_back")});
  rule({refuse()});
}

// From outside to a publication: by the container's port, whichever node port it was.
void Builder::inward() {
  const auto rules = [this](bool back) {
    for (const V& v : kBoth) {
      const Field server = back ? v.source : v.dest, client = back ? v.dest : v.source;
      rule({InProfile{{server, kL4proto, back ? kSourcePort : kDestPort},
                      v.name(SetId::kPubProfile4),
                      {client},
                      v.name(SetId::kSource4),
                      false,
                      v.name(SetId::kPubCount4)},
            go("pass")});
    }
    rule({refuse()});
  };
  chain("inward");
  rules(false);
  chain("inward_back");
  rules(true);
}

void Builder::egress() {
  const auto rules = [this](bool back) {
    // First of all: without these lines the replies of a revoked flow between containers
    // would go on by the consumer's egress.
    rule({back ? kFromMesh : kToMesh, refuse()});
    for (const SetId set : {SetId::kMesh4, SetId::kNever4}) {
      for (const V& v : kBoth) rule({in({back ? v.source : v.dest}, v.name(set)), refuse()});
    }
    rule(
        {is(kL4proto, kUdpNumber), one_of(back ? kSourcePort : kDestPort, kTunnelPorts), refuse()});
    for (const V& v : kBoth) {
      const Field container = back ? v.dest : v.source, remote = back ? v.source : v.dest;
      rule({InProfile{{container},
                      v.name(SetId::kEgressProfile4),
                      {remote, kL4proto, back ? kSourcePort : kDestPort},
                      v.name(SetId::kEgress4),
                      true,
                      v.name(SetId::kEgressCount4)},
            go("pass")});
    }
    rule({refuse()});
  };
  chain("egress");
  rules(false);
  chain("egress_back");
  rules(true);
}

void Builder::icmps() {
  chain("icmps");
  // Both ways are looked up, so that a pair is one element.
  for (const V& v : kBoth) {
    rule({in({v.source, v.dest}, v.name(SetId::kPair4)), go("pass")});
    rule({in({v.dest, v.source}, v.name(SetId::kPair4)), go("pass")});
  }
  for (const V& v : kBoth) {
    rule({in({v.source}, v.name(SetId::kMesh4)), in({v.dest}, v.name(SetId::kMesh4)), refuse()});
  }
  // Errors about a flow with the outside: the one thing that passes by no element.
  rule({CtState{kCtRelated}, accept()});
  rule({is(kCtDirection, 0), kFromMesh, go("egress")});
  rule({is(kCtDirection, 1), kToMesh, go("egress_back")});
  rule({refuse()});
}

void Builder::endings() {
  // Permitted, unless a new connection is one too many.
  chain("pass");
  rule({CtState{kCtEstablished}, accept()});
  // Connections are counted only here, since what is refused leaves no entry, and at their
  // first packet: of all that a packet meets, the count is what costs most.
  rule({CtConfirmed{}, accept()});
  rule({is_not(kIifgroup, kMeshGroup), accept()});
  for (const V& v : kBoth) {
    const auto set = v.name("conn");
    dynamic(set, field_info(v.source).kind, std::chrono::seconds(0));
    rule({ConnectionsOver{set, v.source, kMaxConnections}, Count{"c_conn"}, refuse()});
  }
  rule({accept()});

  chain("refuse");
  rules(overtaken(settings_));
  rule({Count{"c_refused"}});
  rule({kFromMesh, go("refuse_c")});
  rule({RateLimit{kLogRate, kLogBurst}, log(kRefusedPrefix)});
  rule({go("answer")});
  // A limit per container, so that a loud one does not hide a quiet one. Its address is
  // proven by `guard`; those of others could fill the set.
  chain("refuse_c");
  for (const V& v : kBoth) {
    rule({meter(v.name("logged"), v.source, kLogRate, kLogBurst, false), log(kRefusedPrefix)});
  }
  rule({go("answer")});
  // Fast, so that a program sees at once what it may not.
  chain("answer");
  rule({is(kL4proto, kTcpNumber), Reject{RejectKind::kTcpReset}});
  rule({Reject{RejectKind::kPortUnreachable}});
}

void Builder::input() {
  base("inp", false, Hook::kInput, -10);
  rule({kFromMesh, jump("inp_c")});
  rule({kFromMesh, Count{"c_host"}, drop()});
  rules(trunk_input(settings_));

  chain("inp_c");
  rule({CtState{kCtInvalid}, Count{"c_inv"}, drop()});
  with_resolver(0, [this](const V& v, const IpAddress& address) {
    rule({is(v.dest, address), kTcpOrUdp, is(kDestPort, kDns), accept()});
  });
  // Redirected only: asked directly, [1] would be answered untranslated. `pass`, since
  // these are tracked and count.
  with_resolver(1, [this](const V& v, const IpAddress& address) {
    rule({is(v.dest, address), kTcpOrUdp, is(kDestPort, kDns), CtTranslated{}, go("pass")});
  });
  rule({is(kCtDirection, 1), CtState{kCtEstablished | kCtRelated}, accept()});
  with_resolver(0, [this](const V& v, const IpAddress& address) {
    const auto to = is(v.dest, address);
    const auto echo = is(v.icmp_type, v.echo_request);
    rule({to, echo, meter(v.name("echo"), v.source, kEchoRate, kEchoBurst, false), accept()});
    rule({to, echo, drop()});
  });
  rule({Count{"c_host"}});
  rule({refuse()});
}

// By destination and not by interface: of a packet translated in this hook the interface
// is still that of its old destination.
void Builder::output() {
  base("outp", false, Hook::kOutput, -10);
  for (const V& v : kBoth) rule({in({v.dest}, v.name(SetId::kMesh4)), jump("outp_c")});
  for (const V& v : kBoth) rule({in({v.dest}, v.name(SetId::kMesh4)), drop()});
  // Multicast, neighbour discovery, MLD: not for containers.
  rule({kToMesh, drop()});

  chain("outp_c");
  with_resolver(0, [this](const V& v, const IpAddress& address) {
    rule({is(v.source, address), kTcpOrUdp, is(kSourcePort, kDns), accept()});
  });
  rule({is(kCtDirection, 1), CtState{kCtEstablished | kCtRelated}, accept()});
  rule({CtState{kCtRelated}, accept()});
  rules(users_elsewhere(settings_));
  rule({in({kSkuid}, std::string(set_name(SetId::kUsers))), accept()});
  rule({not_in(kSkuid, std::string(set_name(SetId::kUsers))), refuse()});
  // From here on no process owns the packet: the kernel ends a connection whose socket is
  // closed, or reports an error. Nobody without privilege can send those by himself.
  rule({CtState{kCtEstablished}, accept()});
  rule({one_of(kIcmpType, kIcmpErrors), accept()});
  rule({one_of(kIcmp6Type, kIcmp6Errors), accept()});
  rule({refuse()});
}

Table Builder::build() && {
  table_.name = kTableName;
  guard();
  forms();
  raw();
  destination_nat();
  source_nat();
  without_target();
  forward();
  decide();
  back();
  inward();
  egress();
  icmps();
  endings();
  input();
  output();
  for (auto& chain : trunk_chains(settings_)) table_.chains.push_back(std::move(chain));
  table_.counters = counters_of(table_.chains);
  return std::move(table_);
}

}  // namespace
}  // namespace words

Table base_table(const Settings& settings, const TableOptions& options) {
  return words::Builder(settings, options).build();
}

}  // namespace meshd::policy
