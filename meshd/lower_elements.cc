// The half of lower_ruleset.h that is about sets and their elements.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "meshd/lower_ruleset.h"
#include "policy/render.h"

namespace meshd {
namespace {

using netlink::KeyType;
using policy::Component;

std::vector<KeyType> key_types(std::span<const Component> components) {
  std::vector<KeyType> types;
  for (const auto component : components) types.push_back(lower_component(component));
  return types;
}

std::array<netlink::SetSpec, policy::kSetCount> make_sets() {
  std::array<netlink::SetSpec, policy::kSetCount> sets;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const auto& info = policy::set_info(static_cast<policy::SetId>(i));
    sets[i] = {.name = std::string(info.name),
               .key = key_types(info.key),
               .data = key_types(info.data),
               .size = info.size,
               .interval = info.interval,
               .counter = info.counter};
    if (policy::is_number_map(info)) sets[i].data.push_back(sets[i].data[0]);
  }
  return sets;
}

using NumberTwice = std::array<std::uint8_t, 8>;

// Calls `put` for each run of elements of one set.
template <class Put>
Status for_each_set(const std::vector<policy::Element>& elements, Put put) {
  std::vector<netlink::ElementView> views;
  std::vector<NumberTwice> doubled;
  for (auto it = elements.begin(); it != elements.end();) {
    const auto set = it->set;
    const auto end =
        std::find_if(it, elements.end(), [set](const auto& e) { return e.set != set; });
    views.clear();
    doubled.clear();
    const bool twice = policy::is_number_map(policy::set_info(set));
    if (twice) doubled.reserve(static_cast<std::size_t>(end - it));
    for (; it != end; ++it) {
      if (!policy::is_well_formed(*it)) {
        return fail(ErrorCode::kInternal,
                    fmt::format("an element of {} is not well formed: {}", policy::set_name(set),
                                policy::element_text(*it)));
      }
      views.push_back({it->key(), it->key_end(), it->data()});
      if (!twice) continue;
      auto& value = doubled.emplace_back();
      std::ranges::copy(it->data(), std::ranges::copy(it->data(), value.begin()).out);
      views.back().data = value;
    }
    CHECK_OK(put(lower_set(set), views));
  }
  return {};
}

}  // namespace

netlink::KeyType lower_component(Component component) {
  switch (component) {
    case Component::kIfname:
      return KeyType::kIfname;
    case Component::kEther:
      return KeyType::kEther;
    case Component::kAddr4:
      return KeyType::kIpv4;
    case Component::kAddr6:
      return KeyType::kIpv6;
    case Component::kProto:
      return KeyType::kProto;
    case Component::kPort:
      return KeyType::kPort;
    case Component::kUid:
      return KeyType::kUid;
    case Component::kMark:
    case Component::kSlot:
      break;
  }
  return KeyType::kMark;
}

const netlink::SetSpec& lower_set(policy::SetId set) {
  static const auto kSets = make_sets();
  return kSets[static_cast<std::size_t>(set)];
}

netlink::SetSpec lower_set(const policy::DynamicSet& set) {
  return {.name = set.name,
          .key = {lower_component(set.key)},
          .size = set.size,
          .dynamic = true,
          .has_timeout = set.timeout.count() > 0,
          .timeout = set.timeout};
}

Status put_delta(netlink::NftBatch& batch, const policy::Delta& delta) {
  CHECK_OK(for_each_set(delta.remove, [&batch](const auto& set, const auto& elements) {
    return batch.del_elements(set, elements);
  }));
  return for_each_set(delta.add, [&batch](const auto& set, const auto& elements) {
    return batch.put_elements(set, elements);
  });
}

std::optional<policy::Element> raise_element(policy::SetId set,
                                             const netlink::ElementView& element) {
  policy::Element raised;
  raised.set = set;
  const auto key = element.key, end = element.key_end;
  auto data = element.data;
  if (policy::is_number_map(policy::set_info(set))) {
    const auto half = data.size() / 2;
    if (!std::ranges::equal(data.first(half), data.subspan(half))) return std::nullopt;
    data = data.first(half);
  }
  if (key.size() + end.size() + data.size() > raised.bytes.size()) return std::nullopt;
  raised.key_size = static_cast<std::uint8_t>(key.size());
  raised.end_size = static_cast<std::uint8_t>(end.size());
  raised.data_size = static_cast<std::uint8_t>(data.size());
  auto* at = std::ranges::copy(key, raised.bytes.data()).out;
  at = std::ranges::copy(end, at).out;
  std::ranges::copy(data, at);
  if (!policy::is_well_formed(raised)) return std::nullopt;
  return raised;
}

std::optional<policy::SetId> raise_set(std::string_view name) {
  for (std::size_t i = 0; i < policy::kSetCount; ++i) {
    const auto id = static_cast<policy::SetId>(i);
    if (policy::set_name(id) == name) return id;
  }
  return std::nullopt;
}

}  // namespace meshd
