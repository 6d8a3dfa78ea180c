// One netlink request under construction: a fixed header, then attributes, nested or not.
//
// Threads:    values only; one owner.
// Owns:       the libnl message.
// Invariants: whatever goes wrong (no room, an unbalanced nest) is remembered; Channel
//             refuses to send a message that is not ok(), so that no put needs a check.
// Units:      put_be16/put_be32 take host order; addresses are written in network order.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/ip.h"
#include "netlink/wire.h"

struct nl_msg;

namespace meshd::netlink {

class Message {
 public:
  // The largest request of this folder is the creation of a veth, below 400 bytes.
  static constexpr std::size_t kMaxBytes = 2048;

  // `flags` without NLM_F_REQUEST and NLM_F_ACK, which Channel adds.
  Message(std::uint16_t type, std::uint16_t flags);

  template <class Header>
  Message& header(const Header& value) {
    static_assert(std::is_trivially_copyable_v<Header>);
    return append(std::as_bytes(std::span(&value, 1)));
  }
  Message& put(int type, ByteView data);
  Message& put_u8(int type, std::uint8_t value);
  Message& put_u32(int type, std::uint32_t value);
  Message& put_be16(int type, std::uint16_t value);
  Message& put_be32(int type, std::uint32_t value);
  Message& put_text(int type, std::string_view text);  // with a NUL
  Message& put_address(int type, const IpAddress& address);
  Message& put_mac(int type, const Mac& mac);
  // Everything between begin() and end() becomes the content of attribute `type`.
  Message& begin(int type);
  Message& end();

  [[nodiscard]] bool ok() const { return ok_ && nests_.empty(); }
  [[nodiscard]] std::uint16_t type() const;
  // The whole message as Channel sends it.
  [[nodiscard]] ByteView seal(std::uint32_t sequence, std::uint16_t extra_flags);

 private:
  struct Free {
    void operator()(nl_msg* message) const;
  };
  Message& append(ByteView data);

  std::unique_ptr<nl_msg, Free> message_;
  std::vector<std::size_t> nests_;  // where the open ones start, innermost last
  bool ok_ = false;
};

}  // namespace meshd::netlink
