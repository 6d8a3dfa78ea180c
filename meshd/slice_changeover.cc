// A change of the slice: made in memory, compiled, stored, or taken back whole.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "meshd/node.h"
#include "meshd/node_cluster.h"
#include "meshd/readiness.h"
#include "policy/node_ports.h"
#include "policy/outside_ports.h"
#include "policy/profile.h"
#include "policy/truth.h"

namespace meshd {

namespace pb = mesh::v1;
using Kind = pb::SliceKey::Kind;

namespace {

template <class Map>
using Saved = std::map<typename Map::key_type, std::optional<typename Map::mapped_type>>;

// Remembers how the entry is, once.
template <class Map>
void save(const Map& map, const typename Map::key_type& key, Saved<Map>& saved) {
  const auto found = map.find(key);
  saved.try_emplace(key, found == map.end()
                             ? std::nullopt
                             : std::optional<typename Map::mapped_type>(found->second));
}

template <class Map>
void put_back(Map& map, Saved<Map>& saved) {
  for (auto& [key, value] : saved) {
    if (value) {
      map.insert_or_assign(key, *std::move(value));
    } else {
      map.erase(key);
    }
  }
}

bool is_unsettled(const policy::World& world, const policy::Workload& workload) {
  const auto all = policy::publications_of(workload);
  return std::ranges::any_of(all, [&](const auto& publication) {
    return !world.node_ports.contains(
        {workload.declaration.id, publication.proto, publication.port});
  });
}

void join(std::vector<StoreChange>& to, std::vector<StoreChange> more) {
  std::ranges::move(more, std::back_inserter(to));
}

}  // namespace

// --- one change ----------------------------------------------------------------------

class SliceChangeover {
 public:
  SliceChangeover(ClusterPart& part, SliceUpdate update, TimePoint now)
      : part_(part),
        node_(part.node_),
        world_(part.node_.world_),
        update_(std::move(update)),
        now_(now),
        own_(part.own_) {}

  Status run() {
    CHECK_OK(ask_kernel());
    const auto before = worst_case(node_.compiler_);
    auto status = change();
    Compiled compiled;
    if (status) {
      compiled = node_.compile(touched_, now_);
      join(changes_, std::move(compiled.changes));
      status = check_room(before, worst_case(node_.compiler_));
    }
    if (status) status = store();
    if (!status) {
      take_back(compiled);
      return status;
    }
    settle(std::move(compiled));
    return {};
  }

 private:
  // What can fail before anything is another.
  Status ask_kernel() {
    const bool publishes = std::ranges::any_of(update_.own, [](const auto& entry) {
      return !entry.second.declaration.publish.empty() || !entry.second.opened.empty();
    });
    const bool waits = std::ranges::any_of(own_, [&](const std::string& id) {
      return is_unsettled(world_, world_.workloads.find(id)->second);
    });
    if (publishes || waits) listening_ = TRY(node_.kernel_.listening());
    return {};
  }

  Status change() {
    const auto gateways = policy::gateway_addresses(world_);
    for (const auto& key : update_.gone) drop(key);
    for (auto& [id, workload] : update_.own) own(id, std::move(workload));
    for (auto& [id, workload] : update_.others) other(id, std::move(workload));
    for (auto& [key, service] : update_.services) put_service(key, std::move(service));
    CHECK_OK(check_vips());
    for (auto& [key, outside] : update_.outside) put_outside(key, std::move(outside));
    CHECK_OK(check_outside());
    for (auto& [name, node] : update_.nodes) {
      save(world_.nodes, name, nodes_);
      touched_.nodes |= world_.nodes[name] != node;
      world_.nodes[name] = std::move(node);
    }
    touch_admitted(gateways);
    for (auto& [key, value] : update_.bytes) {
      const auto known = part_.slice_.find(key);
      if (known != part_.slice_.end() && known->second == value) continue;
      save(part_.slice_, key, slice_);
      part_.slice_.insert_or_assign(key, value);
      changes_.push_back(PutSliceItem{key, std::move(value)});
    }
    settle_ports();
    for (const auto& [consumer, providers] : update_.confirmed) {
      for (const auto& [provider, said] : providers) confirm(consumer, provider, said);
    }
    return {};
  }

  void touch(const std::string& id) {
    auto one = node_.touched_by(id);
    touched_.workloads.merge(one.workloads);
    touched_.services.merge(one.services);
  }

