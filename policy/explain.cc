#include "policy/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <ranges>

#include "policy/allocate.h"
#include "policy/explain_parts.h"
#include "policy/fragment.h"
#include "policy/name.h"
#include "policy/truth.h"

namespace meshd::policy {
namespace {

const Workload* find_workload(const World& world, std::string_view id) {
  const auto found = world.workloads.find(id);
  return found == world.workloads.end() ? nullptr : &found->second;
}

Target of_workload(const World& world, std::string_view id) {
  Target target;
  target.workload = find_workload(world, id);
  return target;
}

Target of_service(const World& world, const ServiceKey& key) {
  Target target;
  const auto found = world.services.find(key);
  if (found == world.services.end()) return target;
  target.service = &found->second;
  target.key = key;
  return target;
}

Target of_address(const World& world, const IpAddress& address) {
  Target target;
  for (const auto& [id, workload] : world.workloads) {
    if (workload.address(address.family()) == address) target.workload = &workload;
  }
  for (const auto& [key, service] : world.services) {
    if (service.vip4 == address || service.vip6 == address) target = of_service(world, key);
  }
  target.address = address;
  return target;
}

bool found(const Target& target) {
  return target.workload != nullptr || target.service != nullptr || target.address;
}

// What means the same whoever says it: an address, a full name.
std::optional<Target> look_up_full(const World& world, std::string_view text) {
  if (const auto address = IpAddress::parse(text)) return of_address(world, *address);
  const auto parsed = parse_fqdn(world.settings.zone, text);
  if (!parsed) return std::nullopt;
  return parsed->service ? of_service(world, *parsed->service) : of_workload(world, parsed->id);
}

// As the workload would write it: a bare name by its own scopes, then an id.
Target look_up_as(const World& world, const Declaration& writer, std::string_view text) {
  if (const auto full = look_up_full(world, text)) return *full;
  const std::string name(text);
  if (!writer.workflow.empty()) {
    auto target = of_service(world, {Scope::kWorkflow, writer.workflow, name});
    if (found(target)) return target;
  }
  auto target = of_service(world, {Scope::kCluster, {}, name});
  return found(target) ? target : of_workload(world, text);
}

// As an operator writes it, who is in no workflow: an id, or the name of the one service
// that is called so anywhere.
Result<Target> look_up(const World& world, std::string_view text) {
  if (const auto full = look_up_full(world, text)) return *full;
  if (auto target = of_workload(world, text); found(target)) return target;
  std::vector<const ServiceKey*> candidates;
  for (const auto& [key, service] : world.services) {
    // A CLUSTER name outlives its workloads, and then means nobody.
    if (key.name == text && !members(world, key).empty()) candidates.push_back(&key);
  }
  if (candidates.size() == 1) return of_service(world, *candidates.front());
  if (candidates.empty()) return Target();
  constexpr std::size_t kShown = 5;
  std::string list;
  for (const auto* key : candidates | std::views::take(kShown)) {
    list += (list.empty() ? "" : ", ") + service_fqdn(world.settings.zone, *key);
  }
  if (candidates.size() > kShown) list += fmt::format(", {} more", candidates.size() - kShown);
  return fail(ErrorCode::kInvalid,
              fmt::format("explain: {} is the name of several services: {}", text, list));
}

// A peer entry for the provider that works where the consumer writes it.
std::string peer_entry(const Declaration& consumer, const Declaration& provider) {
  const Peer by_name{{}, provider.name, provider.scope, {}};
  if (provider.name.empty() || !resolves_to(consumer, by_name, provider)) {
    return fmt::format("{{id: {}}}", provider.id);
  }
  // Without a scope a name is of the workflow, where there is one.
  return fmt::format("{{name: {}{}}}", provider.name,
                     provider.scope == Scope::kCluster ? ", scope: CLUSTER" : "");
}

std::string missing_for(const World& world, const Decision& decision, const Declaration& consumer,
                        const Declaration& provider, Proto proto, std::uint16_t port) {
  switch (decision.ruling) {
    case Ruling::kNoPeer:
      return fmt::format("in {}: peers: [{}]", consumer.id, peer_entry(consumer, provider));
    case Ruling::kPortNotListed:
      return fmt::format("in {}: peers[{}].ports: [{}]", consumer.id, decision.peer,
                         port_entry(proto, port));
    case Ruling::kNotServed:
      return fmt::format("in {}: serves: [{}]", provider.id, port_entry(proto, port));
    case Ruling::kNotAdmitted: {
      const auto key = provider.service();
      const bool replicated = key && members(world, *key).size() > 1;
      // Replicas must agree in this: one alone would be refused.
      return fmt::format("in {}: admit_owners: [{}]",
                         replicated ? "every replica of " + service_text(*key) : provider.id,
                         consumer.owner);
    }
    case Ruling::kAllowed:
      break;
  }
  return {};
}

// By the address of the other.
Explanation between(const World& world, const Workload& consumer, const Target& target, Proto proto,
                    std::uint16_t port, const IsConfirmed& is_confirmed) {
  if (&consumer == target.workload) {
    return refused(consumer.declaration.id +
                   " is the source itself: a peer is somebody else, and what a container sends "
                   "to its own address stays inside");
  }
  return judge(world, consumer, *target.workload, proto, port, families_of(target.address),
               is_confirmed);
}

// What keeps a flow to another node waiting, per family that both have.
void wait_for_node(const World& world, const Workload& consumer, const Workload& provider,
                   Proto proto, std::uint16_t port, FamilyReady families, Explanation& result) {
  const auto granted = granted_ranges(consumer.declaration, provider.declaration);
  bool open = false;
  std::vector<std::string_view> waiting;
  for (const auto family : kFamilies) {
    if (!families.on(family) || !consumer.address(family) || !provider.address(family)) continue;
    const auto confirmed = confirmed_ranges(world, consumer, provider, granted, family);
    const bool here = std::ranges::any_of(
        confirmed, [&](const PortRange& range) { return range.contains(proto, port); });
    open = open || here;
    if (!here) waiting.emplace_back(family == Family::kV4 ? "IPv4" : "IPv6");
  }
  if (waiting.empty()) return;
  const auto text = fmt::format("node {} has not confirmed it{} yet", provider.remote->node,
                                open ? fmt::format(" over {}", waiting.front()) : "");
  result.lines.push_back(text);
  if (open) return;
  result.verdict = FlowVerdict::kHeld;
  result.reason = text;
}

// One question about one service.
class ServiceQuestion {
 public:
  ServiceQuestion(const World& world, const Workload& consumer, const Target& target, Proto proto,
                  std::uint16_t port, const IsConfirmed& is_confirmed)
      : world_(world),
        is_confirmed_(is_confirmed),
        consumer_(consumer),
        target_(target),
        proto_(proto),
        port_(port),
        replicas_(members(world, target.key)) {
    auto& index = index_.members[target.key];
    index.insert(replicas_.begin(), replicas_.end());
    // Slots are not per consumer, so a replica may meet itself; the others go before.
    const auto self = std::ranges::find(replicas_, consumer.declaration.id);
    if (self != replicas_.end()) std::rotate(self, std::next(self), replicas_.end());
  }

