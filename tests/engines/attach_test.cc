// What a shim does about a daemon that ends over its question, or is not there.
#include "engines/attach.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "proto/node.grpc.pb.h"
#include "tests/support/temp_dir.h"

namespace meshd::engines {
namespace {

using namespace std::chrono_literals;
using grpc::StatusCode;
using testing::HasSubstr;

// Says what it was told to, one after the other, and then that all is well.
class Script {
 public:
  explicit Script(std::vector<grpc::Status> says) : says_(std::move(says)) {}
  grpc::Status next() {
    const std::scoped_lock lock(mutex_);
    const auto call = calls_++;
    return call < says_.size() ? says_[call] : grpc::Status::OK;
  }
  std::size_t calls() {
    const std::scoped_lock lock(mutex_);
    return calls_;
  }
  void say(std::vector<grpc::Status> says) {
    const std::scoped_lock lock(mutex_);
    says_ = std::move(says);
  }

 private:
  std::mutex mutex_;
  std::vector<grpc::Status> says_;
  std::size_t calls_ = 0;
};

struct FakeControl final : mesh::v1::Control::Service {
  FakeControl(Script& script_of_attach, Script& script_of_apply)
      : script(script_of_attach), applying(script_of_apply) {}
  grpc::Status Apply(grpc::ServerContext*, const mesh::v1::ApplyRequest*,
                     mesh::v1::ApplyReply*) override {
    return applying.next();
  }
  grpc::Status Attach(grpc::ServerContext* context, const mesh::v1::AttachRequest*,
                      mesh::v1::AttachReply* reply) override {
    reply->add_resolvers("169.254.1.1");
    if (late) std::this_thread::sleep_until(context->deadline() - 500ms);
    return script.next();
  }
  Script& script;
  Script& applying;
  std::atomic<bool> late = false;  // as one that waited for something, and gives up in time
};

struct FakeStatus final : mesh::v1::Status::Service {
  explicit FakeStatus(Script& script_of_status) : script(script_of_status) {}
  grpc::Status GetStatus(grpc::ServerContext*, const mesh::v1::Empty*,
                         mesh::v1::StatusReply*) override {
    return script.next();
  }
  Script& script;
};

class FakeDaemon {
 public:
  FakeDaemon(const std::string& run_dir, std::vector<grpc::Status> says)
      : script_(std::move(says)) {
    grpc::ServerBuilder builder;
    for (const auto* name : {"control", "status"}) {
      builder.AddListeningPort("unix:" + run_dir + "/" + name + ".sock",
                               grpc::InsecureServerCredentials());
    }
    builder.RegisterService(&control_);
    builder.RegisterService(&status_);
    server_ = builder.BuildAndStart();
  }
  ~FakeDaemon() { server_->Shutdown(std::chrono::system_clock::now()); }
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

  std::size_t calls() { return script_.calls(); }  // that the script has answered
  void apply(std::vector<grpc::Status> says) { applying_.say(std::move(says)); }
  void be_late() { control_.late = true; }

 private:
  Script script_;
  Script applying_{{}};
  FakeControl control_{script_, applying_};
  FakeStatus status_{script_};
  std::unique_ptr<grpc::Server> server_;
};

class AttachTest : public testing::Test {
 protected:
  auto attach_as(const Launch& launch, TimePoint by) const {
    return attach(launch, Netns{}, {container_key("1"), "eth0"}, places_, by);
  }
  auto attach_by(TimePoint by) const {
    return attach_as({{{"mesh.declaration", "{}"}}, {"db"}}, by);
  }
  auto expect_by(TimePoint by) const {
    return expect_attach({{{"mesh.declaration", "{}"}}, {"db"}}, places_, by);
  }

