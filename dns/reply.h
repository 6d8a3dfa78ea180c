// An upstream's reply, checked and taken apart so that it can be kept and given to clients:
// pure, and the only place where such bytes are read.
//
// Invariants: a reply is taken only for the very question that was sent, the case of each
//             letter included (RFC 5452 section 9.1). Addresses that would lead a client to
//             itself, the node or the mesh are not let through (DNS rebinding).
// Source:     RFC 1035, 2308 section 5, 6891, 8767, 8914, 9460 (hints).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ip.h"
#include "dns/message.h"
#include "dns/wire.h"

namespace meshd::dns {

struct UpstreamReply {
  std::vector<std::uint8_t> message;       // header, question and records, without OPT
  std::vector<std::uint16_t> ttl_offsets;  // where the records' TTLs stand
  std::uint32_t ttl = 0;                   // how long it may be kept, seconds
  Rcode rcode = Rcode::kNoError;
  bool negative = false;
  bool truncated = false;
  std::uint16_t ede_code = ede::kNone;
  std::string ede_text;
};

// The query to send: `id`, the client's DO and CD, letters in the case that `coin` gives
// (one bit a letter), an OPT of ours.
[[nodiscard]] std::vector<std::uint8_t> upstream_query(const Query& query, std::uint16_t id,
                                                       std::span<const std::uint8_t> coin);

// Nothing when the reply is not one to `sent`, or malformed.
[[nodiscard]] std::optional<UpstreamReply> digest(Bytes reply, Bytes sent,
                                                  const std::vector<Prefix>& filtered);

// The client's message from a kept reply that has aged by `age` seconds. With `stale`, the
// TTLs are kStaleTtl and the extended error says so. 0 when `out` is too small.
[[nodiscard]] std::size_t write_reply(const UpstreamReply& kept, const Query& query,
                                      Bytes client_message, std::uint32_t age, bool stale,
                                      std::size_t limit, std::span<std::uint8_t> out);

}  // namespace meshd::dns
