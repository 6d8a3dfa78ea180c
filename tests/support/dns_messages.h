// DNS messages for tests, read byte by byte, without the code under test.
//
// Source: RFC 1035 section 4, RFC 6891.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/support/dns_writing.h"

namespace meshd {

struct DnsRecord {
  std::string name;
  unsigned type = 0, klass = 0;
  std::uint32_t ttl = 0;
  std::string data;  // an address or a name as text, else the bytes
};

// A whole message; `ok` is false when a byte is missing or left over.
struct DnsMessage {
  bool ok = false;
  unsigned id = 0, flags = 0, rcode = 0;
  std::string qname;
  unsigned qtype = 0, qclass = 0, questions = 0;
  std::vector<DnsRecord> answers, authorities, additionals;  // without OPT
  bool edns = false;
  unsigned payload = 0;
  bool dnssec_ok = false;
  int ede = -1;
  std::string ede_text;

  [[nodiscard]] bool aa() const { return (flags & 0x0400) != 0; }
  [[nodiscard]] bool tc() const { return (flags & 0x0200) != 0; }
  [[nodiscard]] bool rd() const { return (flags & 0x0100) != 0; }
  [[nodiscard]] bool ra() const { return (flags & 0x0080) != 0; }
};

class DnsReader {
 public:
  explicit DnsReader(const Octets& bytes) : bytes_(bytes) {}

  DnsMessage read() {
    DnsMessage m;
    m.id = u16();
    m.flags = u16();
    m.rcode = m.flags & 0xf;
    m.questions = u16();
    const unsigned counts[] = {u16(), u16(), u16()};
    if (m.questions > 0) {
      m.qname = name();
      m.qtype = u16();
      m.qclass = u16();
    }
    std::vector<DnsRecord>* sections[] = {&m.answers, &m.authorities, &m.additionals};
    for (int i = 0; i < 3; ++i) {
      for (unsigned k = 0; k < counts[i] && ok_; ++k) record(m, *sections[i]);
    }
    m.ok = ok_ && at_ == bytes_.size();
    return m;
  }

 private:
  unsigned u8() {
    if (at_ >= bytes_.size()) {
      ok_ = false;
      return 0;
    }
    return bytes_[at_++];
  }
  unsigned u16() {
    const auto high = u8();
    return high << 8 | u8();
  }
  std::uint32_t u32() {
    const auto high = u16();
    return high << 16 | u16();
  }
  std::string name() {
    std::string text;
    std::size_t back = 0;
    for (int steps = 0; ok_ && steps < 200; ++steps) {
      const auto length = u8();
      if (length >= 0xc0) {
        const auto target = (length & 0x3f) << 8 | u8();
        if (back == 0) back = at_;
        at_ = target;
        continue;
      }
      if (length == 0) break;
      if (!text.empty()) text += '.';
      for (unsigned i = 0; i < length; ++i) text += static_cast<char>(u8());
    }
    if (back != 0) at_ = back;
    return text.empty() ? "." : text;
  }
  void record(DnsMessage& m, std::vector<DnsRecord>& section) {
    DnsRecord r;
    r.name = name();
    r.type = u16();
    r.klass = u16();
    r.ttl = u32();
    const auto size = u16();
    const auto end = at_ + size;
    if (r.type == 41) return opt(m, r, end);
    if (r.type == 1 || r.type == 28) {
      address(r, size);
    } else if (r.type == 12 || r.type == 2 || r.type == 6 || r.type == 5) {
      r.data = name();
      if (r.type == 6) soa(r);
    } else if (r.type == 33) {
      const auto priority = u16(), weight = u16(), port = u16();
      r.data = std::to_string(priority) + " " + std::to_string(weight) + " " +
               std::to_string(port) + " " + name();
    } else {
      while (ok_ && at_ < end) r.data += static_cast<char>(u8());
    }
    if (at_ != end) ok_ = false;
    section.push_back(std::move(r));
  }
  void address(DnsRecord& r, unsigned size) {
    char text[8];
    for (unsigned i = 0; i < size; ++i) {
      if (size == 4) {
        std::snprintf(text, sizeof text, i == 0 ? "%u" : ".%u", u8());
      } else {
        std::snprintf(text, sizeof text, i == 0 || i % 2 == 1 ? "%02x" : ":%02x", u8());
      }
      r.data += text;
    }
  }
  void soa(DnsRecord& r) {
    r.data += " " + name();
    for (int i = 0; i < 5; ++i) r.data += " " + std::to_string(u32());
  }
  void opt(DnsMessage& m, const DnsRecord& r, std::size_t end) {
    if (m.edns || r.name != ".") ok_ = false;  // one, at the root
    m.edns = true;
    m.payload = r.klass;
    m.rcode |= (r.ttl >> 24) << 4;
    m.dnssec_ok = (r.ttl & 0x8000) != 0;
    while (ok_ && at_ < end) {
      const auto code = u16(), size = u16();
      const auto stop = at_ + size;
      if (code == 15) {
        m.ede = static_cast<int>(u16());
        while (ok_ && at_ < stop) m.ede_text += static_cast<char>(u8());
      }
      at_ = stop;
    }
    if (at_ != end) ok_ = false;
  }

  const Octets& bytes_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

inline DnsMessage read_message(const Octets& bytes) {
  auto message = DnsReader(bytes).read();
  EXPECT_TRUE(message.ok) << "malformed: " << testing::PrintToString(bytes);
  return message;
}

}  // namespace meshd
