#include "arvados/requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "arvados/json.h"
#include "arvados/limits.h"
#include "policy/authored.h"
#include "policy/limits.h"
#include "policy/name.h"

namespace meshd::arvados {
namespace {

using policy::Declaration;
using policy::Publication;

// Upstream lets labels be of any length and content; ours stand in tables and pages.
std::string shown_label(std::string_view text) {
  std::string label(text.substr(0, policy::kMaxTextBytes));
  if (text.size() > label.size()) {
    // Not in the middle of a character (RFC 3629: the bytes that follow are 10xxxxxx).
    const auto follows = [&](std::size_t at) {
      return (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;
    };
    std::size_t end = label.size();
    while (end > 0 && follows(end)) --end;
    label.resize(end);
  }
  for (std::size_t i = 0; i < label.size(); ++i) {
    const auto byte = static_cast<unsigned char>(label[i]);
    const bool c1 =
        byte == 0xc2 && i + 1 < label.size() && static_cast<unsigned char>(label[i + 1]) < 0xa0;
    if (byte < 0x20 || byte == 0x7f) label[i] = ' ';
    if (c1) label[i] = label[i + 1] = ' ';
  }
  return label;
}

// Upstream appends initial_path to a URL, whatever it is; ours begins with exactly one slash
// and is a path on the same host to every browser.
std::string shown_path(std::string_view text) {
  while (!text.empty() && (text.front() == '/' || text.front() == '\\')) text.remove_prefix(1);
  if (text.empty()) return {};
  std::string path = "/";
  for (const char c : text) {
    if (c > 0x20 && c < 0x7f && c != '\\') {
      path += c;
    } else {
      path += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return path.size() > policy::kMaxPathBytes ? std::string() : path;
}

Publication publication_of(std::uint16_t port, const PublishedPort& published) {
  Publication publication;
  publication.port = port;
  publication.http = true;
  publication.label = shown_label(published.label);
  publication.path = shown_path(published.initial_path);
  publication.access = published.is_public ? policy::Access::kPublic : policy::Access::kOwner;
  return publication;
}

// What the author says of a port himself counts for it alone.
void add_published(const ContainerRequest& request, Declaration& declaration) {
  const auto said = declaration.publish;
  for (const auto& [port, published] : request.published) {
    const bool said_already = std::ranges::any_of(
        said, [&](const auto& own) { return own.proto == Proto::kTcp && own.port == port; });
    if (!said_already) declaration.publish.push_back(publication_of(port, published));
  }
}

Declaration bare_declaration(const ContainerRequest& request) {
  Declaration declaration;
  declaration.id = request.container;
  declaration.owner = request.owner;
  declaration.workflow = request.workflow;
  declaration.scope = request.workflow.empty() ? policy::Scope::kCluster : policy::Scope::kWorkflow;
  declaration.admit = request.workflow.empty() ? policy::Admit::kOwner : policy::Admit::kWorkflow;
  return declaration;
}

Result<Declaration> declaration_of(const ContainerRequest& request) {
  if (!request.problem.empty()) return fail(ErrorCode::kInvalid, request.problem);
  auto declaration = bare_declaration(request);
  if (request.declaration) {
    constexpr std::string_view kWhere = "properties.meshd";
    // CWL makes an address of what a mapping calls `name`, and leaves a text as it is.
    const bool is_text = request.declaration->quoted;
    const auto said =
        is_text ? TRY(policy::read_yaml(kWhere, request.declaration->text)) : *request.declaration;
    declaration = TRY(
        policy::read_authored(kWhere, said, {request.container, request.owner, request.workflow}));
  }
  add_published(request, declaration);
  if (declaration.publish.size() > policy::kMaxPublish) {
    return fail(ErrorCode::kInvalid,
                fmt::format("published_ports: with properties.meshd.publish these are {} entries, "
                            "{} are allowed",
                            declaration.publish.size(), policy::kMaxPublish));
  }
  return declaration;
}

bool is_older(const ContainerRequest& a, const ContainerRequest& b) {
  return std::tie(a.created_at, a.uuid) < std::tie(b.created_at, b.uuid);
}

std::string link_problem(const PortLink& link) {
  if (!link.problem.empty()) return link.problem;
  const auto why = policy::label_problem(policy::LabelKind::kName, link.name);
  return why.empty() ? std::string() : fmt::format("name: {} {}", policy::quote(link.name), why);
}

void add_names(const Listing& listing, Site& site) {
  std::map<std::string_view, std::string_view> containers;  // by request
  for (const auto& [container, by_user] : listing.requests.by_container()) {
    for (const auto& [user, request] : by_user) containers.emplace(request.uuid, container);
  }
  for (const auto& link : listing.links) {
    auto problem = link_problem(link);
    const auto at = containers.find(link.request);
    if (problem.empty() && at == containers.end()) {
      site.ended_names.insert(link.name);
      continue;
    }
    if (problem.empty() &&
        !site.names.emplace(link.name, PortName{std::string(at->second), link.request, link.port})
             .second) {
      problem = fmt::format("name: {} stands in another link", policy::quote(link.name));
    }
    if (!problem.empty()) {
      site.link_problems.emplace(link.uuid, LinkProblem{link.request, std::move(problem)});
    }
  }
}

// Before it was declared: whose it is, and as what.
Listed first_listed(const Site::ByOwner& by_owner) {
  if (by_owner.size() == 1) return by_owner.begin()->second;
  auto result = by_owner.begin()->second;
  result.declaration = closed(result.declaration);
  result.draining = false;
  result.is_service = false;
  result.problem = fmt::format("container request {}: requests of {} users share its container",
                               result.request, by_owner.size());
  result.request.clear();
  return result;
}

// Why a workload stays as it is; empty: it is as its owner's request says.
std::string stay_text(const Declared& have, const Listed* want) {
  if (have.request.empty()) return "requests of several users shared it when it was heard of first";
  if (want == nullptr) {
    return fmt::format("no request of {} is on it any more; it stays as declared",
                       have.declaration.owner);
  }
  if (have.declaration.workflow != want->declaration.workflow) {
    return fmt::format("container request {}: is of another run by now; it stays as declared",
                       want->request);
  }
  return {};
}

}  // namespace

void RequestSet::add(ContainerRequest request) {
  const auto size = request.declaration ? weight(*request.declaration) : 0;
  auto& bytes = bytes_[request.owner];
  if (bytes + size > kMaxUserBytes) {
    request.declaration.reset();
    request.problem = fmt::format("properties.meshd: this user's are together larger than {} MiB",
                                  kMaxUserBytes >> 20);
  } else {
    bytes += size;
  }
  auto& by_user = by_container_[request.container];
  const auto at = by_user.find(request.owner);
  if (at == by_user.end()) {
    by_user.emplace(request.owner, std::move(request));
  } else if (is_older(request, at->second)) {
    at->second = std::move(request);
  }
}

const Listed* Site::find(const std::string& container, const std::string& owner) const {
  const auto by_owner = workloads.find(container);
  if (by_owner == workloads.end()) return nullptr;
  const auto at = by_owner->second.find(owner);
  return at == by_owner->second.end() ? nullptr : &at->second;
}

policy::Declaration closed(const policy::Declaration& declaration) {
  ContainerRequest request;
  request.container = declaration.id;
  request.owner = declaration.owner;
  request.workflow = declaration.workflow;
  return bare_declaration(request);
}

Listed listed(const ContainerRequest& request) {
  Listed result;
  result.request = request.uuid;
  result.draining = request.priority == 0 || !request.is_committed;
  result.is_service = request.is_service;
  auto declaration = declaration_of(request);
  if (declaration) {
    result.declaration = *std::move(declaration);
  } else {
    result.declaration = bare_declaration(request);
    result.problem =
        fmt::format("container request {}: {}", request.uuid, declaration.error().what);
  }
  return result;
}

Site site_of(const Listing& listing) {
  Site site;
  for (const auto& [container, by_user] : listing.requests.by_container()) {
    for (const auto& [user, request] : by_user) {
      site.workloads[container].emplace(user, listed(request));
    }
  }
  add_names(listing, site);
  return site;
}

Steps difference(const std::map<std::string, Declared>& have, const Site& want,
                 const std::set<std::string>& ended) {
  Steps steps;
  for (const auto& [id, by_owner] : want.workloads) {
    const auto had = have.find(id);
    if (had == have.end()) {
      steps.declare.push_back(first_listed(by_owner));
      const auto& problem = steps.declare.back().problem;
      if (!problem.empty()) steps.problems.emplace(id, problem);
      continue;
    }
    const auto& [declaration, draining, request, is_service] = had->second;
    const auto* const wanted = want.find(id, declaration.owner);
    if (auto why = stay_text(had->second, wanted); !why.empty()) {
      steps.problems.emplace(id, std::move(why));
      continue;
    }
    if (!wanted->problem.empty()) steps.problems.emplace(id, wanted->problem);
    if (declaration != wanted->declaration || draining != wanted->draining ||
        request != wanted->request || is_service != wanted->is_service) {
      steps.declare.push_back(*wanted);
    }
  }
  for (const auto& id : ended) {
    if (have.contains(id) && !want.workloads.contains(id)) steps.forget.push_back(id);
  }
  return steps;
}

}  // namespace meshd::arvados
