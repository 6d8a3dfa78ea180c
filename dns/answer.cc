#include "dns/answer.h"

#include <array>

#include "dns/limits.h"
#include "dns/name.h"

namespace meshd::dns {
namespace {

constexpr std::uint16_t kClassIn = 1;
constexpr std::uint16_t kClassAny = 255;
constexpr std::uint16_t kOwnerPointer = 0xc00c;  // the question's name
constexpr std::size_t kMaxPointer = 0x3fff;      // RFC 1035 section 4.1.4: 14 bits

// Never asked of anybody else: RFC 6761, 6762, 7686, 8375, 6303.
constexpr std::array kSpecial = {
    std::string_view("\7invalid\0", 9),
    std::string_view("\5onion\0", 7),
    std::string_view("\5local\0", 7),
    std::string_view("\4test\0", 6),
    std::string_view("\4home\4arpa\0", 11),
    std::string_view("\00210\7in-addr\4arpa\0", 17),
    std::string_view("\003168\003192\7in-addr\4arpa\0", 22),
    std::string_view("\003254\003169\7in-addr\4arpa\0", 22),
    std::string_view("\003127\7in-addr\4arpa\0", 18),
    std::string_view("\0010\7in-addr\4arpa\0", 16),
    std::string_view("\001d\001f\003ip6\4arpa\0", 14),
    std::string_view("\001c\001f\003ip6\4arpa\0", 14),
    std::string_view("\0018\001e\001f\003ip6\4arpa\0", 16),
    std::string_view("\0019\001e\001f\003ip6\4arpa\0", 16),
    std::string_view("\001a\001e\001f\003ip6\4arpa\0", 16),
    std::string_view("\001b\001e\001f\003ip6\4arpa\0", 16),
};
// 16.172.in-addr.arpa to 31.172.in-addr.arpa: the private 172.16.0.0/12.
constexpr std::string_view k172("\003172\7in-addr\4arpa\0", 18);

bool is_special(std::string_view name) {
  for (const auto special : kSpecial) {
    if (is_under(name, special)) return true;
  }
  if (!is_under(name, k172) || name.size() == k172.size()) return false;
  while (parent(name) != k172) name = parent(name);
  const auto label = first_label(name);
  return label.size() == 2 && ((label[0] == '1' && label[1] >= '6' && label[1] <= '9') ||
                               label[0] == '2' || label == "30" || label == "31");
}

constexpr std::string_view kLocalhost("\11localhost\0", 11);

class Answerer {
 public:
  Answerer(const Snapshot& snapshot, const IpAddress& client, Bytes message, bool udp,
           std::span<std::uint8_t> reply, Scratch& scratch)
      : snapshot_(snapshot),
        zone_(snapshot.settings().zone),
        client_(client),
        message_(message),
        udp_(udp),
        writer_(reply),
        scratch_(scratch),
        q_(scratch.query) {
    scratch.reason.clear();
  }

  Outcome run() {
    view_ = snapshot_.view(client_);
    plain_ = view_ == nullptr && snapshot_.is_plain_client(client_);
    if (view_ == nullptr && !plain_) return {};
    switch (parse_query(message_, q_)) {
      case Parsed::kDrop:
        return {};
      case Parsed::kNotImp:
        return finish(Rcode::kNotImp);
      case Parsed::kFormErr:
        return finish(Rcode::kFormErr);
      case Parsed::kBadVers:
        return begin(), finish(Rcode::kBadVers);
      case Parsed::kQuery:
        break;
    }
    begin();
    if (q_.klass != kClassIn && q_.klass != kClassAny) return finish(Rcode::kRefused);
    if (q_.type == type::kAxfr || q_.type == type::kIxfr) return finish(Rcode::kRefused);
    if (q_.type == type::kMaila || q_.type == type::kMailb) return finish(Rcode::kNotImp);
    return by_name();
  }

