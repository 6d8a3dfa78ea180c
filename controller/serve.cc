#include "controller/serve.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/log.h"
#include "base/unique_fd.h"
#include "controller/app.h"
#include "controller/arvados_site.h"
#include "controller/grpc_log.h"
#include "controller/setup.h"
#include "controller/web.h"

namespace meshd::controller {
namespace {

// Certificates end by the second; nothing else needs to be looked at more often.
constexpr auto kLookAfter = std::chrono::seconds(1);

Moment moment() {
  return {BootClock::now(), std::chrono::duration_cast<std::chrono::milliseconds>(
                                std::chrono::system_clock::now().time_since_epoch())
                                .count()};
}

// Not the configured name: two may have the same by mistake.
Result<std::string> draw_instance() {
  std::uint64_t number = 0;
  const auto got = getrandom(&number, sizeof number, 0);
  if (got != sizeof number) return fail_errno("draw a number", got < 0 ? errno : EIO);
  return fmt::format("{:016x}", number);
}

Result<UniqueFd> signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT}) sigaddset(&set, number);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return fail_errno("signalfd", errno);
  return fd;
}

void serve_metrics(metrics::Endpoint& endpoint) {
  // When it wants to be called again is not asked: it is called every second.
  [[maybe_unused]] const auto again = endpoint.serve();
}

// Each node is a descriptor, and the usual limit is for programs that use select(2).
void allow_descriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) log::warning("limits: open files: not raised");
  constexpr rlim_t kOthers = 256;  // the store, listeners, calls of people
  if (limit.rlim_max < Server::kMaxSessions + kOthers) {
    log::info("limits: {} open files: no more nodes than that", limit.rlim_max);
  }
}

// What is done every second.
void look_after(const Config& config, const Authority& authority, Controller& controller,
                App& app) {
  app.end_expired();
  const pki::UtcTime utc{std::chrono::seconds(moment().wall_ms / 1000)};
  const auto status =
      refresh_identity(config.dir, authority, config.name, controller.cluster().settings(), utc);
  if (!status) log::error("identity: {}", status.error().what);
}

void run(Controller& controller, Server& server, App& app, int signal_fd,
         metrics::Endpoint* metrics, ArvadosSite* arvados, Web* web,
         const std::function<void()>& every_second) {
  auto look_at = BootClock::now();
  pollfd waits[] = {{server.jobs().fd(), POLLIN, 0},
                    {signal_fd, POLLIN, 0},
                    {controller.store().notify_fd(), POLLIN, 0},
                    {metrics == nullptr ? -1 : metrics->fd(), POLLIN, 0},
                    {arvados == nullptr ? -1 : arvados->fd(), POLLIN, 0},
                    {web == nullptr ? -1 : web->fd(), POLLIN, 0}};
  while ((waits[1].revents & POLLIN) == 0) {
    const auto now = BootClock::now();
    auto next = std::min(controller.next_timer().value_or(look_at), look_at);
    if (arvados != nullptr) next = std::min(next, arvados->next().value_or(next));
    if (web != nullptr) next = std::min(next, web->next().value_or(next));
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now).count();
    poll(waits, std::size(waits), static_cast<int>(std::clamp<std::int64_t>(left, 0, 10'000)));
    for (auto& job : server.jobs().drain()) job(app);
    if ((waits[2].revents & POLLIN) != 0) controller.on_store_notified(moment());
    if ((waits[3].revents & POLLIN) != 0) serve_metrics(*metrics);
    const auto after = moment();
    if (controller.next_timer() && *controller.next_timer() <= after.steady) {
      controller.on_timer(after);
    }
    const bool asks = arvados != nullptr && arvados->next() && *arvados->next() <= after.steady;
    if (asks || (waits[4].revents & POLLIN) != 0) arvados->serve(after);
    if (web != nullptr) web->serve(after);
    if (after.steady < look_at) continue;
    if (metrics != nullptr) serve_metrics(*metrics);  // who says nothing is cut
    every_second();
    look_at = after.steady + kLookAfter;
  }
}

}  // namespace

Status serve(const Config& config, const std::function<void(int, int)>& ready,
             const std::function<void()>& alive) {
  CHECK_OK(pki::require_tls13());
  take_grpc_log();
  allow_descriptors();
  const auto signal_fd = TRY(signals());
  const auto authority = TRY(open_authority(config.dir));
  auto store = config.postgres.empty() ? open_sqlite_store(config.dir)
                                       : open_postgres_store(config.postgres);
  if (!store) return std::unexpected(std::move(store).error());
  auto instance = TRY(draw_instance());
  const auto controller = TRY(Controller::make(
      *std::move(store),
      {config.name, config.node_declarations, config.stale_after, config.dismiss_after,
       std::move(instance), config.proxies, config.gateway_ports, config.gateway_nodes,
       config.web ? std::optional(config.web->nginx.names) : std::nullopt, config.proxy_node,
       config.arvados.has_value(), config.web ? config.web->open_idle : kOpenIdle},
      moment()));
  const auto& settings = controller->cluster().settings();
  if (settings.cluster() != authority.cluster) {
    return fail(ErrorCode::kInvalid, "the store is of cluster \"" + settings.cluster() +
                                         "\", the authority of \"" + authority.cluster + "\"");
  }
  const pki::UtcTime utc{std::chrono::seconds(moment().wall_ms / 1000)};
  CHECK_OK(refresh_identity(config.dir, authority, config.name, settings, utc));
  const auto server = TRY(Server::make(
      {config.listen, config.join_listen, identity_files(config.dir), authority.cluster}));
  App app(*controller, authority, moment);
  std::unique_ptr<ArvadosSite> arvados;
  if (config.arvados) {
    const auto name = [&](const std::string& alias, std::optional<proxy::Target> target) {
      controller->set_alias(alias, std::move(target));
    };
    arvados = TRY(ArvadosSite::make(*config.arvados, *controller, name));
    log::info("arvados: containers of {}", config.arvados->api_host);
  }
  std::unique_ptr<Web> web;  // asks the site, and so ends before it
  if (config.web) {
    auto* const asker = arvados ? &arvados->asker() : nullptr;
    web = TRY(Web::start(*config.web, *controller, asker, moment().steady));
  }
  std::unique_ptr<metrics::Endpoint> metrics;
  if (config.metrics) {
    metrics = TRY(metrics::Endpoint::open(*config.metrics, [&] {
      return app.metrics_text(web ? std::optional(web->counts()) : std::nullopt);
    }));
    log::info("metrics: at {}, port {}", config.metrics->address.to_string(), metrics->port());
  }
  log::info("mesh-controller {}: serving cluster {}", config.name, authority.cluster);
  ready(server->port(), server->join_port());
  run(*controller, *server, app, signal_fd.get(), metrics.get(), arvados.get(), web.get(), [&] {
    look_after(config, authority, *controller, app);
    alive();
  });
  log::info("mesh-controller {}: stopping", config.name);
  server->shutdown(app);
  return {};
}

}  // namespace meshd::controller
