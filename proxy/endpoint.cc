#include "proxy/endpoint.h"

#include <fmt/format.h>
#include <microhttpd.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/mailbox.h"
#include "proxy/listen.h"
#include "proxy/nginx_config.h"

namespace meshd::proxy {
namespace {

// Turns of the library for one round: it has more to do after an edge that it has not used up.
constexpr int kTurns = 64;

// A socket's path has 107 characters at most, of which 46 are the file's.
constexpr std::size_t kMaxRelayDir = 61;

// A request of nginx's at its connection, which is suspended while it waits.
class HttpExchange : public Exchange {
 public:
  HttpExchange(MHD_Connection* connection, const Site& site, const Told& told, At where, bool down)
      : Exchange(site, told, where, down), connection_(connection) {}
  void wake() override {
    if (std::exchange(suspended_, false)) MHD_resume_connection(connection_);
  }
  void suspend() {
    suspended_ = true;
    MHD_suspend_connection(connection_);
  }
  bool begun = false;

 private:
  MHD_Connection* const connection_;
  bool suspended_ = false;
};

// All headers in one pass.
struct Headers {
  Told told;
  std::string_view status;
  bool body = false;

  std::string_view* place_of(std::string_view name) {
    const std::pair<std::string_view, std::string_view*> ours[] = {
        {kHostHeader, &told.head.host},
        {kLineHostHeader, &told.line_host},
        {kUriHeader, &told.head.uri},
        {kMethodHeader, &told.head.method},
        {kClientHeader, &told.head.client},
        {kCookieHeader, &told.head.cookie},
        {kAuthorizationHeader, &told.head.authorization},
        {kUpgradeHeader, &told.head.upgrade},
        {kOriginHeader, &told.head.origin},
        {kStatusHeader, &status},
        {MHD_HTTP_HEADER_ACCEPT, &told.head.accept},
        {MHD_HTTP_HEADER_IF_NONE_MATCH, &told.head.if_none_match},
        {kFetchSiteHeader, &told.head.fetch_site},
    };
    for (const auto& [known, place] : ours) {
      if (same_but_case(name, known)) return place;
    }
    return nullptr;
  }
  void take(std::string_view name, std::string_view value) {
    if (same_but_case(name, MHD_HTTP_HEADER_TRANSFER_ENCODING)) body = true;
    if (same_but_case(name, MHD_HTTP_HEADER_CONTENT_LENGTH)) body |= value != "0";
    auto* const place = place_of(name);
    if (place == nullptr) return;
    if (place->data() != nullptr) told.twice = true;
    *place = value;
  }
  static bool same_but_case(std::string_view a, std::string_view b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c; };
    return a.size() == b.size() && std::ranges::equal(a, b, {}, lower, lower);
  }
};

MHD_Result take_header(void* headers, MHD_ValueKind, const char* name, std::size_t name_size,
                       const char* value, std::size_t value_size) {
  // A header without a value is one all the same: it came.
  static_cast<Headers*>(headers)->take({name, name_size},
                                       {value == nullptr ? "" : value, value_size});
  return MHD_YES;
}

std::optional<Exchange::At> place_of(std::string_view url) {
  using At = Exchange::At;
  for (const auto& [path, at] : {std::pair("/auth", At::kAuth), std::pair("/answer", At::kAnswer),
                                 std::pair("/page", At::kPage)}) {
    if (url == path) return at;
  }
  return std::nullopt;
}

MHD_Result respond(MHD_Connection* connection, const Reply& reply) {
  auto* const response = MHD_create_response_from_buffer(
      reply.body.size(), const_cast<char*>(reply.body.data()), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  bool good = true;
  for (const auto& [name, value] : reply.headers) {
    good = good && MHD_add_response_header(response, name.c_str(), value.c_str()) == MHD_YES;
  }
  // With a header that cannot be sent nothing is: the connection ends, and nginx lets nobody in.
  const auto queued =
      good ? MHD_queue_response(connection, static_cast<unsigned>(reply.status), response) : MHD_NO;
  MHD_destroy_response(response);
  return queued;
}

}  // namespace

class Endpoint::Loop {
 public:
  Loop(EndpointOptions options, Gate::Parts parts, Listener listener)
      : names_(std::move(options.names)),
        look_again_(std::min(options.look_again, options.cache.positive / 4)),
        listener_(std::move(listener)),
        gate_(std::move(parts)) {}
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop();

