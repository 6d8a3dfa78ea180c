#include "bench/cluster_fleet.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <cmath>
#include <deque>
#include <map>
#include <random>
#include <utility>

#include "base/ip.h"
#include "bench/must.h"
#include "pki/grpc_credentials.h"
#include "pki/key.h"
#include "policy/slice_hash.h"
#include "proto/controller.grpc.pb.h"
#include "proto/node.grpc.pb.h"

namespace meshd::bench {
namespace {

namespace pb = mesh::v1;

// Enrolments under way, and nodes on their way to being in sync. Their end costs as much as the
// controller's, and here one thread does it for all of them: with more at a time pings would wait
// for longer than keepalive does, and who is cut off begins again.
constexpr std::size_t kJoining = 64;
constexpr std::size_t kComing = 250;
// As the daemon's (meshd/controller_link.h).
constexpr double kFirstPauseMs = 200, kLongestPauseMs = 10'000, kGrowth = 1.5;
constexpr int kMaxMessageBytes = 32 << 20;

std::shared_ptr<grpc::Channel> channel_to(const std::string& address, const std::string& cluster,
                                          const grpc::SslCredentialsOptions& options) {
  grpc::ChannelArguments arguments;
  pki::expect_controller(arguments, cluster);
  // As the daemon's.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 3000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 2000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  return grpc::CreateCustomChannel(address, grpc::SslCredentials(options), arguments);
}

// What all nodes share.
struct Common {
  ClusterWorld& world;
  std::vector<std::size_t> pairs;  // of each node, as of connect_all()
  FleetEvents& events;
  pki::JoinTicket ticket;
  std::string authorities;
  grpc::CompletionQueue queue;
  Fleet::Counts counts;
  std::size_t joining = 0, coming = 0;
  bool stay_away = false;
  std::string last_loss;
  std::multimap<Clock::time_point, std::function<void()>> later;
  std::mt19937 random{1};
};

class Node;
enum class Op : std::uint8_t { kEnrolled, kBegun, kRead, kWritten, kEnded, kApplied };
struct Tag {
  Node* node = nullptr;
  Op op{};
};

struct Apply {
  Tag tag{nullptr, Op::kApplied};
  int what = 0;
  grpc::ClientContext context;
  pb::ApplyReply reply;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<pb::ApplyReply>> call;
};

class Node {
 public:
  Node(Common& common, int number)
      : common_(common), number_(number), name_(fmt::format("n{:05}", number)) {
    for (std::size_t op = 0; op < std::size(tags_); ++op) tags_[op] = {this, static_cast<Op>(op)};
  }

  void come() {
    if (!std::exchange(coming_, true)) ++common_.coming;
    join();
  }

  void join() {
    if (!options_.pem_cert_chain.empty()) return connect();
    ++common_.joining;
    const auto key = must(pki::PrivateKey::make());
    options_.pem_private_key = key.to_pem();
    options_.pem_root_certs = common_.authorities;
    pb::EnrolRequest request;
    request.set_token(common_.ticket.token);
    request.set_name(name_);
    request.set_csr(must(pki::make_csr(key)));
    channel_ = channel_to(
        common_.ticket.join_addresses.front(), cluster(),
        {.pem_root_certs = common_.authorities, .pem_private_key = {}, .pem_cert_chain = {}});
    context_ = std::make_unique<grpc::ClientContext>();
    enrolling_ = pb::Join::NewStub(channel_)->AsyncEnrol(context_.get(), request, &common_.queue);
    enrolling_->Finish(&enrolled_, &status_, &tag(Op::kEnrolled));
  }

  void done(Op op, bool ok) {
    switch (op) {
      case Op::kEnrolled:
        return on_enrolled();
      case Op::kBegun:
        begun_ = false;
        if (!ok) break;
        connected_ = true;
        read();
        write();
        break;
      case Op::kRead:
        reading_ = false;
        if (!ok) break;
        take();
        read();
        break;
      case Op::kWritten:
        writing_ = false;
        if (!ok) break;
        unsent_.pop_front();
        write();
        break;
      case Op::kEnded:
        return on_ended();
      case Op::kApplied:
        break;
    }
    if (!ok) broken_ = true;
    // gRPC counts on each operation's end before the call's.
    if (!broken_ || begun_ || reading_ || writing_ || std::exchange(ending_, true)) return;
    stream_->Finish(&status_, &tag(Op::kEnded));
  }

  void send(pb::FromNode message) {
    if (!connected_ || broken_) return;
    unsent_.push_back(std::move(message));
    write();
  }

