#include "netlink/nflog.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>

#include <cerrno>

namespace meshd::netlink {
namespace {

constexpr std::uint16_t message_type(int message) {
  return static_cast<std::uint16_t>((NFNL_SUBSYS_ULOG << 8) | message);
}

std::uint16_t network16(std::uint16_t value) {
  return std::endian::native == std::endian::little ? std::byteswap(value) : value;
}

std::uint32_t network32(std::uint32_t value) {
  return std::endian::native == std::endian::little ? std::byteswap(value) : value;
}

Message config_message(std::uint16_t group) {
  nfgenmsg header{};
  header.version = NFNETLINK_V0;
  header.res_id = network16(group);
  Message message(message_type(NFULNL_MSG_CONFIG), 0);
  message.header(header);
  return message;
}

unsigned byte_at(ByteView bytes, std::size_t at) { return std::to_integer<unsigned>(bytes[at]); }

unsigned two_at(ByteView bytes, std::size_t at) {
  return byte_at(bytes, at) << 8 | byte_at(bytes, at + 1);
}

void decode_ports(ByteView transport, LogPacket& packet) {
  constexpr std::uint8_t kTcp = 6;
  constexpr std::uint8_t kUdp = 17;
  constexpr std::uint8_t kSctp = 132;
  if (packet.proto != kTcp && packet.proto != kUdp && packet.proto != kSctp) return;
  if (transport.size() < 4) return;
  packet.source_port = static_cast<std::uint16_t>(two_at(transport, 0));
  packet.destination_port = static_cast<std::uint16_t>(two_at(transport, 2));
}

// RFC 791 3.1.
bool decode_ipv4(ByteView bytes, LogPacket& packet) {
  constexpr std::size_t kHeader = 20;
  constexpr unsigned kOffsetMask = 0x1fff;
  if (bytes.size() < kHeader) return false;
  packet.proto = static_cast<std::uint8_t>(byte_at(bytes, 9));
  packet.source = *read_address(bytes.subspan(12, 4));
  packet.destination = *read_address(bytes.subspan(16, 4));
  const std::size_t header = (byte_at(bytes, 0) & 0xf) * 4U;
  const bool first_fragment = (two_at(bytes, 6) & kOffsetMask) == 0;
  if (first_fragment && header >= kHeader) decode_ports(after(bytes, header), packet);
  return true;
}

// RFC 8200 3 and 4: a chain of extension headers, each naming the next.
bool decode_ipv6(ByteView bytes, LogPacket& packet) {
  constexpr std::size_t kHeader = 40;
  constexpr unsigned kHopByHop = 0, kRouting = 43, kFragment = 44, kDestination = 60;
  constexpr int kMaxExtensions = 8;  // more than any sound packet has
  if (bytes.size() < kHeader) return false;
  unsigned next = byte_at(bytes, 6);
  packet.source = *read_address(bytes.subspan(8, 16));
  packet.destination = *read_address(bytes.subspan(24, 16));
  ByteView rest = after(bytes, kHeader);
  bool first_fragment = true;
  for (int i = 0; i < kMaxExtensions && rest.size() >= 8; ++i) {
    if (next == kFragment) {
      first_fragment = first_fragment && (two_at(rest, 2) & 0xfff8) == 0;
      next = byte_at(rest, 0);
      rest = after(rest, 8);
    } else if (next == kHopByHop || next == kRouting || next == kDestination) {
      const std::size_t length = (byte_at(rest, 1) + 1) * 8U;
      next = byte_at(rest, 0);
      rest = after(rest, length);
    } else {
      break;
    }
    if (!first_fragment) break;
  }
  packet.proto = static_cast<std::uint8_t>(next);
  if (first_fragment) decode_ports(rest, packet);
  return true;
}

}  // namespace

std::optional<LogPacket> decode_log_packet(ByteView content) {
  if (content.size() < sizeof(nfgenmsg)) return std::nullopt;
  const Attributes<32> attributes(after(content, sizeof(nfgenmsg)));
  const ByteView payload = attributes.bytes(NFULA_PAYLOAD);
  if (payload.empty()) return std::nullopt;
  LogPacket packet;
  packet.prefix = attributes.text(NFULA_PREFIX);
  packet.in_ifindex = static_cast<int>(attributes.be32(NFULA_IFINDEX_INDEV));
  packet.out_ifindex = static_cast<int>(attributes.be32(NFULA_IFINDEX_OUTDEV));
  const auto header = read_host<nfulnl_msg_packet_hdr>(attributes.bytes(NFULA_PACKET_HDR));
  if (header) packet.hook = header->hook;
  const unsigned version = byte_at(payload, 0) >> 4;
  const bool decoded = version == 4   ? decode_ipv4(payload, packet)
                       : version == 6 ? decode_ipv6(payload, packet)
                                      : false;
  if (!decoded) return std::nullopt;
  return packet;
}

Result<NflogReader> NflogReader::open(std::uint16_t group) {
  Channel channel = TRY(Channel::open(Channel::Protocol::kNetfilter));
  channel.set_receive_queue(kQueueBytes);
  const std::string what = "read log group " + std::to_string(group);
  nfulnl_msg_config_cmd bind{};
  bind.command = NFULNL_CFG_CMD_BIND;
  Message binding = config_message(group);
  binding.put(NFULA_CFG_CMD, std::as_bytes(std::span(&bind, 1)));
  if (const Status bound = channel.change(std::move(binding), what); !bound) {
    // EPERM is what the kernel says of a group with another reader (6.18, seen), and of a
    // caller without the right.
    const int error = bound.error().sys_errno;
    if (error != EBUSY && error != EPERM) return std::unexpected(bound.error());
    return fail(ErrorCode::kConflict,
                what + ": another process reads it, or CAP_NET_ADMIN is missing");
  }
  nfulnl_msg_config_mode mode{};
  mode.copy_range = network32(kCopyBytes);
  mode.copy_mode = NFULNL_COPY_PACKET;
  Message settings = config_message(group);
  settings.put(NFULA_CFG_MODE, std::as_bytes(std::span(&mode, 1)))
      .put_be32(NFULA_CFG_QTHRESH, kBatchPackets)
      .put_be32(NFULA_CFG_TIMEOUT, kBatchTimeoutCs);
  CHECK_OK(channel.change(std::move(settings), what));
  return NflogReader(std::move(channel));
}

Result<std::vector<LogPacket>> NflogReader::read() {
  std::vector<LogPacket> packets;
  for (int i = 0; i < kMaxReads; ++i) {
    const auto datagram = channel_.receive_now();
    if (!datagram) {
      if (datagram.error().sys_errno != ENOBUFS) return std::unexpected(datagram.error());
      ++overruns_;
      continue;
    }
    if (!*datagram) break;
    for_each_message(**datagram, [&packets](const MessageView& message) {
      if (message.type != message_type(NFULNL_MSG_PACKET)) return;
      if (auto packet = decode_log_packet(message.payload)) packets.push_back(*std::move(packet));
    });
  }
  return packets;
}

}  // namespace meshd::netlink
