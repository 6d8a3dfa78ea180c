#include "policy/ruleset.h"

#include <algorithm>
#include <bit>
#include <cstddef>

namespace meshd::policy {
namespace {

using enum Component;

// A node runs some hundred containers; the netlink and process limits end well below this.
constexpr std::uint32_t kContainers = 8'192;
// 100,000 flows are the figure to carry, 200,000 were measured flat. The kernel makes a third
// more buckets, rounded up to a power of two: this is the most that 262,144 of them serve.
// They take 2 MB while empty, and a dump walks through all of them for each 32 KiB it tells.
constexpr std::uint32_t kFlows = 196'608;
// A range of any length is at most 4,096 blocks, and most flows are single ports.
constexpr std::uint32_t kBlockFlows = 65'536;
// Few stand there at a time, but every flow that goes by a name may come to: when a node
// starts, none of its services is ready yet.
constexpr std::uint32_t kHolds = kFlows;
constexpr std::uint32_t kBlockHolds = kBlockFlows;
// 4,096 service ports of 16 slots each.
constexpr std::uint32_t kVipSlots = 65'536;
// Node ports come from a range of 10,000 by default, times the node's addresses.
constexpr std::uint32_t kPublications = 16'384;
// A way out by protocol, for each container: what most declare, all of IPv4 and IPv6, is three
// rows of each; this is eight for each container that there can be.
constexpr std::uint32_t kEgressRows = 8 * kContainers;
// Intervals with several components are copied whole by each commit that touches them, and
// removing one of 10,000 took 52 ms: beyond this a change would be felt.
constexpr std::uint32_t kProfileIntervals = 16'384;
// People and services of the node that an administrator names one by one.
constexpr std::uint32_t kUsers = 1'024;
// Uplinks and the tunnel of one node.
constexpr std::uint32_t kTrunks = 64;
// Intervals that come from the settings, a handful, limited where those are read, a few elements
// for each node of the cluster, and one for each outside port of a gateway or bridge of the node:
// no room is taken for them where there is none.
constexpr std::uint32_t kUnlimited = 0;

constexpr Component kBindKey4[] = {kIfname, kEther, kAddr4};
constexpr Component kBindKey6[] = {kIfname, kEther, kAddr6};
constexpr Component kAddress4[] = {kAddr4};
constexpr Component kAddress6[] = {kAddr6};
constexpr Component kPairKey4[] = {kAddr4, kAddr4};
constexpr Component kPairKey6[] = {kAddr6, kAddr6};
constexpr Component kFlowKey4[] = {kAddr4, kAddr4, kProto, kPort};
constexpr Component kFlowKey6[] = {kAddr6, kAddr6, kProto, kPort};
constexpr Component kSlotKey4[] = {kAddr4, kProto, kPort, kSlot};
constexpr Component kSlotKey6[] = {kAddr6, kProto, kPort, kSlot};
constexpr Component kServerKey4[] = {kAddr4, kProto, kPort};
constexpr Component kServerKey6[] = {kAddr6, kProto, kPort};
constexpr Component kTarget4[] = {kAddr4, kPort};
constexpr Component kTarget6[] = {kAddr6, kPort};
constexpr Component kNumber[] = {kMark};
constexpr Component kNumberAddress4[] = {kMark, kAddr4};
constexpr Component kNumberAddress6[] = {kMark, kAddr6};
constexpr Component kEgressKey4[] = {kMark, kAddr4, kProto, kPort};
constexpr Component kEgressKey6[] = {kMark, kAddr6, kProto, kPort};
constexpr Component kUserKey[] = {kUid};
constexpr Component kInterface[] = {kIfname};

constexpr SetInfo plain(std::string_view name, std::span<const Component> key, std::uint32_t size) {
  return {name, key, {}, size, false, false};
}
constexpr SetInfo counted(std::string_view name, std::span<const Component> key,
                          std::uint32_t size) {
  return {name, key, {}, size, false, true};
}
constexpr SetInfo intervals(std::string_view name, std::span<const Component> key,
                            std::uint32_t size) {
  return {name, key, {}, size, true, false};
}
constexpr SetInfo map(std::string_view name, std::span<const Component> key,
                      std::span<const Component> data, std::uint32_t size) {
  return {name, key, data, size, false, false};
}
constexpr SetInfo interval_map(std::string_view name, std::span<const Component> key,
                               std::span<const Component> data, std::uint32_t size) {
  return {name, key, data, size, true, false};
}

// In the order of SetId.
constexpr std::array<SetInfo, kSetCount> kSets = {{
    plain("bind4", kBindKey4, kContainers),
    plain("bind6", kBindKey6, kContainers),
    plain("local4", kAddress4, kContainers),
    plain("local6", kAddress6, kContainers),
    plain("self4", kPairKey4, kContainers),
    plain("self6", kPairKey6, kContainers),
    counted("allow4", kFlowKey4, kFlows),
    counted("allow6", kFlowKey6, kFlows),
    counted("allow4_b16", kFlowKey4, kBlockFlows),
    counted("allow6_b16", kFlowKey6, kBlockFlows),
    plain("pair4", kPairKey4, kFlows),
    plain("pair6", kPairKey6, kFlows),
    plain("hold4", kFlowKey4, kHolds),
    plain("hold6", kFlowKey6, kHolds),
    plain("hold4_b16", kFlowKey4, kBlockHolds),
    plain("hold6_b16", kFlowKey6, kBlockHolds),
    plain("drain4", kAddress4, kContainers),
    plain("drain6", kAddress6, kContainers),
    map("vip4", kSlotKey4, kAddress4, kVipSlots),
    map("vip6", kSlotKey6, kAddress6, kVipSlots),
    map("vip4_b16", kSlotKey4, kAddress4, kVipSlots),
    map("vip6_b16", kSlotKey6, kAddress6, kVipSlots),
    map("pub4", kServerKey4, kTarget4, kPublications),
    map("pub6", kServerKey6, kTarget6, kPublications),
    map("pubp4", kServerKey4, kNumber, kPublications),
    map("pubp6", kServerKey6, kNumber, kPublications),
    counted("pubc4", kServerKey4, kPublications),
    counted("pubc6", kServerKey6, kPublications),
    intervals("src4", kNumberAddress4, kProfileIntervals),
    intervals("src6", kNumberAddress6, kProfileIntervals),
    map("egp4", kAddress4, kNumber, kContainers),
    map("egp6", kAddress6, kNumber, kContainers),
    interval_map("eg4", kEgressKey4, kNumber, kProfileIntervals),
    interval_map("eg6", kEgressKey6, kNumber, kProfileIntervals),
    counted("egc4", kNumberAddress4, kEgressRows),
    counted("egc6", kNumberAddress6, kEgressRows),
    intervals("mesh4", kAddress4, kUnlimited),
    intervals("mesh6", kAddress6, kUnlimited),
    intervals("never4", kAddress4, kUnlimited),
    intervals("never6", kAddress6, kUnlimited),
    intervals("remote4", kAddress4, kUnlimited),
    intervals("remote6", kAddress6, kUnlimited),
    interval_map("origin4", kAddress4, kNumber, kUnlimited),
    interval_map("origin6", kAddress6, kNumber, kUnlimited),
    plain("peers4", kNumberAddress4, kUnlimited),
    plain("peers6", kNumberAddress6, kUnlimited),
    map("gate4", kServerKey4, kTarget4, kUnlimited),
    map("gate6", kServerKey6, kTarget6, kUnlimited),
    plain("gated4", kServerKey4, kUnlimited),
    plain("gated6", kServerKey6, kUnlimited),
    plain("trunk", kInterface, kTrunks),
    plain("engine4", kInterface, kUnlimited),
    plain("engine6", kInterface, kUnlimited),
    plain("users", kUserKey, kUsers),
}};
static_assert(kSets.back().name == "users", "every SetId has its line");

static_assert(std::endian::native == std::endian::little, "number() swaps for network order");

constexpr std::size_t aligned(std::size_t size) { return (size + 3) & ~std::size_t{3}; }

std::size_t length(std::span<const Component> components) {
  // One component alone is kept unpadded by the kernel; ours of one are 4 or 16 bytes.
  std::size_t total = 0;
  for (const auto component : components) total += aligned(component_size(component));
  return total;
}

}  // namespace

std::size_t component_size(Component component) {
  switch (component) {
    case kProto:
      return 1;
    case kPort:
      return 2;
    case kAddr4:
    case kMark:
    case kSlot:
    case kUid:
      return 4;
    case kEther:
      return 6;
    case kIfname:
    case kAddr6:
      return 16;
  }
  return 0;
}

ElementBuilder& ElementBuilder::ifname(std::string_view name) {
  std::array<std::uint8_t, 16> bytes{};  // IFNAMSIZ, with the NUL
  const auto size = std::min(name.size(), bytes.size() - 1);
  std::copy_n(name.begin(), size, bytes.begin());
  put(bytes, bytes.size());
  return *this;
}

ElementBuilder& ElementBuilder::ether(const Mac& mac) {
  put(mac.bytes, aligned(mac.bytes.size()));
  return *this;
}

ElementBuilder& ElementBuilder::addr(const IpAddress& address) {
  put(address.bytes(), address.bytes().size());
  return *this;
}

ElementBuilder& ElementBuilder::proto(std::uint8_t number) {
  put({&number, 1}, 4);
  return *this;
}

ElementBuilder& ElementBuilder::port(std::uint16_t port) {
  const std::uint8_t bytes[] = {static_cast<std::uint8_t>(port >> 8),
                                static_cast<std::uint8_t>(port & 0xff)};
  put(bytes, 4);
  return *this;
}

ElementBuilder& ElementBuilder::number(std::uint32_t value) {
  std::array<std::uint8_t, sizeof value> bytes;
  const bool in_data = size_ == &Element::data_size;
  if (set_info(element_.set).interval && !in_data) value = std::byteswap(value);
  std::memcpy(bytes.data(), &value, sizeof value);
  put(bytes, bytes.size());
  return *this;
}

ElementBuilder& ElementBuilder::end() {
  size_ = &Element::end_size;
  return *this;
}

ElementBuilder& ElementBuilder::data() {
  size_ = &Element::data_size;
  return *this;
}

void ElementBuilder::put(std::span<const std::uint8_t> bytes, std::size_t padded) {
  const std::size_t used = std::size_t{element_.key_size} + element_.end_size + element_.data_size;
  // Nothing that set_info() describes is longer: to get here is a caller's wrong component,
  // which is_well_formed() then shows.
  if (used + padded > Element::kCapacity) return;
  std::ranges::copy(bytes, element_.bytes.begin() + static_cast<std::ptrdiff_t>(used));
  element_.*size_ = static_cast<std::uint8_t>(element_.*size_ + padded);
}

const SetInfo& set_info(SetId id) { return kSets[static_cast<std::size_t>(id)]; }

std::string_view set_name(SetId id) { return set_info(id).name; }

bool is_number_map(const SetInfo& info) {
  return info.data.size() == 1 && info.data[0] == Component::kMark;
}

bool is_well_formed(const Element& element) {
  if (static_cast<std::size_t>(element.set) >= kSetCount) return false;
  const SetInfo& info = set_info(element.set);
  const std::size_t key = length(info.key);
  return element.key_size == key && element.end_size == (info.interval ? key : 0) &&
         element.data_size == length(info.data);
}

}  // namespace meshd::policy
