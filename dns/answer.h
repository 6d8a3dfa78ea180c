// Snapshot, client and query in; a reply, a wish to forward, or silence out. Pure: the
// whole behaviour of the zone is here.
//
// Invariants: names of ours are never answered REFUSED or SERVFAIL: musl waits 5 s on
//             either. AA and RA are set on all of our answers: glibc takes an empty one
//             without them for a lame server. An existing name has NODATA for every type
//             it lacks: musl drops a good A when AAAA is NXDOMAIN. What the view does not
//             see is NXDOMAIN, whether it exists or not.
// Source:     RFC 1035, 2308, 2782, 4592, 6761, 6891, 8020, 8482, 8914, 9619; the
//             clients' behaviour was measured (glibc 2.36, musl 1.2.3).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dns/message.h"
#include "dns/snapshot.h"

namespace meshd::dns {

enum class Action { kReply, kForward, kDrop };

struct Outcome {
  Action action = Action::kDrop;
  std::size_t length = 0;  // of the reply in the buffer
  Rcode rcode = Rcode::kNoError;
  bool plain = false;  // asked by a plain client
  // Why, for the client: ede::kNone or an extended error and its text. The text and `refused`,
  // a refusal worth telling the person, view the query, the view or the scratch below: valid
  // until the next call with the same Scratch.
  std::uint16_t ede = ede::kNone;
  std::string_view text, refused;
};

// Memory that is used again for the next query.
struct Scratch {
  Query query;
  std::string reason;
};

// `reply` is where the answer goes; its size is not the client's limit. Over UDP answers
// are cut to what the client takes.
[[nodiscard]] Outcome answer(const Snapshot& snapshot, const IpAddress& client, Bytes message,
                             bool udp, std::span<std::uint8_t> reply, Scratch& scratch);

// Header and question of `query`, no records: for errors of the forwarder. The extended
// error is added when the client asked for EDNS.
[[nodiscard]] std::size_t empty_reply(const Query& query, Bytes message, Rcode rcode,
                                      std::uint16_t ede_code, std::string_view ede_text,
                                      bool authoritative, std::span<std::uint8_t> reply);
// Appends the OPT record that answers the client's, when it sent one; opt_size() bytes.
[[nodiscard]] std::size_t opt_size(const Query& query, std::uint16_t ede_code,
                                   std::string_view ede_text);
void write_opt(class Writer& writer, const Query& query, Rcode rcode, std::uint16_t ede_code,
               std::string_view ede_text);

// For people: what `client` would be answered, by the same code.
struct Resolved {
  std::string rcode;
  struct Record {
    std::string name, type, data;
    std::uint32_t ttl = 0;
  };
  std::vector<Record> answers;
  std::string ede, reason;
};
[[nodiscard]] Resolved resolve(const Snapshot& snapshot, const IpAddress& client,
                               std::string_view name, std::uint16_t type);

}  // namespace meshd::dns
