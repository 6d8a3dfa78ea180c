// Whole commands against a daemon that only talks: what is sent, what is printed, how it
// ends. Commands that read files are here as well.
#include "meshctl/run.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "meshctl/netns.h"
#include "tests/meshctl/capture.h"
#include "tests/meshctl/fake_daemon.h"
#include "tests/meshctl/sandbox.h"
#include "tests/support/temp_dir.h"

namespace meshd::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class RunTest : public testing::Test {
 protected:
  Outcome<Exit> run_line(const std::string& line) {
    environment_.out = out_.fd();
    environment_.err = err_.fd();
    return run_here(line);
  }

  // With the stdout that the test has set.
  Outcome<Exit> run_here(const std::string& line) {
    std::istringstream stream(line);
    std::vector<std::string> args;
    for (std::string word; stream >> word;) args.push_back(word);
    const auto command =
        TRY(parse(args, {.run_dir = dir_.path(), .controller = {}, .identity = {}}));
    environment_.netns_dir = dir_ / "netns";
    environment_.stop_fd = stop_.get();
    return run(command, environment_);
  }

  // The failure's text; its exit code must be `exit`.
  std::string failure_of(const std::string& line, Exit exit = Exit::kRefused) {
    const auto outcome = run_line(line);
    if (outcome) return "it was done";
    EXPECT_EQ(outcome.error().exit, exit);
    return outcome.error().what;
  }

  TempDir dir_;
  FakeDaemon daemon_{dir_.path()};
  Script& script_ = daemon_.script;
  Capture out_, err_;
  UniqueFd stop_{eventfd(0, EFD_CLOEXEC)};
  Environment environment_;
};

TEST_F(RunTest, ApplySendsTheFilesAsTheyAre) {
  std::ofstream(dir_ / "a.yaml") << "workloads: []";
  std::ofstream(dir_ / "b.json") << "{}";
  script_.apply_reply.set_generation(7);
  const auto outcome = run_line("apply -f " + (dir_ / "a.yaml") + " -f " + (dir_ / "b.json"));
  ASSERT_TRUE(outcome) << outcome.error().what;
  EXPECT_THAT(daemon_.calls(), ElementsAre("apply " + (dir_ / "a.yaml") + "=workloads: [] " +
                                           (dir_ / "b.json") + "={}"));
  EXPECT_EQ(out_.text(), "generation 7: nothing\n");
}

TEST_F(RunTest, ApplyReadsStandardInput) {
  std::ofstream(dir_ / "stdin") << "text";
  const UniqueFd in(open((dir_ / "stdin").c_str(), O_RDONLY | O_CLOEXEC));
  environment_.in = in.get();
  ASSERT_TRUE(run_line("apply -f -"));
  EXPECT_THAT(daemon_.calls(), ElementsAre("apply <stdin>=text"));
}

TEST_F(RunTest, AFileAboveTheLimitIsRefusedBeforeTheDaemonHearsOfIt) {
  std::ofstream(dir_ / "full") << std::string(1 << 20, 'x');
  std::ofstream(dir_ / "big") << std::string((1 << 20) + 1, 'x');
  EXPECT_THAT(failure_of("apply -f " + (dir_ / "big")), HasSubstr("larger than 1 MiB"));
  EXPECT_THAT(failure_of("apply -f /dev/zero"), HasSubstr("larger than 1 MiB"));
  EXPECT_THAT(daemon_.calls(), IsEmpty());
  EXPECT_TRUE(run_line("plan -f " + (dir_ / "full")));
}

TEST_F(RunTest, AMissingFileAndADirectoryAreNamed) {
  EXPECT_EQ(failure_of("apply -f /nowhere"), "/nowhere: No such file or directory");
  EXPECT_EQ(failure_of("plan -f /"), "/: Is a directory");
}

TEST_F(RunTest, StoredButNotInForceIsAFailure) {
  std::ofstream(dir_ / "a.yaml") << "x";
  script_.status = {grpc::StatusCode::ABORTED, "apply: stored, not in force: no answer"};
  EXPECT_EQ(failure_of("apply -f " + (dir_ / "a.yaml")), "apply: stored, not in force: no answer");
  EXPECT_EQ(out_.text(), "");
}

TEST_F(RunTest, SimpleChangesSendTheirIdAndConfirm) {
  script_.detach_reply.set_was_attached(true);
  for (const auto* line :
       {"detach a", "drain b", "delete c", "delete d --force", "name release e"}) {
    EXPECT_TRUE(run_line(line)) << line;
  }
  EXPECT_THAT(daemon_.calls(),
              ElementsAre("detach a", "drain b", "delete c", "delete d force", "release e"));
  EXPECT_EQ(out_.text(), "a: detached\nb: draining\nc: deleted\nd: deleted\ne: released\n");
}

