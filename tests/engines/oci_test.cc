// What runtimes say and are told: texts as docker 20.10 with runc 1.1 and podman 4.3 with crun 1.8
// have written them.
#include "engines/oci.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engines/docker.h"
#include "engines/podman.h"
#include "engines/runc.h"

namespace meshd::engines {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

constexpr std::string_view kId = "3f2a0c9e4b7d1a5c8e6f0b2d4a6c8e0f1a3c5e7f9b1d3f5a7c9e1b3d5f7a9c1e";

// Of `text` with the container's id in place of each @.
std::string with_id(std::string text) {
  for (auto at = text.find('@'); at != std::string::npos; at = text.find('@')) {
    text.replace(at, 1, kId);
  }
  return text;
}

TEST(OciTest, StateOfDocker) {
  const auto state = parse_state(R"({"ociVersion":"1.0.2-dev","id":"x1","status":"creating",
      "pid":4711,"bundle":"/run/docker/bundle","annotations":null})");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->id, "x1");
  EXPECT_EQ(state->pid, 4711);
  EXPECT_EQ(state->bundle, "/run/docker/bundle");
  EXPECT_TRUE(state->annotations.empty());
}

TEST(OciTest, StateOfPodmanHasAnnotations) {
  const auto state = parse_state(R"({"ociVersion":"1.0","id":"x1","pid":1,"root":"/r",
      "bundle":"/b","status":"created","annotations":{"mesh.id":"db",
      "io.container.manager":"libpod","org.opencontainers.image.stopSignal":"15"}})");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->annotations.at("mesh.id"), "db");
}

TEST(OciTest, AtPoststopThereIsNoProcess) {
  const auto state = parse_state(R"({"ociVersion":"1.0.2-dev","id":"x1","status":"stopped",
      "bundle":"/b"})");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->pid, 0);
}

TEST(OciTest, StatesThatAreNoneAreRefused) {
  EXPECT_FALSE(parse_state("{}"));
  EXPECT_FALSE(parse_state("[]"));
  EXPECT_FALSE(parse_state(R"({"id":"x1","pid":-1})"));
  EXPECT_FALSE(parse_state(R"({"id":"x1","pid":1.5})"));
  EXPECT_FALSE(parse_state(R"({"id":"x1","pid":99999999999})"));
}

TEST(OciTest, HooksAreAddedOnceAndTheRestStays) {
  const HookCommand command{"/usr/libexec/meshd/mesh-hook", {"--run-dir", "/r"}, 6};
  const std::string before =
      R"({"ociVersion":"1.0.2","hooks":{"prestart":[{"path":"/proc/1/exe"}]},"n":1e3})";
  const auto once = with_hooks(read_json(before).value(), command).value();
  EXPECT_EQ(render(once),
            R"({"ociVersion":"1.0.2","hooks":{"prestart":[{"path":"/proc/1/exe"}],)"
            R"("createRuntime":[{"path":"/usr/libexec/meshd/mesh-hook",)"
            R"("args":["mesh-hook","attach","--run-dir","/r"],"timeout":6}],)"
            R"("poststop":[{"path":"/usr/libexec/meshd/mesh-hook",)"
            R"("args":["mesh-hook","detach","--run-dir","/r"],"timeout":6}]},"n":1e3})");
  EXPECT_EQ(render(with_hooks(once, command).value()), render(once));
}

TEST(OciTest, HooksGoBehindThoseThatAreThere) {
  const auto json =
      read_json(R"({"hooks":{"createRuntime":[{"path":"/first"}],"poststop":null}})").value();
  const auto hooked = with_hooks(json, {"/h", {}, 6}).value();
  const auto* const stage = hooked.find("hooks")->find("createRuntime");
  ASSERT_EQ(stage->items.size(), 2U);
  EXPECT_EQ(stage->items[0].text_at("path"), "/first");
  EXPECT_EQ(stage->items[1].text_at("path"), "/h");
}

TEST(OciTest, AConfigurationThatIsNoneGetsNoHooks) {
  EXPECT_FALSE(with_hooks(read_json("[]").value(), {"/h", {}, 6}));
  EXPECT_FALSE(with_hooks(read_json(R"({"hooks":[]})").value(), {"/h", {}, 6}));
  EXPECT_FALSE(with_hooks(read_json(R"({"hooks":{"poststop":{}}})").value(), {"/h", {}, 6}));
}

TEST(OciTest, CommandLineOfContainerd) {
  const auto call = parse_runtime_call({"--root", "/run/docker/runtime-runc/moby", "--log",
                                        "/b/log.json", "--log-format", "json", "create", "--bundle",
                                        "/b", "--pid-file", "/b/init.pid", "x1"});
  EXPECT_EQ(call.command, "create");
  EXPECT_EQ(call.bundle, "/b");
  EXPECT_EQ(call.log, "/b/log.json");
}