 private:
  // Header and question, byte for byte; counts and flags are filled in by finish().
  void begin() {
    writer_.bytes(message_.first(q_.question_end));
    has_question_ = true;
  }

  Outcome by_name() {
    const std::string_view name = q_.lower;
    if (is_under(name, zone_)) return plain_ ? no_name({}) : own_zone(name);
    if (is_under(name, kLocalhost)) return localhost();
    if (const auto address = address_of_reverse(name)) {
      for (const auto& range : snapshot_.settings().own_ranges) {
        if (range.contains(*address)) return pointer(*address);
      }
    }
    if (label_count(name) == 1 && !plain_) {
      if (const auto found = view_->names.find(name); found != view_->names.end()) {
        return data(found->second);
      }
    }
    if (label_count(name) == 1) return no_name(plain_ ? std::string_view() : why_not(name));
    if (is_special(name)) return no_name({});
    if (plain_ || view_->forward) {
      Outcome outcome;
      outcome.action = Action::kForward;
      return outcome;
    }
    return no_name("you declare no egress, so foreign names are not looked up");
  }

  Outcome own_zone(std::string_view name) {
    if (name.size() == zone_.size()) return apex();
    if (const auto found = view_->names.find(name); found != view_->names.end()) {
      return data(found->second);
    }
    if (parent(name) == zone_) {
      const auto label = first_label(name);
      if (label == "ns")
        return data({snapshot_.settings().resolver4, snapshot_.settings().resolver6, {}});
      if (label == "why") return why();
      if (label == "id" || label == "svc" || label == "wf") return no_data();
    }
    if (view_->non_terminals.contains(name)) return no_data();
    return no_name(why_not(name));
  }

  // Depends on the client's own declaration alone, so that nothing is given away.
  std::string_view why_not(std::string_view name) {
    if (const auto found = view_->withheld.find(name); found != view_->withheld.end()) {
      return found->second;
    }
    scratch_.reason = "you declare no peer ";
    append_label(scratch_.reason, first_label(name));  // it is shown to people
    return scratch_.reason;
  }

  Outcome data(const NameData& name) {
    switch (q_.type) {
      case type::kA:
        return name.v4 ? one_address(*name.v4) : no_data();
      case type::kAaaa:
        return name.v6 ? one_address(*name.v6) : no_data();
      case type::kSrv:
        return name.srv.empty() ? no_data() : srv(name);
      case type::kAny:
        return any();
      default:
        return no_data();
    }
  }

  Outcome one_address(const IpAddress& address) {
    write_address(kOwnerPointer, address);
    answers_ = 1;
    return finish(Rcode::kNoError);
  }

  void record(std::uint16_t owner, std::uint16_t rr_type, std::uint32_t ttl) {
    writer_.u16(owner);
    writer_.u16(rr_type);
    writer_.u16(kClassIn);
    writer_.u32(ttl);
  }

  void write_address(std::uint16_t owner, const IpAddress& address) {
    record(owner, address.is_v4() ? type::kA : type::kAaaa, kTtl);
    writer_.u16(static_cast<std::uint16_t>(address.bytes().size()));
    writer_.bytes(address.bytes());
  }

  Outcome srv(const NameData& name) {
    std::array<std::uint16_t, 64> targets{};  // serves has at most as many
    std::size_t count = 0;
    for (const auto& entry : name.srv) {
      if (count == targets.size()) break;
      record(kOwnerPointer, type::kSrv, kTtl);
      writer_.u16(static_cast<std::uint16_t>(6 + entry.target.size()));
      writer_.u16(0);  // priority
      writer_.u16(0);  // weight
      writer_.u16(entry.port);
      const bool in_reach = writer_.at() <= kMaxPointer;
      targets[count++] = in_reach ? static_cast<std::uint16_t>(0xc000U | writer_.at()) : 0;
      writer_.text(entry.target);
    }
    answers_ = static_cast<std::uint16_t>(count);
    for (std::size_t i = 0; i < count; ++i) {
      for (const auto& address : {name.srv[i].v4, name.srv[i].v6}) {
        if (!address || targets[i] == 0) continue;  // additionals are a courtesy
        write_address(targets[i], *address);
        ++additionals_;
      }
    }
    return finish(Rcode::kNoError);
  }

