// What may come as a change of a node's slice: any message. What is taken can be true on this
// node, can be taken again from the bytes that are kept, and compiles.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "meshd/slice.h"
#include "policy/plan.h"

namespace meshd {
namespace {

ClusterTerms make_terms() {
  ClusterTerms terms;
  terms.cluster = "test";
  terms.zone = "mesh.internal";
  terms.pool4 = Prefix::parse("10.213.0.0/16").value();
  terms.pool6 = Prefix::parse("fd00:1::/64").value();
  terms.vip4 = Prefix::parse("10.214.0.0/16").value();
  terms.vip6 = Prefix::parse("fd00:2::/64").value();
  terms.block4 = Prefix::parse("10.213.0.0/24").value();
  terms.block6 = Prefix::parse("fd00:1::/112").value();
  terms.gateway_first = 30000;
  terms.gateway_last = 32767;
  return terms;
}

void check(bool holds) {
  if (!holds) std::abort();
}

void check_places(const ClusterTerms& terms, const SliceUpdate& update) {
  for (const auto& [id, workload] : update.others) {
    for (const auto family : kFamilies) {
      const auto& address = workload.address(family);
      if (!address) continue;
      const bool v4 = family == Family::kV4;
      check((v4 ? terms.pool4 : terms.pool6)->contains(*address));
      check(!(v4 ? terms.block4 : terms.block6)->contains(*address));
    }
  }
}

void read_one(const mesh::v1::SliceChange& message) {
  static const auto terms = make_terms();
  static const std::string node = "n1";
  const SliceReader reader{terms, node, TimePoint(std::chrono::hours(1))};
  const auto update = reader.change(message);
  if (!update) return;
  check_places(terms, *update);
  SliceUpdate again;
  for (const auto& [key, value] : update->bytes) check(reader.item(key, value, again).has_value());
  check(again.own == update->own && again.nodes == update->nodes);
  check(again.outside == update->outside);
  for (const auto& [key, outside] : update->outside) check(key.port >= terms.gateway_first);
  policy::World world;
  world.settings.gateway = true;
  world.settings.publish_addresses = {IpAddress::parse("192.0.2.1").value()};
  world.outside = update->outside;
  for (const auto& [id, own] : update->own) {
    world.workloads[id].declaration = own.declaration;
    world.workloads[id].opened = own.opened;
  }
  for (const auto& [id, workload] : update->others) world.workloads[id] = workload;
  world.services = update->services;
  world.nodes = update->nodes;
  world.confirmed = update->confirmed;
  policy::Compiler compiler;
  [[maybe_unused]] const auto plan = compiler.rebuild(world);
}

}  // namespace
}  // namespace meshd

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  mesh::v1::SliceChange message;
  if (message.ParseFromArray(data, static_cast<int>(size))) meshd::read_one(message);
  return 0;
}