  // --- workloads

  void drop(const SliceKey& key) {
    save(part_.slice_, key, slice_);
    if (part_.slice_.erase(key) > 0) changes_.push_back(DropSliceItem{key});
    if (key.kind == Kind::WORKLOAD) {
      touch(key.key);
      disown(key.key);
      save(world_.workloads, key.key, workloads_);
      world_.workloads.erase(key.key);
    } else if (key.kind == Kind::SERVICE) {
      drop_service(service_key_of(key.key));
    } else if (key.kind == Kind::NODE) {
      save(world_.nodes, key.key, nodes_);
      touched_.nodes |= world_.nodes.erase(key.key) > 0;
    } else if (const auto outside = policy::parse_outside_key(key.key);
               outside && key.kind == Kind::OUTSIDE) {
      save(world_.outside, *outside, outside_);
      world_.outside.erase(*outside);
      touched_.outside.insert(*outside);
    }
  }

  // It is not this node's any more: what is attached of it goes.
  void disown(const std::string& id) {
    if (own_.erase(id) == 0) return;
    save(world_.workloads, id, workloads_);
    auto& workload = world_.workloads.find(id)->second;
    if (workload.attachment) {
      save(node_.left_netns_, id, left_);
      const auto attachment = *std::exchange(workload.attachment, std::nullopt);
      join(changes_, node_.leave(id, attachment, now_));
      detached_.emplace_back(id, attachment);
    }
    for (auto port = world_.node_ports.lower_bound({id, {}, 0});
         port != world_.node_ports.end() && port->first.id == id;) {
      save(world_.node_ports, port->first, node_ports_);
      port = world_.node_ports.erase(port);
    }
    workload = {};
    changes_.push_back(DropDeclaration{id});
    disowned_.insert(id);
  }

  void own(const std::string& id, OwnWorkload update) {
    const bool is_new = own_.insert(id).second;
    if (!is_new) {
      const auto& known = world_.workloads.find(id)->second;
      if (known.declaration == update.declaration && known.opened == update.opened &&
          known.drained == update.drained) {
        return;
      }
    }
    touch(id);
    save(world_.workloads, id, workloads_);
    auto& workload = world_.workloads[id];
    if (is_new) workload = {};
    const bool is_same = !is_new && workload.declaration == update.declaration;
    if (is_new || workload.declaration.publish != update.declaration.publish ||
        workload.opened != update.opened) {
      publishers_.insert(id);
    }
    // These two are kept with the slice's item.
    workload.opened = std::move(update.opened);
    if (update.drained && !workload.drained && workload.attachment) drained_.push_back(id);
    workload.drained = update.drained;
    if (is_same) return;
    workload.declaration = std::move(update.declaration);
    touch(id);
    changes_.push_back(PutDeclaration{id, workload.declaration});
    declared_.push_back(id);
    if (workload.attachment && !workload.ready && is_ready(workload)) {
      changes_.push_back(PutReady{id, true, workload.tcp_ready});
    }
  }

  void other(const std::string& id, policy::Workload workload) {
    touch(id);
    disown(id);
    save(world_.workloads, id, workloads_);
    world_.workloads.insert_or_assign(id, std::move(workload));
    touch(id);
  }

  // --- services

  void put_service(const policy::ServiceKey& key, policy::Service service) {
    const auto known = world_.services.find(key);
    if (known != world_.services.end()) {
      // This node has seen itself since when its endpoints are gone.
      auto same = service;
      same.declared_at = known->second.declared_at;
      same.endpoint_lost_at = known->second.endpoint_lost_at;
      if (same == known->second) return;
    }
    save(world_.services, key, services_);
    touched_.services.insert(key);
    changes_.push_back(PutService{key, service});
    world_.services.insert_or_assign(key, std::move(service));
  }

  void drop_service(const policy::ServiceKey& key) {
    if (!world_.services.contains(key)) return;
    save(world_.services, key, services_);
    touched_.services.insert(key);
    changes_.push_back(DropService{key});
    world_.services.erase(key);
  }

