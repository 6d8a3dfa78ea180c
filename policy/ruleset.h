// The node's nftables table as a value. Chains, rules, sets and maps are constant in
// number (base_table.h makes them); what changes is elements, and they are plain data.
//
// Invariant: an Element's bytes are exactly what the kernel keeps: every component of a
//            concatenation padded to 4 bytes with zeros, addresses and ports in network
//            order, marks, uids and numgen results in host order (keys of interval sets, which the
//            kernel compares byte by byte, in network order). Equal elements are
//            equal bytes, so that two worlds can be compared without decoding. (But for
//            is_number_map().)
// Source:    linux/netfilter/nf_tables.h; element layout as nft 1.0.6 lists it back.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/ip.h"

namespace meshd::policy {

// Every set and map that holds elements of ours. The table's dynamic sets (limits) are
// the kernel's own business and stand in base_table.h only.
enum class SetId : std::uint8_t {
  kBind4,  // ifname . ether . source address: what a veth may send
  kBind6,
  kLocal4,  // addresses of containers on this node
  kLocal6,
  kSelf4,  // (a, a): a container that reaches itself through a VIP
  kSelf6,
  kAllow4,  // consumer . provider . proto . port
  kAllow6,
  kAllow4Block,  // the same for aligned blocks of 16 ports
  kAllow6Block,
  kPair4,  // consumer . provider of some allowed flow: ping and errors, both ways
  kPair6,
  kHold4,  // consumer . VIP, or provider elsewhere . proto . port: wait, do not refuse
  kHold6,
  kHold4Block,
  kHold6Block,
  kDrain4,  // addresses that take no new connections
  kDrain6,
  kVip4,  // vip . proto . port . slot : endpoint address
  kVip6,
  kVip4Block,
  kVip6Block,
  kPub4,  // node address . proto . node port : container address . port
  kPub6,
  kPubProfile4,  // container address . proto . port : source profile
  kPubProfile6,
  kPubCount4,  // container address . proto . port: counts what the profile let pass
  kPubCount6,
  kSource4,  // source profile . prefix
  kSource6,
  kEgressProfile4,  // container address : egress profile
  kEgressProfile6,
  kEgress4,  // egress profile . prefix . proto . ports : row
  kEgress6,
  kEgressCount4,  // row . container address: counts what the profile let pass
  kEgressCount6,
  kMesh4,  // container and VIP ranges
  kMesh6,
  kNever4,  // never reached by egress
  kNever6,
  kRemote4,  // where other nodes' containers have their addresses
  kRemote6,
  kOrigin4,  // prefix : number of the node that speaks for it; 0: any, since it is not the mesh's
  kOrigin6,
  kPeers4,  // such a number . address of that node itself
  kPeers6,
  kGate4,  // on a gateway, its address . proto . outside port : address and port of a node
  kGate6,
  kGated4,  // what these lead to, but on the gateway itself
  kGated6,
  kTrunk,    // interfaces by which other nodes' packets come
  kEngine4,  // bridges of container engines that lead out of the node by that family
  kEngine6,
  kUsers,  // uids on the node that reach containers
};
inline constexpr std::size_t kSetCount = static_cast<std::size_t>(SetId::kUsers) + 1;

// Ports are kept in aligned blocks of this many where a range covers one whole.
inline constexpr std::uint16_t kBlock = 16;
// Slots per VIP port: each holds one endpoint, a new connection picks one at random.
inline constexpr std::uint32_t kSlots = 16;

enum class Component : std::uint8_t {
  kIfname,
  kEther,
  kAddr4,
  kAddr6,
  kProto,
  kPort,
  kMark,
  kSlot,
  kUid
};
[[nodiscard]] std::size_t component_size(Component component);  // bytes, unpadded

// One element, small enough to be kept by the hundred thousand.
struct Element {
  // The largest: mark . addr6 . proto . port, twice for an interval, and a row (28 + 28 + 4).
  static constexpr std::size_t kCapacity = 60;

  SetId set{};
  std::uint8_t key_size = 0;   // bytes of the key
  std::uint8_t end_size = 0;   // bytes of the interval's last key; 0: not an interval
  std::uint8_t data_size = 0;  // bytes of a map's value
  std::array<std::uint8_t, kCapacity> bytes{};  // key, end, data; the rest is zero

  [[nodiscard]] std::span<const std::uint8_t> key() const { return {bytes.data(), key_size}; }
  [[nodiscard]] std::span<const std::uint8_t> key_end() const {
    return {bytes.data() + key_size, end_size};
  }
  [[nodiscard]] std::span<const std::uint8_t> data() const {
    return {bytes.data() + key_size + end_size, data_size};
  }
  auto operator<=>(const Element&) const = default;
};

// Builds an Element component by component: ElementBuilder(id).addr(a).addr(b).proto(p)
// .port(n).build(). The caller's components must be those of set_info(id): see
// is_well_formed().
class ElementBuilder {
 public:
  explicit ElementBuilder(SetId set) { element_.set = set; }
  ElementBuilder& ifname(std::string_view name);
  ElementBuilder& ether(const Mac& mac);
  ElementBuilder& addr(const IpAddress& address);
  ElementBuilder& proto(std::uint8_t number);
  ElementBuilder& proto(Proto p) { return proto(static_cast<std::uint8_t>(p)); }
  ElementBuilder& port(std::uint16_t port);
  ElementBuilder& number(std::uint32_t value);  // mark, slot, uid; in the set's byte order
  ElementBuilder& end();                        // what follows is the interval's last key
  ElementBuilder& data();                       // what follows is the map's value
  [[nodiscard]] Element build() const { return element_; }

 private:
  void put(std::span<const std::uint8_t> bytes, std::size_t padded);
  Element element_;
  std::uint8_t Element::* size_ = &Element::key_size;  // what put() adds to
};

// What the kernel is told of a set when it is made.
struct SetInfo {
  std::string_view name;  // "allow4"
  std::span<const Component> key;
  std::span<const Component> data;  // empty: a set
  std::uint32_t size;               // elements at most; 0: few, and bounded by the settings
  bool interval;
  bool counter;  // each element counts packets and bytes
};
[[nodiscard]] const SetInfo& set_info(SetId id);
[[nodiscard]] std::string_view set_name(SetId id);
// A map whose value is a number that the next key begins with, a profile or a row; the kernel
// keeps it twice (see meshd/lower_ruleset.cc).
[[nodiscard]] bool is_number_map(const SetInfo& info);
// Whether key, end and data have the lengths that set_info() says.
[[nodiscard]] bool is_well_formed(const Element& element);

// A change of elements. Applied as one transaction: removals first.
struct Delta {
  std::vector<Element> remove;
  std::vector<Element> add;
  [[nodiscard]] bool empty() const { return remove.empty() && add.empty(); }
};

}  // namespace meshd::policy

template <>
struct std::hash<meshd::policy::Element> {
  // Products of 64 bits folded together, as wyhash has them: a third of what the library's
  // takes. Who could choose the bytes would have to choose addresses.
  std::size_t operator()(const meshd::policy::Element& element) const noexcept {
    std::array<std::uint64_t, 8> words{};
    std::memcpy(words.data(), &element, sizeof element);
    std::uint64_t folded = 0x9e37'79b9'7f4a'7c15;
    for (std::size_t i = 0; i < words.size(); i += 2) {
      const auto product = static_cast<unsigned __int128>(words[i] ^ folded) *
                           (words[i + 1] ^ 0xa076'1d64'78bd'642f);
      folded = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    }
    return folded;
  }
};
static_assert(sizeof(meshd::policy::Element) == 64, "no padding: hashed and compared as bytes");