TEST(OciTest, CommandLinesOfOthers) {
  EXPECT_EQ(parse_runtime_call({"--systemd-cgroup", "--log=/l", "create", "-b", "/c", "x"}).bundle,
            "/c");
  EXPECT_EQ(parse_runtime_call({"create", "--bundle=/c", "x"}).bundle, "/c");
  // A container may be called as a command is.
  const auto removed = parse_runtime_call({"delete", "--force", "create"});
  EXPECT_EQ(removed.command, "delete");
  EXPECT_EQ(parse_runtime_call({"run", "x", "--bundle", "/c"}).bundle, std::nullopt);
  EXPECT_EQ(parse_runtime_call({"--version"}).command, "");
  EXPECT_EQ(parse_runtime_call({"--root"}).command, "");
  EXPECT_EQ(parse_runtime_call({"restore", "--image-path", "/i", "--bundle", "/b", "x"}).bundle,
            "/b");
}

// `--log-level debug create`, with an option that is not known here: what is made would not be
// ours.
TEST(OciTest, UnknownWordInPlaceOfTheCommandIsRefused) {
  const auto prepared = [](std::vector<std::string> arguments) {
    return prepare_bundle(parse_wrapper_call(std::move(arguments), "/m/mesh-runc").value());
  };
  EXPECT_THAT(prepared({"--log-level", "debug", "create", "x"}).error().what,
              HasSubstr("'debug' is no command"));
  EXPECT_TRUE(prepared({"state", "x"}));
  EXPECT_TRUE(prepared({"--version"}));
  for (const auto* command : {"create", "run", "restore"}) {
    EXPECT_THAT(prepared({command, "--bundle", "/nonexistent", "x"}).error().what,
                HasSubstr("/nonexistent/config.json"));
  }
}

TEST(OciTest, OursIsTakenOutOfTheCommandLine) {
  const auto call = parse_wrapper_call(
                        {"--mesh-runtime=/opt/crun", "--mesh-run-dir=/r", "--root", "/x", "create"},
                        "/usr/libexec/meshd/mesh-runc")
                        .value();
  EXPECT_EQ(call.runtime, "/opt/crun");
  EXPECT_EQ(call.hook, "/usr/libexec/meshd/mesh-hook");
  EXPECT_THAT(call.arguments, ElementsAre("--root", "/x", "create"));
  EXPECT_EQ(call.options[0], "--run-dir");
  EXPECT_EQ(call.options[1], "/r");
  EXPECT_FALSE(parse_wrapper_call({"--mesh-hook=x"}, "/m"));
}

TEST(DockerTest, DirectoryIsFoundByWhatDockerMounts) {
  const auto json = read_json(with_id(R"({"mounts":[{"destination":"/proc","source":"proc"},
      {"destination":"/etc/resolv.conf","source":"/var/lib/docker/containers/@/resolv.conf"},
      {"destination":"/etc/hostname","source":"/var/lib/docker/containers/@/hostname"}]})"))
                        .value();
  EXPECT_EQ(docker_directory(json, kId), with_id("/var/lib/docker/containers/@"));
  // With the network of another container it is given that one's files.
  EXPECT_EQ(docker_directory(json, "other"), "/var/lib/docker/containers/other");
  EXPECT_EQ(docker_directory(read_json("{}").value(), kId), "");
}

TEST(DockerTest, WhatIsMountedLastIsWhatTheContainerSees) {
  const auto json = read_json(R"({"mounts":[{"destination":"/etc/resolv.conf","source":"/a"},
      {"destination":"/etc/resolv.conf","source":"/b"}]})");
  EXPECT_EQ(mount_source(*json, "/etc/resolv.conf"), "/b");
}

TEST(DockerTest, NameAndLabels) {
  const auto text = with_id(R"({"ID":"@","Image":"sha256:0123abcd","Driver":"overlay2",
      "Name":"/zzzzz-dz642-000000000000001","Config":{"Labels":{"mesh.id":"db"},"Hostname":"h"},
      "ResolvConfPath":"/var/lib/docker/containers/@/resolv.conf"})");
  const auto container = parse_docker_container(text, kId).value();
  EXPECT_EQ(container.name, "zzzzz-dz642-000000000000001");
  EXPECT_THAT(container.labels, ElementsAre(Pair("mesh.id", "db")));
  EXPECT_EQ(container.image_file, "image/overlay2/imagedb/content/sha256/0123abcd");
  EXPECT_THAT(parse_docker_container(text, "other").error().what, HasSubstr("another container"));
}

TEST(DockerTest, AnImagesFileIsNeverElsewhere) {
  for (const auto* image : {"sha256:../../x", "sha256:", "md5:00", ""}) {
    const auto text = with_id(R"({"ID":"@","Driver":"overlay2","Image":")") + image + "\"}";
    EXPECT_EQ(parse_docker_container(text, kId)->image_file, "") << image;
  }
}

TEST(DockerTest, WhatTheImageSaysIsNotTheLaunchers) {
  const auto image =
      parse_image_labels(R"({"config":{"Labels":{"mesh.id":"db","a":"1"}},"os":"linux"})").value();
  EXPECT_THAT(launchers_own({{"mesh.id", "db"}, {"mesh.owner", "ada"}}, image),
              ElementsAre(Pair("mesh.owner", "ada")));
  // Another value is somebody's who started it.
  EXPECT_THAT(launchers_own({{"mesh.id", "web"}}, image), ElementsAre(Pair("mesh.id", "web")));
  EXPECT_TRUE(parse_image_labels(R"({"config":{"Labels":null}})")->empty());
}