  TempDir dir_;
  Places places_{dir_.path(), dir_ / "state"};
};

const grpc::Status kStopping(StatusCode::ABORTED, "stored, not in force: why; meshd is stopping");

TEST_F(AttachTest, OneThatEndsOverTheQuestionIsAskedAgain) {
  for (const auto& end : {grpc::Status(StatusCode::UNAVAILABLE, "gone"), kStopping}) {
    FakeDaemon daemon(dir_.path(), {end});
    const auto reply = attach_by(BootClock::now() + 10s);
    ASSERT_TRUE(reply) << reply.error().what;
    EXPECT_EQ(reply->value().resolvers(0), "169.254.1.1");
    EXPECT_EQ(daemon.calls(), 2U);
  }
}

TEST_F(AttachTest, OneThatEndsOverTheDeclarationIsAskedAgain) {
  FakeDaemon daemon(dir_.path(), {});
  daemon.apply({kStopping});
  const auto reply = attach_by(BootClock::now() + 10s);
  EXPECT_TRUE(reply) << reply.error().what;
}

TEST_F(AttachTest, OneThatEndsTwiceIsNotAskedForEver) {
  FakeDaemon daemon(dir_.path(), {kStopping, kStopping, kStopping});
  const auto reply = attach_by(BootClock::now() + 10s);
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().what, HasSubstr("container db brings its declaration and does not "
                                            "start without the mesh: stored, not in force: why"));
  EXPECT_EQ(daemon.calls(), 2U);
}

TEST_F(AttachTest, WhatIsRefusedOrLateIsNotAskedAgain) {
  {
    FakeDaemon daemon(dir_.path(), {{StatusCode::FAILED_PRECONDITION, "it is draining"}});
    EXPECT_THAT(attach_by(BootClock::now() + 10s).error().what, HasSubstr("it is draining"));
    EXPECT_EQ(daemon.calls(), 1U);
  }
  FakeDaemon daemon(dir_.path(), {{StatusCode::ABORTED, "stored, not in force: why"}});
  daemon.be_late();
  EXPECT_THAT(attach_by(BootClock::now() + 3s).error().what, HasSubstr("not in force: why"));
  EXPECT_EQ(daemon.calls(), 1U);
}

// Whose id only a controller can know.
TEST_F(AttachTest, NobodysIsWhatTheDaemonHasNotFoundAndNothingElse) {
  std::filesystem::create_directories(places_.state_dir + "/engines/declared");
  std::ofstream(places_.state_dir + "/engines/rules") << "undeclared IGNORE\ncluster yes\n";
  const Launch launch{{}, {"zzzzz-dz642-000000000000001"}};
  FakeDaemon daemon(dir_.path(), {{StatusCode::NOT_FOUND, "no declaration arrived"},
                                  {StatusCode::ABORTED, "no declaration arrived"}});
  const auto nobodys = attach_as(launch, BootClock::now() + 10s);
  ASSERT_TRUE(nobodys) << nobodys.error().what;
  EXPECT_FALSE(*nobodys);
  daemon.be_late();
  const auto refused = attach_as(launch, BootClock::now() + 3s);
  EXPECT_THAT(refused.error().what, HasSubstr("may be declared, which only a controller knows, and "
                                              "does not start without the mesh: no declaration"));
  EXPECT_TRUE(attach_as(launch, BootClock::now() + 3s)->has_value());
}

TEST_F(AttachTest, WhoeverAsksOnlyWhetherItIsThereAsksAgainToo) {
  const grpc::Status gone(StatusCode::UNAVAILABLE, "gone");
  FakeDaemon daemon(dir_.path(), {gone, grpc::Status::OK, gone, gone});
  EXPECT_TRUE(expect_by(BootClock::now() + 10s));
  EXPECT_FALSE(expect_by(BootClock::now() + 10s));
  EXPECT_EQ(daemon.calls(), 4U);
}

TEST_F(AttachTest, NobodyIsWaitedForLongerThanTheCallerHasTime) {
  const auto begun = BootClock::now();
  const auto reply = attach_by(begun);
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().what, HasSubstr("meshd does not answer at " + dir_.path()));
  EXPECT_LT(BootClock::now() - begun, 2s);  // of the 2.5 s that it has patience for
}

}  // namespace
}  // namespace meshd::engines
