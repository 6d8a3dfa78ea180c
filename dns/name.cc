#include "dns/name.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <vector>

#include "dns/limits.h"

namespace meshd::dns {
namespace {

constexpr std::size_t kMaxLabel = 63;
constexpr std::string_view kInAddr("\7in-addr\4arpa\0", 14);
constexpr std::string_view kIp6("\3ip6\4arpa\0", 10);

char fold(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

std::vector<std::string_view> labels_of(std::string_view wire) {
  std::vector<std::string_view> labels;
  while (wire.size() > 1) {
    labels.push_back(first_label(wire));
    wire = parent(wire);
  }
  return labels;
}

// One label's share of an address. 01.0.0.10 is another name than 1.0.0.10, and nobody's.
std::optional<unsigned> part_of(std::string_view label, bool v4) {
  unsigned value = 0;
  if (label.empty() || label.size() > (v4 ? 3U : 1U)) return std::nullopt;
  if (label.size() > 1 && label.front() == '0') return std::nullopt;
  const char* const begin = label.data();
  const char* const end = begin + label.size();
  const auto [stop, error] = std::from_chars(begin, end, value, v4 ? 10 : 16);
  if (error != std::errc() || stop != end || value > 255) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::string> to_wire(std::string_view text) {
  if (text.ends_with('.')) text.remove_suffix(1);
  std::string wire;
  while (!text.empty()) {
    const auto dot = std::min(text.find('.'), text.size());
    if (dot == 0 || dot > kMaxLabel) return std::nullopt;
    wire += static_cast<char>(dot);
    wire += text.substr(0, dot);
    if (dot + 1 == text.size()) return std::nullopt;  // two dots at the end
    text.remove_prefix(std::min(dot + 1, text.size()));
  }
  wire += '\0';
  if (wire.size() > kMaxNameBytes) return std::nullopt;
  return wire;
}

std::string to_text(std::string_view wire) {
  if (wire.size() <= 1) return ".";
  std::string text;
  for (const auto label : labels_of(wire)) {
    if (!text.empty()) text += '.';
    append_label(text, label);
  }
  return text;
}

void append_label(std::string& text, std::string_view label) {
  for (const char c : label) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte >= 0x7f || c == '.' || c == '\\') {
      text += fmt::format("\\{:03}", byte);
    } else {
      text += c;
    }
  }
}

void read_name(Reader& reader, std::string& out, bool compressed) {
  out.clear();
  std::size_t resume = 0;           // where to go on behind the first pointer
  std::size_t limit = reader.at();  // pointers lead before this, so that they cannot loop
  while (reader.ok()) {
    const std::size_t here = reader.at();
    const auto length = reader.u8();
    if (!reader.ok()) return;
    if ((length & 0xc0U) == 0xc0U) {
      const std::size_t target = (length & 0x3fU) << 8 | reader.u8();
      if (!compressed || target >= limit) return reader.fail();
      if (resume == 0) resume = here + 2;
      limit = target;
      reader.seek(target);
      continue;
    }
    if (length > kMaxLabel) return reader.fail();  // 0x40 and 0x80 were never used
    const auto label = reader.take(length);
    if (!reader.ok() || out.size() + length + 1 > kMaxNameBytes) return reader.fail();
    out += static_cast<char>(length);
    out.append(reinterpret_cast<const char*>(label.data()), label.size());
    if (length == 0) break;
  }
  if (resume != 0) reader.seek(resume);
}

void skip_name(Reader& reader) {
  for (std::size_t total = 0; reader.ok() && total <= kMaxNameBytes;) {
    const auto length = reader.u8();
    if ((length & 0xc0U) == 0xc0U) return reader.skip(1);
    if (length > kMaxLabel) return reader.fail();
    if (length == 0) return;
    reader.skip(length);
    total += length + 1U;
  }
  reader.fail();
}

void lower(std::string& wire) {
  // Length bytes are at most 63, below 'A': folding all bytes leaves them alone.
  for (auto& c : wire) c = fold(c);
}

bool equal_names(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, fold, fold);
}

bool is_under(std::string_view wire, std::string_view zone) {
  while (wire.size() > zone.size()) wire = parent(wire);
  return wire == zone;
}

std::string_view parent(std::string_view wire) {
  if (wire.size() <= 1) return wire;
  return wire.substr(1U + static_cast<unsigned char>(wire.front()));
}

std::size_t label_count(std::string_view wire) {
  std::size_t count = 0;
  for (; wire.size() > 1; wire = parent(wire)) ++count;
  return count;
}

std::string_view first_label(std::string_view wire) {
  return wire.substr(1, static_cast<unsigned char>(wire.front()));
}

std::string reverse_name(const IpAddress& address) {
  std::string wire;
  const auto bytes = address.bytes();
  const auto add = [&](const std::string& label) {
    wire += static_cast<char>(label.size());
    wire += label;
  };
  for (std::size_t i = bytes.size(); i-- > 0;) {
    if (address.is_v4()) {
      add(std::to_string(bytes[i]));
    } else {
      add(fmt::format("{:x}", bytes[i] & 0xf));
      add(fmt::format("{:x}", bytes[i] >> 4));
    }
  }
  wire += address.is_v4() ? kInAddr : kIp6;
  return wire;
}

std::optional<ReverseName> parse_reverse(std::string_view wire) {
  const bool v4 = is_under(wire, kInAddr);
  if (!v4 && !is_under(wire, kIp6)) return std::nullopt;
  const auto family = v4 ? Family::kV4 : Family::kV6;
  std::array<std::uint8_t, 16> bytes{};
  ReverseName result;
  int bits = 0;
  for (std::size_t left = label_count(wire) - 2; left > 0; --left) {
    std::string_view rest = wire;
    for (std::size_t i = 1; i < left; ++i) rest = parent(rest);
    const auto value = bits == (v4 ? 32 : 128) ? std::nullopt : part_of(first_label(rest), v4);
    if (!value) {
      result.exact = false;
      break;
    }
    const auto at = static_cast<std::size_t>(bits / 8);
    bytes[at] = static_cast<std::uint8_t>(v4 || bits % 8 != 0 ? bytes[at] | *value : *value << 4);
    bits += reverse_step(family);
  }
  const std::span<const std::uint8_t, 16> all(bytes);
  result.prefix = Prefix::of(v4 ? IpAddress::v4(all.first<4>()) : IpAddress::v6(all), bits);
  return result;
}

std::string_view reverse_suffix(std::string_view wire, Family family, int bits) {
  const auto wanted = static_cast<std::size_t>(bits / reverse_step(family)) + 2;
  for (auto labels = label_count(wire); labels > wanted; --labels) wire = parent(wire);
  return wire;
}

}  // namespace meshd::dns
