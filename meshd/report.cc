#include "meshd/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "meshd/traffic.h"
#include "policy/allocate.h"
#include "policy/from_proto.h"
#include "policy/name.h"
#include "policy/profile.h"
#include "policy/truth.h"

namespace meshd {
namespace {

namespace pb = mesh::v1;
using policy::World;

pb::Protocol::Value protocol(Proto proto) {
  return proto == Proto::kTcp ? pb::Protocol::TCP : pb::Protocol::UDP;
}

void add_addresses(const policy::Workload& workload,
                   google::protobuf::RepeatedPtrField<std::string>& to) {
  for (const auto family : kFamilies) {
    if (workload.address(family)) *to.Add() = workload.address(family)->to_string();
  }
}

const std::string& node_of(const World& world, const policy::Workload& workload) {
  return workload.remote ? workload.remote->node : world.settings.node_name;
}

// The same list in the same order: what Change::Kind says is what the message says.
consteval bool same_kinds() {
  using Kind = policy::Change::Kind;
  using Message = pb::Change::Kind;
  constexpr std::pair<Kind, Message::Value> kPairs[] = {
      {Kind::kWorkloadAdded, Message::WORKLOAD_ADDED},
      {Kind::kWorkloadChanged, Message::WORKLOAD_CHANGED},
      {Kind::kWorkloadUnchanged, Message::WORKLOAD_UNCHANGED},
      {Kind::kFlowAdded, Message::FLOW_ADDED},
      {Kind::kFlowRemoved, Message::FLOW_REMOVED},
      {Kind::kNameAdded, Message::NAME_ADDED},
      {Kind::kNameRemoved, Message::NAME_REMOVED},
      {Kind::kPortPublished, Message::PORT_PUBLISHED},
      {Kind::kPortWithdrawn, Message::PORT_WITHDRAWN},
      {Kind::kConnectionCut, Message::CONNECTION_CUT},
      {Kind::kPeerUndeclared, Message::PEER_UNDECLARED},
  };
  for (const auto& [kind, message] : kPairs) {
    if (static_cast<int>(kind) != static_cast<int>(message)) return false;
  }
  return std::size(kPairs) == Message::Value_ARRAYSIZE;
}

using Sum = std::pair<std::uint64_t, std::uint64_t>;  // packets, bytes

struct Totals {
  // Of the elements between two addresses, by provider port.
  std::map<std::tuple<IpAddress, IpAddress, std::uint8_t, std::uint16_t>, Sum> between;
  // Of a publication or of a row of egress, each in its one element.
  std::map<policy::Element, Sum> with_outside;
};

Totals total(const std::vector<ElementCount>& counts) {
  Totals totals;
  const auto sum_of = [&totals](const policy::Element& element) -> Sum& {
    switch (element.set) {
      case policy::SetId::kPubCount4:
      case policy::SetId::kPubCount6:
      case policy::SetId::kEgressCount4:
      case policy::SetId::kEgressCount6:
        return totals.with_outside[element];
      default:
        break;
    }
    const auto key = read_allow(element);
    return totals.between[{key.consumer, key.provider, key.proto, key.port}];
  };
  for (const auto& count : counts) {
    auto& sum = sum_of(count.element);
    sum.first += count.packets;
    sum.second += count.bytes;
  }
  return totals;
}

// Single ports and blocks stand in the totals by their first port.
void add_counts(const Totals& totals, const policy::Attachment& from, const policy::Attachment& to,
                const policy::PortRange& ports, pb::FlowInfo& flow) {
  std::uint64_t packets = 0, bytes = 0;
  for (const auto family : kFamilies) {
    if (!from.address(family) || !to.address(family)) continue;
    const auto number = static_cast<std::uint8_t>(ports.proto);
    auto entry = totals.between.lower_bound(
        {*from.address(family), *to.address(family), number, ports.first});
    const auto end = totals.between.upper_bound(
        {*from.address(family), *to.address(family), number, ports.last});
    for (; entry != end; ++entry) {
      packets += entry->second.first;
      bytes += entry->second.second;
    }
  }
  flow.set_packets(packets);
  flow.set_bytes(bytes);
}

void add_count(const Totals& totals, const policy::Element& element, pb::FlowInfo& flow) {
  const auto found = totals.with_outside.find(element);
  if (found == totals.with_outside.end()) return;
  flow.set_packets(flow.packets() + found->second.first);
  flow.set_bytes(flow.bytes() + found->second.second);
}

bool publication_ready(const policy::Workload& workload, const policy::Publication& publication) {
  if (!workload.attachment || workload.drains()) return false;
  // Of a port that nobody declared nothing says when it is ready: whoever opens it will see.
  if (publication.on_demand) return true;
  if (publication.proto == Proto::kUdp || workload.ready) return true;
  const auto found = workload.tcp_ready.find(publication.port);
  return found != workload.tcp_ready.end() && found->second.any();
}

// Whose requests are admitted. To `http` the node itself admits the proxies, and these judge
// the declared sources: the configuration is not part of what was declared.
std::vector<Prefix> admitted_sources(const policy::Settings& settings,
                                     const policy::Publication& publication) {
  if (publication.allow_from) return *publication.allow_from;
  return publication.http ? std::vector<Prefix>() : settings.publish_allow_from;
}

pb::PublishedInfo published_info(const World& world, const std::string& id,
                                 const policy::Workload& workload,
                                 const policy::Publication& publication) {
  pb::PublishedInfo info;
  info.set_id(id);
  info.set_name(workload.declaration.name);
  info.set_port(publication.port);
  info.set_protocol(protocol(publication.proto));
  for (const auto& address : world.settings.publish_addresses) {
    if (!world.settings.pool(address.family())) continue;  // leads to no container
    info.add_node_addresses(address.to_string());
  }
  const auto port = world.node_ports.find({id, publication.proto, publication.port});
  if (port != world.node_ports.end()) info.set_node_port(port->second);
  info.set_http(publication.http);
  for (const auto& source : admitted_sources(world.settings, publication)) {
    info.add_allow_from(source.to_string());
  }
  info.set_access(policy::to_proto(publication.access));
  info.set_label(publication.label);
  info.set_path(publication.path);
  info.set_ready(publication_ready(workload, publication));
  info.set_on_demand(publication.on_demand);
  return info;
}

}  // namespace

pb::WorkloadState::Value state_of(const policy::Workload& workload) {
  if (!workload.is_placed()) return pb::WorkloadState::DECLARED;
  if (workload.drains()) return pb::WorkloadState::DRAINING;
  return workload.ready ? pb::WorkloadState::READY : pb::WorkloadState::ATTACHED;
}

void add_upstreams(const std::vector<dns::UpstreamState>& states, pb::StatusReply& reply) {
  for (const auto& state : states) {
    auto& upstream = *reply.add_upstreams();
    upstream.set_address(state.address.to_string());
    upstream.set_healthy(state.healthy);
    upstream.set_rtt_us(state.rtt_us);
    upstream.set_leads_back(state.leads_back);
    if (!state.leads_back) continue;
    auto& problem = *reply.add_problems();
    problem.set_subject("dns");
    problem.set_detail(fmt::format("upstream {} leads back to this resolver: it is not asked",
                                   state.address.to_string()));
  }
}

std::vector<std::string> limits_of(const World& world) {
  constexpr std::size_t kMaxNamed = 5;
  std::vector<std::string> limits;
  std::size_t beside = 0;
  std::string names;
  for (const auto& [id, workload] : world.workloads) {
    if (!workload.attachment || workload.attachment->default_route) continue;
    if (++beside <= kMaxNamed) names += fmt::format("{}{}", beside > 1 ? ", " : "", id);
  }
  if (beside > kMaxNamed) names += fmt::format(" and {} more", beside - kMaxNamed);
  if (beside > 0) {
    limits.push_back("what passes interfaces that engines have given is not controlled: " + names);
  }
  if (world.settings.in_cluster) {
    limits.emplace_back(
        "packets to other nodes are not encrypted: the network between them must be trusted, or "
        "encrypted beneath");
  }
  return limits;
}

pb::Change change_message(const policy::Change& change) {
  pb::Change message;
  static_assert(same_kinds());
  message.set_kind(static_cast<pb::Change::Kind::Value>(change.kind));
  message.set_subject(change.subject);
  message.set_detail(change.detail);
  return message;
}

pb::AttachReply attach_reply(const World& world, const std::string& id, std::uint32_t mtu) {
  const auto& workload = world.workloads.find(id)->second;
  const auto& attachment = *workload.attachment;
  pb::AttachReply reply;
  reply.set_id(id);
  reply.set_netns(attachment.netns_path);
  reply.set_ifname(attachment.ifname);
  reply.set_host_ifname(attachment.host_ifname);
  reply.set_mac(attachment.mac.to_string());
  add_addresses(workload, *reply.mutable_addresses());
  if (attachment.v4) {
    reply.add_gateways("169.254.1.1");
    reply.add_resolvers(world.settings.resolver4[0].to_string());
  }
  if (attachment.v6) {
    reply.add_gateways("fe80::1");
    reply.add_resolvers(world.settings.resolver6[0].to_string());
  }
  for (auto& domain : policy::search_list(world.settings.zone, workload.declaration.workflow)) {
    reply.add_search(std::move(domain));
  }
  reply.set_mtu(mtu);
  return reply;
}

pb::DetachReply detach_reply(const policy::Attachment& attachment) {
  pb::DetachReply reply;
  reply.set_was_attached(true);
  reply.set_netns(attachment.netns_path);
  reply.set_prepared(attachment.prepared);
  reply.set_netns_dev(attachment.netns.dev);
  reply.set_netns_ino(attachment.netns.ino);
  return reply;
}

pb::WorkloadList workload_list(const World& world, const Problems& problems) {
  pb::WorkloadList list;
  for (const auto& [id, workload] : world.workloads) {
    auto& info = *list.add_workloads();
    *info.mutable_declaration() = policy::to_proto(workload.declaration);
    info.set_state(state_of(workload));
    if (workload.is_placed()) {
      info.mutable_attachment()->set_node(node_of(world, workload));
      add_addresses(workload, *info.mutable_attachment()->mutable_addresses());
    }
    if (workload.attachment) {
      auto& attachment = *info.mutable_attachment();
      attachment.set_netns(workload.attachment->netns_path);
      attachment.set_ifname(workload.attachment->ifname);
      attachment.set_host_ifname(workload.attachment->host_ifname);
    }
    const auto found = problems.find(id);
    if (found == problems.end()) continue;
    for (const auto& problem : found->second) info.add_problems(problem);
  }
  return list;
}

pb::ServiceList service_list(const World& world) {
  pb::ServiceList list;
  for (const auto& [key, service] : world.services) {
    auto& info = *list.add_services();
    info.set_name(key.name);
    info.set_scope(key.scope == policy::Scope::kCluster ? pb::Scope::CLUSTER : pb::Scope::WORKFLOW);
    info.set_workflow(key.workflow);
    info.set_owner(service.owner);
    for (const auto family : kFamilies) {
      if (service.vip(family)) info.add_vips(service.vip(family)->to_string());
    }
    for (const auto& id : policy::members(world, key)) {
      const auto& workload = world.workloads.find(id)->second;
      if (!workload.is_placed()) continue;
      auto& endpoint = *info.add_endpoints();
      endpoint.set_id(id);
      endpoint.set_node(node_of(world, workload));
      add_addresses(workload, *endpoint.mutable_addresses());
      endpoint.set_ready(workload.ready && !workload.drains());
      endpoint.set_stale(workload.remote && workload.remote->stale);
    }
  }
  return list;
}

pb::PublishedList published_list(const World& world) {
  pb::PublishedList list;
  for (const auto& [id, workload] : world.workloads) {
    for (const auto& publication : policy::publications_of(workload)) {
      *list.add_published() = published_info(world, id, workload, publication);
    }
  }
  return list;
}

pb::NodeList node_list(const policy::World& world) {
  pb::NodeList list;
  auto& node = *list.add_nodes();
  node.set_name(world.settings.node_name);
  node.set_connected(true);  // it answers
  for (const auto family : kFamilies) {
    if (world.settings.pool(family)) node.add_blocks(world.settings.pool(family)->to_string());
  }
  std::uint32_t attached = 0;
  for (const auto& [id, workload] : world.workloads) attached += workload.attachment ? 1 : 0;
  node.set_workloads(attached);
  return list;
}

pb::NodeEndpoint node_endpoint(const World& world, const std::string& id) {
  const auto& workload = world.workloads.find(id)->second;
  pb::NodeEndpoint endpoint;
  endpoint.set_id(id);
  add_addresses(workload, *endpoint.mutable_addresses());
  endpoint.set_draining(workload.drains());
  endpoint.set_ready(workload.ready);
  for (const auto& [port, families] : workload.tcp_ready) {
    auto& ready = *endpoint.add_ready_ports();
    ready.set_port(port);
    ready.set_v4(families.v4);
    ready.set_v6(families.v6);
  }
  for (const auto& publication : policy::publications_of(workload)) {
    *endpoint.add_published() = published_info(world, id, workload, publication);
  }
  return endpoint;
}

namespace {

class FlowLister {
 public:
  FlowLister(const World& world, const std::vector<ElementCount>& counts)
      : world_(world), totals_(total(counts)) {}

