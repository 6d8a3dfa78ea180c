// A client's query, taken apart; and the numbers of the protocol.
//
// Source: RFC 1035 section 4.1, RFC 6891 (EDNS), RFC 8914 (extended errors).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "dns/wire.h"

namespace meshd::dns {

namespace type {
inline constexpr std::uint16_t kA = 1, kNs = 2, kCname = 5, kSoa = 6, kPtr = 12, kHinfo = 13,
                               kTxt = 16, kAaaa = 28, kSrv = 33, kOpt = 41, kSvcb = 64, kHttps = 65,
                               kIxfr = 251, kAxfr = 252, kMailb = 253, kMaila = 254, kAny = 255;
}
[[nodiscard]] std::string type_name(std::uint16_t number);  // "AAAA", "TYPE1234"
[[nodiscard]] std::optional<std::uint16_t> type_number(std::string_view name);

enum class Rcode : std::uint8_t {
  kNoError = 0,
  kFormErr = 1,
  kServFail = 2,
  kNxDomain = 3,
  kNotImp = 4,
  kRefused = 5,
  kBadVers = 16,  // extended: the low four bits go into the header
};
[[nodiscard]] std::string_view rcode_name(Rcode rcode);

// RFC 8914 section 4. kNone is ours (no extended error): 0 is a code like any other.
namespace ede {
inline constexpr std::uint16_t kOther = 0, kStale = 3, kNotReady = 14, kFiltered = 17,
                               kProhibited = 18, kNoReachable = 22, kNetworkError = 23,
                               kNone = 0xffff;
}
[[nodiscard]] std::string_view ede_name(std::uint16_t code);

inline constexpr std::uint16_t kFlagQr = 0x8000, kFlagAa = 0x0400, kFlagTc = 0x0200,
                               kFlagRd = 0x0100, kFlagRa = 0x0080, kFlagAd = 0x0020,
                               kFlagCd = 0x0010;
inline constexpr std::uint16_t kOpcodeMask = 0x7800;

struct Query {
  std::uint16_t id = 0, flags = 0;
  std::string name;   // as asked
  std::string lower;  // folded, for look-ups
  std::uint16_t type = 0, klass = 0;
  std::size_t question_end = 12;  // the header and the question, to be echoed
  bool edns = false;
  bool dnssec_ok = false;
  std::uint16_t payload = 512;
};

enum class Parsed {
  kQuery,    // `query` is complete
  kDrop,     // not even a header, or an answer
  kFormErr,  // header known, `question_end` is 12 unless the question was readable
  kNotImp,
  kBadVers,
};
// `query` is reused by the caller, so that its strings keep their memory.
[[nodiscard]] Parsed parse_query(Bytes message, Query& query);

}  // namespace meshd::dns
