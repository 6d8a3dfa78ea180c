#include "proxy/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "pki/secret.h"
#include "proxy/overview_json.h"
#include "proxy/passes.h"

namespace meshd::proxy {
namespace {

constexpr std::string_view kOpenPath = "/open/";
constexpr std::size_t kMaxFindBytes = 128;

Reply base(int status) {
  Reply reply;
  reply.status = status;
  reply.headers = {{"Content-Security-Policy", std::string(kPagePolicy)},
                   {"X-Content-Type-Options", "nosniff"},
                   {"Referrer-Policy", "no-referrer"},
                   {"Cross-Origin-Opener-Policy", "same-origin"},
                   {"Cross-Origin-Resource-Policy", "same-origin"}};
  return reply;
}

Reply bare(int status) {
  auto reply = base(status);
  reply.headers.emplace_back("Cache-Control", "no-store");
  return reply;
}

Reply errors(int status, std::string_view text) {
  auto reply = bare(status);
  reply.headers.emplace_back("Content-Type", "application/json");
  if (status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (status == 503) reply.headers.emplace_back("Retry-After", "1");
  reply.body = fmt::format("{{\"errors\":[{}]}}\n", json_text(text));
  return reply;
}

// --- files ---------------------------------------------------------------------------

struct File {
  std::string_view type, body;
  std::string tag;
};

std::string_view type_of(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  return name.ends_with(".css") ? "text/css; charset=utf-8" : "text/javascript; charset=utf-8";
}

const std::map<std::string, File, std::less<>>& files() {
  static const auto kFiles = [] {
    constexpr std::size_t kTagBytes = 12;
    std::map<std::string, File, std::less<>> result;
    for (const auto& [name, body] : page_bodies()) {
      const auto digest = pki::sha256(body);
      const auto path = name == "index.html" ? std::string("/") : fmt::format("/{}", name);
      result[path] = {type_of(name), body,
                      fmt::format("\"{}\"", pki::to_hex(std::span(digest).first<kTagBytes>()))};
    }
    return result;
  }();
  return kFiles;
}

bool has_tag(std::string_view list, std::string_view tag) {
  // A proxy on the way that compresses makes it a weak one, W/"...".
  return list.find(tag) != std::string_view::npos;
}

Reply file_reply(const File& file, const Request& request) {
  const bool known = has_tag(request.if_none_match, file.tag);
  auto reply = base(known ? 304 : 200);
  reply.headers.emplace_back("ETag", file.tag);
  reply.headers.emplace_back("Cache-Control", "no-cache");
  if (known) return reply;
  reply.headers.emplace_back("Content-Type", file.type);
  reply.body = file.body;
  return reply;
}

// --- who asks ------------------------------------------------------------------------

// A browser says where from; programs and old browsers say nothing.
bool is_ours(const Request& request) {
  const auto& site = request.fetch_site;
  return !request.foreign && (site.empty() || site == "same-origin" || site == "none");
}

Viewer viewer_of(const Answer& answer) {
  Viewer viewer;
  // Arvados' users choose their names, and so never are by them.
  viewer.owner = answer.user.uuid.empty() ? answer.user.name : answer.user.uuid;
  viewer.name = answer.user.name.empty() ? answer.user.uuid : answer.user.name;
  viewer.admin = answer.user.admin;
  viewer.owners = answer.owners;
  viewer.ids = answer.ids;
  std::ranges::sort(viewer.owners);
  std::ranges::sort(viewer.ids);
  return viewer;
}

Ask ask_who(const std::string& token) {
  Question question;
  question.what = Question::What::kSees;
  question.token = token;
  return {std::move(question)};
}

const std::string& token_of(const Request& request) {
  return request.cookie_token.empty() ? request.bearer : request.cookie_token;
}

// --- answers -------------------------------------------------------------------------

// As a form writes it: %xx and '+'. Bounded; what is no escape stands for itself.
std::string find_of(std::string_view uri) {
  constexpr std::string_view kName = "find=";
  const auto mark = uri.find('?');
  if (mark == std::string_view::npos) return {};
  const auto query = uri.substr(mark + 1);
  if (!query.starts_with(kName)) return {};
  return decode_form(query.substr(kName.size(), query.find('&') - kName.size()))
      .substr(0, kMaxFindBytes);
}

std::string state_tag(const Overview& overview, const Viewer& viewer, std::string_view find) {
  const auto found = pki::sha256(find);
  return fmt::format("\"{}-{}-{}\"", overview.version, viewer.key(),
                     find.empty() ? "" : pki::to_hex(std::span(found).first<8>()));
}

PageStep state(const Site& site, const Request& request, const Overview* overview,
               const std::optional<Answer>& who) {
  if (!is_ours(request)) return PageReply{errors(403, "this is for pages of this host alone")};
  const auto& token = token_of(request);
  if (token.empty()) return PageReply{errors(401, "sign in")};
  if (!who) return ask_who(token);
  if (who->kind == Answer::Kind::kUnavailable) {
    return PageReply{errors(503, "who you are cannot be asked now")};
  }
  if (who->kind == Answer::Kind::kBadToken) return PageReply{errors(401, "sign in again")};
  if (overview == nullptr) return PageReply{errors(503, "one moment"), true};
  const auto viewer = viewer_of(*who);
  const auto find = find_of(request.uri);
  const auto tag = state_tag(*overview, viewer, find);
  const bool known = has_tag(request.if_none_match, tag);
  PageReply result{bare(known ? 304 : 200), true};
  auto& reply = result.reply;
  reply.headers.emplace_back("ETag", tag);
  if (known) return result;
  reply.headers.emplace_back("Content-Type", "application/json");
  reply.body = state_json(*overview, visible(*overview, viewer, find), viewer, site);
  return result;
}

// Before a fragment, behind whatever query there is.
std::string marked(std::string_view path) {
  const auto hash = path.find('#');
  const auto head = path.substr(0, hash);
  return fmt::format("{}{}{}{}", head.empty() ? "/" : head,
                     head.find('?') == std::string_view::npos ? '?' : '&', kEnterParameter,
                     hash == std::string_view::npos ? "" : path.substr(hash));
}

const PageLink* find_link(const Overview& overview, const Viewer& viewer, std::string_view rest) {
  const auto slash = rest.find('/');
  if (slash == std::string_view::npos) return nullptr;
  const auto* shown = overview.shape->find(rest.substr(0, slash));
  const auto port = parse_port(rest.substr(slash + 1));
  if (shown == nullptr || !port || !viewer.sees(shown->owner, shown->id)) return nullptr;
  const auto found = std::ranges::find(shown->links, *port, &PageLink::port);
  return found == shown->links.end() ? nullptr : &*found;
}

PageStep open(const Site& site, const Request& request, std::string_view rest,
              const Overview* overview, const std::optional<Answer>& who) {
  // Whoever comes from elsewhere, or is not signed in, sees the page first.
  PageReply to_page{page_redirect("/"), true};
  if (!is_ours(request) || request.cookie_token.empty()) return to_page;
  if (!who) return ask_who(request.cookie_token);
  if (who->kind != Answer::Kind::kGood || overview == nullptr) return to_page;
  const auto* link = find_link(*overview, viewer_of(*who), rest);
  if (link == nullptr) return to_page;  // it has gone since the page was drawn
  const auto straight = url_of(site, link->target, link->path);
  if (straight.empty()) return to_page;
  if (!link_href(site, {}, *link).starts_with(kOpenPath)) return PageReply{page_redirect(straight)};
  return GoOn{request.cookie_token, link->target, url_of(site, link->target, marked(link->path))};
}

PageStep sign_in(const Request& request, const std::optional<Answer>& who) {
  if (!is_ours(request)) return PageReply{errors(403, "sign in at this page itself")};
  if (request.bearer.empty()) return PageReply{errors(401, "a token, in Authorization: Bearer")};
  if (!who) return ask_who(request.bearer);
  if (who->kind == Answer::Kind::kUnavailable) {
    return PageReply{errors(503, "who you are cannot be asked now")};
  }
  if (who->kind == Answer::Kind::kBadToken) return PageReply{errors(401, "no token of anybody's")};
  auto reply = bare(204);
  reply.headers.emplace_back("Set-Cookie", own_cookie(kTokenCookie, to_base64url(request.bearer)));
  return PageReply{std::move(reply), true};
}

PageStep sign_out(const Request& request) {
  if (!is_ours(request)) return PageReply{errors(403, "sign out at this page itself")};
  auto reply = bare(204);
  reply.headers.emplace_back("Set-Cookie", expired_cookie(kTokenCookie));
  return PageReply{std::move(reply)};
}

}  // namespace

Reply page_redirect(std::string_view location, std::vector<std::string> cookies) {
  auto reply = bare(303);
  reply.headers.emplace_back("Location", location);
  for (auto& cookie : cookies) reply.headers.emplace_back("Set-Cookie", std::move(cookie));
  return reply;
}

PageStep page_step(const Site& site, const Request& request, const Overview* overview,
                   const std::optional<Answer>& who) {
  const auto path = std::string_view(request.uri).substr(0, request.uri.find('?'));
  if (request.token_in_query) {  // a link that signs in, as services have it
    const auto& token = request.query_token;
    return PageReply{page_redirect(
        request.uri, {token.empty() ? expired_cookie(kTokenCookie)
                                    : own_cookie(kTokenCookie, to_base64url(token))})};
  }
  const bool post = request.method == "POST";
  if (path == "/sign-in" || path == "/sign-out") {
    if (!post) return PageReply{errors(405, "by POST alone")};
    return path == "/sign-in" ? sign_in(request, who) : sign_out(request);
  }
  if (!request.safe) return PageReply{errors(405, "by GET alone")};
  if (path == "/state.json") return state(site, request, overview, who);
  if (path.starts_with(kOpenPath)) {
    return open(site, request, path.substr(kOpenPath.size()), overview, who);
  }
  const auto file = files().find(path);
  if (file == files().end()) return PageReply{errors(404, "there is no such page")};
  return PageReply{file_reply(file->second, request)};
}

std::string pass_cookie(const Site& site, std::string_view pass, std::int64_t life_s) {
  return fmt::format("{}={}; Domain={}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Lax",
                     kPassCookie, pass, site.zone, life_s);
}

}  // namespace meshd::proxy
