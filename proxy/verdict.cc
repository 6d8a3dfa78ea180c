#include "proxy/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace meshd::proxy {
namespace {

using State = Opening::State;

// Where a request would go.
struct Place {
  const Opening* opening = nullptr;
  std::uint16_t port = 0;
  const OpenPort* open = nullptr;  // null: nobody published it

  [[nodiscard]] bool ready() const {
    return open != nullptr && open->ready && !open->addresses.empty() && open->upstream_port != 0 &&
           (opening->state == State::kAttached || opening->state == State::kReady);
  }
};
using Found = std::variant<Place, Reason>;

// FNV-1a: the same everywhere and always, so that who has no cookies finds the same replica.
std::uint64_t lot(std::string_view client, std::string_view id) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const auto part : {client, id}) {
    for (const char c : part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash ^ hash >> 32U;
}

// Of several replicas, or of containers that one request has had, the highest is meant. Who has
// come before stays with the same one while that can be: another one knows nothing of them.
std::array<std::uint64_t, 5> rank(const Place& place, const Request& request) {
  const auto client = request.client ? request.client->to_string() : std::string();
  const bool known = place.opening->id == request.container;
  return {place.ready() ? 1U : 0U, place.opening->state == State::kDraining ? 0U : 1U,
          place.opening->stale ? 0U : 1U, known ? 1U : 0U, lot(client, place.opening->id)};
}

Found choose(const Directory::Openings& openings, const std::optional<std::uint16_t>& port,
             const Request& request) {
  if (openings.empty()) return Reason::kNoSuchName;
  std::optional<Place> best;
  bool lives = false;
  for (const auto& opening : openings) {
    if (opening->state == State::kEnded) continue;
    lives = true;
    const auto* open = port ? opening->open_port(*port) : opening->first_http();
    if (open != nullptr && !open->http) continue;  // raw: speaks another language
    if (open == nullptr && !port) continue;
    const Place place{opening.get(), port ? *port : open->port, open};
    if (!best || rank(place, request) > rank(*best, request)) best = place;
  }
  if (!lives) return Reason::kEnded;
  if (!best) return Reason::kNoSuchPort;
  return *best;
}

Found find_direct(const Directory& directory, const Target& target, const Request& request) {
  if (const auto* service = std::get_if<ServiceTarget>(&target)) {
    return choose(directory.of_service(service->name), service->port, request);
  }
  if (const auto* asked = std::get_if<RequestTarget>(&target)) {
    return choose(directory.of_request(asked->uuid), asked->port, request);
  }
  const auto* instance = std::get_if<InstanceTarget>(&target);
  const auto* opening = instance == nullptr ? nullptr : directory.by_id(instance->id);
  if (opening == nullptr) return Reason::kNoSuchName;
  // One that it does not own, for this call alone.
  const Directory::Openings alone = {OpeningPtr(OpeningPtr(), opening)};
  return choose(alone, instance->port, request);
}

Target with_port(Target target, const std::optional<std::uint16_t>& port) {
  if (!port) return target;
  if (auto* service = std::get_if<ServiceTarget>(&target)) service->port = port;
  if (auto* instance = std::get_if<InstanceTarget>(&target)) instance->port = port;
  if (auto* request = std::get_if<RequestTarget>(&target)) request->port = port;
  return target;
}

Found find_place(const Directory& directory, const Target& target, const Request& request) {
  if (const auto* port = std::get_if<PortTarget>(&target)) {
    const auto* meant = directory.by_port(port->outside);
    return meant == nullptr ? Found(Reason::kUnassigned) : find_direct(directory, *meant, request);
  }
  const auto* service = std::get_if<ServiceTarget>(&target);
  if (service != nullptr && directory.of_service(service->name).empty()) {
    const auto* meant = directory.by_alias(service->name);
    if (meant == nullptr) return Reason::kNoSuchName;
    return find_direct(directory, with_port(*meant, service->port), request);
  }
  return find_direct(directory, target, request);
}

// What can stand in a header line; names come from people, and through the API.
User presentable(User user) {
  for (auto* text : {&user.uuid, &user.name}) {
    const bool plain = text->size() <= kMaxTokenBytes &&
                       std::ranges::all_of(*text, [](char c) { return c >= ' ' && c < '\x7f'; });
    if (!plain) text->clear();
  }
  return user;
}

struct Admitted {
  User user;
  bool by_bearer = false;
};
using Admission = std::variant<Admitted, Refuse, Ask>;

Refuse refuse(Reason reason, const Place& place, User user = {}) {
  return {reason, std::move(user), place.opening->id};
}

// Who they are, and whether they may.
Admission admit(const Place& place, const Request& request, const Known& known) {
  const auto needed = place.open == nullptr ? Access::kOwner : place.open->access;
  if (needed == Access::kPublic) return Admitted{};
  const bool by_bearer = request.cookie_token.empty() && request.bearer_shape != TokenShape::kNot;
  const auto& token = by_bearer ? request.bearer : request.cookie_token;
  if (token.empty()) return refuse(Reason::kSignIn, place);
  if (!by_bearer && request.foreign && (request.upgrade || !request.safe)) {
    return refuse(Reason::kForeignPage, place);
  }
  if (!known.level) {
    return Ask{{Question::What::kLevel, token, place.opening->id, place.opening->owner,
                place.opening->request, needed}};
  }
  const auto& answer = *known.level;
  if (answer.kind == Answer::Kind::kUnavailable) return refuse(Reason::kCannotAsk, place);
  if (answer.kind == Answer::Kind::kBadToken) return refuse(Reason::kBadToken, place);
  auto user = presentable(answer.user);
  if (suffices(answer.level, needed)) return Admitted{std::move(user), by_bearer};
  const auto why = answer.level ? Reason::kNotYours : Reason::kNotReadable;
  return refuse(why, place, std::move(user));
}

// What of Authorization the container sees: nothing that is good with us, and nothing of which
// that cannot be said now.
std::variant<std::string, Ask> passed_on(const Request& request, const Admitted& admitted,
                                         const Known& known) {
  if (request.bearer_shape == TokenShape::kNot) return request.authorization;
  if (request.bearer_shape == TokenShape::kOurs || admitted.by_bearer) return std::string();
  if (!known.bearer) return Ask{{Question::What::kWho, request.bearer, {}, {}, {}, Access::kOwner}};
  const bool theirs = known.bearer->kind == Answer::Kind::kBadToken;
  return theirs ? request.authorization : std::string();
}

bool allowed_from(const OpenPort& open, const std::optional<IpAddress>& client) {
  if (!open.allow_from) return true;
  return client && std::ranges::any_of(*open.allow_from, [&](const Prefix& prefix) {
           return prefix.contains(*client);
         });
}

// What another container left in the browser must not reach this one, nor be read by it.
Step change_over(const Place& place, const Request& request, const Target& target, User user) {
  if (!request.safe || request.upgrade) return refuse(Reason::kChanged, place, std::move(user));
  Redirect redirect{request.uri, {own_cookie(container_cookie(target), place.opening->id)}, true};
  for (const auto& name : request.other_cookies) {
    redirect.set_cookies.push_back(expired_cookie(name));
  }
  return redirect;
}

// Why it cannot be served now to somebody who may; absent when it can.
std::optional<Reason> not_now(const Place& place) {
  if (place.opening->state == State::kDraining) return Reason::kEnding;
  if (place.opening->state == State::kWaiting) return Reason::kNotStarted;
  if (place.open != nullptr && !place.ready()) return Reason::kNotReady;
  return std::nullopt;
}

std::string upstream_text(const OpenPort& open) {
  const auto& address = open.addresses.front();
  return address.is_v4() ? fmt::format("{}:{}", address.to_string(), open.upstream_port)
                         : fmt::format("[{}]:{}", address.to_string(), open.upstream_port);
}

}  // namespace

