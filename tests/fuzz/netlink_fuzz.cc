// The readers of nf_tables messages, fed with arbitrary bytes: a datagram with whatever
// messages it claims to hold.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "netlink/nft_decode.h"
#include "netlink/nft_monitor.h"

namespace {

using namespace meshd::netlink;

// What was read must be usable too: printing and sorting go over all of it.
void decode_all(AttributeBytes payload) {
  if (const auto rule = decode_rule(payload)) (void)exprs_text(rule->rule.exprs);
  (void)decode_table(payload);
  (void)decode_chain(payload);
  (void)decode_object(payload);
  (void)decode_generation(payload);
  SetSpec spec;
  if (const auto set = decode_set(payload)) spec = set->spec;
  ElementList elements;
  (void)decode_elements(payload, elements);
  elements.finish(spec);
  for (std::size_t i = 0; i < elements.size(); ++i) (void)key_text(elements[i].key, spec.key);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  decode_all(bytes);
  for_each_message(bytes, [](const MessageView& view) { decode_all(view.payload); });
  TableEventDecoder monitor("t");
  std::vector<TableEvent> events;
  monitor.feed(bytes, events);
  monitor.lost(events);
  return 0;
}
