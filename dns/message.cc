#include "dns/message.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

#include "dns/limits.h"
#include "dns/name.h"

namespace meshd::dns {
namespace {

struct NamedType {
  std::string_view name;
  std::uint16_t number;
};
constexpr std::array kTypes = {
    NamedType{"A", type::kA},
    NamedType{"NS", type::kNs},
    NamedType{"CNAME", type::kCname},
    NamedType{"SOA", type::kSoa},
    NamedType{"PTR", type::kPtr},
    NamedType{"HINFO", type::kHinfo},
    NamedType{"MX", 15},
    NamedType{"TXT", type::kTxt},
    NamedType{"AAAA", type::kAaaa},
    NamedType{"SRV", type::kSrv},
    NamedType{"SVCB", type::kSvcb},
    NamedType{"HTTPS", type::kHttps},
    NamedType{"IXFR", type::kIxfr},
    NamedType{"AXFR", type::kAxfr},
    NamedType{"ANY", type::kAny},
};

// Reads the OPT record behind its name. False: malformed.
bool read_opt(Reader& reader, Query& query, bool& bad_version) {
  query.edns = true;
  query.payload = reader.u16();
  reader.u8();  // extended rcode: of answers
  bad_version = reader.u8() != 0;
  query.dnssec_ok = (reader.u16() & 0x8000U) != 0;
  Reader options(reader.take(reader.u16()));
  while (reader.ok() && options.left() > 0) {
    options.u16();
    options.skip(options.u16());
    if (!options.ok()) return false;
  }
  return reader.ok();
}

}  // namespace

std::string type_name(std::uint16_t number) {
  for (const auto& known : kTypes) {
    if (known.number == number) return std::string(known.name);
  }
  return fmt::format("TYPE{}", number);  // RFC 3597 section 5
}

std::optional<std::uint16_t> type_number(std::string_view name) {
  std::string upper(name);
  for (auto& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  for (const auto& known : kTypes) {
    if (known.name == upper) return known.number;
  }
  if (!upper.starts_with("TYPE")) return std::nullopt;
  std::uint16_t number = 0;
  const auto* end = upper.data() + upper.size();
  const auto [stop, error] = std::from_chars(upper.data() + 4, end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

std::string_view rcode_name(Rcode rcode) {
  switch (rcode) {
    case Rcode::kNoError:
      return "NOERROR";
    case Rcode::kFormErr:
      return "FORMERR";
    case Rcode::kServFail:
      return "SERVFAIL";
    case Rcode::kNxDomain:
      return "NXDOMAIN";
    case Rcode::kNotImp:
      return "NOTIMP";
    case Rcode::kRefused:
      return "REFUSED";
    case Rcode::kBadVers:
      return "BADVERS";
  }
  return "RCODE";
}

std::string_view ede_name(std::uint16_t code) {
  switch (code) {
    case ede::kStale:
      return "Stale Answer";
    case ede::kNotReady:
      return "Not Ready";
    case ede::kFiltered:
      return "Filtered";
    case ede::kProhibited:
      return "Prohibited";
    case ede::kNoReachable:
      return "No Reachable Authority";
    case ede::kNetworkError:
      return "Network Error";
    case ede::kNone:
      return "";
    default:
      return "Other";
  }
}

Parsed parse_query(Bytes message, Query& query) {
  Reader reader(message);
  query.id = reader.u16();
  query.flags = reader.u16();
  const auto questions = reader.u16();
  const auto answers = reader.u16();
  const auto authorities = reader.u16();
  const auto additionals = reader.u16();
  query.question_end = 12;
  query.edns = query.dnssec_ok = false;
  query.payload = kMinUdpPayload;
  if (!reader.ok() || (query.flags & kFlagQr) != 0) return Parsed::kDrop;
  if ((query.flags & kOpcodeMask) != 0) return Parsed::kNotImp;
  if (questions != 1) return Parsed::kFormErr;  // RFC 9619
  read_name(reader, query.name, false);
  query.type = reader.u16();
  query.klass = reader.u16();
  if (!reader.ok()) return Parsed::kFormErr;
  query.question_end = reader.at();
  query.lower = query.name;
  lower(query.lower);
  bool bad_version = false;
  // Counts that lie run into the end of the message at once.
  for (int i = 0; i < answers + authorities + additionals; ++i) {
    const bool root = reader.left() > 0 && reader.data()[reader.at()] == 0;
    skip_name(reader);
    const auto rr_type = reader.u16();
    if (rr_type == type::kOpt) {
      if (query.edns || !root || i < answers + authorities) return Parsed::kFormErr;
      if (!read_opt(reader, query, bad_version)) return Parsed::kFormErr;
    } else {
      reader.skip(6);
      reader.skip(reader.u16());
    }
    if (!reader.ok()) return Parsed::kFormErr;
  }
  return bad_version ? Parsed::kBadVers : Parsed::kQuery;
}

}  // namespace meshd::dns
