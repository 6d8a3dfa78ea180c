#include "arvados/client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <charconv>
#include <list>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "arvados/limits.h"
#include "base/clock.h"

namespace meshd::arvados {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
// Both handles are void to libcurl: the deleter tells them apart.
using EasyPtr = std::unique_ptr<CURL, Freed<curl_easy_cleanup>>;
using MultiPtr = std::unique_ptr<CURLM, Freed<curl_multi_cleanup>>;
using HeadersPtr = std::unique_ptr<curl_slist, Freed<curl_slist_free_all>>;

// Worth a second try: the connection was lost, or never came about. Reads only, so that what
// was done twice is harmless.
bool is_loss(CURLcode code) {
  return code == CURLE_COULDNT_CONNECT || code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR ||
         code == CURLE_GOT_NOTHING || code == CURLE_PARTIAL_FILE;
}

struct Request {
  Ask ask;
  Token token;
  Client::Done done;
};

// One request with all its tries.
struct Transfer {
  Request request;
  TimePoint deadline;
  int tries = 0;
  TimePoint again_at{};  // while it waits for its next try
  EasyPtr easy{};
  HeadersPtr headers{};
  Reply reply{};
  std::size_t header_bytes = 0;
  char trouble[CURL_ERROR_SIZE] = {};

  // What the request is called in texts: its path without what is asked for.
  [[nodiscard]] std::string_view name() const {
    return std::string_view(request.ask.path).substr(0, request.ask.path.find('?'));
  }
};

std::size_t take_body(char* data, std::size_t one, std::size_t count, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  const auto size = one * count;
  if (size > transfer.request.ask.max_bytes - transfer.reply.body.size()) {
    transfer.reply.too_large = true;
    return CURL_WRITEFUNC_ERROR;
  }
  transfer.reply.body.append(data, size);
  return size;
}

std::size_t take_header(char*, std::size_t one, std::size_t count, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  transfer.header_bytes += one * count;
  // Anything but what was given ends the transfer.
  return transfer.header_bytes > kMaxHeaderBytes ? 0 : one * count;
}

bool names_json(const char* content_type) {
  std::string_view type(content_type == nullptr ? "" : content_type);
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.remove_suffix(1);
  return std::ranges::equal(type, std::string_view("application/json"), [](char a, char b) {
    return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + 32) : a) == b;
  });
}

void set_options(const ClientOptions& options, Transfer& transfer) {
  auto* const easy = transfer.easy.get();
  const auto left = duration_cast<milliseconds>(transfer.deadline - BootClock::now());
  const auto url = "https://" + options.host + transfer.request.ask.path;
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_PROXY, "");  // not what the environment says
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer.headers.get());
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "mesh-controller");
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 0L);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
  curl_easy_setopt(easy, CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  if (!options.ca_file.empty()) {
    curl_easy_setopt(easy, CURLOPT_CAINFO, options.ca_file.c_str());
    curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr);
  }
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  // A request that ends while its host's name is looked up is not to wait for the look-up.
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, long{options.connect_timeout.count()});
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, std::max<long>(left.count(), 1));
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer.trouble);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_PRIVATE, &transfer);
}

HeadersPtr make_headers(const Token& token) {
  HeadersPtr headers;
  for (const auto& line :
       {"Authorization: Bearer " + token.secret(), std::string("Accept: application/json")}) {
    auto* const longer = curl_slist_append(headers.get(), line.c_str());
    if (longer == nullptr) break;  // out of memory: the request goes without, and is refused
    [[maybe_unused]] auto* const same = headers.release();
    headers.reset(longer);
  }
  return headers;
}

}  // namespace

// What the thread does. Everything but inbox_ and under_way_ is the thread's alone.
class Client::Loop {
 public:
  explicit Loop(ClientOptions options)
      : options_(std::move(options)), inbox_(kMaxUnderWay), multi_(curl_multi_init()) {}
  ~Loop() { stop(); }
  void stop() {
    if (!thread_.joinable()) return;
    thread_.request_stop();
    curl_multi_wakeup(multi_.get());
    thread_.join();
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  [[nodiscard]] Status start() {
    if (!multi_) return fail(ErrorCode::kSystem, "arvados: libcurl does not start");
    curl_multi_setopt(multi_.get(), CURLMOPT_MAX_TOTAL_CONNECTIONS, kMaxConnections);
    curl_multi_setopt(multi_.get(), CURLMOPT_MAXCONNECTS, kMaxConnections);
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
    return {};
  }

  [[nodiscard]] bool ask(Request request) {
    // Counted until its answer is given.
    if (under_way_.fetch_add(1) >= kMaxUnderWay) {
      under_way_.fetch_sub(1);
      return false;
    }
    const bool posted = inbox_.post(std::move(request));
    assert(posted);  // it holds as many as can be under way
    return posted;
  }

 private:
  using Transfers = std::list<Transfer>;  // libcurl keeps pointers to them

  void run(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      for (auto& request : inbox_.drain()) add(std::move(request));
      try_again();
      int running = 0;
      curl_multi_perform(multi_.get(), &running);
      take_done();
      curl_waitfd box{inbox_.fd(), CURL_WAIT_POLLIN, 0};
      curl_multi_poll(multi_.get(), &box, 1, wait_ms(), nullptr);
    }
    // Who hears of the end may ask for more: they hear of it again.
    do {
      for (auto& request : inbox_.drain()) add(std::move(request));
      while (!transfers_.empty()) end(transfers_.begin(), "the program ends");
    } while (under_way_.load() > 0);
  }

  void add(Request request) {
    transfers_.push_back(
        {.request = std::move(request), .deadline = BootClock::now() + options_.timeout});
    begin(std::prev(transfers_.end()));
  }