  Outcome any() {  // RFC 8482 section 4.2
    record(kOwnerPointer, type::kHinfo, kTtl);
    writer_.u16(9);
    writer_.u8(7);
    writer_.text("RFC8482");
    writer_.u8(0);
    answers_ = 1;
    return finish(Rcode::kNoError);
  }

  Outcome why() {
    if (q_.type != type::kTxt || view_->why.empty()) return no_data();
    for (const auto& line : view_->why) {
      const auto size = std::min<std::size_t>(line.size(), 255);
      record(kOwnerPointer, type::kTxt, 0);  // it may be another line the next moment
      writer_.u16(static_cast<std::uint16_t>(size + 1));
      writer_.u8(static_cast<std::uint8_t>(size));
      writer_.text(std::string_view(line).substr(0, size));
      ++answers_;
    }
    return finish(Rcode::kNoError);
  }

  Outcome apex() {
    if (q_.type == type::kSoa) {
      write_soa(kTtl);
      answers_ = 1;
      return finish(Rcode::kNoError);
    }
    if (q_.type == type::kNs) {
      record(kOwnerPointer, type::kNs, kTtl);
      writer_.u16(5);
      writer_.u8(2);
      writer_.text("ns");
      writer_.u16(kOwnerPointer);
      answers_ = 1;
      return finish(Rcode::kNoError);
    }
    return q_.type == type::kAny ? any() : no_data();
  }

  Outcome localhost() {
    static const auto v4 = IpAddress::parse("127.0.0.1").value();
    static const auto v6 = IpAddress::parse("::1").value();
    if (q_.type == type::kA) return one_address(v4);
    if (q_.type == type::kAaaa) return one_address(v6);
    return no_data();
  }

  Outcome pointer(const IpAddress& address) {
    if (plain_) return no_name({});
    const auto found = view_->pointers.find(address);
    if (found == view_->pointers.end()) return no_name({});
    if (q_.type == type::kAny) return any();
    if (q_.type != type::kPtr) return no_data();
    record(kOwnerPointer, type::kPtr, kTtl);
    writer_.u16(static_cast<std::uint16_t>(found->second.size()));
    writer_.text(found->second);
    answers_ = 1;
    return finish(Rcode::kNoError);
  }

  // The SOA of a negative answer stands at the zone, or at the root for names that are in
  // no zone of ours (RFC 2308 section 5).
  void write_soa(std::uint32_t ttl) {
    const bool ours = is_under(q_.lower, zone_);
    const auto zone_at = static_cast<std::uint16_t>(0xc00cU + q_.lower.size() - zone_.size());
    const auto write_zone = [&] {
      if (ours) {
        writer_.u16(zone_at);
      } else {
        writer_.u8(0);
      }
    };
    write_zone();
    writer_.u16(type::kSoa);
    writer_.u16(kClassIn);
    writer_.u32(ttl);
    const auto length_at = writer_.at();
    writer_.u16(0);
    writer_.u8(2);
    writer_.text("ns");
    write_zone();
    writer_.u8(10);
    writer_.text("hostmaster");
    write_zone();
    for (const std::uint32_t number : {1U, 3600U, 600U, 86400U, kNegativeTtl}) {
      writer_.u32(number);
    }
    writer_.patch16(length_at, static_cast<std::uint16_t>(writer_.at() - length_at - 2));
  }

  Outcome no_data() {
    write_soa(kNegativeTtl);
    authorities_ = 1;
    return finish(Rcode::kNoError);
  }

  Outcome no_name(std::string_view reason) {
    write_soa(kNegativeTtl);
    authorities_ = 1;
    reason_ = reason;
    return finish(Rcode::kNxDomain);
  }