TEST(OciTest, NetworkThatAContainerEnters) {
  const auto path = [](std::string_view namespaces) {
    const auto json = read_json(fmt::format(R"({{"linux":{{"namespaces":{}}}}})", namespaces));
    return std::string(network_path(json.value()));
  };
  EXPECT_EQ(path(R"([{"type":"ipc","path":"/i"},{"type":"network","path":"/proc/7/ns/net"}])"),
            "/proc/7/ns/net");
  for (const auto* own :
       {R"([{"type":"network"}])", R"([{"type":"ipc","path":"/i"}])", "{}", "7"}) {
    EXPECT_EQ(path(own), "");
  }
  EXPECT_EQ(network_path(read_json("{}").value()), "");
}

TEST(PodmanTest, ImageOfAContainerIsFoundInItsStore) {
  const auto bundle = with_id("/var/lib/containers/storage/overlay-containers/@/userdata");
  const auto store = podman_store(bundle, kId).value();
  EXPECT_EQ(store.containers, "/var/lib/containers/storage/overlay-containers");
  EXPECT_EQ(store.images, "/var/lib/containers/storage/overlay-images");
  EXPECT_FALSE(podman_store(bundle, "other"));
  EXPECT_FALSE(podman_store("/run/docker/bundle", kId));
  const auto text =
      with_id(R"([{"id":"aa","image":"@"},{"id":"bb","image":""},{"id":"cc","image":"../x"}])");
  EXPECT_EQ(parse_store_image(text, "aa").value(), kId);
  EXPECT_EQ(parse_store_image(text, "bb").value(), "");
  EXPECT_EQ(parse_store_image(text, "cc").error().code, ErrorCode::kInvalid);
  EXPECT_EQ(parse_store_image(text, "dd").error().code, ErrorCode::kNotFound);
}

TEST(PodmanTest, ItsOwnResolvConfIsTold) {
  EXPECT_TRUE(is_podmans_resolv_conf(
      with_id("/run/containers/storage/overlay-containers/@/userdata/resolv.conf"), kId));
  for (const auto* other : {"", "/resolv.conf", "/etc/resolv.conf", "/srv/mine/resolv.conf",
                            "/run/containers/storage/overlay-containers/other/userdata/resolv.conf",
                            "/run/containers/storage/overlay-containers/@/userdata/hosts",
                            "containers/storage/overlay-containers/@/userdata/resolv.conf"}) {
    EXPECT_FALSE(is_podmans_resolv_conf(with_id(other), kId)) << other;
  }
}

TEST(PodmanTest, ServersThatSomebodyChoseAreTold) {
  const auto* const host = "# nameserver 203.0.113.9\nnameserver\t192.0.2.1 \r\nnameserver ::1\n";
  EXPECT_FALSE(has_chosen_servers("search a\nnameserver 192.0.2.1\n", host));
  EXPECT_FALSE(has_chosen_servers("nameserver 10.88.0.1\nnameserver 192.0.2.1", host))
      << "a network's own comes first";
  EXPECT_FALSE(has_chosen_servers("search a\n", host));
  EXPECT_FALSE(has_chosen_servers("", ""));
  EXPECT_TRUE(has_chosen_servers("nameserver 192.0.2.1\nnameserver 198.51.100.1\n", host));
  EXPECT_TRUE(has_chosen_servers("nameserver 203.0.113.9\n", host)) << "that one is a comment";
  EXPECT_TRUE(has_chosen_servers("nameserver ::1\n", host)) << "the host's alone: never given";
  EXPECT_TRUE(has_chosen_servers("nameserver 8.8.8.8\n", host));
}

TEST(PodmanTest, HostWithAResolverOfItsOwnGivesPodmansServers) {
  const auto* const host = "nameserver 127.0.0.53\noptions edns0\n";
  EXPECT_FALSE(has_chosen_servers("nameserver 8.8.8.8\nnameserver 8.8.4.4\n", host));
  EXPECT_FALSE(has_chosen_servers("nameserver 2001:4860:4860::8844\n", ""));
  EXPECT_TRUE(has_chosen_servers("nameserver 9.9.9.9\n", host));
  EXPECT_TRUE(has_chosen_servers("nameserver\nnameservers 8.8.8.8\nnameserver 127.0.0.53", host));
}

TEST(PodmanTest, AnnotationsOfAManifest) {
  EXPECT_THAT(
      parse_manifest_annotations(R"({"schemaVersion":2,"annotations":{"mesh.id":"db"}})").value(),
      ElementsAre(Pair("mesh.id", "db")));
  EXPECT_TRUE(parse_manifest_annotations(R"({"schemaVersion":2})")->empty());
}

}  // namespace
}  // namespace meshd::engines
