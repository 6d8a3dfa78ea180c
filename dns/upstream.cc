#include "dns/upstream.h"

#include <ares.h>
#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <vector>

#include "base/clock.h"
#include "dns/limits.h"
#include "dns/message.h"
#include "dns/name.h"

namespace meshd::dns {
namespace {

constexpr std::size_t kOptBytes = 11;  // OPT without options, as write_opt() ends a query

struct LibraryOnce {
  LibraryOnce() : status(ares_library_init(ARES_LIB_INIT_ALL)) {}
  int status;
};

struct CloseChannel {
  void operator()(ares_channel channel) const { ares_destroy(channel); }
};
using ChannelHandle = std::unique_ptr<ares_channeldata, CloseChannel>;

class AresUpstream final : public Upstream {
 public:
  AresUpstream(const UpstreamAddress& address, Watch watch)
      : address_(address), watch_(std::move(watch)) {}
  ~AresUpstream() override {
    // Destroying a channel ends what is pending with a failure, so that others are asked.
    channels_.clear();
  }

  Status open() { return add_channel(true); }

  void ask(Bytes query, Done done) override {
    auto request = std::make_unique<Request>();
    request->self = this;
    request->query.assign(query.begin(), query.end());
    request->done = std::move(done);
    send(std::move(request));
  }

  void on_event(int fd, bool readable, bool writable) override {
    // A descriptor belongs to one channel; the others ignore it.
    for (auto& channel : channels_) {
      ares_process_fd(channel.handle.get(), readable ? fd : ARES_SOCKET_BAD,
                      writable ? fd : ARES_SOCKET_BAD);
    }
    retire();
  }

  void tick() override {
    for (auto& channel : channels_) {
      ares_process_fd(channel.handle.get(), ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    }
    retire();
  }

  [[nodiscard]] bool busy() const override { return pending_ > 0; }

 private:
  struct Channel {
    ChannelHandle handle;
    bool edns = true;
    int used = 0, pending = 0;
  };
  struct Request {
    AresUpstream* self = nullptr;
    Channel* channel = nullptr;
    std::vector<std::uint8_t> query;
    Done done;
  };

  void send(std::unique_ptr<Request> request) {
    const bool edns = BootClock::now() >= plain_until_;
    if (channels_.empty() || channels_.front().used >= kQueriesPerChannel ||
        channels_.front().edns != edns) {
      if (!add_channel(edns)) return request->done({}, Failure::kUnreachable);
    }
    auto& channel = channels_.front();
    ++channel.used;
    ++channel.pending;
    ++pending_;
    request->channel = &channel;
    auto query = request->query;
    if (!edns && query.size() > 12 + kOptBytes) {
      query.resize(query.size() - kOptBytes);
      query[10] = query[11] = 0;
    }
    ares_send(channel.handle.get(), query.data(), static_cast<int>(query.size()), on_reply,
              request.release());
  }

  static void on_reply(void* data, int status, int, unsigned char* reply, int length) {
    std::unique_ptr<Request> request(static_cast<Request*>(data));
    auto& self = *request->self;
    auto& channel = *request->channel;
    --channel.pending;
    --self.pending_;
    if (status != ARES_SUCCESS || reply == nullptr || length <= 0) {
      return request->done({}, failure_of(status));
    }
    const Bytes bytes(reply, static_cast<std::size_t>(length));
    if (!channel.edns || has_opt(bytes)) return request->done(bytes, Failure::kNone);
    const bool format_error = length >= 12 && (reply[3] & 0xf) == 1;
    if (format_error || lost_edns(channel)) {
      self.plain_until_ = BootClock::now() + kPlainDnsFor;
      // It went out with OPT behind the query at which the channel forgot about EDNS.
      if (format_error) return self.send(std::move(request));
    }
    request->done(bytes, Failure::kNone);
  }

  static Failure failure_of(int status) {
    if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) return Failure::kGone;
    return status == ARES_ETIMEOUT ? Failure::kSilent : Failure::kUnreachable;
  }

