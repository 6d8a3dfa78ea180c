// What a node's image carries so that the node can join a cluster: one line of text.
//
// Invariant: what decode_ticket() gives is checked: addresses that can be connected to,
//            authorities of one cluster, a token of the right shape. It is a secret.
// Errors:    kInvalid; no error repeats any part of the ticket.
// Source:    JoinTicket in proto/controller.proto, base64 (RFC 4648 section 4).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "pki/certificate.h"

namespace meshd::pki {

// Eight authorities and both lists of addresses at their longest.
inline constexpr std::size_t kMaxTicketBytes = 64 << 10;
// Controllers that a node tries, each with a timeout.
inline constexpr std::size_t kMaxTicketAddresses = 16;
// "ID.SECRET" has 81.
inline constexpr std::size_t kMaxTokenBytes = 128;

struct JoinTicket {
  std::vector<std::string> join_addresses;  // "host:port", "[v6]:port": where Join is served
  std::vector<std::string> addresses;       // where Cluster is
  Authorities authorities;
  std::string token;  // "ID.SECRET"
};

// One line without a line's end.
[[nodiscard]] Result<std::string> encode_ticket(const JoinTicket& ticket);
// Blanks and line ends before and after are taken, none within.
[[nodiscard]] Result<JoinTicket> decode_ticket(std::string_view text);

// Why nobody can connect to `text`; empty when it is "host:port" or "[v6]:port".
[[nodiscard]] std::string endpoint_problem(std::string_view text);

}  // namespace meshd::pki
