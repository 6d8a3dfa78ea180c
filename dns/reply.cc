#include "dns/reply.h"

#include <algorithm>

#include "dns/answer.h"
#include "dns/limits.h"
#include "dns/name.h"

namespace meshd::dns {
namespace {

bool is_letter(std::uint8_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool is_filtered(const IpAddress& address, const std::vector<Prefix>& filtered) {
  static const auto mapped = Prefix::parse("::ffff:0:0/96").value();
  IpAddress tested = address;
  if (mapped.contains(address)) tested = IpAddress::v4(address.bytes().subspan<12, 4>());
  return std::ranges::any_of(filtered, [&](const Prefix& p) { return p.contains(tested); });
}

// Address hints of SVCB and HTTPS records (RFC 9460 section 7.3).
bool has_filtered_hint(Bytes rdata, const std::vector<Prefix>& filtered) {
  Reader reader(rdata);
  reader.u16();
  skip_name(reader);
  while (reader.ok() && reader.left() >= 4) {
    const auto key = reader.u16();
    Reader hints(reader.take(reader.u16()));
    while (key == 4 && hints.left() >= 4) {
      if (is_filtered(IpAddress::v4(hints.take(4).first<4>()), filtered)) return true;
    }
    while (key == 6 && hints.left() >= 16) {
      if (is_filtered(IpAddress::v6(hints.take(16).first<16>()), filtered)) return true;
    }
  }
  return false;
}

// Walks the records of one reply.
class Digester {
 public:
  Digester(Bytes reply, const std::vector<Prefix>& filtered)
      : reply_(reply), reader_(reply), filtered_(filtered) {}

  std::optional<UpstreamReply> run(Bytes sent) {
    if (!header(sent)) return std::nullopt;
    const auto sections = {answers_, authorities_, additionals_};
    for (int section = 0; const int count : sections) {
      for (int i = 0; i < count && !cut_; ++i) {
        if (!record(section)) return std::nullopt;
      }
      ++section;
    }
    const std::size_t end = cut_ ? *cut_ : reader_.at();
    result_.message.assign(reply_.begin(), reply_.begin() + static_cast<std::ptrdiff_t>(end));
    if (cut_) set_additionals(kept_additionals_);
    if (blocked_) block(sent);
    settle_ttl();
    return std::move(result_);
  }

 private:
  bool header(Bytes sent) {
    const auto id = reader_.u16();
    const auto flags = reader_.u16();
    const auto questions = reader_.u16();
    answers_ = reader_.u16();
    authorities_ = reader_.u16();
    additionals_ = reader_.u16();
    Reader ours(sent);
    const bool ours_id = ours.u16() == id;
    if (!reader_.ok() || !ours_id || (flags & kFlagQr) == 0 || (flags & kOpcodeMask) != 0 ||
        questions != 1) {
      return false;
    }
    ours.seek(12);
    skip_name(ours);
    ours.skip(4);
    const std::size_t question = ours.at() - 12;
    const auto theirs = reader_.take(question);
    if (!ours.ok() || !reader_.ok() || !std::ranges::equal(theirs, sent.subspan(12, question))) {
      return false;
    }
    result_.rcode = static_cast<Rcode>(flags & 0xfU);
    result_.truncated = (flags & kFlagTc) != 0;
    return true;
  }

  bool record(int section) {
    const auto start = reader_.at();
    skip_name(reader_);
    const auto rr_type = reader_.u16();
    // Elsewhere than among the additionals, cutting there would make the counts lie.
    if (rr_type == type::kOpt) return section == 2 && option(start);
    reader_.u16();
    const auto ttl_at = reader_.at();
    const auto ttl = reader_.u32();
    const auto rdata = reader_.take(reader_.u16());
    if (!reader_.ok() || ttl_at > 0xffff) return false;
    result_.ttl_offsets.push_back(static_cast<std::uint16_t>(ttl_at));
    if (section == 0) least_ttl_ = std::min(least_ttl_, ttl);
    if (section == 1 && rr_type == type::kSoa && rdata.size() >= 22) {
      Reader minimum(rdata, rdata.size() - 4);  // RFC 2308 section 5
      soa_ttl_ = std::min(ttl, minimum.u32());
    }
    if (section == 2) ++kept_additionals_;
    check_address(rr_type, rdata);
    return true;
  }

  void check_address(std::uint16_t rr_type, Bytes rdata) {
    if (rr_type == type::kA && rdata.size() == 4) {
      blocked_ = blocked_ || is_filtered(IpAddress::v4(rdata.first<4>()), filtered_);
    } else if (rr_type == type::kAaaa && rdata.size() == 16) {
      blocked_ = blocked_ || is_filtered(IpAddress::v6(rdata.first<16>()), filtered_);
    } else if (rr_type == type::kSvcb || rr_type == type::kHttps) {
      blocked_ = blocked_ || has_filtered_hint(rdata, filtered_);
    }
  }

  // OPT is hop by hop: cut, with what stands behind it; its extended error is kept.
  bool option(std::size_t start) {
    cut_ = start;
    reader_.skip(6);
    Reader options(reader_.take(reader_.u16()));
    if (!reader_.ok()) return false;
    while (options.ok() && options.left() >= 4) {
      const auto code = options.u16();
      Reader value(options.take(options.u16()));
      if (code != 15 || value.left() < 2 || result_.ede_code != ede::kNone) continue;
      result_.ede_code = value.u16();
      const auto text = value.take(std::min<std::size_t>(value.left(), 200));
      result_.ede_text.assign(reinterpret_cast<const char*>(text.data()), text.size());
    }
    return options.ok();
  }

  void set_additionals(std::uint16_t count) {
    result_.message[10] = static_cast<std::uint8_t>(count >> 8);
    result_.message[11] = static_cast<std::uint8_t>(count);
  }

  // Nothing of it is passed on: an existing name without data.
  void block(Bytes sent) {
    Reader ours(sent, 12);
    skip_name(ours);
    result_.message.resize(ours.at() + 4);
    std::fill(result_.message.begin() + 6, result_.message.begin() + 12, std::uint8_t{0});
    result_.message[3] &= 0xf0;
    result_.ttl_offsets.clear();
    result_.rcode = Rcode::kNoError;
    result_.ede_code = ede::kFiltered;
    result_.ede_text = "the answer leads to an address of the node or its containers";
    answers_ = 0;
    soa_ttl_.reset();
  }

  void settle_ttl() {
    result_.negative =
        result_.rcode == Rcode::kNxDomain || (result_.rcode == Rcode::kNoError && answers_ == 0);
    if (result_.negative) {
      result_.ttl = std::min(soa_ttl_.value_or(kNoSoaTtl), kMaxNegativeTtl);
    } else if (result_.rcode == Rcode::kNoError) {
      result_.ttl = std::min(least_ttl_, kMaxTtl);
    } else {
      result_.ttl = kServfailTtl;
    }
  }

  const Bytes reply_;
  Reader reader_;
  const std::vector<Prefix>& filtered_;
  UpstreamReply result_;
  int answers_ = 0, authorities_ = 0, additionals_ = 0;
  std::uint16_t kept_additionals_ = 0;
  std::optional<std::size_t> cut_;
  std::uint32_t least_ttl_ = kMaxTtl;
  std::optional<std::uint32_t> soa_ttl_;
  bool blocked_ = false;
};

}  // namespace

std::vector<std::uint8_t> upstream_query(const Query& query, std::uint16_t id,
                                         std::span<const std::uint8_t> coin) {
  std::vector<std::uint8_t> message(12 + query.name.size() + 4 + 11);
  Writer writer(message);
  writer.u16(id);
  writer.u16(static_cast<std::uint16_t>(kFlagRd | (query.flags & kFlagCd)));
  for (const std::uint16_t count :
       {std::uint16_t{1}, std::uint16_t{0}, std::uint16_t{0}, std::uint16_t{1}}) {
    writer.u16(count);
  }
  const auto name_at = writer.at();
  writer.text(query.lower);
  writer.u16(query.type);
  writer.u16(query.klass);
  Query opt;
  opt.edns = true;
  opt.dnssec_ok = query.dnssec_ok;
  write_opt(writer, opt, Rcode::kNoError, ede::kNone, {});
  for (std::size_t i = 0, bit = 0; i < query.lower.size(); ++i) {
    auto& c = message[name_at + i];
    if (!is_letter(c)) continue;  // length bytes are below 64, letters are not
    if (bit / 8 < coin.size() && (coin[bit / 8] >> bit % 8 & 1) != 0) c ^= 0x20;
    ++bit;
  }
  return message;
}

std::optional<UpstreamReply> digest(Bytes reply, Bytes sent, const std::vector<Prefix>& filtered) {
  return Digester(reply, filtered).run(sent);
}

std::size_t write_reply(const UpstreamReply& kept, const Query& query, Bytes client_message,
                        std::uint32_t age, bool stale, std::size_t limit,
                        std::span<std::uint8_t> out) {
  const std::uint16_t ede_code = stale ? ede::kStale : kept.ede_code;
  std::string_view ede_text = stale ? std::string_view() : kept.ede_text;
  limit = std::min(limit, out.size());
  Writer writer(out);
  bool truncated = kept.truncated;
  // The text of the extended error is the first to go when room is short.
  if (kept.message.size() + opt_size(query, ede_code, ede_text) > limit) ede_text = {};
  if (kept.message.size() + opt_size(query, ede_code, ede_text) > limit) {
    writer.bytes(client_message.first(query.question_end));
    truncated = true;
    for (const std::size_t at : {6U, 8U, 10U}) writer.patch16(at, 0);
  } else {
    writer.bytes(kept.message);
    if (!writer.ok()) return 0;
    // The question in the client's own letters: the same length, so pointers hold.
    std::ranges::copy(client_message.subspan(12, query.question_end - 12), out.begin() + 12);
    for (const auto at : kept.ttl_offsets) {
      Reader old(kept.message, at);
      const auto ttl = old.u32();
      const auto now = stale ? kStaleTtl : ttl - std::min(ttl, age);
      writer.patch16(at, static_cast<std::uint16_t>(now >> 16));
      writer.patch16(at + 2U, static_cast<std::uint16_t>(now));
    }
  }
  Reader additionals(Bytes(out).first(writer.at()), 10);
  const auto count = additionals.u16();
  write_opt(writer, query, kept.rcode, ede_code, ede_text);
  if (!writer.ok()) return 0;
  const auto flags = static_cast<std::uint16_t>(kFlagQr | kFlagRa | (truncated ? kFlagTc : 0) |
                                                (query.flags & (kFlagRd | kFlagCd)) |
                                                (static_cast<unsigned>(kept.rcode) & 0xfU));
  writer.patch16(0, query.id);
  writer.patch16(2, flags);
  writer.patch16(4, 1);
  writer.patch16(10, static_cast<std::uint16_t>(count + (query.edns ? 1 : 0)));
  return writer.at();
}

}  // namespace meshd::dns