  void report(std::vector<pb::NodeEndpoint> endpoints, const std::string& gone, bool all) {
    pb::FromNode message;
    auto& report = *message.mutable_report();
    report.set_number(++reported_);
    report.set_all(all);
    for (auto& endpoint : endpoints) *report.add_endpoints() = std::move(endpoint);
    if (!gone.empty()) report.add_gone(gone);
    send(std::move(message));
  }

  pb::NodeEndpoint endpoint(int container, bool draining, bool new_address) {
    auto& place = attached_[container];
    if (place.slot == 0 || new_address) place.slot = 1 + next_slot_++ % kSlots;
    place.draining = draining;
    pb::NodeEndpoint result;
    result.set_id(ClusterWorld::id(container));
    for (const auto& block : blocks_) {
      result.add_addresses(block.plus(place.slot).to_string());
    }
    result.set_ready(true);
    result.set_draining(draining);
    for (const int port : ClusterWorld::serves(container)) {
      auto& ready = *result.add_ready_ports();
      ready.set_port(static_cast<std::uint32_t>(port));
      ready.set_v4(true);
      ready.set_v6(true);
    }
    return result;
  }
  void forget(int container) { attached_.erase(container); }

  [[nodiscard]] bool is_busy() const { return enrolling_ != nullptr || stream_ != nullptr; }
  [[nodiscard]] bool is_connected() const { return connected_ && !broken_; }
  [[nodiscard]] bool is_complete() const {
    return is_connected() && in_sync_ && taken_ == reported_ && reported_ > 0 &&
           nodes_known_ + 1 == common_.world.nodes() &&
           confirmed_.size() >= common_.pairs[static_cast<std::size_t>(number_)];
  }

 private:
  static constexpr std::uint64_t kSlots = 30;  // addresses of a /27
  struct Attached {
    std::uint64_t slot = 0;
    bool draining = false;
  };

  [[nodiscard]] const std::string& cluster() const { return common_.ticket.authorities.cluster; }
  [[nodiscard]] Tag& tag(Op op) { return tags_[static_cast<std::size_t>(op)]; }

  void on_enrolled() {
    --common_.joining;
    enrolling_.reset();
    if (!status_.ok()) common_.last_loss = "join: " + status_.error_message();
    if (status_.error_code() == grpc::StatusCode::UNAVAILABLE) {
      ++common_.counts.lost;
      return again(&Node::join);
    }
    if (!status_.ok()) die(fmt::format("{} is not let in: {}", name_, status_.error_message()));
    options_.pem_cert_chain = enrolled_.certificate();
    failures_ = 0;
    connect();
  }

  void again(void (Node::*what)()) {
    const auto whole = std::min(kFirstPauseMs * std::pow(kGrowth, failures_++), kLongestPauseMs);
    const auto part = 1 - std::uniform_real_distribution(0.0, 0.5)(common_.random);
    const auto pause = std::chrono::duration<double, std::milli>(whole * part);
    common_.later.emplace(Clock::now() + std::chrono::duration_cast<Clock::duration>(pause),
                          [this, what] {
                            if (!common_.stay_away && !is_busy()) (this->*what)();
                          });
  }

  void connect() {
    broken_ = connected_ = ending_ = in_sync_ = false;
    sweep_ = true;
    unsent_.clear();
    confirmed_.clear();
    reported_ = taken_ = 0;
    channel_ = channel_to(common_.ticket.addresses.front(), cluster(), options_);
    context_ = std::make_unique<grpc::ClientContext>();
    stub_ = pb::Cluster::NewStub(channel_);
    stream_ = stub_->PrepareAsyncSession(context_.get(), &common_.queue);
    pb::FromNode message;
    auto& hello = *message.mutable_hello();
    hello.set_protocol(1);
    hello.set_version("bench");
    hello.set_boot_id("boot");
    hello.set_revision(revision_);
    hello.set_slice_hash(hash_);
    hello.add_underlay(
        IpAddress::v4(0xac100000U + static_cast<std::uint32_t>(number_)).to_string());
    unsent_.push_back(std::move(message));
    begun_ = true;
    stream_->StartCall(&tag(Op::kBegun));
  }

  void on_ended() {
    stream_.reset();
    common_.counts.lost += connected_ ? 1 : 0;
    common_.last_loss = status_.error_message();
    connected_ = false;
    again(&Node::connect);
  }

  void read() {
    if (reading_ || broken_) return;
    reading_ = true;
    stream_->Read(&in_, &tag(Op::kRead));
  }
  void write() {
    if (writing_ || broken_ || unsent_.empty()) return;
    writing_ = true;
    stream_->Write(unsent_.front(), &tag(Op::kWritten));
  }

