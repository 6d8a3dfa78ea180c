#include "netlink/link_monitor.h"

#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>

#include "netlink/address_route.h"
#include "netlink/link.h"
#include "netlink/uplink.h"

namespace meshd::netlink {
namespace {

std::optional<LinkEvent> link_event(const MessageView& message, std::uint32_t our_group) {
  const auto header = read_host<ifinfomsg>(message.payload);
  const auto link = decode_link(message.payload);
  // Bridges report their ports by the same message under a family of their own.
  if (!header || header->ifi_family != 0 || !link) return std::nullopt;
  LinkEvent event;
  event.kind = LinkEvent::Kind::kLink;
  event.removed = message.type == RTM_DELLINK;
  event.ours = link->group == our_group;
  event.ifindex = link->index;
  event.name = link->name;
  if (link->bridge_port && !link->isolated.value_or(false)) {
    event.open_port_to = link->peer_netnsid;
  }
  event.leads_out = link->master != 0 && may_lead_out(*link);
  return event;
}

std::optional<LinkEvent> address_event(const MessageView& message) {
  const auto address = decode_address(message.payload);
  if (!address) return std::nullopt;
  LinkEvent event;
  event.kind = LinkEvent::Kind::kAddress;
  event.removed = message.type == RTM_DELADDR;
  event.ifindex = address->ifindex;
  return event;
}

// Foreign routes too: one that takes the place of ours is all that the kernel tells.
std::optional<LinkEvent> route_event(const MessageView& message) {
  const auto route = decode_route(message.payload);
  if (!route) return std::nullopt;
  LinkEvent event;
  event.kind = LinkEvent::Kind::kRoute;
  event.removed = message.type == RTM_DELROUTE;
  event.ours = route->protocol == kOurProtocol;
  event.ifindex = route->ifindex;
  event.destination = route->destination;
  return event;
}

std::optional<LinkEvent> neighbour_event(const MessageView& message) {
  const auto neighbour = decode_neighbour(message.payload);
  if (!neighbour) return std::nullopt;
  const bool ours = neighbour->protocol == kOurProtocol;
  // The rest is the traffic of the day: learnt, confirmed, expired.
  if (!ours && !neighbour->permanent) return std::nullopt;
  LinkEvent event;
  event.kind = LinkEvent::Kind::kNeighbour;
  event.removed = message.type == RTM_DELNEIGH;
  event.ours = ours;
  event.ifindex = neighbour->ifindex;
  return event;
}

std::optional<LinkEvent> event_of(const MessageView& message, std::uint32_t our_group) {
  switch (message.type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      return link_event(message, our_group);
    case RTM_NEWADDR:
    case RTM_DELADDR:
      return address_event(message);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      return route_event(message);
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      return neighbour_event(message);
    default:
      return std::nullopt;
  }
}

}  // namespace

void decode_link_events(ByteView datagram, std::uint32_t our_group,
                        std::vector<LinkEvent>& events) {
  for_each_message(datagram, [&](const MessageView& message) {
    auto event = event_of(message, our_group);
    if (!event) return;
    event->origin = message.port_id;
    if (events.empty() || events.back() != *event) events.push_back(*std::move(event));
  });
}

Result<LinkMonitor> LinkMonitor::open(std::uint32_t our_group) {
  Channel channel = TRY(Channel::open(Channel::Protocol::kRoute));
  channel.set_receive_queue(kQueueBytes);
  for (const unsigned group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
                               RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_NEIGH}) {
    CHECK_OK(channel.join_group(group));
  }
  return LinkMonitor(std::move(channel), our_group);
}

Result<std::vector<LinkEvent>> LinkMonitor::read() {
  std::vector<LinkEvent> events;
  for (int i = 0; i < kMaxReads; ++i) {
    const auto datagram = channel_.receive_now();
    if (!datagram) {
      if (datagram.error().sys_errno != ENOBUFS) return std::unexpected(datagram.error());
      events.emplace_back();  // kUnknown
      continue;
    }
    if (!*datagram) break;
    decode_link_events(**datagram, our_group_, events);
  }
  std::ranges::sort(events);
  const auto repeats = std::ranges::unique(events);
  events.erase(repeats.begin(), repeats.end());
  return events;
}

}  // namespace meshd::netlink
