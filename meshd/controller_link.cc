#include "meshd/controller_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "meshd/controller_link_rpc.h"
#include "meshd/link_identity.h"

namespace meshd {
namespace {

namespace pb = mesh::v1;
using pki::UtcTime;

constexpr double kGrowth = 1.5;
// The wall clock may be set, and files may be put in place by others.
constexpr Duration kLookAgain = std::chrono::minutes(1);
constexpr Duration kLookSoon = std::chrono::seconds(1);
// Renewing is tried again after a tenth of what is left, within these.
constexpr Duration kLeastRenewPause = std::chrono::seconds(1);
constexpr Duration kMostRenewPause = std::chrono::minutes(5);
// No controller has a reason to send a node away for longer.
constexpr Duration kLongestFarewell = std::chrono::minutes(10);
constexpr std::size_t kMaxReasonBytes = 300;
// Attempts at a session, one after the other, before the ticket may be the better word.
constexpr unsigned kAttemptsBeforeMoving = 3;

UtcTime utc_now() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

Result<pb::EnrolReply> from(const std::string& address, Result<pb::EnrolReply> reply) {
  if (reply) return reply;
  return std::unexpected(std::move(reply).error().in(address));
}

class Link final : public ControllerLink, private LinkStreamEvents {
 public:
  Link(LinkOptions options, ControllerEvents& events)
      : options_(std::move(options)), events_(events), addresses_(options_.controller.addresses) {
    renew_jitter_ = chance();
    std::ranges::shuffle(addresses_, random_);
  }
  ~Link() override { Link::stop(); }
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  [[nodiscard]] int fd() const override { return rpc_->fd(); }
  void on_readable(TimePoint now) override {
    now_ = now;
    rpc_->deliver();
    tell();
  }
  [[nodiscard]] std::optional<TimePoint> next_timer() const override;
  void on_timer(TimePoint now) override;
  void send(pb::FromNode message) override {
    if (connected_) stream_->send(std::move(message));
  }
  void end_session(std::string_view why, Duration pause) override {
    if (stream_ == nullptr) return;
    least_pause_ = std::max(least_pause_, pause);
    stream_->close(std::string(why));
  }
  void stop() override {
    if (std::exchange(stopped_, true)) return;
    look_at_.reset();
    attempt_at_.reset();
    give_up_at_.reset();
    rpc_->stop(kStopLimit);
  }

 private:
  // --- who the node is
  void look();
  [[nodiscard]] bool moves(const pki::StoredIdentity& stored, UtcTime now);
  void on_good(const pki::StoredIdentity& stored, UtcTime now);
  void on_none(const Error& why);
  void read_ticket();
  void join();
  void on_joined(Result<pb::EnrolReply> reply, const pki::PrivateKey& key);
  void join_failed(const Error& why);
  void renew(const pki::StoredIdentity& stored);
  void on_renewed(Result<pb::EnrolReply> reply, const pki::PrivateKey& key, UtcTime until);
  void renew_failed(const Error& why, UtcTime until);

  // --- the session
  void attempt();
  void lost(const std::string& why);
  void hello_sent() override;
  void arrived(const pb::ToNode& message) override;
  void ended(const Error& why) override;

  [[nodiscard]] double chance() {
    return std::uniform_real_distribution<double>(0.0, 1.0)(random_);
  }
  [[nodiscard]] Duration pause(Duration first, Duration longest, unsigned failures);
  [[nodiscard]] bool joins() const { return !options_.controller.join_file.empty(); }
  void tell();

  const LinkOptions options_;
  ControllerEvents& events_;
  const std::unique_ptr<LinkRpc> rpc_ = LinkRpc::make();
  std::mt19937 random_{std::random_device()()};
  TimePoint now_{};
  bool stopped_ = false;
  std::string ticket_problem_, identity_problem_, move_problem_, session_problem_, told_;

  std::optional<pki::JoinTicket> ticket_;
  bool good_ = false;  // there is an identity, until then:
  UtcTime good_until_{};
  std::string cluster_;
  bool asking_ = false;  // a call is on its way
  unsigned join_failures_ = 0;
  double renew_jitter_ = 0;
  TimePoint renew_from_{};
  std::optional<TimePoint> look_at_ = TimePoint();