  [[nodiscard]] Status start();
  [[nodiscard]] int port() const { return listener_.port(); }
  [[nodiscard]] EndpointCounts counts() const {
    const auto counts = counts_.load();
    return counts == nullptr ? EndpointCounts() : *counts;
  }

 private:
  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url,
                               const char* method, const char* version, const char* upload,
                               std::size_t* upload_size, void** state);
  static void on_completed(void* self, MHD_Connection* connection, void** state,
                           MHD_RequestTerminationCode why);
  [[nodiscard]] MHD_Result receive(MHD_Connection* connection, std::string_view url,
                                   std::string_view method, void** state) const;
  [[nodiscard]] MHD_Result answer(MHD_Connection* connection, HttpExchange& exchange);
  void run();
  [[nodiscard]] Duration serve_http();
  void publish_counts();

  const Site names_;
  const Duration look_again_;
  Listener listener_;
  Gate gate_;
  MHD_Daemon* http_ = nullptr;
  int http_fd_ = -1;
  TimePoint now_{};
  Mailbox<int> stop_{1};
  Published<const EndpointCounts> counts_;
  std::thread thread_;
};

Status Endpoint::Loop::start() {
  http_ = MHD_start_daemon(
      MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | (listener_.is_v6() ? unsigned{MHD_USE_IPv6} : 0U),
      0, nullptr, nullptr, &on_request, this, MHD_OPTION_LISTEN_SOCKET, listener_.fd().get(),
      MHD_OPTION_CONNECTION_LIMIT, kMaxConnections, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
      kConnectionBytes, MHD_OPTION_CONNECTION_TIMEOUT, static_cast<unsigned>(kIdleLimit.count()),
      MHD_OPTION_NOTIFY_COMPLETED, &on_completed, this, MHD_OPTION_END);
  if (http_ == nullptr) return fail(ErrorCode::kSystem, "the HTTP library does not start");
  [[maybe_unused]] const int its_own = listener_.take_fd().release();
  const auto* const info = MHD_get_daemon_info(http_, MHD_DAEMON_INFO_EPOLL_FD);
  if (info == nullptr) return fail(ErrorCode::kSystem, "the HTTP library has no epoll descriptor");
  http_fd_ = info->epoll_fd;
  thread_ = std::thread([this] { run(); });
  return {};
}

Endpoint::Loop::~Loop() {
  if (thread_.joinable()) {
    [[maybe_unused]] const bool posted = stop_.post(1);
    thread_.join();
  }
  // No connection is suspended any more, as it must be.
  if (http_ != nullptr) MHD_stop_daemon(http_);
}

MHD_Result Endpoint::Loop::on_request(void* self, MHD_Connection* connection, const char* url,
                                      const char* method, const char*, const char*,
                                      std::size_t* upload_size, void** state) {
  auto& loop = *static_cast<Loop*>(self);
  if (*state == nullptr) return loop.receive(connection, url, method, state);
  if (*upload_size != 0) return MHD_NO;  // it said that there was none
  return loop.answer(connection, *static_cast<HttpExchange*>(*state));
}

void Endpoint::Loop::on_completed(void*, MHD_Connection*, void** state,
                                  MHD_RequestTerminationCode) {
  const std::unique_ptr<HttpExchange> ended(static_cast<HttpExchange*>(*state));
  *state = nullptr;
}

MHD_Result Endpoint::Loop::receive(MHD_Connection* connection, std::string_view url,
                                   std::string_view method, void** state) const {
  const auto at = place_of(url);
  if (method != MHD_HTTP_METHOD_GET || !at) {
    return respond(connection, {404, {}, "nginx asks here, at /auth, /answer and /page\n"});
  }
  Headers headers;
  MHD_get_connection_values_n(connection, MHD_HEADER_KIND, &take_header, &headers);
  if (headers.body) return respond(connection, {400, {}, "a body is not read here\n"});
  *state = new HttpExchange(connection, names_, headers.told, *at, headers.status == "502");
  return MHD_YES;
}

