#include "dns/loop_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "dns/random.h"

namespace meshd::dns {
namespace {

constexpr std::size_t kLabel = 16;                        // hexadecimal digits of 64 bits
constexpr std::size_t kProbeName = 2 * (kLabel + 1) + 1;  // wire form

}  // namespace

LoopWatch::LoopWatch() {
  std::array<std::uint8_t, kLabel / 2> random{};
  random_bytes(random);
  for (const auto byte : random) tag_ += fmt::format("{:02x}", byte);
}

Query LoopWatch::probe(std::uint64_t nonce) const {
  Query query;
  query.lower = static_cast<char>(kLabel) + fmt::format("{:016x}", nonce) +
                static_cast<char>(kLabel) + tag_ + '\0';
  query.name = query.lower;
  query.type = type::kHinfo;
  query.klass = 1;
  return query;
}

bool LoopWatch::saw(const Query& query) {
  const std::string_view name = query.lower;
  if (name.size() != kProbeName || query.type != type::kHinfo) return false;
  if (name[0] != kLabel || name.substr(kLabel + 2, kLabel) != tag_) return false;
  std::uint64_t nonce = 0;
  const auto digits = name.substr(1, kLabel);
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), nonce, 16);
  if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) return false;
  seen_[next_.fetch_add(1, std::memory_order_relaxed) % seen_.size()].store(
      nonce, std::memory_order_release);
  return true;
}

bool LoopWatch::came_back(std::uint64_t nonce) const {
  return std::ranges::any_of(
      seen_, [&](const auto& one) { return one.load(std::memory_order_acquire) == nonce; });
}

}  // namespace meshd::dns