  // Malformed ones count as having it: nothing is learnt from them.
  static bool has_opt(Bytes message) {
    Reader reader(message, 4);
    const int questions = reader.u16();
    int records = reader.u16();
    records += reader.u16();
    records += reader.u16();
    for (int i = 0; i < questions && reader.ok(); ++i) {
      skip_name(reader);
      reader.skip(4);
    }
    for (int i = 0; i < records && reader.ok(); ++i) {
      skip_name(reader);
      if (reader.u16() == type::kOpt) return true;
      reader.skip(6);
      reader.skip(reader.u16());
    }
    return !reader.ok();
  }

  static bool lost_edns(const Channel& channel) {
    ares_options options{};
    int mask = 0;
    if (ares_save_options(channel.handle.get(), &options, &mask) != ARES_SUCCESS) return false;
    const bool lost = (options.flags & ARES_FLAG_EDNS) == 0;
    ares_destroy_options(&options);
    return lost;
  }

  static void on_socket(void* data, ares_socket_t fd, int readable, int writable) {
    static_cast<AresUpstream*>(data)->watch_(fd, readable != 0, writable != 0);
  }

  Status add_channel(bool edns) {
    ares_options options{};
    // NOCHECKRESP: rcodes and extended errors reach us. EDNS: without it a UDP answer over
    // 512 bytes would be fetched again by TCP. No STAYOPEN: idle sockets, and their source
    // ports, go.
    options.flags = ARES_FLAG_NOCHECKRESP | (edns ? ARES_FLAG_EDNS : 0) | ARES_FLAG_NOSEARCH |
                    ARES_FLAG_NOALIASES;
    options.ednspsz = kMaxUdpPayload;
    options.timeout = static_cast<int>(
        std::chrono::duration_cast<std::chrono::milliseconds>(kTryTimeout).count());
    options.tries = 1;
    options.nservers = 0;
    options.sock_state_cb = on_socket;
    options.sock_state_cb_data = this;
    char no_lookups[] = "b";
    options.lookups = no_lookups;
    const int mask = ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                     ARES_OPT_SOCK_STATE_CB | ARES_OPT_LOOKUPS;
    ares_channel raw = nullptr;
    if (const int error = ares_init_options(&raw, &options, mask); error != ARES_SUCCESS) {
      return fail(ErrorCode::kSystem,
                  fmt::format("upstream {}: {}", address_.to_string(), ares_strerror(error)));
    }
    ChannelHandle handle(raw);
    ares_addr_port_node server{};
    server.family = address_.address.is_v4() ? AF_INET : AF_INET6;
    std::ranges::copy(address_.address.bytes(), reinterpret_cast<std::uint8_t*>(&server.addr));
    server.udp_port = server.tcp_port = address_.port;
    if (const int error = ares_set_servers_ports(raw, &server); error != ARES_SUCCESS) {
      return fail(ErrorCode::kSystem,
                  fmt::format("upstream {}: {}", address_.to_string(), ares_strerror(error)));
    }
    channels_.push_front({std::move(handle), edns, 0, 0});
    return {};
  }

  void retire() {
    auto worn = channels_.begin();
    if (worn != channels_.end()) ++worn;  // the one in use stays
    while (worn != channels_.end()) worn = worn->pending == 0 ? channels_.erase(worn) : ++worn;
  }

  const UpstreamAddress address_;
  const Watch watch_;
  std::list<Channel> channels_;  // the newest first; addresses stay valid
  int pending_ = 0;
  TimePoint plain_until_{};  // until then the server is taken not to know EDNS
};

}  // namespace

std::string UpstreamAddress::to_string() const {
  return fmt::format(fmt::runtime(address.is_v4() ? "{}:{}" : "[{}]:{}"), address.to_string(),
                     port);
}

Result<std::unique_ptr<Upstream>> Upstream::make(const UpstreamAddress& address, Watch watch) {
  static const LibraryOnce library;
  if (library.status != ARES_SUCCESS) {
    return fail(ErrorCode::kSystem, fmt::format("c-ares: {}", ares_strerror(library.status)));
  }
  auto upstream = std::make_unique<AresUpstream>(address, std::move(watch));
  CHECK_OK(upstream->open());
  return upstream;
}

}  // namespace meshd::dns