TEST_F(RunTest, DetachingWhatIsNotAttachedIsHarmless) {
  EXPECT_EQ(run_line("detach a"), Exit::kDone);
  EXPECT_EQ(out_.text(), "a: was not attached\n");
}

TEST_F(RunTest, EveryAnswerHasJson) {
  ASSERT_TRUE(run_line("-o json detach a"));
  ASSERT_TRUE(run_line("-o json drain a"));
  EXPECT_EQ(out_.text(),
            "{\n  \"was_attached\": false,\n  \"netns\": \"\",\n  \"prepared\": false,\n"
            "  \"netns_dev\": \"0\",\n  \"netns_ino\": \"0\"\n}\n{}\n");
}

TEST_F(RunTest, ListsAreSortedInTablesAndInJson) {
  script_.workloads.add_workloads()->mutable_declaration()->set_id("b");
  script_.workloads.add_workloads()->mutable_declaration()->set_id("a");
  ASSERT_TRUE(run_line("list workloads"));
  ASSERT_TRUE(run_line("list workloads -o json"));
  const auto text = out_.text();
  EXPECT_LT(text.find("\na "), text.find("\nb "));
  EXPECT_LT(text.find("\"id\": \"a\""), text.find("\"id\": \"b\""));
  for (const auto* what : {"services", "flows", "published", "nodes"}) {
    ASSERT_TRUE(run_line(std::string("list ") + what));
  }
  EXPECT_THAT(daemon_.calls(), ElementsAre("list workloads", "list workloads", "list services",
                                           "list flows", "list published", "list nodes"));
}

TEST_F(RunTest, ExplainAndResolveEndWellWhateverTheAnswer) {
  script_.explain_reply.set_verdict(pb::Verdict::REFUSED);
  script_.resolve_reply.set_rcode("NXDOMAIN");
  EXPECT_EQ(run_line("explain worker db 53/udp"), Exit::kDone);
  EXPECT_EQ(run_line("resolve --as worker db txt"), Exit::kDone);
  EXPECT_THAT(daemon_.calls(), ElementsAre("explain worker db 53/UDP", "resolve worker db TXT"));
  EXPECT_EQ(out_.text(), "REFUSED\nNXDOMAIN\n");
}

TEST_F(RunTest, StatusEndsWithOneWhenSomethingIsWrong) {
  EXPECT_EQ(run_line("status"), Exit::kRefused);
  EXPECT_THAT(out_.text(), HasSubstr("NOT HEALTHY"));
  EXPECT_EQ(run_line("status -o json"), Exit::kRefused);
  script_.status_reply.set_healthy(true);
  EXPECT_EQ(run_line("status"), Exit::kDone);
}

TEST_F(RunTest, DoctorSaysWhatIsWrongAndEndsWithOne) {
  EXPECT_EQ(run_line("doctor"), Exit::kRefused);
  script_.status_reply.set_healthy(true);
  EXPECT_EQ(run_line("doctor"), Exit::kDone);
  EXPECT_EQ(out_.text(), "not healthy: what is stored is not in force\nnothing is wrong\n");
  auto& problem = *script_.status_reply.add_problems();
  problem.set_subject("firewall");
  problem.set_detail("it drops\x1b[2J");
  EXPECT_EQ(run_line("doctor"), Exit::kRefused) << "also what is not the daemon's own";
  EXPECT_THAT(out_.text(), testing::EndsWith("firewall: it drops?[2J\n"));
  EXPECT_EQ(run_line("doctor -o json"), Exit::kRefused);
}

TEST_F(RunTest, WaitEndsWithOneAndTheReasonWhenTimeRanOut) {
  script_.wait_reply.set_reason("no listener on 5432/tcp");
  EXPECT_EQ(failure_of("wait db --timeout 1500ms"),
            "wait db: not ready within 1500 ms: no listener on 5432/tcp");
  script_.wait_reply.set_ready(true);
  EXPECT_EQ(run_line("wait db"), Exit::kDone);
  EXPECT_THAT(daemon_.calls(), ElementsAre("wait db 1500", "wait db 60000"));
}