  void take() {
    switch (in_.kind_case()) {
      case pb::ToNode::kWelcome:
        return take_welcome(in_.welcome());
      case pb::ToNode::kSlice:
        return take_slice(in_.slice());
      case pb::ToNode::kInSync:
        if (in_.in_sync().slice_hash() != hash_) die(name_ + ": another hash than the controller");
        in_sync_ = true;
        failures_ = 0;
        if (std::exchange(coming_, false)) --common_.coming;
        return;
      case pb::ToNode::kReportTaken:
        for (const auto& problem : in_.report_taken().refused()) {
          die(fmt::format("{}: {} {}", name_, problem.subject(), problem.detail()));
        }
        taken_ = in_.report_taken().number();
        if (taken_ == reported_) common_.events.taken(number_);
        return;
      case pb::ToNode::kStarted:
        if (!in_.started().error().empty()) die(name_ + ": " + in_.started().error());
        return common_.events.started(number_);
      default:
        die(fmt::format("{}: the controller says {}", name_, in_.ShortDebugString()));
    }
  }

  void take_welcome(const pb::Welcome& welcome) {
    blocks_.clear();
    for (const auto& text : {welcome.block4(), welcome.block6()}) {
      if (!text.empty()) blocks_.push_back(must(Prefix::parse(text)).address());
    }
    std::vector<pb::NodeEndpoint> all;
    for (const int container : common_.world.on(number_)) {
      all.push_back(endpoint(container, attached_[container].draining, false));
    }
    report(std::move(all), {}, true);
  }

  void take_slice(const pb::SliceChange& change) {
    ++common_.counts.changes;
    common_.counts.bytes += in_.ByteSizeLong();
    if (change.snapshot() && !in_sync_ && std::exchange(sweep_, false)) {
      items_.clear();
      hash_ = 0;
      nodes_known_ = 0;
    }
    for (const auto& item : change.items()) {
      const auto key = policy::slice_item_hash(item.key().kind(), item.key().key(), {});
      const auto hash = policy::slice_item_hash(item.key().kind(), item.key().key(), item.value());
      const auto [known, fresh] = items_.try_emplace(key, 0);
      hash_ += hash - std::exchange(known->second, hash);
      if (item.key().kind() == pb::SliceKey::Kind::NODE && fresh) ++nodes_known_;
      if (item.key().kind() == pb::SliceKey::Kind::WORKLOAD) {
        common_.events.item(number_, item.key().key());
      }
      ++common_.counts.items;
    }
    for (const auto& gone : change.gone()) {
      const auto known = items_.find(policy::slice_item_hash(gone.kind(), gone.key(), {}));
      if (known == items_.end()) continue;
      hash_ -= known->second;
      items_.erase(known);
      if (gone.kind() == pb::SliceKey::Kind::NODE) --nodes_known_;
    }
    for (const auto& pair : change.confirmed()) {
      confirmed_.insert(policy::slice_item_hash(0, pair.consumer(), pair.provider()));
      common_.events.confirmed(number_, pair.consumer(), pair.provider());
    }
    revision_ = change.revision();
    pb::FromNode message;
    message.mutable_applied()->set_revision(revision_);
    send(std::move(message));
  }

  Common& common_;
  const int number_;
  const std::string name_;
  Tag tags_[5];
  grpc::SslCredentialsOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<pb::EnrolReply>> enrolling_;
  pb::EnrolReply enrolled_;
  std::unique_ptr<pb::Cluster::Stub> stub_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<pb::FromNode, pb::ToNode>> stream_;
  grpc::Status status_;
  pb::ToNode in_;
  std::deque<pb::FromNode> unsent_;  // the first is being written while writing_
  bool begun_ = false, reading_ = false, writing_ = false, ending_ = false;
  bool coming_ = false;  // until it is in sync
  bool connected_ = false, broken_ = false, in_sync_ = false, sweep_ = true;
  std::uint64_t revision_ = 0, hash_ = 0, reported_ = 0, taken_ = 0;
  int nodes_known_ = 0, failures_ = 0;
  absl::flat_hash_map<std::uint64_t, std::uint64_t> items_;  // key's hash: item's
  absl::flat_hash_set<std::uint64_t> confirmed_;             // in this session
  std::vector<IpAddress> blocks_;
  std::map<int, Attached> attached_;  // by container
  std::uint64_t next_slot_ = 0;
};

class GrpcFleet final : public Fleet {
 public:
  GrpcFleet(ClusterWorld& world, pki::JoinTicket ticket, const std::string& identity,
            FleetEvents& events)
      : common_{world, {}, events, std::move(ticket), {}, {}, {}, 0, 0, false, {}, {}, {}} {
    for (const auto& authority : common_.ticket.authorities.certificates) {
      common_.authorities += authority.to_pem();
    }
    control_ = pb::Control::NewStub(channel_to(common_.ticket.addresses.front(),
                                               common_.ticket.authorities.cluster,
                                               {.pem_root_certs = common_.authorities,
                                                .pem_private_key = identity,
                                                .pem_cert_chain = identity}));
    for (int number = 0; number < world.nodes(); ++number) {
      nodes_.push_back(std::make_unique<Node>(common_, number));
    }
  }

