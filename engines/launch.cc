#include "engines/launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace meshd::engines {
namespace {

constexpr std::size_t kMaxIdBytes = 63;
constexpr std::size_t kShortBytes = 12;

bool is_small(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

std::optional<std::string_view> label(const Launch& launch, std::string_view key) {
  const auto found = launch.labels.find(std::string(key));
  if (found == launch.labels.end()) return std::nullopt;
  return std::string_view(found->second);
}

}  // namespace

bool is_arvados_container(std::string_view id) {
  constexpr std::string_view kMiddle = "-dz642-";
  return id.size() == 27 && id.substr(5, kMiddle.size()) == kMiddle &&
         std::ranges::all_of(id.substr(0, 5), is_small) &&
         std::ranges::all_of(id.substr(12), is_small);
}

bool is_id(std::string_view text) {
  return !text.empty() && text.size() <= kMaxIdBytes && is_small(text.front()) &&
         is_small(text.back()) &&
         std::ranges::all_of(text, [](char c) { return is_small(c) || c == '-'; }) &&
         !text.contains("--");
}

bool is_number(std::string_view text) {
  return text.size() == kNumberBytes && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::vector<std::string> ids_of(const Launch& launch) {
  std::vector<std::string> ids;
  for (const auto& name : launch.names) {
    auto id = is_number(name) ? name.substr(0, kShortBytes) : name;
    if (is_id(id) && std::ranges::find(ids, id) == ids.end()) ids.push_back(std::move(id));
  }
  return ids;
}

Decision undeclared(const Notes& notes) {
  switch (notes.undeclared) {
    case Notes::Undeclared::kClosed:
      return {.kind = Decision::Kind::kClosed};
    case Notes::Undeclared::kRefuse:
      return {.kind = Decision::Kind::kRefuse};
    case Notes::Undeclared::kIgnore:
      break;
  }
  return {.kind = Decision::Kind::kLeave};
}

Result<Decision> decide(const Launch& launch, const Notes& notes) {
  const auto ids = ids_of(launch);
  const auto given = label(launch, kIdKey);
  const auto declaration = label(launch, kDeclarationKey);
  if (given && !is_id(*given)) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: must be a DNS label", kIdKey));
  }
  if (declaration && declaration->empty()) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: is empty", kDeclarationKey));
  }
  if (given || declaration) {
    if (!given && ids.empty()) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("{}: the container has no name that can be its id; give {}",
                              kDeclarationKey, kIdKey));
    }
    Decision decision{.kind = Decision::Kind::kAttach,
                      .id = given ? std::string(*given) : ids.front()};
    if (!declaration) return decision;
    decision.declaration = *declaration;
    decision.owner = label(launch, kOwnerKey).value_or("");
    if (decision.owner.empty()) decision.owner = kDefaultOwner;
    decision.workflow = label(launch, kWorkflowKey).value_or("");
    return decision;
  }
  for (const auto& id : ids) {
    if (notes.declared.contains(id)) return Decision{.kind = Decision::Kind::kAttach, .id = id};
  }
  if (notes.in_cluster) {
    const auto found = std::ranges::find_if(ids, is_arvados_container);
    if (found != ids.end()) return Decision{.kind = Decision::Kind::kAsk, .id = *found};
  }
  return undeclared(notes);
}

}  // namespace meshd::engines