TEST_F(RunTest, WatchPrintsEachEventWhileTheStreamIsOpenAndEndsWell) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  std::string first;
  script_.watch = [&](grpc::ServerWriter<pb::Event>* stream) {
    pb::Event event;
    event.set_id("db");
    stream->Write(event);
    // The line must be out before the next event or the end could push it out.
    std::array<char, 4096> buffer{};
    pollfd ready{reader.get(), POLLIN, 0};
    if (poll(&ready, 1, 10'000) == 1) {
      const auto got = read(reader.get(), buffer.data(), buffer.size());
      first.assign(buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    }
    eventfd_write(stop_.get(), 1);
    daemon_.wait_for_stop();
  };
  environment_.out = writer.get();
  EXPECT_EQ(run_here("watch --refused -o json"), Exit::kDone);
  EXPECT_EQ(first, R"({"kind":"ATTACHED","time":"","id":"db","peer":"","detail":"","missing":"",)"
                   R"("node":"","count":"0"})"
                   "\n");
  EXPECT_THAT(daemon_.calls(), ElementsAre("watch refused"));
}

TEST_F(RunTest, AnAnswerThatCannotBeWrittenIsAFailure) {
  const UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  environment_.out = full.get();
  const auto outcome = run_here("version");
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().what, "writing the answer: No space left on device");
}

TEST_F(RunTest, VersionAndHelpNeedNoDaemon) {
  daemon_.stop();
  EXPECT_EQ(run_line("version"), Exit::kDone);
  EXPECT_EQ(run_line("help status"), Exit::kDone);
  EXPECT_THAT(out_.text(), HasSubstr("meshctl status"));
  EXPECT_THAT(failure_of("status", Exit::kUnreachable), HasSubstr("cannot reach meshd"));
}

TEST_F(RunTest, AttachHandsOverADescriptorThatIsTheNamespace) {
  bool same = false;
  script_.attach = [&](const pb::AttachRequest& request, pb::AttachReply* reply) {
    struct stat there{};
    struct stat own{};
    const auto path =
        "/proc/" + std::to_string(request.pid()) + "/fd/" + std::to_string(request.fd());
    same = stat(path.c_str(), &there) == 0 && stat("/proc/self/ns/net", &own) == 0 &&
           there.st_ino == own.st_ino && request.netns_ino() == own.st_ino &&
           request.netns_dev() == own.st_dev;
    EXPECT_EQ(request.netns(), "/proc/self/ns/net");
    EXPECT_EQ(request.ifname(), "mesh0");
    EXPECT_TRUE(request.no_default_route());
    EXPECT_FALSE(request.prepared());
    reply->set_id(request.id());
    reply->set_ifname(request.ifname());
    return grpc::Status::OK;
  };
  const auto outcome =
      run_line("attach web --netns /proc/self/ns/net --ifname mesh0 --no-default-route");
  ASSERT_TRUE(outcome) << outcome.error().what;
  EXPECT_TRUE(same);
  // JSON without being asked, every field there.
  EXPECT_EQ(out_.text(),
            "{\n  \"id\": \"web\",\n  \"netns\": \"\",\n  \"ifname\": \"mesh0\",\n"
            "  \"host_ifname\": \"\",\n  \"mac\": \"\",\n  \"addresses\": [],\n"
            "  \"gateways\": [],\n  \"resolvers\": [],\n  \"search\": [],\n  \"mtu\": 0\n}\n");
  EXPECT_EQ(err_.text(),
            "meshctl: attach web: what passes other interfaces than mesh0 is not controlled\n");
}

TEST_F(RunTest, AttachWithTheDefaultRouteHasNothingToWarnOf) {
  ASSERT_TRUE(run_line("attach web --netns /proc/self/ns/net"));
  EXPECT_EQ(err_.text(), "");
}

TEST_F(RunTest, AttachWritesResolvConfFromTheAnswer) {
  script_.attach = [](const pb::AttachRequest&, pb::AttachReply* reply) {
    reply->add_resolvers("169.254.1.1");
    reply->add_search("svc.mesh.internal");
    return grpc::Status::OK;
  };
  const auto line = "attach web --pid " + std::to_string(getpid()) + " --resolv-conf ";
  ASSERT_TRUE(run_line(line + (dir_ / "resolv.conf")));
  std::stringstream text;
  text << std::ifstream(dir_ / "resolv.conf").rdbuf();
  EXPECT_THAT(text.str(), HasSubstr("nameserver 169.254.1.1\nsearch svc.mesh.internal\n"));
  EXPECT_THAT(failure_of(line + (dir_ / "none/resolv.conf")),
              HasSubstr("attach web: it is attached, but has no resolv.conf"));
}

TEST_F(RunTest, AttachOfWhatIsNoNamespaceNeverReachesTheDaemon) {
  EXPECT_EQ(failure_of("attach web --netns /dev/null"),
            "attach web: /dev/null: not a network namespace");
  EXPECT_THAT(daemon_.calls(), IsEmpty());
}

