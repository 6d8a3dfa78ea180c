#include "policy/name.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "policy/limits.h"

namespace meshd::policy {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_alnum(char c) { return is_lower(c) || is_digit(c); }

// Resolved specially by clients, or parts of our own names.
constexpr std::array kReserved = {"localhost", "wpad", "isatap", "id", "svc", "wf", "why"};

std::string shape_problem(std::string_view text) {
  if (text.empty()) return "is empty";
  if (text.size() > kMaxLabelBytes) return "is longer than 63 characters";
  const bool shaped = std::ranges::all_of(text, [](char c) { return is_alnum(c) || c == '-'; }) &&
                      text.front() != '-' && text.back() != '-';
  if (!shaped) return "is not a DNS label: a-z, 0-9 and inner hyphens";
  return {};
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> labels;
  while (true) {
    const auto dot = text.find('.');
    labels.push_back(text.substr(0, dot));
    if (dot == std::string_view::npos) return labels;
    text.remove_prefix(dot + 1);
  }
}

}  // namespace

bool is_uuid(std::string_view text) {
  constexpr std::size_t kBytes = 27, kDashes[] = {5, 11};
  if (text.size() != kBytes) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == kDashes[0] || i == kDashes[1];
    if (dash ? text[i] != '-' : !is_alnum(text[i])) return false;
  }
  return true;
}

std::string label_problem(LabelKind kind, std::string_view text) {
  auto problem = shape_problem(text);
  if (!problem.empty() || kind == LabelKind::kPortName) return problem;
  // Covers xn-- (RFC 5890) and the separator of proxied names.
  if (text.find("--") != std::string_view::npos) return "must not contain \"--\"";
  if (std::ranges::all_of(text, is_digit)) return "must not be all digits";
  if (std::ranges::find(kReserved, text) != kReserved.end()) return "is a reserved word";
  if (kind == LabelKind::kName && is_uuid(text)) {
    return "must not look like a container's UUID";
  }
  return {};
}

std::string owner_problem(std::string_view text) {
  if (text.empty()) return "is missing";
  if (text.size() > kMaxOwnerBytes) return "is longer than 128 characters";
  const bool shaped = std::ranges::all_of(
      text, [](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '@' || c == '-'; });
  return shaped ? "" : "may contain a-z, 0-9 and . _ @ - only";
}

std::string zone_problem(std::string_view text) {
  // With the longest of our names in front it must stay below 253 bytes (RFC 1035 2.3.4):
  // <63>.<63>.wf.<zone> and _<15>._tcp. before it.
  constexpr std::size_t kMaxZoneBytes = 253 - 63 - 63 - 5 - 24;
  if (text.empty()) return "is empty";
  if (text.size() > kMaxZoneBytes) return fmt::format("is longer than {} bytes", kMaxZoneBytes);
  const auto labels = split(text);
  if (labels.size() < 2) return "must have at least two labels";
  for (const auto label : labels) {
    if (const auto problem = shape_problem(label); !problem.empty()) return problem;
  }
  if (std::ranges::all_of(labels.back(), is_digit)) return "must not end in a number";
  return {};
}

std::string instance_fqdn(std::string_view zone, std::string_view id) {
  return fmt::format("{}.id.{}", id, zone);
}

std::string service_fqdn(std::string_view zone, const ServiceKey& key) {
  if (key.scope == Scope::kCluster) return fmt::format("{}.svc.{}", key.name, zone);
  return fmt::format("{}.{}.wf.{}", key.name, key.workflow, zone);
}

std::vector<std::string> search_list(std::string_view zone, std::string_view workflow) {
  std::vector<std::string> result;
  if (!workflow.empty()) result.push_back(fmt::format("{}.wf.{}", workflow, zone));
  result.push_back(fmt::format("svc.{}", zone));
  return result;
}

std::optional<ParsedName> parse_fqdn(std::string_view zone, std::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (lower.ends_with('.')) lower.pop_back();
  const auto suffix = "." + std::string(zone);
  if (!lower.ends_with(suffix)) return std::nullopt;
  lower.resize(lower.size() - suffix.size());
  const auto labels = split(lower);
  const auto label = [&](std::size_t i) { return std::string(labels[i]); };
  if (labels.size() == 2 && labels[1] == "id") return ParsedName{label(0), std::nullopt};
  if (labels.size() == 2 && labels[1] == "svc") {
    return ParsedName{{}, ServiceKey{Scope::kCluster, {}, label(0)}};
  }
  if (labels.size() == 3 && labels[2] == "wf") {
    return ParsedName{{}, ServiceKey{Scope::kWorkflow, label(1), label(0)}};
  }
  return std::nullopt;
}

std::string service_text(const ServiceKey& key) {
  if (key.scope == Scope::kCluster) return key.name;
  return key.name + " of workflow " + key.workflow;
}

}  // namespace meshd::policy
