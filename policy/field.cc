#include "policy/field.h"

#include <array>

namespace meshd::policy {
namespace {

using enum Component;

constexpr std::uint8_t kIcmp = 1, kTcp = 6, kUdp = 17, kIcmp6 = 58;

// In the order of Field.
constexpr std::array kFields = {
    FieldInfo{"iif", kMark, 4, 0, 0, true},
    FieldInfo{"iifname", kIfname, 16, 0, 0, true},
    FieldInfo{"oifname", kIfname, 16, 0, 0, true},
    FieldInfo{"iifgroup", kMark, 4, 0, 0, true},
    FieldInfo{"oifgroup", kMark, 4, 0, 0, true},
    FieldInfo{"meta pkttype", kMark, 1, 0, 0, true},
    FieldInfo{"meta nfproto", kMark, 1, 0, 0, true},
    FieldInfo{"meta l4proto", kProto, 1, 0, 0, false},
    FieldInfo{"meta skuid", kUid, 4, 0, 0, true},
    FieldInfo{"ether saddr", kEther, 6, 0, 0, false},
    FieldInfo{"ip saddr", kAddr4, 4, 4, 0, false},
    FieldInfo{"ip daddr", kAddr4, 4, 4, 0, false},
    FieldInfo{"ip hdrlength", kMark, 1, 4, 0, false},
    FieldInfo{"ip protocol", kProto, 1, 4, 0, false},
    FieldInfo{"ip frag-off & 0x3fff", kMark, 2, 4, 0, false},
    FieldInfo{"ip6 saddr", kAddr6, 16, 6, 0, false},
    FieldInfo{"ip6 daddr", kAddr6, 16, 6, 0, false},
    FieldInfo{"ip6 nexthdr", kProto, 1, 6, 0, false},
    FieldInfo{"th sport", kPort, 2, 0, 0, false},
    FieldInfo{"th dport", kPort, 2, 0, 0, false},
    FieldInfo{"th sport & 0xfff0", kPort, 2, 0, 0, false},
    FieldInfo{"th dport & 0xfff0", kPort, 2, 0, 0, false},
    FieldInfo{"icmp type", kMark, 1, 4, kIcmp, false},
    FieldInfo{"icmp code", kMark, 1, 4, kIcmp, false},
    FieldInfo{"icmpv6 type", kMark, 1, 6, kIcmp6, false},
    FieldInfo{"icmpv6 code", kMark, 1, 6, kIcmp6, false},
    // From the ICMP header on, in bits: 8 bytes of its own, then the quoted IP header.
    FieldInfo{"@th,136,8", kMark, 1, 4, kIcmp, false},
    FieldInfo{"@th,240,16", kMark, 2, 4, kIcmp, false},
    FieldInfo{"@th,112,8", kMark, 1, 6, kIcmp6, false},
    FieldInfo{"@th,400,16", kMark, 2, 6, kIcmp6, false},
    // From the UDP header on: 8 bytes of its own, 8 of VXLAN, 14 of Ethernet.
    FieldInfo{"@th,96,24", kMark, 3, 0, kUdp, false},
    FieldInfo{"@th,224,16", kMark, 2, 0, kUdp, false},
    FieldInfo{"@th,336,32", kAddr4, 4, 0, kUdp, false},
    FieldInfo{"@th,304,128", kAddr6, 16, 0, kUdp, false},
    FieldInfo{"tcp flags & (syn | rst) ==", kMark, 1, 0, kTcp, false},
    FieldInfo{"ct direction", kMark, 1, 0, 0, true},
    FieldInfo{"ct original ip daddr", kAddr4, 4, 4, 0, false},
    FieldInfo{"ct original ip6 daddr", kAddr6, 16, 6, 0, false},
    FieldInfo{"numgen random mod 16", kSlot, 4, 0, 0, true},
};
static_assert(kFields.size() == static_cast<std::size_t>(Field::kRandomSlot) + 1);
static_assert(kBlock == 16 && kSlots == 16,
              "the masks and the modulus above are written for these");

}  // namespace

const FieldInfo& field_info(Field field) { return kFields[static_cast<std::size_t>(field)]; }

}  // namespace meshd::policy
