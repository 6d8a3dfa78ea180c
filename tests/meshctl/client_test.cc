#include "meshctl/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <thread>

#include "base/unique_fd.h"
#include "tests/meshctl/fake_daemon.h"
#include "tests/support/temp_dir.h"

namespace meshd::ctl {
namespace {

using std::chrono::steady_clock;
using testing::ElementsAre;
using testing::HasSubstr;
using namespace std::chrono_literals;

// A socket that takes connections into its queue and never says a word.
class SilentSocket {
 public:
  explicit SilentSocket(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd_.get(), 0), 0);
  }

 private:
  UniqueFd fd_;
};

pb::WorkloadRequest workload(const std::string& id) {
  pb::WorkloadRequest request;
  request.set_id(id);
  return request;
}

TEST(ClientTest, AnAnswerArrivesWhole) {
  const TempDir dir;
  FakeDaemon daemon(dir.path());
  daemon.script.status_reply.set_node("n1");
  auto client = StatusClient::connect(dir.path());
  ASSERT_TRUE(client);
  const auto reply = client->status();
  ASSERT_TRUE(reply) << reply.error().what;
  EXPECT_EQ(reply->node(), "n1");
  EXPECT_THAT(daemon.calls(), ElementsAre("status"));
}

TEST(ClientTest, NoSocketIsUnreachableAtOnce) {
  const TempDir dir;
  const auto start = steady_clock::now();
  const auto client = ControlClient::connect(dir.path());
  EXPECT_LT(steady_clock::now() - start, 1s);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().exit, Exit::kUnreachable);
  EXPECT_EQ(client.error().what, "cannot reach meshd at " + dir.path() +
                                     "/control.sock: No such file or directory (is it running?)");
}

TEST(ClientTest, ASocketThatNobodyServesIsUnreachableAtOnce) {
  const TempDir dir;
  {
    const SilentSocket left_over(dir / "status.sock");
  }
  const auto start = steady_clock::now();
  const auto client = StatusClient::connect(dir.path());
  EXPECT_LT(steady_clock::now() - start, 1s);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().exit, Exit::kUnreachable);
  EXPECT_THAT(client.error().what, HasSubstr("Connection refused"));
}

TEST(ClientTest, ARunDirThatFitsNoSocketIsWrongUsage) {
  const auto client = StatusClient::connect("/" + std::string(200, 'x'));
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().exit, Exit::kUsage);
}

TEST(ClientTest, ADaemonThatNeverSpeaksCostsTheDeadlineAndNoMore) {
  const TempDir dir;
  const SilentSocket silent(dir / "status.sock");
  auto client = StatusClient::connect(dir.path(), {.read = 200ms});
  ASSERT_TRUE(client);
  const auto start = steady_clock::now();
  const auto reply = client->status();
  const auto took = steady_clock::now() - start;
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().exit, Exit::kUnreachable);
  EXPECT_THAT(reply.error().what, HasSubstr("no answer from meshd"));
  EXPECT_GE(took, 150ms);  // gRPC counts its deadline on another clock, in whole milliseconds
  EXPECT_LT(took, 10s);
}

TEST(ClientTest, ADaemonWithAFullQueueDoesNotBlockTheConnect) {
  const TempDir dir;
  const SilentSocket silent(dir / "status.sock");
  std::vector<StatusClient> waiting;
  std::string reason;
  for (int i = 0; i < 16 && reason.empty(); ++i) {
    auto client = StatusClient::connect(dir.path());
    if (client) {
      waiting.push_back(std::move(*client));
    } else {
      EXPECT_EQ(client.error().exit, Exit::kUnreachable);
      reason = client.error().what;
    }
  }
  EXPECT_THAT(reason, HasSubstr("cannot reach meshd"));
}

TEST(ClientTest, AChangeWithoutAnAnswerSaysThatItMayHaveBeenDone) {
  const TempDir dir;
  FakeDaemon daemon(dir.path());
  daemon.script.hang = true;
  auto client = ControlClient::connect(dir.path(), {.change = 200ms});
  ASSERT_TRUE(client);
  const auto reply = client->drain(workload("db"));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().exit, Exit::kUnreachable);
  EXPECT_THAT(reply.error().what, HasSubstr("whether it was done is not known"));
}

TEST(ClientTest, ARefusalCarriesTheDaemonsWordsAndExitOne) {
  const TempDir dir;
  FakeDaemon daemon(dir.path());
  for (const auto code : {grpc::StatusCode::INVALID_ARGUMENT, grpc::StatusCode::NOT_FOUND,
                          grpc::StatusCode::FAILED_PRECONDITION, grpc::StatusCode::ABORTED,
                          grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::INTERNAL}) {
    daemon.script.status = {code, "attach db: stored, not in force: the kernel said no"};
    auto client = ControlClient::connect(dir.path());
    ASSERT_TRUE(client);
    const auto reply = client->drain(workload("db"));
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().exit, Exit::kRefused) << code;
    EXPECT_EQ(reply.error().what, "attach db: stored, not in force: the kernel said no") << code;
  }
}

