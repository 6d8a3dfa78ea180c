#include "netlink/nft_monitor.h"

#include <cerrno>
#include <chrono>

#include "netlink/nft_decode.h"
#include "netlink/nft_numbers.h"

extern "C" {
#include <linux/netfilter/nfnetlink.h>
}

namespace meshd::netlink {

void TableEventDecoder::feed(std::span<const std::byte> datagram, std::vector<TableEvent>& events) {
  for_each_message(datagram, [&](const MessageView& view) {
    if (view.type >> 8 != NFNL_SUBSYS_NFTABLES) return;
    take(static_cast<std::uint16_t>(view.type & 0xff), view.port_id, view.payload, events);
  });
}

void TableEventDecoder::take(std::uint16_t type, std::uint32_t port_id,
                             std::span<const std::byte> payload, std::vector<TableEvent>& events) {
  if (payload.size() < sizeof(nfgenmsg)) return;
  if (type == NFT_MSG_NEWGEN) {
    const bool touched = std::exchange(touched_, false);
    const bool deleted = std::exchange(deleted_, false);
    auto generation = decode_nft_generation(payload);
    if (generation) generation_ = generation->id;
    if (!touched || !generation) return;
    events.push_back({TableEvent::Kind::kChanged, generation->id, port_id, generation->pid,
                      std::move(generation->process), deleted});
    return;
  }
  // The family of the table; a table of the same name in another one is another table.
  const auto family = static_cast<std::uint8_t>(payload[0]);
  // The table's name is attribute 1 of every kind of object (NFTA_TABLE_NAME, ...).
  const Attributes<2> a(payload.subspan(sizeof(nfgenmsg)));
  if (family == NFPROTO_IPV4 || family == NFPROTO_IPV6) {
    filter_ = filter_ || a.text(NFTA_TABLE_NAME) == "filter";
  }
  if (family != NFPROTO_INET) return;
  if (a.text(NFTA_TABLE_NAME) != table_) return;
  touched_ = true;
  if (type == NFT_MSG_DELTABLE) deleted_ = true;
  if (type == NFT_MSG_NEWTABLE) deleted_ = false;
}

void TableEventDecoder::lost(std::vector<TableEvent>& events) {
  // The end of a transaction may be among what was lost; what follows may be its rest.
  touched_ = false;
  deleted_ = false;
  filter_ = true;
  generation_.reset();
  events.push_back({});
}

Result<NftMonitor> NftMonitor::make(std::string table) {
  CHECK_OK(check_name("table", table));
  auto socket = TRY(Socket::open());
  socket.set_receive_queue(kQueueBytes);
  CHECK_OK(socket.join_group(NFNLGRP_NFTABLES));
  return NftMonitor(std::move(socket), std::move(table));
}

Result<std::vector<TableEvent>> NftMonitor::read_events() {
  std::vector<TableEvent> events;
  drained_ = false;
  for (int i = 0; i < kMaxReads; ++i) {
    auto datagram = socket_.receive(std::chrono::milliseconds(0));
    if (datagram) {
      decoder_.feed(*datagram, events);
    } else if (datagram.error().sys_errno == ENOBUFS) {
      decoder_.lost(events);
    } else if (datagram.error().sys_errno == ETIMEDOUT) {
      drained_ = true;
      break;
    } else {
      return std::unexpected(std::move(datagram.error()).in("nf_tables events"));
    }
  }
  return events;
}

}  // namespace meshd::netlink