  // Two services of one address would be two answers to one packet. One that a snapshot has
  // not named is of a time that is over.
  Status check_vips() {
    if (update_.services.empty()) return {};
    for (const auto family : kFamilies) {
      std::map<IpAddress, policy::ServiceKey> users;
      for (const auto& [key, service] : std::map(world_.services)) {
        const auto& vip = service.vip(family);
        if (!vip) continue;
        const auto [user, is_first] = users.emplace(*vip, key);
        if (is_first) continue;
        const bool first_is_old = is_unnamed(user->second);
        if (!first_is_old && !is_unnamed(key)) {
          const auto& named = update_.services.contains(key) ? key : user->second;
          const auto& holder = named == key ? user->second : key;
          return fail(ErrorCode::kConflict,
                      fmt::format("{}: vips: {} is {}'s", slice_key_text(key_of(named)),
                                  vip->to_string(), slice_key_text(key_of(holder))));
        }
        drop(key_of(first_is_old ? user->second : key));
        if (first_is_old) user->second = key;
      }
    }
    return {};
  }
  static SliceKey key_of(const policy::ServiceKey& key) {
    return {Kind::SERVICE, key.workflow.empty() ? key.name : key.workflow + "/" + key.name};
  }
  [[nodiscard]] bool is_unnamed(const policy::ServiceKey& key) const {
    return is_unnamed(key_of(key));
  }
  [[nodiscard]] bool is_unnamed(const SliceKey& item) const {
    return part_.named_ && !part_.named_->contains(item) && !update_.bytes.contains(item);
  }

  // --- gateways

  // Of a node that comes or goes, raw publications are to admit it, or no longer.
  void touch_admitted(const std::vector<IpAddress>& before) {
    if (policy::gateway_addresses(world_) == before) return;
    for (const auto& id : own_) {
      const auto& publish = world_.workloads.find(id)->second.declaration.publish;
      if (!std::ranges::all_of(publish, &policy::Publication::http)) {
        touched_.workloads.insert(id);
      }
    }
  }

  void put_outside(const policy::OutsideKey& key, policy::Outside outside) {
    save(world_.outside, key, outside_);
    touched_.outside.insert(key);
    world_.outside.insert_or_assign(key, std::move(outside));
  }

  // Sources are judged by where it leads: of two ports that lead there, one could open the other.
  Status check_outside() {
    if (update_.outside.empty()) return {};
    std::map<std::tuple<Proto, std::uint16_t, IpAddress>, policy::OutsideKey> users;
    for (const auto& [key, outside] : std::map(world_.outside)) {
      for (const auto family : kFamilies) {
        const auto& address = outside.address(family);
        if (!address) continue;
        const auto [user, is_first] =
            users.try_emplace({key.proto, outside.node_port, *address}, key);
        if (is_first || user->second == key) continue;
        const bool first_is_old = is_unnamed(key_of(user->second));
        if (!first_is_old && !is_unnamed(key_of(key))) {
          return fail(ErrorCode::kConflict,
                      fmt::format("{}: node_port: {} leads there", slice_key_text(key_of(key)),
                                  slice_key_text(key_of(user->second))));
        }
        drop(key_of(first_is_old ? user->second : key));
        if (first_is_old) user->second = key;
      }
    }
    return {};
  }
  static SliceKey key_of(const policy::OutsideKey& key) {
    return {Kind::OUTSIDE, policy::outside_key_text(key)};
  }

  // --- node ports

  void settle_ports() {
    std::map<std::string, policy::Declaration, std::less<>> after;
    for (const auto& id : own_) {
      const auto& workload = world_.workloads.find(id)->second;
      if (!publishers_.contains(id) && !is_unsettled(world_, workload)) continue;
      auto declaration = workload.declaration;
      declaration.publish = policy::publications_of(workload);
      after.emplace(id, std::move(declaration));
    }
    if (after.empty()) return;
    auto ports = policy::settle_node_ports(world_, after, listening_);
    const auto touch_port = [&](const policy::PublishKey& key) {
      save(world_.node_ports, key, node_ports_);
      touched_.workloads.insert(key.id);
    };
    for (const auto& key : ports.gone) {
      touch_port(key);
      world_.node_ports.erase(key);
      changes_.push_back(DropNodePort{key});
    }
    for (const auto& [key, port] : ports.given) {
      touch_port(key);
      world_.node_ports[key] = port;
      changes_.push_back(PutNodePort{key, port});
    }
    settled_ = true;
    for (const auto& [key, error] : ports.refused) refused_[key.id].push_back(error.what);
  }

  // --- confirmations