  pb::FlowList list() && {
    for (const auto& [id, workload] : world_.workloads) {
      if (!workload.attachment) continue;
      peers(id, workload);
      egress(id, workload);
      publications(id, workload);
    }
    return std::move(list_);
  }

 private:
  pb::FlowInfo& add(std::string src, std::string dst, const policy::PortRange& ports) {
    auto& flow = *list_.add_flows();
    flow.set_src(std::move(src));
    flow.set_dst(std::move(dst));
    flow.set_protocol(protocol(ports.proto));
    flow.set_port(ports.first);
    if (!ports.single()) flow.set_end_port(ports.last);
    return flow;
  }

  void peers(const std::string& id, const policy::Workload& consumer) {
    for (const auto& [other, provider] : world_.workloads) {
      if (!provider.attachment || id == other) continue;
      for (const auto& ports : policy::granted_ranges(consumer.declaration, provider.declaration)) {
        add_counts(totals_, *consumer.attachment, *provider.attachment, ports,
                   add(id, other, ports));
      }
    }
  }

  void egress(const std::string& id, const policy::Workload& workload) {
    for (const auto& rule : workload.declaration.egress) {
      for (const auto& row : policy::rows_of(rule)) {
        const auto proto = static_cast<Proto>(row.proto);
        if (proto != Proto::kTcp && proto != Proto::kUdp) continue;  // ping has no ports to show
        auto& flow = add(id, row.prefix.to_string(), {proto, row.first, row.last});
        const auto& own = workload.attachment->address(row.prefix.family());
        if (own) add_count(totals_, policy::egress_count(*own, policy::row_number(row)), flow);
      }
    }
  }

  void publications(const std::string& id, const policy::Workload& workload) {
    for (const auto& publication : policy::publications_of(workload)) {
      auto& flow = add(publication.http ? "proxies" : "outside", id,
                       {publication.proto, publication.port, publication.port});
      for (const auto family : kFamilies) {
        const auto& own = workload.attachment->address(family);
        if (!own) continue;
        add_count(totals_, policy::publication_count(*own, publication.proto, publication.port),
                  flow);
      }
    }
  }

  const World& world_;
  const Totals totals_;
  pb::FlowList list_;
};

}  // namespace

pb::FlowList flow_list(const World& world, const std::vector<ElementCount>& counts) {
  return FlowLister(world, counts).list();
}

}  // namespace meshd