  std::vector<std::string> addresses_;  // in the order in which they are tried
  std::size_t next_address_ = 0, next_join_ = 0;
  LinkStream* stream_ = nullptr;  // from attempt() to ended()
  std::string address_;           // of the stream
  bool connected_ = false;
  TimePoint connected_at_{};
  unsigned failures_ = 0;
  Duration last_pause_{}, least_pause_{};
  std::optional<TimePoint> attempt_at_, give_up_at_;
};

// Half of it is chance, so that nodes which lost a controller together do not come together.
Duration Link::pause(Duration first, Duration longest, unsigned failures) {
  const auto whole = std::min(
      static_cast<double>(longest.count()),
      static_cast<double>(first.count()) * std::pow(kGrowth, static_cast<double>(failures)));
  return Duration(static_cast<Duration::rep>(whole * (1.0 - chance() / 2)));
}

std::optional<TimePoint> Link::next_timer() const {
  std::optional<TimePoint> next;
  for (const auto& at : {look_at_, attempt_at_, give_up_at_}) {
    if (at && (!next || *at < *next)) next = at;
  }
  return next;
}

void Link::on_timer(TimePoint now) {
  if (stopped_) return;
  now_ = now;
  if (look_at_ && *look_at_ <= now) look();
  if (attempt_at_ && *attempt_at_ <= now) attempt();
  if (give_up_at_ && *give_up_at_ <= now) {
    give_up_at_.reset();
    stream_->close("no answer in time");
  }
  tell();
}

void Link::tell() {
  std::string text;
  for (const auto* part : {&identity_problem_, &move_problem_, &session_problem_}) {
    if (!part->empty()) text += (text.empty() ? "" : "; ") + *part;
  }
  if (stopped_ || text == told_) return;
  told_ = text;
  events_.problem(text);
}

// --- who the node is -------------------------------------------------------------------

void Link::look() {
  look_at_ = now_ + kLookAgain;
  if (asking_) return;
  const auto now = utc_now();
  const auto stored = pki::read_identity(options_.files);
  if (!stored) return on_none(stored.error());
  if (is_early(stored->certificate, now)) {
    good_ = false;
    look_at_ = now_ + kLookSoon;
    identity_problem_ = "the node's certificate is not valid yet: its clock is slow";
    return;
  }
  if (const auto status = check_own(*stored, options_.node, now); !status) {
    return on_none(status.error());
  }
  if (joins()) read_ticket();
  const bool is_moving = moves(*stored, now);
  on_good(*stored, now);
  if (is_moving && !asking_) return join();
  if (!move_problem_.empty()) look_at_ = now_ + kLookSoon;  // what stands in its way may go
}

// Whether to join with the ticket although there is a good identity, which is kept until then.
bool Link::moves(const pki::StoredIdentity& stored, UtcTime now) {
  move_problem_.clear();
  if (!ticket_) return false;
  const auto& ticket = ticket_->authorities;
  if (ticket.cluster != stored.authorities.cluster) {
    move_problem_ = fmt::format("the ticket is for cluster {}, this node is of {}", ticket.cluster,
                                stored.authorities.cluster);
  } else {
    // An old ticket beside an identity that was renewed since by another authority is well, as
    // long as controllers take that.
    const bool taken = connected_ || failures_ < kAttemptsBeforeMoving;
    if (taken || is_vouched_for(stored, *ticket_, now)) return false;
    move_problem_ = fmt::format(
        "this node's certificate is of another authority than the ticket, as if cluster {} had "
        "been made anew",
        ticket.cluster);
  }
  const auto may = events_.may_move();
  if (!may) move_problem_ += ": " + may.error().what;
  return may.has_value();
}

void Link::on_good(const pki::StoredIdentity& stored, UtcTime now) {
  const auto due = pki::renew_at(stored.certificate, renew_jitter_) - now;
  if ((!good_ || due > std::chrono::seconds(0)) && move_problem_.empty()) {
    identity_problem_.clear();
  }
  if (!std::exchange(good_, true)) attempt_at_ = now_;
  const auto left = std::chrono::seconds(stored.certificate.not_after - now);
  // One that is due when it comes, because its life is shorter than the clocks' slack, must not
  // be renewed on and on.
  if (std::exchange(good_until_, stored.certificate.not_after) != stored.certificate.not_after) {
    renew_from_ = now_ + std::clamp<Duration>(left / 10, kLeastRenewPause, kMostRenewPause);
  }
  cluster_ = stored.authorities.cluster;
  if (!joins()) {
    look_at_ = now_ + std::min<Duration>(kLookAgain, left);
    return;
  }
  if (due <= std::chrono::seconds(0) && now_ >= renew_from_) return renew(stored);
  look_at_ = std::max(renew_from_, now_ + std::min<Duration>(kLookAgain, due));
}

void Link::on_none(const Error& why) {
  good_ = false;
  if (joins()) return join();
  identity_problem_ = why.what;
  look_at_ = now_ + kLookSoon;
}

// When it cannot be read any more, what was read before stays good.
void Link::read_ticket() {
  auto read = read_join_ticket(options_.controller.join_file);
  ticket_problem_ = read ? "" : read.error().what;
  if (!read) return;
  ticket_ = *std::move(read);
  if (!addresses_.empty()) return;
  addresses_ = ticket_->addresses;
  std::ranges::shuffle(addresses_, random_);
}

void Link::join() {
  read_ticket();
  if (!ticket_) {
    identity_problem_ = "joining: " + ticket_problem_;
    look_at_ = now_ + kLookSoon;
    return;
  }
  auto key = pki::PrivateKey::make();
  if (!key) return join_failed(key.error());
  const auto csr = pki::make_csr(*key);
  if (!csr) return join_failed(csr.error());
  pb::EnrolRequest request;
  request.set_token(ticket_->token);
  request.set_name(options_.node);
  request.set_csr(*csr);
  const auto& address = ticket_->join_addresses[next_join_++ % ticket_->join_addresses.size()];
  const auto begun =
      rpc_->enrol(address, ticket_->authorities, request, options_.times.answer,
                  [this, address, key = *std::move(key)](Result<pb::EnrolReply> reply) {
                    on_joined(from(address, std::move(reply)), key);
                  });
  if (!begun) return join_failed(begun.error());
  asking_ = true;
}

void Link::on_joined(Result<pb::EnrolReply> reply, const pki::PrivateKey& key) {
  asking_ = false;
  if (stopped_) return;
  if (!reply) return join_failed(reply.error());
  const auto stored = store_identity(options_.files, *reply, key, ticket_->authorities.cluster,
                                     options_.node, utc_now());
  if (!stored) return join_failed(stored.error());
  join_failures_ = 0;
  identity_problem_.clear();
  // Whoever had one before begins anew with this one.
  good_ = false;
  failures_ = 0;
  if (options_.controller.addresses.empty()) addresses_.clear();  // of the ticket, read anew
  end_session("the node has joined anew", {});
  look();
}

void Link::join_failed(const Error& why) {
  const auto& times = options_.times;
  identity_problem_ = "joining: " + why.what;
  look_at_ = now_ + (why.code == ErrorCode::kInvalid
                         ? pause(times.refused_pause, times.longest_refused_pause, join_failures_)
                         : pause(times.pause, times.longest_pause, join_failures_));
  ++join_failures_;
}

// With the same key: when the answer is lost, what the node has is as good as before.
void Link::renew(const pki::StoredIdentity& stored) {
  const auto until = stored.certificate.not_after;
  const auto csr = pki::make_csr(stored.key);
  if (!csr) return renew_failed(csr.error(), until);
  auto key = pki::PrivateKey::parse(stored.key.to_pem());
  if (!key) return renew_failed(key.error(), until);
  if (addresses_.empty()) return renew_failed({ErrorCode::kNotFound, "no addresses"}, until);
  pb::RenewRequest request;
  request.set_csr(*csr);
  // The one that answers, or each in turn.
  const auto address = connected_ ? address_ : addresses_[next_join_++ % addresses_.size()];
  const auto begun =
      rpc_->renew(address, options_.files, cluster_, request, options_.times.answer,
                  [this, address, key = *std::move(key), until](Result<pb::EnrolReply> reply) {
                    on_renewed(from(address, std::move(reply)), key, until);
                  });
  if (!begun) return renew_failed(begun.error(), until);
  asking_ = true;
}

void Link::on_renewed(Result<pb::EnrolReply> reply, const pki::PrivateKey& key, UtcTime until) {
  asking_ = false;
  if (stopped_) return;
  if (!reply) return renew_failed(reply.error(), until);
  const auto stored =
      store_identity(options_.files, *reply, key, cluster_, options_.node, utc_now());
  if (!stored) return renew_failed(stored.error(), until);
  identity_problem_.clear();
  look();
}

void Link::renew_failed(const Error& why, UtcTime until) {
  const auto left = std::chrono::seconds(until - utc_now());
  identity_problem_ = fmt::format("renewing the certificate, which expires in {}: {}",
                                  pki::duration_text(left), why.what);
  const auto whole = std::clamp<Duration>(left / 10, kLeastRenewPause, kMostRenewPause);
  look_at_ = now_ + pause(whole, whole, 0);
}

// --- the session -----------------------------------------------------------------------

void Link::attempt() {
  attempt_at_.reset();
  if (!good_ || stream_ != nullptr) return;  // look() begins anew once there is an identity
  if (utc_now() >= good_until_) {
    good_ = false;
    look_at_ = now_;
    return look();
  }
  if (addresses_.empty() && joins()) read_ticket();
  if (addresses_.empty()) return lost("no address: " + ticket_problem_);
  address_ = addresses_[next_address_++ % addresses_.size()];
  pb::FromNode hello;
  *hello.mutable_hello() = events_.hello();
  const auto stream = rpc_->open(address_, options_.files, cluster_, std::move(hello), *this);
  if (!stream) return lost(stream.error().what);
  stream_ = *stream;
  give_up_at_ = now_ + std::max(options_.times.connect, 2 * last_pause_);
}

void Link::lost(const std::string& why) {
  session_problem_ = "no session with a controller: " + why;
  last_pause_ = pause(options_.times.pause, options_.times.longest_pause, failures_);
  // With each failure, for the ticket may be another one by now; but joining has a pace of its own.
  if (++failures_ >= kAttemptsBeforeMoving && joins() && join_failures_ == 0) look_at_ = now_;
  attempt_at_ = now_ + std::max(last_pause_, std::exchange(least_pause_, Duration()));
}

// Which the controller's first answer may be told before.
void Link::hello_sent() {
  if (!connected_) give_up_at_ = now_ + options_.times.answer;
}

void Link::arrived(const pb::ToNode& message) {
  if (stopped_) return;
  if (message.has_farewell()) {
    const auto& farewell = message.farewell();
    const auto why = std::string_view(farewell.reason()).substr(0, kMaxReasonBytes);
    end_session(
        why.empty() ? "the controller ended the session" : why,
        std::min<Duration>(std::chrono::milliseconds(farewell.retry_after_ms()), kLongestFarewell));
    return;
  }
  if (!connected_) {
    connected_ = true;
    connected_at_ = now_;
    give_up_at_.reset();
    session_problem_.clear();
    if (!move_problem_.empty()) look_at_ = now_;
    events_.connected(address_);
  }
  events_.message(message);
}

void Link::ended(const Error& why) {
  stream_ = nullptr;
  give_up_at_.reset();
  const bool was_connected = std::exchange(connected_, false);
  if (stopped_) return;
  if (was_connected && now_ - connected_at_ >= options_.times.settled) failures_ = 0;
  const auto text = fmt::format("{}: {}", address_, why.what);
  lost(text);
  if (was_connected) events_.disconnected(text);
}

}  // namespace

LinkOptions link_options(const Config& config) {
  LinkOptions options{.node = config.node_name, .controller = *config.controller, .files = {}};
  const auto& given = options.controller;
  options.files = given.join_file.empty()
                      ? pki::IdentityFiles{given.identity_file, given.authorities_file}
                      : pki::IdentityFiles{config.state_dir + "/identity.pem",
                                           config.state_dir + "/authorities.pem"};
  return options;
}

std::unique_ptr<ControllerLink> ControllerLink::make(LinkOptions options,
                                                     ControllerEvents& events) {
  return std::make_unique<Link>(std::move(options), events);
}

}  // namespace meshd
