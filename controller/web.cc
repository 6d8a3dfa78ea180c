#include "controller/web.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "base/log.h"

namespace meshd::controller {
namespace {

// Below /run, which is empty after each boot. Where nginx asks at a socket, the endpoint makes its
// folder, and gives it to nginx's group.
Status make_parent(const WebConfig& config) {
  if (config.nginx.endpoint.starts_with('/')) return {};
  std::error_code error;
  const auto parent = std::filesystem::path(config.relay_dir).parent_path();
  std::filesystem::create_directories(parent, error);
  if (error) return fail_errno("make " + parent.string(), error.value());
  return {};
}

}  // namespace

Result<std::unique_ptr<Web>> Web::start(const WebConfig& config, Controller& controller,
                                        proxy::Asker* asker, TimePoint now) {
  CHECK_OK(make_parent(config));
  std::unique_ptr<Web> web(new Web(controller, now));
  proxy::EndpointOptions options;
  options.names = config.nginx.names;
  options.listen = config.nginx.endpoint;
  options.group = config.group;
  options.relay_dir = config.relay_dir;
  options.people = config.tokens;
  options.cache.positive = config.keep_good;
  options.cache.negative = config.keep_bad;
  auto* const self = web.get();
  // What finds no room is asked for again: a page that waits loads itself, a use is used on.
  proxy::EndpointHooks hooks;
  hooks.open = [self](proxy::MakeOpening wanted) {
    [[maybe_unused]] const bool taken = self->events_.post(std::move(wanted));
  };
  hooks.used = [self](Used used) {
    [[maybe_unused]] const bool taken = self->events_.post(std::move(used));
  };
  web->endpoint_ =
      TRY(proxy::Endpoint::start(std::move(options), web->directory_, asker, std::move(hooks)));
  log::info("web: {} asks at {}",
            config.nginx.names.zone.empty() ? config.nginx.names.host : config.nginx.names.zone,
            config.nginx.endpoint);
  return web;
}

void Web::serve(const Moment& now) {
  for (const auto& event : events_.drain()) {
    if (const auto* wanted = std::get_if<proxy::MakeOpening>(&event)) {
      take(*wanted, now);
    } else {
      for (const auto& key : std::get<Used>(event)) {
        controller_.note_use(key.id, key.port, now.steady);
      }
    }
  }
  publish_at_.reset();
  if (controller_.openings()->changes() == published_) return;
  if (now.steady < published_at_ + kPublishEvery) {
    publish_at_ = published_at_ + kPublishEvery;
  } else {
    publish(now.steady);
  }
}

void Web::publish(TimePoint now) {
  published_ = controller_.openings()->changes();
  published_at_ = now;
  directory_.store(controller_.openings()->directory());
}

void Web::take(const proxy::MakeOpening& wanted, const Moment& now) {
  const auto& user = wanted.user;
  // Who is refused is told so by the page that loads itself again; the log has why.
  [[maybe_unused]] const auto status =
      controller_.open_port(wanted.id, wanted.port, user.uuid.empty() ? user.name : user.uuid, now);
}

}  // namespace meshd::controller