Step decide(const Directory& directory, const Target& target, const Request& request,
            const Known& known) {
  const auto found = find_place(directory, target, request);
  if (const auto* why = std::get_if<Reason>(&found)) return Refuse{*why, {}, {}};
  const auto& place = std::get<Place>(found);
  if (request.token_in_query) {
    // The query's counts, also one that can be none: "?api_token=" signs out.
    const auto& token = request.query_token;
    return Redirect{request.uri,
                    {token.empty() ? expired_cookie(kTokenCookie)
                                   : own_cookie(kTokenCookie, to_base64url(token))},
                    false};
  }
  const auto admission = admit(place, request, known);
  if (const auto* ask = std::get_if<Ask>(&admission)) return *ask;
  if (const auto* no = std::get_if<Refuse>(&admission)) return *no;
  const auto& admitted = std::get<Admitted>(admission);
  if (place.open != nullptr && !allowed_from(*place.open, request.client)) {
    return refuse(Reason::kNotFromHere, place, admitted.user);
  }
  if (const auto why = not_now(place)) return refuse(*why, place, admitted.user);
  if (place.open == nullptr) {
    if (place.opening->full) return refuse(Reason::kTooManyOpen, place, admitted.user);
    return MakeOpening{place.opening->id, place.port, admitted.user};
  }
  if (!request.container.empty() && request.container != place.opening->id) {
    return change_over(place, request, target, admitted.user);
  }
  const auto authorization = passed_on(request, admitted, known);
  if (const auto* ask = std::get_if<Ask>(&authorization)) return *ask;
  const bool knows = request.container == place.opening->id;
  return Allow{upstream_text(*place.open),
               place.opening->id,
               place.port,
               admitted.user,
               request.cookie,
               std::get<std::string>(authorization),
               knows ? "" : own_cookie(container_cookie(target), place.opening->id)};
}