class PrepareTest : public testing::Test {
 protected:
  void SetUp() override {
    auto sandbox = MountSandbox::make();
    ASSERT_TRUE(sandbox) << sandbox.error().what;
    dir_ = std::move(*sandbox);
    netns_ = *dir_ / "netns/web";
    daemon_ = std::make_unique<FakeDaemon>(dir_->path());
    environment_.out = out_.fd();
    environment_.netns_dir = *dir_ / "netns";
  }
  Outcome<Exit> go(Action action) {
    return run({.run_dir = dir_->path(), .controller = {}, .action = std::move(action)},
               environment_);
  }
  [[nodiscard]] bool exists() const { return std::filesystem::exists(netns_); }
  // The daemon says of what is at `path` now that it was prepared and is detached.
  void leave(const std::string& path) {
    const auto netns = open_netns(path);
    ASSERT_TRUE(netns) << netns.error().what;
    auto& reply = daemon_->script.detach_reply;
    reply.set_was_attached(true);
    reply.set_prepared(true);
    reply.set_netns(path);
    reply.set_netns_dev(netns->dev);
    reply.set_netns_ino(netns->ino);
  }
  [[nodiscard]] std::string removed() const {
    return fmt::format("removed web {}", daemon_->script.detach_reply.netns_ino());
  }
  // The daemon takes every attach and notes it here.
  void take_attaches() {
    daemon_->script.attach = [this](const pb::AttachRequest& request, pb::AttachReply*) {
      attached_.push_back(request);
      return grpc::Status::OK;
    };
  }

  std::unique_ptr<MountSandbox> dir_;
  std::string netns_;
  std::unique_ptr<FakeDaemon> daemon_;
  std::vector<pb::AttachRequest> attached_;
  Capture out_;
  Environment environment_;
};

TEST_F(PrepareTest, MakesANamespaceAndDetachRemovesIt) {
  take_attaches();
  const auto made = go(Prepare{.id = "web", .resolv_conf = ""});
  ASSERT_TRUE(made) << made.error().what;
  ASSERT_EQ(attached_.size(), 1U);
  EXPECT_TRUE(attached_[0].prepared());
  EXPECT_EQ(attached_[0].netns(), netns_);
  EXPECT_TRUE(exists());
  leave(netns_);
  const auto gone = go(Detach{"web"});
  EXPECT_TRUE(gone) << gone.error().what;
  EXPECT_FALSE(exists());
  EXPECT_THAT(daemon_->calls(), ElementsAre("attach web", "detach web", removed()));
}

TEST_F(PrepareTest, WhatAnInterruptedDetachLeftIsRemovedAndMadeAnew) {
  take_attaches();
  ASSERT_TRUE(create_named_netns(netns_));
  leave(netns_);
  const auto made = go(Prepare{.id = "web", .resolv_conf = ""});
  ASSERT_TRUE(made) << made.error().what;
  EXPECT_THAT(daemon_->calls(), ElementsAre("list workloads", "left web", removed(), "attach web"));
  ASSERT_EQ(attached_.size(), 1U);
  EXPECT_TRUE(attached_[0].prepared());
}

TEST_F(PrepareTest, AFileThatAnInterruptedRemovalLeftIsNoObstacle) {
  take_attaches();
  ASSERT_TRUE(create_named_netns(netns_));
  leave(netns_);
  ASSERT_EQ(umount2(netns_.c_str(), MNT_DETACH), 0);
  EXPECT_TRUE(go(Prepare{.id = "web", .resolv_conf = ""}));
  EXPECT_EQ(attached_.size(), 1U);
}

TEST_F(PrepareTest, ANamespaceThatTookTheNameIsLeftAlone) {
  ASSERT_TRUE(create_named_netns(netns_));
  leave(netns_);
  daemon_->script.detach_reply.set_netns_ino(7);
  const auto made = go(Prepare{.id = "web", .resolv_conf = ""});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().what, HasSubstr("is not this workload's"));
  EXPECT_TRUE(exists());
  EXPECT_TRUE(go(Detach{"web"}));
  EXPECT_TRUE(exists());
  EXPECT_THAT(daemon_->calls(), ElementsAre("list workloads", "left web", "detach web", removed()));
}

