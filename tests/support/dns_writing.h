// DNS messages for tests, made byte by byte, without the code under test.
//
// Source: RFC 1035 section 4, RFC 6891.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace meshd {

using Octets = std::vector<std::uint8_t>;

inline void put16(Octets& out, unsigned value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8));
  out.push_back(static_cast<std::uint8_t>(value));
}
inline void put32(Octets& out, std::uint32_t value) {
  put16(out, value >> 16);
  put16(out, value & 0xffff);
}
inline void put_name(Octets& out, std::string_view text) {
  while (!text.empty()) {
    const auto label = text.substr(0, text.find('.'));
    out.push_back(static_cast<std::uint8_t>(label.size()));
    out.insert(out.end(), label.begin(), label.end());
    text.remove_prefix(std::min(label.size() + 1, text.size()));
  }
  out.push_back(0);
}

struct Ask {
  std::string name;
  std::uint16_t type = 1;
  std::uint16_t klass = 1;
  std::uint16_t id = 0x1234;
  std::uint16_t flags = 0x0100;  // RD
  bool edns = false;
  std::uint16_t payload = 1232;
  std::uint8_t version = 0;
  bool dnssec_ok = false;
};

inline Octets make_query(const Ask& ask) {
  Octets out;
  for (const unsigned word : {unsigned{ask.id}, unsigned{ask.flags}, 1U, 0U, 0U}) put16(out, word);
  put16(out, ask.edns ? 1 : 0);
  put_name(out, ask.name);
  put16(out, ask.type);
  put16(out, ask.klass);
  if (!ask.edns) return out;
  out.push_back(0);
  put16(out, 41);
  put16(out, ask.payload);
  out.push_back(0);
  out.push_back(ask.version);
  put16(out, ask.dnssec_ok ? 0x8000 : 0);
  put16(out, 0);
  return out;
}

// An upstream's reply to `query` (whose question it repeats), with records as given.
struct ReplyRecord {
  std::string name;
  std::uint16_t type = 1;
  std::uint32_t ttl = 300;
  Octets data;
};
inline Octets make_reply(const Octets& query, const std::vector<ReplyRecord>& answers,
                         unsigned flags = 0x8180, const std::vector<ReplyRecord>& authorities = {},
                         const Octets& after = {}, unsigned additionals = 0) {
  std::size_t end = 12;
  while (query[end] != 0) end += query[end] + 1U;
  end += 5;
  Octets out(query.begin(), query.begin() + 2);
  put16(out, flags);
  put16(out, 1);
  put16(out, static_cast<unsigned>(answers.size()));
  put16(out, static_cast<unsigned>(authorities.size()));
  put16(out, additionals);
  out.insert(out.end(), query.begin() + 12, query.begin() + static_cast<std::ptrdiff_t>(end));
  for (const auto* section : {&answers, &authorities}) {
    for (const auto& record : *section) {
      put_name(out, record.name);
      put16(out, record.type);
      put16(out, 1);
      put32(out, record.ttl);
      put16(out, static_cast<unsigned>(record.data.size()));
      out.insert(out.end(), record.data.begin(), record.data.end());
    }
  }
  out.insert(out.end(), after.begin(), after.end());
  return out;
}
// OPT with an extended error, as `after`.
inline Octets opt_record(int ede = -1, std::string_view text = {}) {
  Octets out{0};
  put16(out, 41);
  put16(out, 1232);
  put32(out, 0);
  put16(out, ede < 0 ? 0 : static_cast<unsigned>(6 + text.size()));
  if (ede < 0) return out;
  put16(out, 15);
  put16(out, static_cast<unsigned>(2 + text.size()));
  put16(out, static_cast<unsigned>(ede));
  out.insert(out.end(), text.begin(), text.end());
  return out;
}
inline Octets soa_data(std::uint32_t minimum) {
  Octets out;
  put_name(out, "ns");
  put_name(out, "root");
  for (const std::uint32_t number : {1U, 2U, 3U, 4U}) put32(out, number);
  put32(out, minimum);
  return out;
}

}  // namespace meshd
