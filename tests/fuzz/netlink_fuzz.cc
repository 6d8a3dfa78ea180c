// The readers of nf_tables messages, fed with arbitrary bytes: a datagram with whatever
// messages it claims to hold.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "netlink/nft_decode.h"
#include "netlink/nft_monitor.h"

namespace meshd::netlink {
namespace {

// What was read must be usable too: printing and sorting go over all of it.
void decode_all(AttributeBytes payload) {
  if (const auto rule = decode_nft_rule(payload)) (void)exprs_text(rule->rule.exprs);
  (void)decode_nft_table(payload);
  (void)decode_nft_chain(payload);
  (void)decode_nft_object(payload);
  (void)decode_nft_generation(payload);
  SetSpec spec;
  if (const auto set = decode_nft_set(payload)) spec = set->spec;
  ElementList elements;
  (void)decode_nft_elements(payload, elements);
  elements.finish(spec);
  for (std::size_t i = 0; i < elements.size(); ++i) (void)key_text(elements[i].key, spec.key);
}

void run(AttributeBytes bytes) {
  decode_all(bytes);
  for_each_message(bytes, [](const MessageView& view) { decode_all(view.payload); });
  TableEventDecoder monitor("t");
  std::vector<TableEvent> events;
  monitor.feed(bytes, events);
  monitor.lost(events);
}

}  // namespace
}  // namespace meshd::netlink

// An attribute that comes twice, which the kernel never sends, costs libnftnl 1.2.4 the few bytes
// of the first. That our own handles free what the library makes is seen by the other tests.
extern "C" const char* __lsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __lsan_default_suppressions() { return "leak:libnftnl.so"; }

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  meshd::netlink::run(std::as_bytes(std::span(data, size)));
  return 0;
}
