#include "meshd/admin.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstring>
#include <future>
#include <thread>

#include "base/unique_fd.h"
#include "proto/node.grpc.pb.h"
#include "tests/support/temp_dir.h"

namespace meshd {
namespace {

namespace pb = mesh::v1;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::SizeIs;

// Notes who drains what, and answers.
class NotingApi final : public Api {
 public:
  void apply(std::vector<policy::Declaration> all, Caller who,
             Reply<pb::ApplyReply> reply) override {
    callers.push_back(who);
    declarations = std::move(all);
    reply(pb::ApplyReply());
  }
  void drain(const pb::WorkloadRequest& request, Caller who, Reply<pb::Empty> reply) override {
    callers.push_back(who);
    if (request.id() == "hang") return waiting.push_back(std::move(reply));
    reply(pb::Empty());
  }
  void attach(const pb::AttachRequest&, Caller, Reply<pb::AttachReply>) override {}
  void detach(const pb::DetachRequest&, Caller, Reply<pb::DetachReply>) override {}
  void remove(const pb::DeleteRequest&, Caller, Reply<pb::DetachReply>) override {}
  void release_name(const pb::NameRequest&, Caller, Reply<pb::Empty>) override {}
  void plan(std::vector<policy::Declaration>, Reply<pb::PlanReply>) override {}
  void list_workloads(const pb::Empty&, Reply<pb::WorkloadList>) override {}
  void list_services(const pb::Empty&, Reply<pb::ServiceList>) override {}
  void list_flows(const pb::Empty&, Reply<pb::FlowList>) override {}
  void list_published(const pb::Empty&, Reply<pb::PublishedList>) override {}
  void list_nodes(const pb::Empty&, Reply<pb::NodeList>) override {}
  void list_refused(const pb::Empty&, Reply<pb::RefusedList>) override {}
  void explain(const pb::ExplainRequest&, Reply<pb::ExplainReply>) override {}
  void resolve(const pb::ResolveRequest&, Reply<pb::ResolveReply>) override {}
  void get_status(const pb::Empty&, Reply<pb::StatusReply>) override {}
  void wait(const pb::WaitRequest&, CallNumber, Reply<pb::WaitReply>) override {}
  void cancel_wait(CallNumber) override {}
  void watch(const pb::WatchRequest&, std::shared_ptr<EventStream>) override {}
  void unwatch(const EventStream&) override {}
  void stop(std::string_view why) override {
    for (auto& reply : std::exchange(waiting, {})) {
      reply(fail(ErrorCode::kNotInForce, std::string(why)));
    }
  }

  std::vector<Caller> callers;
  std::vector<policy::Declaration> declarations;
  std::vector<Reply<pb::Empty>> waiting;
};

class AdminTest : public testing::Test {
 protected:
  void SetUp() override {
    auto admin = Admin::make(dir_.path(), milliseconds(300));
    ASSERT_TRUE(admin) << admin.error().what;
    admin_ = *std::move(admin);
  }
  void TearDown() override { EXPECT_TRUE(!admin_ || admin_->shutdown(api_)); }

  static UniqueFd new_socket() {
    return UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  }
  bool reaches_control(const UniqueFd& fd) {
    const auto path = dir_ / "control.sock";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  UniqueFd connect() {
    auto fd = new_socket();
    return reaches_control(fd) ? std::move(fd) : UniqueFd();
  }

  static std::unique_ptr<pb::Control::Stub> stub_of(UniqueFd connection) {
    return pb::Control::NewStub(grpc::CreateInsecureChannelFromFd("test", connection.release()));
  }

  // As the main loop does, until `done`.
  void serve(const std::function<bool()>& done) {
    const auto end = std::chrono::steady_clock::now() + seconds(20);
    while (!done() && std::chrono::steady_clock::now() < end) {
      pollfd wait{admin_->jobs().fd(), POLLIN, 0};
      poll(&wait, 1, 10);
      for (auto& job : admin_->jobs().drain()) job(api_);
    }
    EXPECT_TRUE(done());
  }

  grpc::Status drain(pb::Control::Stub& stub, const std::string& id) {
    auto call = std::async(std::launch::async, [&] {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + seconds(20));
      pb::WorkloadRequest request;
      request.set_id(id);
      pb::Empty reply;
      return stub.Drain(&context, request, &reply);
    });
    serve([&] { return call.wait_for(seconds(0)) == std::future_status::ready; });
    return call.get();
  }

  grpc::Status apply(pb::Control::Stub& stub, const pb::ApplyRequest& request) {
    auto call = std::async(std::launch::async, [&] {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + seconds(20));
      pb::ApplyReply reply;
      return stub.Apply(&context, request, &reply);
    });
    serve([&] { return call.wait_for(seconds(0)) == std::future_status::ready; });
    return call.get();
  }