  Explanation answer() {
    auto result = refused(fmt::format("nobody declares {}", service_text(target_.key)));
    if (replicas_.empty()) return result;
    bool granted = false;
    std::optional<Explanation> turned_away;  // by who stands behind the VIP
    std::optional<Explanation> unconfirmed;  // by the node of who stands there
    for (const auto& id : replicas_) {
      const auto& provider = world_.workloads.find(id)->second;
      const auto stands = stands_behind(provider);
      const bool there = stands.any();
      auto one = judge(world_, consumer_, provider, proto_, port_,
                       there ? stands : families_of(target_.address), is_confirmed_);
      if (one.verdict == FlowVerdict::kAllowed && there) {
        if (&provider == &consumer_) one.lines.push_back("it leads back to " + id + " itself");
        return one;
      }
      const auto ruling = decide(consumer_.declaration, provider.declaration, proto_, port_).ruling;
      if (ruling != Ruling::kAllowed) {
        if (there) turned_away = one;
        if (granted) continue;  // what is granted and not ready says more
      } else {
        granted = true;
        if (there && one.verdict == FlowVerdict::kHeld) unconfirmed = one;
        one.lines.push_back(one.verdict != FlowVerdict::kRefused ? id + " is not ready yet"
                                                                 : one.reason);
      }
      result = std::move(one);
    }
    if (unconfirmed) return *std::move(unconfirmed);
    // Packets are led to an endpoint that refuses them: there is nothing to wait for.
    if (turned_away) return *std::move(turned_away);
    result.verdict = FlowVerdict::kRefused;
    return granted && consumer_.is_placed() ? waiting(std::move(result)) : result;
  }

