#include "controller/web_commands.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "controller/config.h"
#include "proxy/nginx_config.h"
#include "proxy/people.h"

namespace meshd::controller {
namespace {

struct Place {
  Config config;
  std::string tokens;
};

Result<Place> find(const Where& where) {
  Place place;
  place.config =
      TRY(load_config(where.config.empty() ? std::string(kDefaultConfigPath) : where.config,
                      !where.config.empty()));
  const auto& web = place.config.web;
  place.tokens = !where.dir.empty() ? default_tokens(where.dir)
                 : web              ? web->tokens
                                    : default_tokens(place.config.dir);
  return place;
}

std::string until_text(const std::optional<proxy::UtcTime>& at) {
  return at ? proxy::time_text(*at) : "never";
}

std::string levels_text(const proxy::Person& person) {
  std::vector<std::string> all;
  if (person.admin) all.emplace_back("admin");
  for (const auto& grant : person.grants) all.push_back(proxy::grant_text(grant));
  return all.empty() ? "-" : fmt::format("{}", fmt::join(all, ","));
}

// Where they go with it: a name of the site that is configured, or one like it.
std::string how_to_use(const std::optional<WebConfig>& web) {
  std::string url = "https://NAME.svc.ZONE/";
  if (web) {
    const auto& site = web->nginx.names;
    url = site.zone.empty() ? fmt::format("https://{}:PORT/", site.host)
                            : fmt::format("https://NAME.svc.{}{}/", site.zone,
                                          site.port == 443 ? "" : fmt::format(":{}", site.port));
  }
  auto text = fmt::format(
      "the line above is shown once. It is used\n"
      "  in a browser:  {}?api_token=TOKEN - once, then it is a cookie\n"
      "  by programs:   a header \"Authorization: Bearer TOKEN\"\n",
      url);
  if (!web) text += "there is no `web` in the configuration yet: nobody asks for tokens so far\n";
  return text;
}

}  // namespace

Result<AdminOutput> add_person(const Where& where, const AddPerson& add, pki::UtcTime now) {
  const auto place = TRY(find(where));
  proxy::TokenSecret secret;
  const auto got = getrandom(secret.data(), secret.size(), 0);
  if (got != static_cast<ssize_t>(secret.size())) {
    return fail_errno("draw a token", got < 0 ? errno : EIO);
  }
  auto terms = add.terms;
  if (add.days) terms.expires_at = now + std::chrono::days(*add.days);
  const auto made = TRY(proxy::make_person(std::move(terms), secret));
  CHECK_OK(proxy::edit_people(
      place.tokens, [&](proxy::People& people) { return proxy::add_person(people, made.person); }));
  return AdminOutput{
      made.token + "\n",
      fmt::format("token {} of {}, good until {}: {}", made.person.id, made.person.user,
                  until_text(made.person.expires_at), how_to_use(place.config.web))};
}

Result<AdminOutput> list_people(const Where& where, pki::UtcTime now) {
  const auto place = TRY(find(where));
  const auto people = TRY(proxy::read_people(place.tokens));
  auto text =
      fmt::format("{:<12}  {:<32}  {:<7}  {:<20}  {}\n", "ID", "USER", "STATE", "UNTIL", "LEVELS");
  for (const auto& person : people) {
    const bool expired = person.expires_at && *person.expires_at <= now;
    text += fmt::format("{:<12}  {:<32}  {:<7}  {:<20}  {}\n", person.id, person.user,
                        expired ? "expired" : "good", until_text(person.expires_at),
                        levels_text(person));
  }
  return AdminOutput{std::move(text), ""};
}

Result<AdminOutput> remove_person(const Where& where, const RemovePerson& remove) {
  const auto place = TRY(find(where));
  CHECK_OK(proxy::edit_people(place.tokens, [&](proxy::People& people) {
    return proxy::remove_person(people, remove.id);
  }));
  return AdminOutput{remove.id + ": removed\n", ""};
}

Result<AdminOutput> print_proxy_config(const Where& where, const PrintProxyConfig& print) {
  const auto place = TRY(find(where));
  proxy::NginxSite site;
  if (place.config.web) site = place.config.web->nginx;
  auto& names = site.names;
  // Another site's certificate is another one.
  const bool other = (!print.zone.empty() && print.zone != names.zone) ||
                     (!print.host.empty() && print.host != names.host);
  if (other) {
    site.certificate.clear();
    site.certificate_key.clear();
  }
  names.zone = print.zone.empty() ? names.zone : print.zone;
  names.host = print.host.empty() ? names.host : print.host;
  names.port = print.port.value_or(names.port);
  if (!print.ports.empty()) {
    const auto ports = policy::parse_port_span(print.ports);
    if (!ports) return fail(ErrorCode::kInvalid, "--ports: " + ports.error().what);
    names.first_port = ports->first;
    names.last_port = ports->last;
  }
  if (names.zone.empty() && names.host.empty()) {
    return fail(ErrorCode::kInvalid,
                "proxy-config: the configuration has no `web`; say --zone ZONE, or --host HOST and "
                "--ports FIRST-LAST");
  }
  if (!print.certificate.empty()) site.certificate = print.certificate;
  if (!print.certificate_key.empty()) site.certificate_key = print.certificate_key;
  if (!print.endpoint.empty()) site.endpoint = print.endpoint;
  if (!print.access_log.empty()) site.access_log = print.access_log;
  fill_certificates(site);
  auto text = proxy::render_nginx_config(site);
  if (!text) return std::unexpected(std::move(text).error().in("proxy-config"));
  return AdminOutput{*std::move(text), ""};
}

}  // namespace meshd::controller