  [[nodiscard]] std::size_t limit() const {
    if (!udp_) return kMaxMessage;
    return std::clamp<std::size_t>(q_.payload, kMinUdpPayload, kMaxUdpPayload);
  }

  Outcome finish(Rcode rcode) {
    if (!has_question_) begin_without_question();
    if (!writer_.ok() || writer_.at() + opt_size() > limit()) return truncated(rcode);
    write_opt(writer_, q_, rcode, reason_.empty() ? std::uint16_t{0} : ede::kProhibited, reason_);
    return seal(rcode, 0);
  }

  [[nodiscard]] std::size_t opt_size() const {
    if (!q_.edns) return 0;
    return 11 + (reason_.empty() ? 0 : 6 + reason_.size());
  }

  // FORMERR and NOTIMP: the question may be unreadable.
  void begin_without_question() {
    q_.question_end = 12;
    q_.edns = false;
    writer_.bytes(message_.first(12));
  }

  Outcome truncated(Rcode rcode) {
    writer_.rewind(q_.question_end);
    answers_ = authorities_ = additionals_ = 0;
    write_opt(writer_, q_, rcode, 0, {});
    return seal(rcode, kFlagTc);
  }

  Outcome seal(Rcode rcode, std::uint16_t more_flags) {
    const auto flags = static_cast<std::uint16_t>(kFlagQr | kFlagAa | kFlagRa | more_flags |
                                                  (q_.flags & (kOpcodeMask | kFlagRd | kFlagCd)) |
                                                  (static_cast<unsigned>(rcode) & 0xfU));
    writer_.patch16(2, flags);
    writer_.patch16(4, has_question_ ? 1 : 0);
    writer_.patch16(6, answers_);
    writer_.patch16(8, authorities_);
    writer_.patch16(10, static_cast<std::uint16_t>(additionals_ + (q_.edns ? 1 : 0)));
    Outcome outcome;
    outcome.action = Action::kReply;
    outcome.length = writer_.at();
    outcome.rcode = rcode;
    outcome.refused = reason_;
    return outcome;
  }