std::string container_cookie(const Target& target) {
  const auto* port = std::get_if<PortTarget>(&target);
  if (port == nullptr) return std::string(kContainerCookie);
  return fmt::format("{}-{}", kContainerCookie, port->outside);
}

namespace {

struct ReasonFacts {
  Reason reason;
  int status;
  std::string_view word;
};
constexpr ReasonFacts kReasons[] = {
    {Reason::kOddRequest, 400, "odd-request"},
    {Reason::kSignIn, 401, "sign-in"},
    {Reason::kBadToken, 401, "bad-token"},
    {Reason::kNotYours, 403, "not-yours"},
    {Reason::kNotFromHere, 403, "not-from-here"},
    {Reason::kForeignPage, 403, "foreign-page"},
    {Reason::kNoSuchName, 404, "no-such-name"},
    {Reason::kNotReadable, 404, "not-readable"},
    {Reason::kNoSuchPort, 404, "no-such-port"},
    {Reason::kEnded, 410, "ended"},
    {Reason::kEnding, 410, "ending"},
    {Reason::kUnassigned, 410, "unassigned"},
    {Reason::kChanged, 410, "changed"},
    {Reason::kMisdirected, 421, "misdirected"},
    {Reason::kDoesNotAnswer, 502, "does-not-answer"},
    {Reason::kNotStarted, 503, "not-started"},
    {Reason::kNotReady, 503, "not-ready"},
    {Reason::kBeingOpened, 503, "being-opened"},
    {Reason::kTooManyOpen, 503, "too-many-open"},
    {Reason::kCannotAsk, 503, "cannot-ask"},
};

const ReasonFacts& facts_of(Reason reason) {
  return *std::ranges::find(kReasons, reason, &ReasonFacts::reason);
}

}  // namespace

int status_of(Reason reason) { return facts_of(reason).status; }
std::string_view reason_word(Reason reason) { return facts_of(reason).word; }

}  // namespace meshd::proxy