 private:
  [[nodiscard]] bool asked_on(Family family) const {
    return !target_.address || target_.address->family() == family;
  }

  [[nodiscard]] FamilyReady stands_behind(const Workload& provider) const {
    const auto on = [&](Family family) {
      return asked_on(family) && is_endpoint(provider, {proto_, port_, false}, family);
    };
    return {on(Family::kV4), on(Family::kV6)};
  }

  // Granted, and nobody behind it.
  Explanation waiting(Explanation result) const {
    const auto service = service_text(target_.key);
    const auto& id = consumer_.declaration.id;
    const auto what = fmt::format("no endpoint of {} is ready", service);
    const auto units = granted_units(world_, index_, consumer_.declaration);
    const auto named = units.find(target_.key);
    // A peer by id asks for that instance; only who names the service waits for it.
    if (named == units.end()) {
      result.reason = fmt::format("{}, and {} does not name it", what, id);
      return result;
    }
    const auto served = served_on(world_, index_, target_.key, {proto_, port_, false});
    const auto answered = answered_on(world_, index_, target_.key, named->second);
    const bool waits = std::ranges::any_of(kFamilies, [&](Family family) {
      return asked_on(family) && waits_on(served, answered, family);
    });
    if (!waits) {
      result.reason = fmt::format("{} over {}: it is there over the other family only", what,
                                  target_.address && target_.address->is_v6() ? "IPv6" : "IPv4");
      return result;
    }
    const auto& hold = world_.workloads.find(replicas_.front())->second.declaration.hold;
    // When it was attached is known on its own node only.
    const auto attached_at = consumer_.attachment ? consumer_.attachment->attached_at : TimePoint();
    const auto until =
        std::max({attached_at, target_.service->declared_at, target_.service->endpoint_lost_at}) +
        hold;
    if (world_.now < until) {
      result.verdict = FlowVerdict::kHeld;
      const auto left = std::chrono::ceil<std::chrono::seconds>(until - world_.now).count();
      result.reason = fmt::format("{}: held for another {} s", what, left);
    } else {
      result.reason = what + ", and the time to wait for one is over";
      if (!consumer_.attachment) {
        result.reason += fmt::format(", unless {} was attached less than {} s ago", id,
                                     std::chrono::ceil<std::chrono::seconds>(hold).count());
      }
    }
    return result;
  }

