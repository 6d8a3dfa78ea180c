#include "proxy/overview.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "pki/secret.h"

namespace meshd::proxy {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool has(std::string_view text, std::string_view wanted) {
  return std::ranges::search(text, wanted, {}, lower, lower).begin() != text.end();
}

bool matches(const Shown& one, std::string_view find) {
  return std::ranges::any_of(std::initializer_list<std::string_view>{one.id, one.service, one.owner,
                                                                     one.workflow, one.node},
                             [&](std::string_view text) { return has(text, find); });
}

class Viewing {
 public:
  Viewing(const Overview& overview, const Viewer& viewer)
      : overview_(overview), shape_(*overview.shape), viewer_(viewer) {}

  View view(std::string_view find) {
    choose(find);
    edges();
    wishes();
    refusals();
    for (auto& [key, other] : others_) view_.others.push_back(std::move(other));
    for (auto& [ends, edge] : edges_) view_.edges.push_back(std::move(edge));
    return std::move(view_);
  }

 private:
  enum class Part : std::uint8_t { kHidden, kLeftOut, kShown };

  [[nodiscard]] bool sees(const Shown& one) const { return viewer_.sees(one.owner, one.id); }

  void choose(std::string_view find) {
    const auto count = shape_.workloads.size();
    parts_.assign(count, Part::kHidden);
    std::vector<bool> wanted(count, false);
    for (std::size_t i = 0; i < count; ++i) {
      if (!sees(shape_.workloads[i])) continue;
      parts_[i] = Part::kLeftOut;
      wanted[i] = find.empty() || matches(shape_.workloads[i], find);
    }
    if (!find.empty()) {
      const auto found = wanted;
      for (const auto& edge : shape_.edges) {
        if (found[edge.consumer]) wanted[edge.provider] = true;
        if (found[edge.provider]) wanted[edge.consumer] = true;
      }
    }
    // Their own before others'.
    for (const bool own : {true, false}) {
      for (std::size_t i = 0; i < count; ++i) {
        if (parts_[i] != Part::kLeftOut || !wanted[i]) continue;
        if (own != (shape_.workloads[i].owner == viewer_.owner)) continue;
        if (shown_++ < kMaxShown) parts_[i] = Part::kShown;
      }
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (parts_[i] == Part::kShown) view_.workloads.push_back(&shape_.workloads[i]);
      if (parts_[i] == Part::kLeftOut) ++view_.left_out;
    }
  }

  std::string other(Other::Kind kind, std::string_view word, std::string_view label) {
    auto key = fmt::format("{} {}", word, label);
    others_.try_emplace(key, Other{key, kind, std::string(label)});
    return key;
  }
  std::string peer(std::string_view service, std::string_view id) {
    return service.empty() ? other(Other::Kind::kWorkload, "workload", id)
                           : other(Other::Kind::kService, "service", service);
  }
  std::string consumer_of(const DeclaredEdge& edge) {
    const auto& consumer = shape_.workloads[edge.consumer];
    if (edge.names_consumer) return other(Other::Kind::kOwner, "owner", consumer.owner);
    return other(Other::Kind::kSomebody, "somebody", "others");
  }

  ShownEdge* edge_between(const std::string& from, const std::string& to) {
    const auto ends = std::pair(from, to);
    if (!edges_.contains(ends) && edges_.size() >= kMaxShownEdges) return nullptr;
    auto& edge = edges_[ends];
    edge.from = from;
    edge.to = to;
    return &edge;
  }

