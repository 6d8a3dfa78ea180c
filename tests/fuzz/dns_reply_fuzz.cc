// What an upstream, or somebody in its place, may send: any bytes behind the id and the
// question that were sent, or any bytes at all. What is taken is then given to a client.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "dns/reply.h"
#include "tests/support/dns_messages.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

void take(std::uint8_t choice, Bytes rest) {
  static const auto filtered = sample_settings()->filtered;
  const auto client = make_query({.name = "example.org", .edns = (choice & 1) != 0});
  Query query;
  if (parse_query(client, query) != Parsed::kQuery) std::abort();
  const auto sent = upstream_query(query, 0x4242, {});
  Octets reply(rest.begin(), rest.end());
  if ((choice & 2) != 0 && reply.size() >= 12) {
    std::copy_n(sent.begin(), 2, reply.begin());
    reply[2] = static_cast<std::uint8_t>((reply[2] | 0x80) & 0x87);
    reply[4] = 0;
    reply[5] = 1;
    const auto end = static_cast<std::ptrdiff_t>(query.question_end);
    reply.insert(reply.begin() + 12, sent.begin() + 12, sent.begin() + end);
  }
  const auto kept = digest(reply, sent, filtered);
  if (!kept) return;
  for (const std::size_t limit : {512U, 1232U, 65535U}) {
    Octets out(limit);
    const auto size = write_reply(*kept, query, client, choice, (choice & 4) != 0, limit, out);
    if (size < query.question_end || size > limit) std::abort();
    if (!std::equal(client.begin() + 12, client.begin() + 29, out.begin() + 12)) std::abort();
    // What we hand on is well-formed enough to be taken again.
    out.resize(size);
    std::copy_n(sent.begin(), 2, out.begin());
    if (!digest(out, sent, filtered)) std::abort();
  }
}

}  // namespace
}  // namespace meshd::dns

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  meshd::dns::take(data[0], meshd::dns::Bytes(data, size).subspan(1));
  return 0;
}