TEST(ClientTest, ACallThatTheDaemonsEndCutOffIsADaemonThatStops) {
  const TempDir dir;
  FakeDaemon daemon(dir.path());
  daemon.script.status = grpc::Status::CANCELLED;
  auto reads = StatusClient::connect(dir.path());
  auto changes = ControlClient::connect(dir.path());
  ASSERT_TRUE(reads && changes);
  const auto read = reads->wait({});
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().exit, Exit::kUnreachable);
  EXPECT_EQ(read.error().what, "lost meshd at " + dir.path() + "/status.sock: meshd is stopping");
  const auto change = changes->drain(workload("db"));
  ASSERT_FALSE(change);
  EXPECT_EQ(change.error().exit, Exit::kUnreachable);
  EXPECT_EQ(change.error().what, "lost meshd at " + dir.path() +
                                     "/control.sock: meshd is stopping; whether it was done is "
                                     "not known");
}

TEST(ClientTest, ADaemonThatStartsIsNotReachableYet) {
  const TempDir dir;
  FakeDaemon daemon(dir.path());
  daemon.script.status = {grpc::StatusCode::UNAVAILABLE, "meshd: starting"};
  auto client = StatusClient::connect(dir.path());
  ASSERT_TRUE(client);
  const auto reply = client->status();
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().exit, Exit::kUnreachable);
  EXPECT_THAT(reply.error().what, HasSubstr("meshd: starting"));
}

TEST(ClientTest, AReasonIsOneLineAndPrintable) {
  const TempDir dir;
  FakeDaemon daemon(dir.path());
  daemon.script.status = {grpc::StatusCode::INVALID_ARGUMENT, "a\nb\x1b[2J"};
  auto client = ControlClient::connect(dir.path());
  ASSERT_TRUE(client);
  EXPECT_EQ(client->drain(workload("db")).error().what, "a?b?[2J");
}

TEST(ClientTest, AHundredThousandFlowsFitIntoAnAnswer) {
  const TempDir dir;
  FakeDaemon daemon(dir.path());
  for (int i = 0; i < 100'000; ++i) {
    auto& flow = *daemon.script.flows.add_flows();
    flow.set_src(std::string(63, 'a'));
    flow.set_dst(std::string(63, 'b'));
    flow.set_bytes(UINT64_MAX);
  }
  auto client = StatusClient::connect(dir.path());
  ASSERT_TRUE(client);
  const auto reply = client->flows();
  ASSERT_TRUE(reply) << reply.error().what;
  EXPECT_EQ(reply->flows_size(), 100'000);
}

TEST(ClientTest, WaitGetsItsOwnTimeOnTopOfTheGrace) {
  const TempDir dir;
  FakeDaemon daemon(dir.path());
  daemon.script.hang = true;
  auto client = StatusClient::connect(dir.path(), {.wait_grace = 100ms});
  ASSERT_TRUE(client);
  pb::WaitRequest request;
  request.set_timeout_ms(300);
  const auto start = steady_clock::now();
  EXPECT_EQ(client->wait(request).error().exit, Exit::kUnreachable);
  EXPECT_GE(steady_clock::now() - start, 350ms);
}

class WatchTest : public testing::Test {
 protected:
  void SetUp() override {
    daemon_.script.watch = [this](grpc::ServerWriter<pb::Event>* writer) {
      for (const auto* id : {"one", "two"}) {
        pb::Event event;
        event.set_id(id);
        writer->Write(event);
      }
      daemon_.wait_for_stop();
    };
  }
  Outcome<void> watch(const StatusClient::OnEvent& on_event) {
    auto client = TRY(StatusClient::connect(dir_.path()));
    return client.watch({}, stop_.get(), on_event);
  }

  TempDir dir_;
  FakeDaemon daemon_{dir_.path()};
  UniqueFd stop_{eventfd(0, EFD_CLOEXEC)};
};

TEST_F(WatchTest, EventsArriveOneByOneUntilTheStop) {
  std::vector<std::string> seen;
  const auto outcome = watch([&](const pb::Event& event) -> Outcome<void> {
    seen.push_back(event.id());
    if (seen.size() == 2) eventfd_write(stop_.get(), 1);
    return {};
  });
  EXPECT_TRUE(outcome) << outcome.error().what;
  EXPECT_THAT(seen, ElementsAre("one", "two"));
}

TEST_F(WatchTest, AFailureOfTheReaderEndsTheStream) {
  const auto outcome =
      watch([](const pb::Event&) -> Outcome<void> { return fail(Exit::kRefused, "disk full"); });
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().what, "disk full");
}

TEST_F(WatchTest, ADaemonThatGoesAwayIsUnreachable) {
  std::thread stopper;
  const auto outcome = watch([&](const pb::Event& event) -> Outcome<void> {
    if (event.id() == "two") stopper = std::thread([this] { daemon_.stop(); });
    return {};
  });
  stopper.join();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().exit, Exit::kUnreachable);
}

TEST_F(WatchTest, AStreamThatTheDaemonEndsIsUnreachable) {
  daemon_.script.watch = {};
  const auto outcome = watch([](const pb::Event&) -> Outcome<void> { return {}; });
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().exit, Exit::kUnreachable);
  EXPECT_THAT(outcome.error().what, HasSubstr("it ended the stream"));
}

}  // namespace
}  // namespace meshd::ctl
