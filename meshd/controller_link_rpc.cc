#include "meshd/controller_link_rpc.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>

#include <deque>
#include <utility>

#include "base/log.h"
#include "base/mailbox.h"
#include "meshd/controller_link.h"
#include "pki/grpc_credentials.h"
#include "proto/controller.grpc.pb.h"

namespace meshd {
namespace {

namespace pb = mesh::v1;
using Job = std::move_only_function<void()>;

// A slice as a snapshot may be large; certificates are small.
constexpr int kMaxMessageBytes = 32 << 20;
constexpr int kMaxReplyBytes = 2 * static_cast<int>(pki::kMaxPemBytes) + 1024;
// A half-open connection is found within 5 s: a ping after 2 s of silence, 2 s to answer it, and
// a second for a busy machine.
constexpr int kKeepaliveMs = 2000, kKeepaliveTimeoutMs = 2000;
constexpr std::size_t kMaxReasonBytes = 300;  // gRPC's tell of every address

// What gRPC's threads and the loop share. They hold it too, for the time after a stop that
// could not wait any longer.
struct Shared {
  // Of a stream at most a read, a write and its end wait, of a call its answer.
  Mailbox<Job> jobs{64};

  void post(Job job) {
    if (!jobs.post(std::move(job))) log::error("controller: the job queue is full: a job is lost");
  }
};

Error to_error(const grpc::Status& status) {
  using grpc::StatusCode;
  std::string what = status.error_message().substr(0, kMaxReasonBytes);
  switch (status.error_code()) {
    case StatusCode::OK:
      return {ErrorCode::kSystem, "the controller ended the session"};
    case StatusCode::DEADLINE_EXCEEDED:
      return {ErrorCode::kSystem, "no answer in time"};
    case StatusCode::UNAVAILABLE:
    case StatusCode::CANCELLED:
    case StatusCode::UNKNOWN:
    case StatusCode::INTERNAL:
    case StatusCode::ABORTED:
    case StatusCode::RESOURCE_EXHAUSTED:
      return {ErrorCode::kSystem, what.empty() ? "the connection ended" : std::move(what)};
    default:
      return {ErrorCode::kInvalid, what.empty() ? fmt::format("refused (gRPC status {})",
                                                              static_cast<int>(status.error_code()))
                                                : std::move(what)};
  }
}

// A channel for each attempt. One that is kept after a failure waits by itself before it tries
// again, and nobody polls its handshake while no call waits on it: after an outage it stays away
// for seconds. A call on a new one fails once, when the attempt has, and with the reason.
std::shared_ptr<grpc::Channel> channel_to(
    const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
    const std::string& cluster, int max_bytes) {
  grpc::ChannelArguments arguments;
  pki::expect_controller(arguments, cluster);
  // Otherwise channels to one address share a connection, and its waiting, behind our back.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetMaxReceiveMessageSize(max_bytes);
  return grpc::CreateCustomChannel("dns:///" + address, credentials, arguments);
}

// --- the session ---------------------------------------------------------------------

// Every member is the loop's alone: gRPC's callbacks only post. A hold keeps gRPC from ending
// the call between a message and the next read.
class Stream final : public grpc::ClientBidiReactor<pb::FromNode, pb::ToNode>, public LinkStream {
 public:
  using Ended = std::move_only_function<void()>;
  Stream(std::shared_ptr<Shared> shared, std::shared_ptr<grpc::Channel> channel,
         LinkStreamEvents& events, Ended on_ended)
      : shared_(std::move(shared)),
        stub_(pb::Cluster::NewStub(std::move(channel))),
        events_(events),
        on_ended_(std::move(on_ended)) {}

  void start(pb::FromNode hello) {
    stub_->async()->Session(&context_, this);
    AddHold();
    send(std::move(hello));
    read();
    StartCall();
  }

  void send(pb::FromNode message) override {
    if (over_ || broken_) return;
    const auto size = message.ByteSizeLong();
    if (unsent_.size() >= ControllerLink::kMaxUnsent ||
        unsent_bytes_ + size > ControllerLink::kMaxUnsentBytes) {
      return close("the controller does not read what it is sent");
    }
    unsent_.emplace_back(std::move(message), size);
    unsent_bytes_ += size;
    write();
  }
  void close(std::string why) override {
    if (std::exchange(over_, true)) return;
    why_ = std::move(why);
    context_.TryCancel();
    // Not settle(): a message may be in the middle of being handled.
  }
  void cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    shared_->post([this, ok] { on_read(ok); });
  }
  void OnWriteDone(bool ok) override {
    shared_->post([this, ok] { on_written(ok); });
  }
  void OnDone(const grpc::Status& status) override {
    const auto shared = shared_;  // the loop may be quicker with what follows than post()
    shared->post([this, status] {
      on_ended_();
      events_.ended(why_.empty() ? to_error(status) : Error{ErrorCode::kSystem, why_});
      delete this;
    });
  }