  void run_until(Clock::time_point until) override {
    for (;;) {
      while (!to_join_.empty() && common_.joining < kJoining && common_.coming < kComing) {
        to_join_.front()->come();
        to_join_.pop_front();
      }
      while (!common_.later.empty() && common_.later.begin()->first <= Clock::now()) {
        common_.later.extract(common_.later.begin()).mapped()();
      }
      // What has arrived already is handled also when the time is up.
      void* got = nullptr;
      bool ok = false;
      auto wait = until;
      if (!common_.later.empty()) wait = std::min(wait, common_.later.begin()->first);
      const auto left = std::max(wait - Clock::now(), Clock::duration(0));
      const auto next = common_.queue.AsyncNext(&got, &ok, std::chrono::system_clock::now() + left);
      if (next == grpc::CompletionQueue::GOT_EVENT) {
        handle(static_cast<Tag*>(got), ok);
        if (Clock::now() < until) continue;
        return;
      }
      if (Clock::now() >= until) return;
    }
  }

  void stay_away() override { common_.stay_away = true; }
  void connect_all() override {
    common_.stay_away = false;
    common_.pairs.clear();
    for (int node = 0; node < common_.world.nodes(); ++node) {
      common_.pairs.push_back(common_.world.pairs(node));
    }
    for (const auto& node : nodes_) to_join_.push_back(node.get());
  }
  int connected() const override { return count(&Node::is_connected); }
  int busy() const override { return count(&Node::is_busy); }
  int complete() const override { return count(&Node::is_complete); }
  const Counts& counts() const override { return common_.counts; }
  const std::string& last_loss() const override { return common_.last_loss; }

  void apply(const std::string& yaml, int what) override {
    auto* const apply = new Apply;
    apply->what = what;
    pb::ApplyRequest request;
    auto& file = *request.add_files();
    file.set_name("bench.yaml");
    file.set_text("workloads:\n" + yaml);
    apply->call = control_->AsyncApply(&apply->context, request, &common_.queue);
    apply->call->Finish(&apply->reply, &apply->status, &apply->tag);
  }
  void report(int container, bool draining, bool new_address) override {
    auto& node = node_of(container);
    node.report({node.endpoint(container, draining, new_address)}, {}, false);
  }
  void report_gone(int container) override {
    node_of(container).forget(container);
    node_of(container).report({}, ClusterWorld::id(container), false);
  }
  void start(int node, int container) override {
    pb::FromNode message;
    message.mutable_started()->set_call(++calls_);
    message.mutable_started()->set_id(ClusterWorld::id(container));
    nodes_[static_cast<std::size_t>(node)]->send(std::move(message));
  }

 private:
  [[nodiscard]] int count(bool (Node::*is)() const) const {
    return static_cast<int>(
        std::ranges::count_if(nodes_, [is](const auto& node) { return ((*node).*is)(); }));
  }
  [[nodiscard]] Node& node_of(int container) {
    return *nodes_[static_cast<std::size_t>(common_.world.node_of(container))];
  }
  void handle(Tag* tag, bool ok) {
    if (tag->node != nullptr) return tag->node->done(tag->op, ok);
    const std::unique_ptr<Apply> apply(reinterpret_cast<Apply*>(tag));
    if (!apply->status.ok()) die("apply: " + apply->status.error_message());
    common_.events.applied(apply->what);
  }

  Common common_;
  std::unique_ptr<pb::Control::Stub> control_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::deque<Node*> to_join_;
  std::uint64_t calls_ = 0;
};

}  // namespace

std::unique_ptr<Fleet> Fleet::make(ClusterWorld& world, pki::JoinTicket ticket,
                                   std::string identity, FleetEvents& events) {
  return std::make_unique<GrpcFleet>(world, std::move(ticket), std::move(identity), events);
}

}  // namespace meshd::bench