MHD_Result Endpoint::Loop::answer(MHD_Connection* connection, HttpExchange& exchange) {
  if (!std::exchange(exchange.begun, true)) gate_.begin(exchange, now_);
  if (exchange.reply) return respond(connection, *exchange.reply);
  exchange.suspend();
  return MHD_YES;
}

// All that can be done now; and when it wants to be called again all the same.
Duration Endpoint::Loop::serve_http() {
  for (int turn = 0; turn < kTurns; ++turn) {
    MHD_run(http_);
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;
    if (MHD_get_timeout(http_, &wait_ms) != MHD_YES) return Duration::max();
    if (wait_ms > 0) return std::chrono::milliseconds(wait_ms);
  }
  return Duration(0);
}

void Endpoint::Loop::publish_counts() {
  auto counts = gate_.counts();
  const auto* const info = MHD_get_daemon_info(http_, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
  if (info != nullptr) counts.connections = info->num_connections;
  counts_.store(std::make_shared<const EndpointCounts>(std::move(counts)));
}

void Endpoint::Loop::run() {
  now_ = BootClock::now();
  auto next_look = now_ + look_again_;
  for (;;) {
    const auto wait = std::min(serve_http(), std::max(next_look - now_, Duration(0)));
    std::array<pollfd, 4> waits = {{{http_fd_, POLLIN, 0},
                                    {gate_.answers_fd(), POLLIN, 0},
                                    {gate_.relay_fd(), POLLIN, 0},
                                    {stop_.fd(), POLLIN, 0}}};
    const auto wait_ms = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
    poll(waits.data(), waits.size(), static_cast<int>(wait_ms));
    now_ = BootClock::now();
    if (waits[3].revents != 0) break;
    if (waits[1].revents != 0) gate_.serve_answers(now_);
    if (waits[2].revents != 0) gate_.serve_relay(now_);
    if (now_ >= next_look) {
      next_look = now_ + look_again_;
      gate_.tick(now_);
      publish_counts();
    }
  }
  gate_.close(now_);
  // Those who waited get what they are told.
  [[maybe_unused]] const auto rest = serve_http();
}

Endpoint::Endpoint(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Endpoint::~Endpoint() = default;
int Endpoint::port() const { return loop_->port(); }
EndpointCounts Endpoint::counts() const { return loop_->counts(); }

Result<std::unique_ptr<Endpoint>> Endpoint::start(EndpointOptions options,
                                                  const Published<const Directory>& directory,
                                                  Asker* asker, EndpointHooks hooks,
                                                  const Published<const Overview>* overview) {
  const auto in = [](std::string_view field, Error error) {
    return std::unexpected(std::move(error).in(field));
  };
  if (auto status = check_site(options.names); !status) return in("names", status.error());
  auto group = group_id(options.group);
  if (!group) return in("group", group.error());
  PeopleSource people(options.people);
  if (asker == nullptr) {
    if (auto read = people.refresh(); !read) return in("people", read.error());
  }
  // Known now, and not when the first websocket is opened.
  if (options.relay_dir.size() > kMaxRelayDir) {
    return in("relay_dir",
              {ErrorCode::kInvalid, fmt::format("is longer than {} characters", kMaxRelayDir), 0});
  }
  auto listener = Listener::open(options.listen, *group);
  if (!listener) return in("listen", listener.error());
  auto relay = Relay::make(options.relay_dir, *group);
  if (!relay) return in("relay_dir", relay.error());
  Gate::Parts parts{&directory,
                    asker,
                    std::move(people),
                    *std::move(relay),
                    options.cache,
                    options.ask_limit,
                    std::move(hooks),
                    [](const std::string& text) { log::info("web: {}", text); },
                    [](const std::string& text) { log::warning("web: {}", text); },
                    options.names,
                    overview};
  auto loop = std::make_unique<Loop>(std::move(options), std::move(parts), *std::move(listener));
  CHECK_OK(loop->start());
  return std::unique_ptr<Endpoint>(new Endpoint(std::move(loop)));
}

}  // namespace meshd::proxy