 private:
  void on_read(bool ok) {
    reading_ = false;
    if (!ok) {
      over_ = true;
    } else if (!over_) {
      events_.arrived(message_);
      read();
    }
    settle();
  }
  void on_written(bool ok) {
    writing_ = false;
    unsent_bytes_ -= unsent_.front().second;
    unsent_.pop_front();
    // What the controller said last can be read still.
    if (!ok) broken_ = true;
    if (ok && !over_ && !std::exchange(greeted_, true)) events_.hello_sent();
    write();
    settle();
  }
  void read() {
    if (over_) return;
    reading_ = true;
    message_.Clear();
    StartRead(&message_);
  }
  void write() {
    if (writing_ || over_ || broken_ || unsent_.empty()) return;
    writing_ = true;
    StartWrite(&unsent_.front().first);
  }
  // Nothing runs and nothing will: gRPC may end the call.
  void settle() {
    if (!over_ || reading_ || writing_ || !std::exchange(held_, false)) return;
    RemoveHold();
  }

  const std::shared_ptr<Shared> shared_;
  const std::unique_ptr<pb::Cluster::Stub> stub_;
  LinkStreamEvents& events_;
  Ended on_ended_;
  grpc::ClientContext context_;
  pb::ToNode message_;
  std::deque<std::pair<pb::FromNode, std::size_t>> unsent_;  // the first is being written
  std::size_t unsent_bytes_ = 0;
  std::string why_;
  bool reading_ = false, writing_ = false, held_ = true;
  bool greeted_ = false, over_ = false, broken_ = false;
};

// --- calls ---------------------------------------------------------------------------

struct Call {
  std::shared_ptr<grpc::Channel> channel;
  grpc::ClientContext context;
  pb::EnrolRequest enrol;
  pb::RenewRequest renew;
  pb::EnrolReply reply;
  LinkRpc::Answer answer;
};

class GrpcLinkRpc final : public LinkRpc {
 public:
  [[nodiscard]] int fd() const override { return shared_->jobs.fd(); }
  void deliver() override {
    for (auto& job : shared_->jobs.drain()) job();
  }

  Status enrol(const std::string& address, const pki::Authorities& trusted,
               const pb::EnrolRequest& request, Duration limit, Answer answer) override {
    const auto credentials = TRY(pki::make_join_channel_credentials(trusted));
    prepare(channel_to(address, credentials, trusted.cluster, kMaxReplyBytes), limit,
            std::move(answer));
    call_->enrol = request;
    pb::Join::NewStub(call_->channel)
        ->async()
        ->Enrol(&call_->context, &call_->enrol, &call_->reply, done());
    return {};
  }

  Status renew(const std::string& address, const pki::IdentityFiles& files,
               const std::string& cluster, const pb::RenewRequest& request, Duration limit,
               Answer answer) override {
    const auto credentials = TRY(pki::make_channel_credentials(files));
    prepare(channel_to(address, credentials, cluster, kMaxReplyBytes), limit, std::move(answer));
    call_->renew = request;
    pb::Cluster::NewStub(call_->channel)
        ->async()
        ->Renew(&call_->context, &call_->renew, &call_->reply, done());
    return {};
  }

  Result<LinkStream*> open(const std::string& address, const pki::IdentityFiles& files,
                           const std::string& cluster, pb::FromNode hello,
                           LinkStreamEvents& events) override {
    const auto credentials = TRY(pki::make_channel_credentials(files));
    stream_ = new Stream(shared_, channel_to(address, credentials, cluster, kMaxMessageBytes),
                         events, [this] { stream_ = nullptr; });
    stream_->start(std::move(hello));
    return stream_;
  }

  void stop(Duration limit) override {
    if (stream_ != nullptr) stream_->close("stopped");
    if (call_) call_->context.TryCancel();
    const auto end = BootClock::now() + limit;
    while (stream_ != nullptr || call_) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - BootClock::now());
      if (left.count() <= 0) break;
      pollfd wait{fd(), POLLIN, 0};
      poll(&wait, 1, static_cast<int>(left.count()));
      deliver();
    }
    // One that gRPC has not let go of is its own for ever.
    [[maybe_unused]] const auto* const kept = call_.release();
  }

 private:
  void prepare(std::shared_ptr<grpc::Channel> channel, Duration limit, Answer answer) {
    call_ = std::make_unique<Call>();
    call_->channel = std::move(channel);
    call_->answer = std::move(answer);
    call_->context.set_deadline(
        std::chrono::system_clock::now() +
        std::chrono::duration_cast<std::chrono::system_clock::duration>(limit));
  }
  // Runs on gRPC's thread.
  std::function<void(grpc::Status)> done() {
    return [this, shared = shared_](const grpc::Status& status) {
      shared->post([this, status] {
        const auto call = std::exchange(call_, nullptr);
        if (status.ok()) return call->answer(std::move(call->reply));
        call->answer(std::unexpected(to_error(status)));
      });
    };
  }

  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  Stream* stream_ = nullptr;    // deletes itself once gRPC is done with it
  std::unique_ptr<Call> call_;  // likewise gone with its answer
};

}  // namespace

std::unique_ptr<LinkRpc> LinkRpc::make() { return std::make_unique<GrpcLinkRpc>(); }

}  // namespace meshd
