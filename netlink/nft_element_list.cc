#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "netlink/nft_dump.h"

namespace meshd::netlink {
namespace {

int compare_bytes(ByteSpan a, ByteSpan b) {
  const int order = std::memcmp(a.data(), b.data(), std::min(a.size(), b.size()));
  if (order != 0) return order;
  return a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
}

void subtract_one(std::span<std::uint8_t> number) {
  for (std::size_t i = number.size(); i > 0 && number[i - 1]-- == 0;) --i;
}

bool is_zero(ByteSpan number) {
  return std::ranges::all_of(number, [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

ElementView ElementList::operator[](std::size_t index) const {
  const Entry& entry = entries_[index];
  const ByteSpan all(bytes_.data() + entry.offset, std::size_t{entry.key} + entry.end + entry.data);
  ElementView view;
  view.key = all.first(entry.key);
  view.key_end = all.subspan(entry.key, entry.end);
  view.data = all.subspan(std::size_t{entry.key} + entry.end);
  view.timeout = std::chrono::milliseconds(entry.timeout_ms);
  view.packets = entry.packets;
  view.bytes = entry.bytes;
  return view;
}

bool ElementList::add(const ElementView& element, bool interval_end) {
  if (entries_.size() >= kMaxElements) return false;
  Entry entry;
  entry.offset = static_cast<std::uint32_t>(bytes_.size());  // 4,000,000 * 192 fit
  entry.key = static_cast<std::uint8_t>(element.key.size());
  entry.end = static_cast<std::uint8_t>(element.key_end.size());
  entry.data = static_cast<std::uint8_t>(element.data.size());
  entry.interval_end = interval_end;
  constexpr std::int64_t kLongest = std::numeric_limits<std::uint32_t>::max();
  entry.timeout_ms =
      static_cast<std::uint32_t>(std::clamp<std::int64_t>(element.timeout.count(), 0, kLongest));
  entry.packets = element.packets;
  entry.bytes = element.bytes;
  bytes_.insert(bytes_.end(), element.key.begin(), element.key.end());
  bytes_.insert(bytes_.end(), element.key_end.begin(), element.key_end.end());
  bytes_.insert(bytes_.end(), element.data.begin(), element.data.end());
  entries_.push_back(entry);
  return true;
}

// Entries are sorted by key, an end before a start at the same key: start, end, start, ...
std::size_t ElementList::join_intervals() {
  ElementList joined;
  std::size_t halves = 0;
  std::size_t open = entries_.size();  // index of a start whose end has not come yet
  const auto close = [&](ByteSpan last) {
    ElementView whole = (*this)[open];
    whole.key_end = last;
    joined.add(whole);
    open = entries_.size();
  };
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const ByteSpan key = (*this)[i].key;
    if (!entries_[i].interval_end) {
      if (open != entries_.size()) ++halves;  // two starts in a row: the first has no end
      open = i;
    } else if (open != entries_.size() && entries_[open].key == key.size()) {
      std::array<std::uint8_t, kMaxKeyBytes> last{};
      std::ranges::copy(key, last.begin());
      subtract_one(std::span(last).first(key.size()));
      close(ByteSpan(last.data(), key.size()));
    } else if (!is_zero(key)) {
      ++halves;  // nft puts an end at zero in front of the first interval: no half
    }
  }
  if (open != entries_.size()) {  // the last interval goes on to the last key of all
    std::array<std::uint8_t, kMaxKeyBytes> last{};
    last.fill(0xff);
    close(ByteSpan(last.data(), entries_[open].key));
  }
  *this = std::move(joined);
  return halves;
}

std::size_t ElementList::finish(const SetSpec& set) {
  const auto before = [this](const Entry& a, const Entry& b) {
    const int order = compare_bytes(ByteSpan(bytes_.data() + a.offset, a.key),
                                    ByteSpan(bytes_.data() + b.offset, b.key));
    return order != 0 ? order < 0 : a.interval_end && !b.interval_end;
  };
  std::ranges::sort(entries_, before);
  if (!set.interval) return 0;
  if (!set.is_concat_interval()) return join_intervals();
  // A single key is an interval of one: said once, so that dumps compare.
  ElementList whole;
  for (std::size_t i = 0; i < size(); ++i) {
    ElementView view = (*this)[i];
    if (view.key_end.empty()) view.key_end = view.key;
    whole.add(view);
  }
  *this = std::move(whole);
  return 0;
}

}  // namespace meshd::netlink
