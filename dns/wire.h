// Bounds-checked reading and writing of DNS messages: the only place that knows network
// byte order.
//
// Invariant: never reads or writes outside its span; a failed step makes ok() false, and
//            every later step fails too, so that one check at the end is enough.
// Source:    RFC 1035 section 4.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace meshd::dns {

using Bytes = std::span<const std::uint8_t>;

class Reader {
 public:
  explicit Reader(Bytes data, std::size_t at = 0)
      : data_(data), at_(std::min(at, data.size())), ok_(at <= data.size()) {}

  std::uint8_t u8() { return static_cast<std::uint8_t>(number(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t u32() { return number(4); }
  Bytes take(std::size_t count) {
    if (!ok_ || count > data_.size() - at_) {
      ok_ = false;
      return {};
    }
    const auto result = data_.subspan(at_, count);
    at_ += count;
    return result;
  }
  void skip(std::size_t count) { take(count); }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::size_t at() const { return at_; }
  void seek(std::size_t at) {
    if (at > data_.size()) ok_ = false;
    at_ = std::min(at, data_.size());
  }
  [[nodiscard]] std::size_t left() const { return data_.size() - at_; }
  [[nodiscard]] Bytes data() const { return data_; }
  void fail() { ok_ = false; }

 private:
  std::uint32_t number(std::size_t count) {
    std::uint32_t value = 0;
    for (const auto byte : take(count)) value = value << 8 | byte;
    return value;
  }
  Bytes data_;
  std::size_t at_;
  bool ok_;
};

class Writer {
 public:
  explicit Writer(std::span<std::uint8_t> out) : out_(out) {}

  void u8(std::uint8_t value) { bytes(Bytes(&value, 1)); }
  void u16(std::uint16_t value) {
    const std::uint8_t raw[] = {static_cast<std::uint8_t>(value >> 8),
                                static_cast<std::uint8_t>(value)};
    bytes(raw);
  }
  void u32(std::uint32_t value) {
    u16(static_cast<std::uint16_t>(value >> 16));
    u16(static_cast<std::uint16_t>(value));
  }
  void bytes(Bytes raw) {
    if (!ok_ || raw.size() > out_.size() - at_) {
      ok_ = false;
      return;
    }
    if (!raw.empty()) std::memcpy(out_.data() + at_, raw.data(), raw.size());
    at_ += raw.size();
  }
  void text(std::string_view raw) {
    bytes({reinterpret_cast<const std::uint8_t*>(raw.data()), raw.size()});
  }
  void patch16(std::size_t at, std::uint16_t value) {
    if (at + 2 > at_) return;
    out_[at] = static_cast<std::uint8_t>(value >> 8);
    out_[at + 1] = static_cast<std::uint8_t>(value);
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::size_t at() const { return at_; }
  // Back to an earlier place; forgets a failure behind it.
  void rewind(std::size_t at) {
    at_ = std::min(at, at_);
    ok_ = true;
  }

 private:
  std::span<std::uint8_t> out_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace meshd::dns