TEST_F(PrepareTest, WritesResolvConfTheFirstTimeAndWhenRepeated) {
  daemon_->script.attach = [](const pb::AttachRequest& request, pb::AttachReply* reply) {
    reply->set_id(request.id());
    reply->add_resolvers("169.254.1.1");
    return grpc::Status::OK;
  };
  const Prepare command{.id = "web", .resolv_conf = *dir_ / "resolv.conf"};
  const auto made = go(command);
  ASSERT_TRUE(made) << made.error().what;
  EXPECT_TRUE(std::filesystem::remove(command.resolv_conf));
  auto& info = *daemon_->script.workloads.add_workloads();
  info.mutable_declaration()->set_id("web");
  info.mutable_attachment()->set_netns(netns_);
  const auto again = go(command);
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_TRUE(std::filesystem::exists(command.resolv_conf));
}

TEST_F(PrepareTest, AnUnwritableResolvConfKeepsTheAttachedNamespaceAndSaysSo) {
  take_attaches();
  const auto made = go(Prepare{.id = "web", .resolv_conf = *dir_ / "none/resolv.conf"});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().what, HasSubstr("prepare web: it is attached, but has no resolv.conf"));
  EXPECT_TRUE(exists());
}

TEST_F(PrepareTest, ARefusedAttachLeavesNoNamespace) {
  bool existed = false;
  daemon_->script.attach = [&](const pb::AttachRequest&, pb::AttachReply*) {
    existed = exists();
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "attach web: not declared");
  };
  const auto made = go(Prepare{.id = "web", .resolv_conf = ""});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().what, "attach web: not declared");
  EXPECT_TRUE(existed);
  EXPECT_FALSE(exists());
}

TEST_F(PrepareTest, NothingIsMadeWithoutADaemon) {
  daemon_->stop();
  const auto made = go(Prepare{.id = "web", .resolv_conf = ""});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().exit, Exit::kUnreachable);
  EXPECT_FALSE(exists());
}

TEST_F(PrepareTest, RepeatingItIsHarmlessWhenTheNamespaceIsItsOwn) {
  take_attaches();
  ASSERT_TRUE(go(Prepare{.id = "web", .resolv_conf = ""}));
  auto& info = *daemon_->script.workloads.add_workloads();
  info.mutable_declaration()->set_id("web");
  info.mutable_attachment()->set_netns(netns_);
  const auto again = go(Prepare{.id = "web", .resolv_conf = ""});
  ASSERT_TRUE(again) << again.error().what;
  ASSERT_EQ(attached_.size(), 2U);
  EXPECT_EQ(attached_[0].netns_ino(), attached_[1].netns_ino());
}

TEST_F(PrepareTest, SomebodyElsesNamespaceIsNeitherTakenNorRemoved) {
  ASSERT_TRUE(create_named_netns(netns_));
  auto& info = *daemon_->script.workloads.add_workloads();
  info.mutable_declaration()->set_id("web");
  info.mutable_attachment()->set_netns("/run/elsewhere/web");
  const auto made = go(Prepare{.id = "web", .resolv_conf = ""});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().what, HasSubstr("is not this workload's"));
  EXPECT_THAT(daemon_->calls(), ElementsAre("list workloads", "left web"));
  EXPECT_TRUE(exists());
}

TEST_F(PrepareTest, AForcedDeleteRemovesTheNamespaceToo) {
  ASSERT_TRUE(create_named_netns(netns_));
  leave(netns_);
  EXPECT_TRUE(go(Delete{.id = "web", .force = false}));
  EXPECT_TRUE(exists()) << "without --force nothing is detached";
  EXPECT_TRUE(go(Delete{.id = "web", .force = true}));
  EXPECT_FALSE(exists());
  EXPECT_THAT(daemon_->calls(), ElementsAre("delete web", "delete web force", removed()));
}

TEST_F(PrepareTest, DetachRemovesOnlyWhatPrepareMade) {
  ASSERT_TRUE(create_named_netns(netns_));
  daemon_->script.detach_reply.set_was_attached(true);
  daemon_->script.detach_reply.set_netns(netns_);
  EXPECT_TRUE(go(Detach{"web"}));
  EXPECT_TRUE(exists());
}

TEST_F(PrepareTest, DetachRemovesNothingOutsideOfTheDirectory) {
  const auto other = *dir_ / "other/web";
  ASSERT_TRUE(create_named_netns(other));
  leave(other);
  const auto gone = go(Detach{"web"});
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().exit, Exit::kRefused);
  EXPECT_TRUE(std::filesystem::exists(other));
}

TEST_F(PrepareTest, AnIdThatIsNoFileNameIsWrongUsage) {
  const auto made = go(Prepare{.id = "../web", .resolv_conf = ""});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().exit, Exit::kUsage);
  EXPECT_THAT(daemon_->calls(), IsEmpty());
}

}  // namespace
}  // namespace meshd::ctl
