// What a container may send to the resolver: any bytes. The first byte chooses who sends it,
// over what, and how much room the answer has.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "dns/answer.h"
#include "dns/limits.h"
#include "tests/support/dns_zone.h"

namespace meshd::dns {
namespace {

struct World {
  Snapshot snapshot{sample_settings()};
  std::vector<IpAddress> clients{ip_of("10.213.0.9"), ip_of("10.213.0.10"), ip_of("172.17.0.5"),
                                 ip_of("192.0.2.1")};
  World() {
    auto view = sample_view();
    view->why = {"to web:80: you declare no peer web", std::string(300, 'x')};
    snapshot.set(clients[0], view);
    auto open = sample_view();
    open->forward = true;
    snapshot.set(clients[1], open);
  }
};

void answer_one(std::uint8_t choice, Bytes message) {
  static const World world;
  static Scratch scratch;  // used again, as a worker does
  const bool udp = (choice & 4) != 0;
  std::vector<std::uint8_t> reply(udp ? kMaxUdpPayload : kMaxMessage);
  const auto outcome =
      answer(world.snapshot, world.clients[choice & 3U], message, udp, reply, scratch);
  if (outcome.length > reply.size()) std::abort();
  if (outcome.action != Action::kReply) return;
  // An answer is for this question, and never one that could be taken for a question.
  if (outcome.length < 12 || reply[0] != message[0] || (reply[2] & 0x80) == 0) std::abort();
}

}  // namespace
}  // namespace meshd::dns

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  meshd::dns::answer_one(data[0], meshd::dns::Bytes(data, size).subspan(1));
  return 0;
}
