// Settings and elements for tests of the ruleset: random, but such that the kernel takes
// them: keys unique, intervals apart from each other.
#pragma once

#include <algorithm>
#include <map>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "policy/ruleset.h"
#include "policy/types.h"

namespace meshd::test {

inline IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }
inline Prefix prefix(std::string_view text) { return Prefix::parse(text).value(); }

inline policy::Settings sample_settings() {
  policy::Settings settings;
  settings.node_name = "node1";
  settings.pool4 = prefix("10.213.0.0/16");
  settings.vip_pool4 = prefix("10.214.0.0/16");
  settings.pool6 = prefix("fd5a:1:2:1::/64");
  settings.vip_pool6 = prefix("fd5a:1:2:2::/64");
  settings.resolver4[0] = ip("169.254.1.1");
  settings.resolver4[1] = ip("169.254.1.2");
  settings.resolver6[0] = ip("fd5a:1:2:53::1");
  settings.resolver6[1] = ip("fd5a:1:2:53::2");
  return settings;
}

class RandomElements {
 public:
  explicit RandomElements(unsigned seed) : random_(seed) {}

  // About `per_set` in each set, sorted. What two calls have in common is up to chance, and
  // frequent: components come from small ranges.
  std::vector<policy::Element> make(std::size_t per_set) {
    std::vector<policy::Element> elements;
    for (std::size_t i = 0; i < policy::kSetCount; ++i) {
      std::map<std::vector<std::uint8_t>, policy::Element> by_key;
      for (std::size_t n = 0; n < per_set; ++n) {
        const auto element = one(static_cast<policy::SetId>(i));
        by_key.emplace(std::vector(element.key().begin(), element.key().end()), element);
      }
      for (const auto& [key, element] : by_key) elements.push_back(element);
    }
    std::ranges::sort(elements);
    return elements;
  }

 private:
  using Component = policy::Component;

  std::uint32_t below(std::uint32_t limit) { return static_cast<std::uint32_t>(random_() % limit); }

  // A block of 256 addresses: intervals of different blocks never overlap.
  IpAddress block(bool v4) {
    const std::uint64_t first = below(64) * 256ULL;
    return (v4 ? ip("10.0.0.0") : ip("fd00::")).plus(first);
  }
  void put(policy::ElementBuilder& builder, Component component) {
    switch (component) {
      case Component::kIfname:
        builder.ifname("mesh" + std::to_string(below(20)));
        break;
      case Component::kEther:
        builder.ether(Mac{{2, 0, 0, 0, 0, static_cast<std::uint8_t>(below(4))}});
        break;
      case Component::kAddr4:
        builder.addr(ip("10.213.0.0").plus(below(40)));
        break;
      case Component::kAddr6:
        builder.addr(ip("fd5a::").plus(below(40)));
        break;
      case Component::kProto:
        builder.proto(below(2) == 0 ? Proto::kTcp : Proto::kUdp);
        break;
      case Component::kPort:
        builder.port(static_cast<std::uint16_t>(80 + below(20)));
        break;
      case Component::kMark:
      case Component::kUid:
        builder.number(1 + below(30));
        break;
      case Component::kSlot:
        builder.number(below(policy::kSlots));
        break;
    }
  }

  policy::Element one(policy::SetId id) {
    const auto& info = policy::set_info(id);
    policy::ElementBuilder builder(id);
    if (info.interval) {
      interval(builder, info.key);
    } else {
      for (const auto component : info.key) put(builder, component);
    }
    if (!info.data.empty()) builder.data();
    for (const auto component : info.data) put(builder, component);
    return builder.build();
  }
  void interval(policy::ElementBuilder& builder, std::span<const Component> key) {
    const std::uint32_t mark = 1 + below(5);
    const bool v4 = std::ranges::find(key, Component::kAddr4) != key.end();
    const auto first = block(v4);
    // Always the same for one block, so that equal keys have equal ends.
    const auto last = first.plus(static_cast<std::uint64_t>(first.bytes().back() == 0 ? 99 : 0));
    for (const bool end : {false, true}) {
      if (end) builder.end();
      for (const auto component : key) {
        if (component == Component::kMark) builder.number(mark);
        if (component == Component::kAddr4 || component == Component::kAddr6) {
          builder.addr(end ? last : first);
        }
        if (component == Component::kProto) builder.proto(Proto::kTcp);
        if (component == Component::kPort) builder.port(end ? 8100 : 8000);
      }
    }
  }

  std::mt19937 random_;
};

}  // namespace meshd::test