  void begin(Transfers::iterator transfer) {
    ++transfer->tries;
    transfer->again_at = {};
    transfer->reply = {};
    transfer->header_bytes = 0;
    transfer->trouble[0] = '\0';
    transfer->easy.reset(curl_easy_init());
    transfer->headers = make_headers(transfer->request.token);
    if (!transfer->easy) return end(transfer, "libcurl has no memory");
    set_options(options_, *transfer);
    if (curl_multi_add_handle(multi_.get(), transfer->easy.get()) != CURLM_OK) {
      transfer->easy.reset();
      end(transfer, "libcurl does not take it");
    }
  }

  void try_again() {
    const auto now = BootClock::now();
    for (auto at = transfers_.begin(); at != transfers_.end();) {
      const auto transfer = at++;  // begin() may end it
      if (!transfer->easy && transfer->again_at <= now) begin(transfer);
    }
  }

  void take_done() {
    int left = 0;
    while (const auto* const message = curl_multi_info_read(multi_.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;  // the message is gone with its handle
      void* self = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &self);
      const auto transfer =
          std::ranges::find_if(transfers_, [&](const auto& one) { return &one == self; });
      if (transfer != transfers_.end()) finish(transfer, code);
    }
  }

  void finish(Transfers::iterator transfer, CURLcode code) {
    auto& reply = transfer->reply;
    if (code == CURLE_OK) {
      long status = 0;
      const char* type = nullptr;
      curl_easy_getinfo(transfer->easy.get(), CURLINFO_RESPONSE_CODE, &status);
      curl_easy_getinfo(transfer->easy.get(), CURLINFO_CONTENT_TYPE, &type);
      reply.status = static_cast<int>(status);
      reply.is_json = names_json(type);
      // An error may quote what it was asked with.
      if (status != 200) reply.body = transfer->request.token.scrub(std::move(reply.body));
      return end(transfer, {});
    }
    curl_multi_remove_handle(multi_.get(), transfer->easy.get());
    transfer->easy.reset();
    const auto now = BootClock::now();
    const auto again_at = now + kFirstRetry * (1 << (transfer->tries - 1));
    if (is_loss(code) && transfer->tries <= kMaxRetries && again_at < transfer->deadline) {
      transfer->again_at = again_at;
      return;
    }
    end(transfer, transfer->trouble[0] != '\0' ? transfer->trouble : curl_easy_strerror(code));
  }

  // `trouble`: empty where there is a reply.
  void end(Transfers::iterator transfer, std::string_view trouble) {
    auto reply = std::move(transfer->reply);
    if (!trouble.empty()) {
      reply = {.trouble = fmt::format("{}: {}", transfer->name(),
                                      transfer->request.token.scrub(std::string(trouble))),
               .too_large = reply.too_large};
    }
    if (transfer->easy) curl_multi_remove_handle(multi_.get(), transfer->easy.get());
    auto done = std::move(transfer->request.done);
    transfers_.erase(transfer);
    under_way_.fetch_sub(1);
    done(std::move(reply));
  }

  // Until the next try, at most a second: libcurl knows its own times.
  [[nodiscard]] int wait_ms() const {
    constexpr milliseconds kLongest{1'000};
    auto wait = kLongest;
    const auto now = BootClock::now();
    for (const auto& transfer : transfers_) {
      if (transfer.easy) continue;
      wait = std::min(wait, duration_cast<milliseconds>(transfer.again_at - now) + milliseconds(1));
    }
    return static_cast<int>(std::max(wait, milliseconds(0)).count());
  }

  const ClientOptions options_;
  Mailbox<Request> inbox_;
  std::atomic<std::size_t> under_way_{0};
  MultiPtr multi_;
  Transfers transfers_;  // after multi_: their handles go first
  std::jthread thread_;
};

bool is_api_host(std::string_view text) {
  const bool bracketed = text.starts_with('[');
  const auto end = bracketed ? text.find(']') : text.find(':');
  if (bracketed && end == std::string_view::npos) return false;
  const auto name = text.substr(bracketed ? 1 : 0, end - (bracketed ? 1 : 0));
  const auto plain = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || (bracketed && c == ':');
  };
  if (name.empty() || name.size() > 253 || !std::ranges::all_of(name, plain)) return false;
  auto rest = end == std::string_view::npos ? std::string_view() : text.substr(end);
  if (bracketed) rest.remove_prefix(1);
  if (rest.empty()) return true;
  std::uint16_t port = 0;
  const auto* const last = rest.data() + rest.size();
  const auto [stop, error] = std::from_chars(rest.data() + 1, last, port);
  return rest.front() == ':' && error == std::errc() && stop == last && port != 0;
}

Client::Client(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
// While all of it is there: whoever is answered may ask again.
Client::~Client() { loop_->stop(); }

Result<std::unique_ptr<Client>> Client::make(ClientOptions options) {
  // Once a process, before any thread of ours uses it.
  static const CURLcode kReady = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (kReady != CURLE_OK) return fail(ErrorCode::kSystem, "arvados: libcurl does not start");
  if (!is_api_host(options.host)) {
    return fail(ErrorCode::kInvalid,
                "arvados.api_host: is no host name, nor one with a port, such as "
                "zzzzz.example.org or zzzzz.example.org:8443");
  }
  auto loop = std::make_unique<Loop>(std::move(options));
  CHECK_OK(loop->start());
  return std::unique_ptr<Client>(new Client(std::move(loop)));
}

bool Client::ask(const Ask& ask, const Token& token, Done done) {
  assert(ask.path.starts_with("/arvados/v1/"));  // made by arvados/paths.h
  return loop_->ask({ask, token, std::move(done)});
}

}  // namespace meshd::arvados
