#include "dns/answer.h"

#include <algorithm>
#include <array>

#include "dns/limits.h"
#include "dns/name.h"
#include "dns/special_names.h"

namespace meshd::dns {
namespace {

constexpr std::uint16_t kClassIn = 1;
constexpr std::uint16_t kClassAny = 255;
constexpr std::uint16_t kOwnerPointer = 0xc00c;  // the question's name
constexpr std::size_t kMaxPointer = 0x3fff;      // RFC 1035 section 4.1.4: 14 bits
constexpr std::size_t kMaxEdeText = 256;

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
    if (is_under(name, zone_)) {
      apex_ = zone_;
      return plain_ ? no_name({}) : own_zone(name);
    }
    if (is_localhost(name)) return localhost();
    const auto labels = label_count(name);
    if (labels == 1) return bare(name);
    if (const auto reverse = parse_reverse(name)) return reverse_lookup(name, *reverse);
    return is_special(name) ? no_name({}) : foreign();
  }

  Outcome bare(std::string_view label) {
    if (plain_) return no_name({});
    const auto found = view_->names.find(label);
    return found != view_->names.end() ? data(found->second) : no_name(why_not(label));
  }

  Outcome foreign() {
    if (plain_ || view_->forward) {
      Outcome outcome;
      outcome.action = Action::kForward;
      outcome.plain = plain_;
      return outcome;
    }
    return no_name("you declare no egress, so foreign names are not looked up");
  }

  Outcome reverse_lookup(std::string_view name, const ReverseName& reverse) {
    using enum ReverseZone::Place;
    const auto zone = reverse_zone(name, reverse, snapshot_.settings().own_ranges);
    apex_ = zone.apex;
    const bool ours = zone.place == kApex || zone.place == kInside;
    if (ours && plain_) return no_name({});
    if (zone.place == kApex && (q_.type == type::kSoa || q_.type == type::kNs)) return apex();
    if (ours && reverse.whole()) return pointer(reverse.prefix.address());
    if (zone.place == kApex) return q_.type == type::kAny ? any() : no_data();
    if (zone.place == kInside) return reverse.exact && leads_on(reverse) ? no_data() : no_name({});
    // What is above a zone of ours exists, or the zone did not (RFC 8020).
    if (is_special(reverse)) return zone.place == kAbove ? no_data() : no_name({});
    return foreign();
  }

  // Does a name of the view stand below this one?
  [[nodiscard]] bool leads_on(const ReverseName& reverse) const {
    return std::ranges::any_of(
        view_->pointers, [&](const auto& entry) { return reverse.prefix.contains(entry.first); });
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
    while (first_label(name).starts_with('_')) name = parent(name);  // _sql._tcp.db is about db
    scratch_.reason = "you declare no peer ";
    append_label(scratch_.reason, first_label(name));  // it is shown to people
    return scratch_.reason;
  }

  Outcome data(const NameData& name) {
    if (name.stale) {
      ede_ = ede::kStale;
      text_ = "its node has not been heard of for a while";
    }
    switch (q_.type) {
      case type::kA:
        return name.v4 ? one_address(*name.v4) : no_address(name);
      case type::kAaaa:
        return name.v6 ? one_address(*name.v6) : no_address(name);
      case type::kSrv:
        return name.srv.empty() ? no_data() : srv(name);
      case type::kAny:
        return any();
      default:
        return no_data();
    }
  }

  // An instance without any address is not attached, or drains; with one of the other family
  // it simply has none of this.
  Outcome no_address(const NameData& name) {
    if (!name.v4 && !name.v6 && name.srv.empty()) {
      ede_ = ede::kNotReady;
      text_ = "declared, but it has no address now";
    }
    return no_data();
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
      const auto length_at = writer_.at();
      writer_.u16(0);
      below_zone("ns");
      writer_.patch16(length_at, static_cast<std::uint16_t>(writer_.at() - length_at - 2));
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

  // The zone that answers, at the end of the question's name; the root for names that are in no
  // zone of ours (RFC 2308 section 5).
  void write_apex() {
    if (apex_.empty()) return writer_.u8(0);
    writer_.u16(static_cast<std::uint16_t>(kOwnerPointer + q_.lower.size() - apex_.size()));
  }

  // A name in the forward zone, which a reverse zone's question does not hold.
  void below_zone(std::string_view label) {
    writer_.u8(static_cast<std::uint8_t>(label.size()));
    writer_.text(label);
    if (apex_.empty() || apex_ == zone_) return write_apex();
    writer_.text(zone_);
  }

  void write_soa(std::uint32_t ttl) {
    write_apex();
    writer_.u16(type::kSoa);
    writer_.u16(kClassIn);
    writer_.u32(ttl);
    const auto length_at = writer_.at();
    writer_.u16(0);
    below_zone("ns");
    below_zone("hostmaster");
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
    if (!reason.empty()) {
      ede_ = ede::kProhibited;
      text_ = refused_ = reason;
    }
    return finish(Rcode::kNxDomain);
  }

  [[nodiscard]] std::size_t limit() const {
    if (!udp_) return kMaxMessage;
    return std::clamp<std::size_t>(q_.payload, kMinUdpPayload, kMaxUdpPayload);
  }

  Outcome finish(Rcode rcode) {
    if (!has_question_) begin_without_question();
    if (!writer_.ok() || writer_.at() + opt_size(q_, ede_, {}) > limit()) return truncated(rcode);
    close_with_opt(rcode);
    return seal(rcode, 0);
  }

  // The text of the extended error is the first to go when room is short.
  void close_with_opt(Rcode rcode) {
    const bool fits = writer_.at() + opt_size(q_, ede_, text_) <= limit();
    write_opt(writer_, q_, rcode, ede_, fits ? text_ : std::string_view());
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
    close_with_opt(rcode);
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
    outcome.plain = plain_;
    outcome.ede = ede_;
    outcome.text = text_;
    outcome.refused = refused_;
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
  std::string_view apex_;  // of the zone of ours that answers; empty: none
  std::uint16_t ede_ = ede::kNone;
  std::string_view text_, refused_;
};

}  // namespace

std::size_t opt_size(const Query& query, std::uint16_t ede_code, std::string_view ede_text) {
  if (!query.edns) return 0;
  return 11 + (ede_code == ede::kNone ? 0 : 6 + std::min(ede_text.size(), kMaxEdeText));
}

void write_opt(Writer& writer, const Query& query, Rcode rcode, std::uint16_t ede_code,
               std::string_view ede_text) {
  if (!query.edns) return;
  ede_text = ede_text.substr(0, kMaxEdeText);
  writer.u8(0);
  writer.u16(type::kOpt);
  writer.u16(kMaxUdpPayload);
  writer.u8(static_cast<std::uint8_t>(static_cast<unsigned>(rcode) >> 4));
  writer.u8(0);
  writer.u16(query.dnssec_ok ? 0x8000 : 0);  // RFC 3225 section 3
  writer.u16(static_cast<std::uint16_t>(opt_size(query, ede_code, ede_text) - 11));
  if (ede_code == ede::kNone) return;
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

}  // namespace meshd::dns