  const Snapshot& snapshot_;
  const std::string_view zone_;
  const IpAddress& client_;
  const Bytes message_;
  const bool udp_;
  Writer writer_;
  Scratch& scratch_;
  Query& q_;
  const View* view_ = nullptr;
  bool plain_ = false;
  bool has_question_ = false;
  std::uint16_t answers_ = 0, authorities_ = 0, additionals_ = 0;
  std::string_view reason_;
};

}  // namespace

void write_opt(Writer& writer, const Query& query, Rcode rcode, std::uint16_t ede_code,
               std::string_view ede_text) {
  if (!query.edns) return;
  ede_text = ede_text.substr(0, 256);
  writer.u8(0);
  writer.u16(type::kOpt);
  writer.u16(kMaxUdpPayload);
  writer.u8(static_cast<std::uint8_t>(static_cast<unsigned>(rcode) >> 4));
  writer.u8(0);
  writer.u16(query.dnssec_ok ? 0x8000 : 0);  // RFC 3225 section 3
  writer.u16(ede_code == 0 ? 0 : static_cast<std::uint16_t>(6 + ede_text.size()));
  if (ede_code == 0) return;
  writer.u16(15);  // extended DNS error
  writer.u16(static_cast<std::uint16_t>(2 + ede_text.size()));
  writer.u16(ede_code);
  writer.text(ede_text);
}

Outcome answer(const Snapshot& snapshot, const IpAddress& client, Bytes message, bool udp,
               std::span<std::uint8_t> reply, Scratch& scratch) {
  return Answerer(snapshot, client, message, udp, reply, scratch).run();
}

std::size_t empty_reply(const Query& query, Bytes message, Rcode rcode, std::uint16_t ede_code,
                        std::string_view ede_text, bool authoritative,
                        std::span<std::uint8_t> reply) {
  Writer writer(reply);
  writer.bytes(message.first(query.question_end));
  write_opt(writer, query, rcode, ede_code, ede_text);
  const auto flags = static_cast<std::uint16_t>(kFlagQr | kFlagRa | (authoritative ? kFlagAa : 0) |
                                                (query.flags & (kFlagRd | kFlagCd)) |
                                                (static_cast<unsigned>(rcode) & 0xfU));
  writer.patch16(2, flags);
  writer.patch16(4, 1);
  writer.patch16(6, 0);
  writer.patch16(8, 0);
  writer.patch16(10, query.edns ? 1 : 0);
  return writer.ok() ? writer.at() : 0;
}

// --- for people ----------------------------------------------------------------------

namespace {

std::string text_of(Reader& message, std::uint16_t rr_type, std::uint16_t size) {
  const auto start = message.at();
  std::string name;
  switch (rr_type) {
    case type::kA:
      return IpAddress::v4(message.take(4).first<4>()).to_string();
    case type::kAaaa:
      return IpAddress::v6(message.take(16).first<16>()).to_string();
    case type::kPtr:
    case type::kNs:
      read_name(message, name, true);
      return to_text(name);
    case type::kSrv: {
      const auto priority = message.u16(), weight = message.u16(), port = message.u16();
      read_name(message, name, true);
      return std::to_string(priority) + " " + std::to_string(weight) + " " + std::to_string(port) +
             " " + to_text(name);
    }
    case type::kSoa:
      read_name(message, name, true);
      message.seek(start + size);
      return to_text(name);
    default:
      break;
  }
  std::string text;
  Reader strings(message.take(size));
  while (strings.ok() && strings.left() > 0) {
    const auto part = strings.take(strings.u8());
    if (!text.empty()) text += ' ';
    text.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  return text;
}

}  // namespace

Resolved resolve(const Snapshot& snapshot, const IpAddress& client, std::string_view name,
                 std::uint16_t rr_type) {
  Resolved result;
  const auto wire = to_wire(name);
  if (!wire) {
    result.rcode = "FORMERR";
    result.reason = "not a domain name";
    return result;
  }
  std::array<std::uint8_t, 512> query{};
  Writer writer(query);
  for (const std::uint16_t word : {std::uint16_t{1}, kFlagRd, std::uint16_t{1}, std::uint16_t{0},
                                   std::uint16_t{0}, std::uint16_t{1}}) {
    writer.u16(word);
  }
  writer.text(*wire);
  writer.u16(rr_type);
  writer.u16(kClassIn);
  Query with_edns;
  with_edns.edns = true;
  write_opt(writer, with_edns, Rcode::kNoError, 0, {});
  std::vector<std::uint8_t> reply(kMaxMessage);
  Scratch scratch;
  const auto outcome =
      answer(snapshot, client, Bytes(query).first(writer.at()), false, reply, scratch);
  if (outcome.action != Action::kReply) {
    result.rcode = outcome.action == Action::kForward ? "FORWARDED" : "DROPPED";
    result.reason = outcome.action == Action::kForward ? "a foreign name: upstream is asked"
                                                       : "not a client of this resolver";
    return result;
  }
  result.rcode = rcode_name(outcome.rcode);
  result.reason = outcome.refused;
  if (!outcome.refused.empty()) result.ede = ede_name(ede::kProhibited);
  Reader reader(Bytes(reply).first(outcome.length), 6);
  const auto answers = reader.u16();
  reader.seek(scratch.query.question_end);
  for (int i = 0; i < answers && reader.ok(); ++i) {
    Resolved::Record record;
    std::string owner;
    read_name(reader, owner, true);
    record.name = to_text(owner);
    const auto number = reader.u16();
    record.type = type_name(number);
    reader.u16();
    record.ttl = reader.u32();
    const auto size = reader.u16();
    record.data = text_of(reader, number, size);
    result.answers.push_back(std::move(record));
  }
  return result;
}

}  // namespace meshd::dns
