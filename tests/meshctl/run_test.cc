// Whole commands against a daemon that only talks: what is sent, what is printed, how it
// ends. Commands that read files are here as well.
#include "meshctl/run.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "tests/meshctl/fake_daemon.h"
#include "tests/meshctl/sandbox.h"
#include "tests/meshctl/support.h"

namespace meshd::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class RunTest : public testing::Test {
 protected:
  Outcome<Exit> run_line(const std::string& line) {
    std::istringstream stream(line);
    std::vector<std::string> args;
    for (std::string word; stream >> word;) args.push_back(word);
    const auto command = TRY(parse(args, dir_.path()));
    environment_.out = out_.fd();
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
  Capture out_;
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
            "{\n  \"was_attached\": false,\n  \"netns\": \"\",\n  \"prepared\": false\n}\n{}\n");
}

TEST_F(RunTest, ListsAreSortedInTablesAndInJson) {
  script_.workloads.add_workloads()->mutable_declaration()->set_id("b");
  script_.workloads.add_workloads()->mutable_declaration()->set_id("a");
  ASSERT_TRUE(run_line("list workloads"));
  ASSERT_TRUE(run_line("list workloads -o json"));
  const auto text = out_.text();
  EXPECT_LT(text.find("\na "), text.find("\nb "));
  EXPECT_LT(text.find("\"id\": \"a\""), text.find("\"id\": \"b\""));
  for (const auto* what : {"services", "flows", "published"}) {
    ASSERT_TRUE(run_line(std::string("list ") + what));
  }
  EXPECT_THAT(daemon_.calls(), ElementsAre("list workloads", "list workloads", "list services",
                                           "list flows", "list published"));
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

TEST_F(RunTest, WaitEndsWithOneAndTheReasonWhenTimeRanOut) {
  script_.wait_reply.set_reason("no listener on 5432/tcp");
  EXPECT_EQ(failure_of("wait db --timeout 1500ms"),
            "wait db: not ready within 1500 ms: no listener on 5432/tcp");
  script_.wait_reply.set_ready(true);
  EXPECT_EQ(run_line("wait db"), Exit::kDone);
  EXPECT_THAT(daemon_.calls(), ElementsAre("wait db 1500", "wait db 60000"));
}

TEST_F(RunTest, WatchPrintsALineForEachEventAndEndsWell) {
  script_.watch = [this](grpc::ServerContext* context, grpc::ServerWriter<pb::Event>* writer) {
    pb::Event event;
    event.set_id("db");
    writer->Write(event);
    event.set_id("web");
    writer->Write(event);
    // Both lines have to be out while the stream is open: nothing may sit in a buffer.
    while (!out_.text().contains("web") && !context->IsCancelled()) usleep(1000);
    eventfd_write(stop_.get(), 1);
    while (!context->IsCancelled()) usleep(1000);
  };
  EXPECT_EQ(run_line("watch --refused -o json"), Exit::kDone);
  EXPECT_EQ(out_.text(),
            R"({"kind":"ATTACHED","time":"","id":"db","peer":"","detail":"","missing":""})"
            "\n"
            R"({"kind":"ATTACHED","time":"","id":"web","peer":"","detail":"","missing":""})"
            "\n");
  EXPECT_THAT(daemon_.calls(), ElementsAre("watch refused"));
}

TEST_F(RunTest, AnAnswerThatCannotBeWrittenIsAFailure) {
  const UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  const auto command = parse(std::vector<std::string>{"version"}, "");
  environment_.out = full.get();
  const auto outcome = run(*command, environment_);
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
    return grpc::Status::OK;
  };
  const auto outcome =
      run_line("attach web --netns /proc/self/ns/net --ifname mesh0 --no-default-route");
  ASSERT_TRUE(outcome) << outcome.error().what;
  EXPECT_TRUE(same);
  // JSON without being asked, every field there.
  EXPECT_EQ(out_.text(),
            "{\n  \"id\": \"web\",\n  \"netns\": \"\",\n  \"ifname\": \"\",\n"
            "  \"host_ifname\": \"\",\n  \"mac\": \"\",\n  \"addresses\": [],\n"
            "  \"gateways\": [],\n  \"resolvers\": [],\n  \"search\": [],\n  \"mtu\": 0\n}\n");
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

// prepare and the detach after it mount, so gRPC's client runs in a child in a mount
// namespace; the fake daemon is started there as well, since threads do not survive fork().
class PrepareTest : public testing::Test {
 protected:
  struct World {
    FakeDaemon daemon;
    Environment environment;
    Capture out;
    std::string run_dir;
    explicit World(const std::string& dir) : daemon(dir), run_dir(dir) {
      environment.out = out.fd();
      environment.netns_dir = dir + "/netns";
    }
    Outcome<Exit> go(Action action) {
      return run({.run_dir = run_dir, .action = std::move(action)}, environment);
    }
    [[nodiscard]] bool exists() const { return std::filesystem::exists(run_dir + "/netns/web"); }
  };

  void expect(const std::function<std::string(World&)>& body) {
    const auto result = in_mount_sandbox([&] {
      World world(dir_.path());
      return body(world);
    });
    if (!result) GTEST_SKIP() << "no mount namespaces for this user";
    EXPECT_EQ(*result, "");
  }

  TempDir dir_;
};

TEST_F(PrepareTest, MakesANamespaceAndDetachRemovesIt) {
  expect([](World& world) -> std::string {
    bool prepared = false;
    world.daemon.script.attach = [&](const pb::AttachRequest& request, pb::AttachReply*) {
      prepared = request.prepared();
      return grpc::Status::OK;
    };
    const auto made = world.go(Prepare{"web"});
    if (!made) return made.error().what;
    if (!prepared || !world.exists()) return "it is not prepared";
    auto& reply = world.daemon.script.detach_reply;
    reply.set_was_attached(true);
    reply.set_prepared(true);
    reply.set_netns(world.run_dir + "/netns/web");
    const auto gone = world.go(Detach{"web"});
    if (!gone) return gone.error().what;
    return world.exists() ? "the namespace is still there" : "";
  });
}

TEST_F(PrepareTest, ARefusedAttachLeavesNoNamespace) {
  expect([](World& world) -> std::string {
    bool existed = false;
    world.daemon.script.attach = [&](const pb::AttachRequest&, pb::AttachReply*) {
      existed = world.exists();
      return grpc::Status(grpc::StatusCode::NOT_FOUND, "attach web: not declared");
    };
    const auto made = world.go(Prepare{"web"});
    if (made || made.error().what != "attach web: not declared") return "not the daemon's words";
    if (!existed) return "it did not exist during the call";
    return world.exists() ? "the namespace is left over" : "";
  });
}

TEST_F(PrepareTest, NothingIsMadeWithoutADaemon) {
  expect([](World& world) -> std::string {
    world.daemon.stop();
    const auto made = world.go(Prepare{"web"});
    if (made || made.error().exit != Exit::kUnreachable) return "not unreachable";
    return world.exists() ? "a namespace was made" : "";
  });
}

TEST_F(PrepareTest, RepeatingItIsHarmlessWhenTheNamespaceIsItsOwn) {
  expect([](World& world) -> std::string {
    std::vector<std::uint64_t> inodes;
    world.daemon.script.attach = [&](const pb::AttachRequest& request, pb::AttachReply*) {
      inodes.push_back(request.netns_ino());
      return grpc::Status::OK;
    };
    if (!world.go(Prepare{"web"})) return "the first one failed";
    auto& info = *world.daemon.script.workloads.add_workloads();
    info.mutable_declaration()->set_id("web");
    info.mutable_attachment()->set_netns(world.run_dir + "/netns/web");
    const auto again = world.go(Prepare{"web"});
    if (!again) return again.error().what;
    return inodes.size() == 2 && inodes[0] == inodes[1] ? "" : "another namespace";
  });
}

TEST_F(PrepareTest, SomebodyElsesNamespaceIsNeitherTakenNorRemoved) {
  expect([](World& world) -> std::string {
    if (!create_named_netns(world.run_dir + "/netns/web")) return "cannot make one";
    const auto made = world.go(Prepare{"web"});
    if (made || !made.error().what.contains("is not this workload's")) return "not refused";
    if (world.daemon.calls() != std::vector<std::string>{"list workloads"}) return "it attached";
    return world.exists() ? "" : "it was removed";
  });
}

TEST_F(PrepareTest, DetachRemovesNothingOutsideOfTheDirectory) {
  expect([](World& world) -> std::string {
    const auto other = world.run_dir + "/other/web";
    std::filesystem::create_directory(world.run_dir + "/other");
    if (!create_named_netns(other)) return "cannot make one";
    auto& reply = world.daemon.script.detach_reply;
    reply.set_prepared(true);
    reply.set_netns(other);
    const auto gone = world.go(Detach{"web"});
    if (gone || gone.error().exit != Exit::kRefused) return "not refused";
    return std::filesystem::exists(other) ? "" : "it was removed";
  });
}

TEST_F(PrepareTest, AnIdThatIsNoFileNameIsWrongUsage) {
  expect([](World& world) -> std::string {
    const auto made = world.go(Prepare{"../web"});
    return !made && made.error().exit == Exit::kUsage ? "" : "it was taken";
  });
}

}  // namespace
}  // namespace meshd::ctl
