// The second half of App: tokens, nodes that do not come back, backups and certificates.
#include <fmt/format.h>

#include "controller/app.h"
#include "controller/ticket.h"
#include "pki/certificate.h"

namespace meshd::controller {
namespace {

namespace pb = mesh::v1;

constexpr std::chrono::seconds kPersonLifetime = std::chrono::days(365);

Result<TokenTerms> read_terms(const pb::TokenRequest& request, pki::UtcTime now) {
  const std::chrono::seconds lifetime(request.lifetime_s());
  if (lifetime > kMaxTokenLifetime) {
    return fail(ErrorCode::kInvalid, "token create: good for at most 365 days");
  }
  TokenTerms terms;
  terms.expires_at = now + (lifetime.count() == 0 ? kDefaultTokenLifetime : lifetime);
  for (const auto& text : request.sources()) {
    const auto source = Prefix::parse(text);
    if (!source) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("token create: source {}: not a prefix such as 192.0.2.0/24", text));
    }
    terms.sources.push_back(*source);
  }
  if (request.uses() != 0) terms.uses_left = request.uses();
  terms.name_prefix = request.name_prefix();
  return terms;
}

std::string terms_text(const TokenTerms& terms, pki::UtcTime now) {
  std::string text = "good for " + pki::duration_text(terms.expires_at - now);
  if (terms.uses_left) text += fmt::format(", {} uses", *terms.uses_left);
  if (!terms.name_prefix.empty()) text += fmt::format(", names {}...", terms.name_prefix);
  for (const auto& source : terms.sources) text += ", from " + source.to_string();
  return text;
}

// The roles that people and programs may have. Nodes join, controllers serve themselves.
Result<pki::Role> read_role(const std::string& text) {
  for (const auto role : {pki::Role::kDispatcher, pki::Role::kAdmin, pki::Role::kReader}) {
    if (text == pki::role_name(role)) return role;
  }
  return fail(ErrorCode::kInvalid,
              fmt::format("certify: role {}: none of dispatcher, admin, reader", text));
}

Status status_of(const auto& result) {
  return result ? Status() : Status(std::unexpected(result.error()));
}

}  // namespace

void App::create_token(const pki::Peer& peer, const pb::TokenRequest& request,
                       Reply<pb::TokenReply> reply) {
  const auto now = utc();
  std::string what = "token create";
  const auto make = [&]() -> Result<pb::TokenReply> {
    auto terms = TRY(read_terms(request, now));
    what += ": " + terms_text(terms, now);
    const auto made = TRY(draw_token(std::move(terms)));
    pb::TokenReply answer;
    answer.set_id(made.token.id);
    // Before it is stored: a token that nobody was given is of no use.
    answer.set_ticket(TRY(make_ticket(authority_, controller_.cluster().settings(), made.text)));
    CHECK_OK(controller_.put_token(made.token, now_()));
    what += ", id " + made.token.id;
    return answer;
  };
  auto answer = make();
  audit(peer, "token create", what, status_of(answer));
  reply(std::move(answer));
}

void App::list_tokens(Reply<pb::TokenList> reply) {
  pb::TokenList list;
  for (const auto& [id, token] : controller_.cluster().tokens()) {
    auto& entry = *list.add_tokens();
    entry.set_id(id);
    entry.set_expires_at_s(token.terms.expires_at.time_since_epoch().count());
    for (const auto& source : token.terms.sources) entry.add_sources(source.to_string());
    entry.set_uses_left(token.terms.uses_left ? std::int64_t{*token.terms.uses_left} : -1);
    entry.set_name_prefix(token.terms.name_prefix);
    entry.set_revoked(token.revoked);
  }
  reply(std::move(list));
}

void App::revoke_token(const pki::Peer& peer, const pb::TokenName& request,
                       Reply<pb::Empty> reply) {
  const auto status = controller_.revoke_token(request.id(), now_());
  audit(peer, "token revoke", "token revoke " + request.id(), status);
  if (!status) return reply(std::unexpected(status.error()));
  reply(pb::Empty());
}

void App::dismiss_node(const pki::Peer& peer, const pb::NodeName& request, Reply<pb::Empty> reply) {
  const auto status = controller_.dismiss(request.name(), now_());
  audit(peer, "node dismiss", "node dismiss " + request.name(), status);
  if (!status) return reply(std::unexpected(status.error()));
  reply(pb::Empty());
}

void App::backup(const pki::Peer& peer, const pb::BackupRequest& request, Reply<pb::Empty> reply) {
  const auto& path = request.path();
  // Relative to what? The controller's folder is nobody's business.
  const auto status =
      path.starts_with('/')
          ? controller_.store().backup(path)
          : Status(fail(ErrorCode::kInvalid, fmt::format("backup: {}: no absolute path", path)));
  audit(peer, "backup", "backup " + path, status);
  if (!status) return reply(std::unexpected(status.error()));
  reply(pb::Empty());
}

void App::certify(const pki::Peer& peer, const pb::CertifyRequest& request,
                  Reply<pb::EnrolReply> reply) {
  const auto make = [&]() -> Result<pb::EnrolReply> {
    const auto role = TRY(read_role(request.role()));
    if (const auto why = pki::label_problem(request.name()); !why.empty()) {
      return fail(ErrorCode::kInvalid, "certify: name: " + why);
    }
    pki::Holder holder{.identity = {authority_.cluster, role, request.name()},
                       .lifetime = kPersonLifetime};
    if (request.lifetime_s() != 0) holder.lifetime = std::chrono::seconds(request.lifetime_s());
    return issue(request.csr(), holder);
  };
  auto answer = make();
  audit(peer, "certify", fmt::format("certify {} {}", request.role(), request.name()),
        status_of(answer));
  reply(std::move(answer));
}

}  // namespace meshd::controller
