#include "netlink/message.h"

#include <netlink/attr.h>
#include <netlink/msg.h>

namespace meshd::netlink {

void Message::Free::operator()(nl_msg* message) const { nlmsg_free(message); }

Message::Message(std::uint16_t type, std::uint16_t flags) : message_(nlmsg_alloc_size(kMaxBytes)) {
  // Port and sequence number are put in by seal().
  ok_ = message_ && nlmsg_put(message_.get(), 0, 0, type, 0, flags) != nullptr;
}

Message& Message::append(ByteView data) {
  if (!ok_) return *this;
  ok_ = nlmsg_append(message_.get(), const_cast<std::byte*>(data.data()), data.size(),
                     NLMSG_ALIGNTO) == 0;
  return *this;
}

Message& Message::put(int type, ByteView data) {
  if (!ok_) return *this;
  ok_ = nla_put(message_.get(), type, static_cast<int>(data.size()), data.data()) == 0;
  return *this;
}

Message& Message::put_u8(int type, std::uint8_t value) {
  return put(type, std::as_bytes(std::span(&value, 1)));
}

Message& Message::put_u32(int type, std::uint32_t value) {
  return put(type, std::as_bytes(std::span(&value, 1)));
}

Message& Message::put_be16(int type, std::uint16_t value) {
  const std::uint16_t wire =
      std::endian::native == std::endian::little ? std::byteswap(value) : value;
  return put(type, std::as_bytes(std::span(&wire, 1)));
}

Message& Message::put_be32(int type, std::uint32_t value) {
  const std::uint32_t wire =
      std::endian::native == std::endian::little ? std::byteswap(value) : value;
  return put_u32(type, wire);
}

Message& Message::put_text(int type, std::string_view text) {
  if (ok_) ok_ = nla_put_string(message_.get(), type, std::string(text).c_str()) == 0;
  return *this;
}

Message& Message::put_address(int type, const IpAddress& address) {
  return put(type, address_bytes(address));
}

Message& Message::put_mac(int type, const Mac& mac) {
  return put(type, std::as_bytes(std::span(mac.bytes)));
}

Message& Message::begin(int type) {
  if (!ok_) return *this;
  const nlattr* const nest = nla_nest_start(message_.get(), type);
  ok_ = nest != nullptr;
  if (!ok_) return *this;
  const auto* const start = reinterpret_cast<const std::byte*>(nlmsg_hdr(message_.get()));
  nests_.push_back(static_cast<std::size_t>(reinterpret_cast<const std::byte*>(nest) - start));
  return *this;
}

Message& Message::end() {
  if (!ok_) return *this;
  ok_ = !nests_.empty();
  if (!ok_) return *this;
  auto* const start = reinterpret_cast<std::byte*>(nlmsg_hdr(message_.get()));
  ok_ = nla_nest_end(message_.get(), reinterpret_cast<nlattr*>(start + nests_.back())) == 0;
  nests_.pop_back();
  return *this;
}

std::uint16_t Message::type() const {
  return message_ ? nlmsg_hdr(message_.get())->nlmsg_type : std::uint16_t{0};
}

ByteView Message::seal(std::uint32_t sequence, std::uint16_t extra_flags) {
  if (!ok()) return {};
  nlmsghdr* header = nlmsg_hdr(message_.get());
  header->nlmsg_seq = sequence;
  header->nlmsg_flags = static_cast<std::uint16_t>(header->nlmsg_flags | extra_flags);
  return {reinterpret_cast<const std::byte*>(header), header->nlmsg_len};
}

}  // namespace meshd::netlink