  void confirm(const std::string& consumer, const std::string& provider,
               const policy::Confirmation& said) {
    auto valid = still_confirmed(world_, consumer, provider, said);
    if (!valid) return;
    const auto of_consumer = world_.confirmed.find(consumer);
    policy::Confirmation known;
    bool is_known = false;
    if (of_consumer != world_.confirmed.end() && of_consumer->second.contains(provider)) {
      known = of_consumer->second.find(provider)->second;
      is_known = true;
    }
    const bool same_ends = known.from4 == valid->from4 && known.from6 == valid->from6 &&
                           known.to4 == valid->to4 && known.to6 == valid->to6;
    if (same_ends) {  // sticky: another controller may not have heard of all yet
      valid->ranges.insert(valid->ranges.end(), known.ranges.begin(), known.ranges.end());
      valid->ranges = policy::normalise(std::move(valid->ranges));
    }
    if (is_known && known == *valid) return;
    confirmed_.try_emplace({consumer, provider}, is_known ? std::optional(known) : std::nullopt);
    set_confirmed(world_, consumer, provider, valid);
    changes_.push_back(PutConfirmation{consumer, provider, *std::move(valid)});
    touched_.workloads.insert(consumer);
  }

  // --- the end

  Status store() {
    changes_.push_back(PutCluster{{*part_.terms_, update_.revision}});
    return node_.persist(changes_);
  }

  void take_back(const Compiled& compiled) {
    part_.take_back(compiled);
    for (const auto& [pair, said] : confirmed_) {
      set_confirmed(world_, pair.first, pair.second, said);
    }
    for (const auto& [key, service] : compiled.services) world_.services[key] = service;
    put_back(world_.workloads, workloads_);
    put_back(world_.services, services_);
    put_back(world_.nodes, nodes_);
    put_back(world_.node_ports, node_ports_);
    put_back(world_.outside, outside_);
    put_back(node_.left_netns_, left_);
    put_back(part_.slice_, slice_);
    auto touched = touched_;
    touched.workloads.insert(compiled.touched.workloads.begin(), compiled.touched.workloads.end());
    touched.services.insert(compiled.touched.services.begin(), compiled.touched.services.end());
    [[maybe_unused]] const auto undone = node_.compiler_.update(world_, touched);
  }

  void settle(Compiled compiled) {
    part_.own_ = std::move(own_);
    part_.revision_ = update_.revision;
    for (const auto& id : disowned_) {
      node_.problems_.erase(id);
      part_.port_problems_.erase(id);
    }
    if (settled_) part_.port_problems_ = std::move(refused_);
    for (const auto& [id, attachment] : detached_) node_.let_go(attachment, now_);
    node_.bring_in_force(std::move(compiled.delta), now_);
    for (const auto& [id, attachment] : detached_) node_.emit(pb::Event::Kind::DETACHED, id);
    for (const auto& id : disowned_) node_.emit(pb::Event::Kind::DELETED, id);
    for (const auto& id : drained_) node_.emit(pb::Event::Kind::DRAINING, id);
    for (const auto& id : declared_) {
      node_.emit(pb::Event::Kind::DECLARED, id);
      node_.refresh_ready(id, now_);
    }
  }

  ClusterPart& part_;
  Node& node_;
  policy::World& world_;
  SliceUpdate update_;
  const TimePoint now_;
  std::set<std::string> own_;
  policy::ListeningPorts listening_;

  policy::Touched touched_;
  std::vector<StoreChange> changes_;
  std::set<std::string> disowned_, publishers_;
  std::vector<std::string> declared_, drained_;
  std::vector<std::pair<std::string, policy::Attachment>> detached_;
  bool settled_ = false;
  std::map<std::string, std::vector<std::string>> refused_;

  // As it was.
  Saved<decltype(policy::World::workloads)> workloads_;
  Saved<decltype(policy::World::services)> services_;
  Saved<decltype(policy::World::nodes)> nodes_;
  Saved<decltype(policy::World::node_ports)> node_ports_;
  Saved<decltype(policy::World::outside)> outside_;
  Saved<std::map<std::string, LeftNetns>> left_;
  Saved<SliceBytes> slice_;
  std::map<std::pair<std::string, std::string>, std::optional<policy::Confirmation>> confirmed_;
};

Status ClusterPart::take(SliceUpdate update, TimePoint now) {
  return SliceChangeover(*this, std::move(update), now).run();
}

}  // namespace meshd