  void edges() {
    for (const auto& edge : shape_.edges) {
      const auto from = parts_[edge.consumer], to = parts_[edge.provider];
      if (from != Part::kShown && to != Part::kShown) continue;
      // What is left out is not made a stranger of.
      if (from == Part::kLeftOut || to == Part::kLeftOut) continue;
      const auto& consumer = shape_.workloads[edge.consumer];
      const auto& provider = shape_.workloads[edge.provider];
      auto* shown =
          edge_between(from == Part::kShown ? consumer.id : consumer_of(edge),
                       to == Part::kShown ? provider.id : peer(edge.service, provider.id));
      if (shown == nullptr) continue;
      shown->open = true;
      for (const auto& ports : edge.ports) {
        auto text = port_text(ports.proto, ports.first, ports.last);
        if (std::ranges::find(shown->ports, text) == shown->ports.end()) {
          shown->ports.push_back(std::move(text));
        }
      }
      add_traffic(consumer.id, provider.id, *shown);
    }
  }

  void add_traffic(const std::string& consumer, const std::string& provider,
                   ShownEdge& edge) const {
    if (overview_.traffic == nullptr) return;
    const auto& all = *overview_.traffic;
    const auto ends = [](const FlowRate& rate) { return std::tie(rate.consumer, rate.provider); };
    const auto range = std::ranges::equal_range(all, std::tie(consumer, provider), {}, ends);
    for (const auto& rate : range) {
      const auto text = port_text(rate.proto, rate.port, rate.port);
      auto flow = std::ranges::find(edge.flows, text, &ShownEdge::Flow::port);
      if (flow == edge.flows.end()) flow = edge.flows.insert(flow, {text, 0, 0});
      flow->bytes += rate.bytes;
      flow->packets += rate.packets;
    }
  }

  void wishes() {
    for (const auto& wish : shape_.wishes) {
      if (parts_[wish.consumer] != Part::kShown) continue;
      auto* shown = edge_between(shape_.workloads[wish.consumer].id, peer(wish.service, wish.id));
      if (shown == nullptr) return;
    }
  }

  void refusals() {
    if (overview_.refusals == nullptr) return;
    for (const auto& refusal : *overview_.refusals) {
      const bool consumer = viewer_.sees(refusal.consumer_owner, refusal.consumer);
      const bool provider =
          !refusal.provider_owner.empty() && viewer_.sees(refusal.provider_owner, refusal.provider);
      if (!consumer && !provider) continue;
      if (view_.refusals.size() >= kMaxShownRefusals) return;
      auto& shown = view_.refusals.emplace_back(refusal);
      if (!provider && refusal.whose != ShownRefusal::Whose::kProvider) {
        shown.provider_owner.clear();
      }
    }
  }

  const Overview& overview_;
  const Shape& shape_;
  const Viewer& viewer_;
  std::vector<Part> parts_;
  std::size_t shown_ = 0;
  View view_;
  std::map<std::string, Other> others_;
  std::map<std::pair<std::string, std::string>, ShownEdge> edges_;
};

}  // namespace

const Shown* Shape::find(std::string_view id) const {
  const auto at = std::ranges::lower_bound(workloads, id, {}, &Shown::id);
  return at == workloads.end() || at->id != id ? nullptr : &*at;
}

bool Viewer::sees(std::string_view owner_of_it, std::string_view id) const {
  return admin || (!owner.empty() && owner_of_it == owner) ||
         std::ranges::binary_search(owners, owner_of_it) || std::ranges::binary_search(ids, id);
}

std::string Viewer::key() const {
  // None of them can hold a line's end.
  std::string text = fmt::format("{}\n{}\n{}\n", admin ? "admin" : "", owner, name);
  for (const auto* list : {&owners, &ids}) {
    for (const auto& one : *list) text.append(one) += '\n';
    text += "\n";
  }
  constexpr std::size_t kBytes = 16;
  const auto digest = pki::sha256(text);
  return pki::to_hex(std::span(digest).first<kBytes>());
}

std::string port_text(Proto proto, std::uint16_t first, std::uint16_t last) {
  return first == last ? fmt::format("{}/{}", proto_name(proto), first)
                       : fmt::format("{}/{}-{}", proto_name(proto), first, last);
}

View visible(const Overview& overview, const Viewer& viewer, std::string_view find) {
  return Viewing(overview, viewer).view(find);
}

}  // namespace meshd::proxy