  const World& world_;
  const IsConfirmed& is_confirmed_;
  const Workload& consumer_;
  const Target& target_;
  const Proto proto_;
  const std::uint16_t port_;
  std::vector<std::string> replicas_;
  Index index_;  // over this service alone
};

}  // namespace

Explanation refused(std::string reason) {
  Explanation result;
  result.reason = std::move(reason);
  return result;
}

bool in_mesh(const Settings& settings, const IpAddress& address) {
  for (const auto& range :
       {settings.pool4, settings.vip_pool4, settings.pool6, settings.vip_pool6}) {
    if (range && range->contains(address)) return true;
  }
  return false;
}

std::string port_entry(Proto proto, std::uint16_t port) {
  return fmt::format("{{port: {}{}}}", port, proto == Proto::kUdp ? ", protocol: UDP" : "");
}

FamilyReady families_of(const std::optional<IpAddress>& asked) {
  return {!asked || asked->is_v4(), !asked || asked->is_v6()};
}

Explanation judge(const World& world, const Workload& consumer, const Workload& provider,
                  Proto proto, std::uint16_t port, FamilyReady families,
                  const IsConfirmed& is_confirmed) {
  const auto decision = decide(consumer.declaration, provider.declaration, proto, port);
  Explanation result;
  result.reason = decision.reason;
  if (decision.ruling != Ruling::kAllowed) {
    result.missing =
        missing_for(world, decision, consumer.declaration, provider.declaration, proto, port);
    return result;
  }
  result.lines = {decision.reason,
                  fmt::format("{} serves {}/{}", provider.declaration.id, proto_name(proto), port),
                  fmt::format("{} admits {}", provider.declaration.id, consumer.declaration.id)};
  for (const auto* side : {&consumer, &provider}) {
    if (side->remote) {
      result.nodes.push_back(side->remote->node);
      result.lines.push_back(
          fmt::format("{} is on node {}{}", side->declaration.id, side->remote->node,
                      side->remote->stale ? ", which has not been heard of for a while" : ""));
    }
    if (side->is_placed()) continue;
    result.reason = side->declaration.id + " is not attached";
    return result;
  }
  result.verdict = FlowVerdict::kAllowed;
  if (consumer.attachment && provider.remote) {
    wait_for_node(world, consumer, provider, proto, port, families, result);
  }
  if (consumer.remote && provider.remote && consumer.remote->node != provider.remote->node &&
      is_confirmed && !is_confirmed(consumer.declaration.id, provider.declaration.id)) {
    result.verdict = FlowVerdict::kHeld;
    result.reason = fmt::format("node {} has not confirmed it yet", provider.remote->node);
    result.lines.push_back(result.reason);
  }
  if (provider.drains() && result.verdict == FlowVerdict::kAllowed) {
    result.verdict = FlowVerdict::kRefused;
    result.reason = provider.declaration.id + " is draining: open connections only";
  }
  return result;
}

Result<Explanation> explain(const World& world, std::string_view source,
                            std::string_view destination, Proto proto, std::uint16_t port,
                            const IsConfirmed& is_confirmed) {
  const auto unknown = [](std::string_view text) {
    return fail(ErrorCode::kNotFound,
                fmt::format("explain: {} is no workload, service or address here", text));
  };
  const auto from = TRY(look_up(world, source));
  const auto* consumer = from.workload;
  std::vector<std::string> replicas;
  if (from.service != nullptr) {
    replicas = members(world, from.key);
    if (!replicas.empty()) consumer = find_workload(world, replicas.front());
  }
  if (consumer == nullptr) {
    if (!from.address || from.service != nullptr) return unknown(source);
    const auto to = TRY(look_up(world, destination));
    if (!found(to)) return unknown(destination);
    if (!is_node(world.settings, *from.address)) {
      return from_outside(world, *from.address, to, proto, port);
    }
    auto result = from_node(world, to, proto, port);
    if (result) return *std::move(result);
    return fail(ErrorCode::kNotFound,
                fmt::format("explain: neither {} nor {} is a container's: what the node sends "
                            "elsewhere is not judged here",
                            source, destination));
  }
  const auto to = look_up_as(world, consumer->declaration, destination);
  if (!found(to)) return refused(fmt::format("nobody declares {}", destination));
  if (consumer->remote && to.workload == nullptr && to.service == nullptr) {
    return fail(ErrorCode::kNotFound,
                fmt::format("explain: {} is on node {}: what it sends out of the mesh is judged "
                            "there",
                            consumer->declaration.id, consumer->remote->node));
  }
  auto result = to.workload != nullptr ? between(world, *consumer, to, proto, port, is_confirmed)
                : to.service != nullptr
                    ? ServiceQuestion(world, *consumer, to, proto, port, is_confirmed).answer()
                    : to_outside(world, *consumer, *to.address, proto, port);
  if (replicas.size() > 1) {
    result.lines.push_back(fmt::format("asked for {}, the first of {} replicas of {}",
                                       replicas.front(), replicas.size(), service_text(from.key)));
  }
  return result;
}

}  // namespace meshd::policy