  TempDir dir_;
  NotingApi api_;
  std::unique_ptr<Admin> admin_;
};

TEST_F(AdminTest, WhatAnAuthorWroteIsTheLaunchersByIdOwnerAndWorkflow) {
  const auto stub = stub_of(connect());
  pb::ApplyRequest request;
  auto& file = *request.add_files();
  file.set_name("mesh.declaration");
  file.set_text("{name: db, serves: [{port: 5432}]}");
  file.mutable_launched()->set_id("db-1");
  file.mutable_launched()->set_owner("ada");
  file.mutable_launched()->set_workflow("wf1");
  EXPECT_TRUE(apply(*stub, request).ok());
  ASSERT_THAT(api_.declarations, SizeIs(1));
  EXPECT_EQ(api_.declarations[0].id, "db-1");
  EXPECT_EQ(api_.declarations[0].owner, "ada");
  EXPECT_EQ(api_.declarations[0].workflow, "wf1");
  for (const auto* text : {"{id: other}", "{owner: eve}", "workloads: []", "{nonsense: 1}"}) {
    file.set_text(text);
    const auto status = apply(*stub, request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << text;
    EXPECT_EQ(status.error_message().substr(0, 16), "mesh.declaration");
  }
}

TEST_F(AdminTest, AChangeComesWithWhoConnectedByTheKernelsWord) {
  const auto stub = stub_of(connect());
  EXPECT_TRUE(drain(*stub, "db").ok());
  ASSERT_THAT(api_.callers, SizeIs(1));
  EXPECT_EQ(api_.callers[0].uid, getuid());
  EXPECT_EQ(api_.callers[0].pid, getpid());
}

TEST_F(AdminTest, AChangeComesWithTheTimeThatItsCallerWaits) {
  const auto stub = stub_of(connect());
  const auto before = BootClock::now();
  ASSERT_TRUE(drain(*stub, "a").ok());  // in 20 s
  ASSERT_THAT(api_.callers, SizeIs(1));
  EXPECT_GT(api_.callers[0].deadline, before + seconds(10));
  // Earlier than its own, so that it hears why; gRPC passes that on rounded up.
  EXPECT_LT(api_.callers[0].deadline, BootClock::now() + seconds(20));
}

TEST_F(AdminTest, CallsOfTwoConnectionsAreToldApart) {
  // The child connects and leaves the connection to us.
  auto connection = new_socket();
  const auto child = fork();
  if (child == 0) _exit(reaches_control(connection) ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  const auto ours = stub_of(connect());
  const auto theirs = stub_of(std::move(connection));
  for (auto* const stub : {ours.get(), theirs.get(), ours.get()}) {
    EXPECT_TRUE(drain(*stub, "db").ok());
  }
  ASSERT_THAT(api_.callers, SizeIs(3));
  EXPECT_EQ(api_.callers[0].pid, getpid());
  EXPECT_EQ(api_.callers[1].pid, child);
  EXPECT_EQ(api_.callers[2].pid, getpid());
}

TEST_F(AdminTest, ConnectionsThatSayNothingAreClosedAndOthersAreServedMeanwhile) {
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 400; ++i) {  // more than are taken at a time
    silent.push_back(connect());
    ASSERT_TRUE(silent.back()) << i;
  }
  const auto stub = stub_of(connect());
  EXPECT_TRUE(drain(*stub, "db").ok());
  for (const auto& one : silent) {
    pollfd wait{one.get(), POLLIN | POLLRDHUP, 0};
    EXPECT_EQ(poll(&wait, 1, 10'000), 1);
    char bytes[4096];
    while (recv(one.get(), bytes, sizeof bytes, 0) > 0) {  // gRPC's greeting
    }
    wait.events = POLLRDHUP;
    EXPECT_EQ(poll(&wait, 1, 10'000), 1);
  }
}

TEST_F(AdminTest, AStopAnswersACallAndClosesTheSocket) {
  const auto stub = stub_of(connect());
  auto call = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    pb::WorkloadRequest request;
    request.set_id("hang");
    pb::Empty reply;
    return stub->Drain(&context, request, &reply);
  });
  serve([&] { return !api_.waiting.empty(); });
  const auto silent = connect();
  EXPECT_TRUE(admin_->shutdown(api_));
  EXPECT_EQ(call.get().error_message(), "meshd is stopping");
  admin_.reset();
  EXPECT_FALSE(connect());
}

TEST_F(AdminTest, ACallerThatIsGoneIsStillTheCaller) {
  auto stub = stub_of(connect());
  for (int i = 0; i < 20; ++i) {
    auto call = std::async(std::launch::async, [&] {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + milliseconds(5));
      pb::WorkloadRequest request;
      request.set_id("hang");
      pb::Empty reply;
      return stub->Drain(&context, request, &reply);
    });
    EXPECT_FALSE(call.get().ok());
    stub = stub_of(connect());
  }
  EXPECT_TRUE(drain(*stub, "db").ok());
  for (const auto& caller : api_.callers) EXPECT_EQ(caller.pid, getpid());
}

}  // namespace
}  // namespace meshd
