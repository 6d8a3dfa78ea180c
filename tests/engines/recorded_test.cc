// What engines have handed to our programs, whole, as the files in recorded/: docker.io 20.10.24
// with runc 1.1.5, podman 4.3.1 with crun 1.8.1, containerd 1.6.20 by ctr and by CRI; none of them
// said CHECK to a CNI plugin. A CNI call is lines NAME=VALUE, sorted, an empty line, and standard
// input, as the fuzzer takes it (tests/fuzz/corpus has links to these files). A call of dockerd is
// three lines: its path, its body, and what was answered. Only where our programs lie was changed.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <utility>

#include "engines/cni.h"
#include "engines/docker.h"
#include "engines/docker_api.h"
#include "engines/docker_plugin.h"
#include "engines/oci.h"
#include "engines/podman.h"
#include "proto/node.pb.h"
#include "tests/support/text_file.h"

namespace meshd::engines {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

const std::string kFolder = "tests/engines/recorded/";

std::string recorded(const std::string& name) {
  const auto text = meshd::read_file(kFolder + name);
  EXPECT_TRUE(text && !text->empty()) << kFolder << name << ": there is no such recording";
  return text.value_or("");
}

Json recorded_json(const std::string& name) { return read_json(recorded(name)).value(); }
OciState recorded_state(const std::string& name) { return parse_state(recorded(name)).value(); }

// Of `text` with `id` in place of each @.
std::string with_id(std::string text, const std::string& id) {
  for (auto at = text.find('@'); at != std::string::npos; at = text.find('@')) {
    text.replace(at, 1, id);
  }
  return text;
}

// Containers that a runtime has made.
struct Made {
  std::string folder, id;
  pid_t pid;
  std::string bundle, network, resolv_conf, hosts;
};

const std::string kPodman = "/run/test/podman/root/overlay-";
const std::string kUserdata = "/run/test/podman/runroot/overlay-containers/@/userdata/";
const std::vector<Made> kMade = {
    {"ctr", "zzzzz-dz642-000000000000001", 130,
     "/run/test/containerd/state/io.containerd.runtime.v2.task/default/@", "", "", ""},
    {"docker", "653def5d3e302bb0862d87269bef65a767e49bb78d521ecfd9cf5eb78106d6b3", 264,
     "/run/test/docker/exec/containerd/daemon/io.containerd.runtime.v2.task/moby/@", "",
     "/run/test/docker/data/containers/@/resolv.conf", "/run/test/docker/data/containers/@/hosts"},
    {"podman_bridge", "49104e8c7c906fa78468d5ec3fe2e2daf1daedd5cae283b8772b7f80aa5aa628", 2501,
     kPodman + "containers/@/userdata", "/run/netns/netns-301a86a0-a7d0-8bcf-68f0-c39aee411a2c",
     kUserdata + "resolv.conf", kUserdata + "hosts"},
    {"podman_none", "ff837146824cc33b671dfbb868350c417931f92c9d554e55f11a511984a8d046", 1333,
     kPodman + "containers/@/userdata", "", "", kUserdata + "hosts"},
};

TEST(RecordedTest, NoneIsUnread) {
  const std::filesystem::recursive_directory_iterator all(kFolder);
  EXPECT_EQ(std::ranges::count_if(all, [](const auto& one) { return one.is_regular_file(); }), 44);
}

TEST(RecordedTest, StateOfAContainerThatStartsAndThatHasEnded) {
  for (const auto& made : kMade) {
    SCOPED_TRACE(made.folder);
    const auto starts = recorded_state(made.folder + "/state");
    const auto ended = recorded_state(made.folder + "/poststop");
    EXPECT_EQ(starts.id, made.id);
    EXPECT_EQ(starts.pid, made.pid);
    EXPECT_EQ(starts.bundle, with_id(made.bundle, made.id));
    EXPECT_EQ(ended.id, starts.id);
    EXPECT_EQ(ended.pid, 0);
    EXPECT_EQ(ended.bundle, starts.bundle);
  }
}

TEST(RecordedTest, PodmanAloneSaysAnnotationsAtTheEndToo) {
  for (const std::string when : {"/state", "/poststop"}) {
    EXPECT_THAT(recorded_state("ctr" + when).annotations, IsEmpty());
    EXPECT_THAT(recorded_state("docker" + when).annotations, IsEmpty());
    EXPECT_EQ(recorded_state("podman_none" + when).annotations.at("mesh.id"), "db");
    EXPECT_EQ(recorded_state("podman_bridge" + when).annotations.at("mesh.id"), "worker");
    EXPECT_EQ(recorded_state("podman_image" + when).annotations.at("mesh.id"), "stranger");
  }
}

TEST(RecordedTest, ConfigurationAndBundleSayWhoseItIsAndWhatIsMounted) {
  for (const auto& made : kMade) {
    SCOPED_TRACE(made.folder);
    const auto config = recorded_json(made.folder + "/config");
    const auto resolv_conf = mount_source(config, "/etc/resolv.conf");
    EXPECT_EQ(resolv_conf, with_id(made.resolv_conf, made.id));
    EXPECT_EQ(mount_source(config, "/etc/hosts"), with_id(made.hosts, made.id));
    EXPECT_EQ(network_path(config), made.network);
    EXPECT_EQ(is_podmans_resolv_conf(resolv_conf, made.id), made.folder == "podman_bridge");
    EXPECT_EQ(
        docker_directory(config, made.id),
        made.folder == "docker" ? with_id("/run/test/docker/data/containers/@", made.id) : "");
    const auto store = podman_store(with_id(made.bundle, made.id), made.id);
    ASSERT_EQ(store.has_value(), made.folder.starts_with("podman"));
    EXPECT_EQ(store ? store->containers : "", store ? kPodman + "containers" : "");
    EXPECT_EQ(store ? store->images : "", store ? kPodman + "images" : "");
  }
}

// Podman has put one there before, which is longer.
TEST(RecordedTest, ConfigurationGetsOurHooksOnceAndKeepsAllElse) {
  const HookCommand command{"/usr/libexec/meshd/mesh-hook", {"--run-dir", "/r"}, 6};
  for (const auto& made : kMade) {
    SCOPED_TRACE(made.folder);
    const auto before = recorded_json(made.folder + "/config");
    EXPECT_EQ(render(before), recorded(made.folder + "/config"));
    const auto after = with_hooks(before, command).value();
    EXPECT_EQ(render(with_hooks(after, command).value()), render(after));
    for (std::size_t i = 0; i < before.keys.size(); ++i) {
      ASSERT_EQ(after.keys[i], before.keys[i]);
      if (after.keys[i] == "hooks") continue;
      EXPECT_EQ(render(after.items[i]), render(before.items[i]));
    }
    EXPECT_EQ(after.keys.size(), before.keys.size() + (made.folder == "ctr" ? 1 : 0));
    const auto* const hooks = after.find("hooks");
    for (const auto* stage : {"createRuntime", "poststop"}) {
      ASSERT_THAT(hooks->find(stage)->items, SizeIs(1)) << stage;
      EXPECT_EQ(hooks->find(stage)->items[0].text_at("path"), command.path);
    }
    const auto* const attach = hooks->find("createRuntime")->items[0].find("args");
    EXPECT_THAT(attach->items, SizeIs(made.folder.starts_with("podman") ? 6 : 4));
    if (made.folder != "docker") continue;
    ASSERT_NE(hooks->find("prestart"), nullptr);
    EXPECT_EQ(hooks->find("prestart")->items[0].text_at("path"), "/proc/48/exe");
  }
}

TEST(RecordedTest, WhatDockerHasWrittenOfAContainerAndItsImage) {
  const auto container = parse_docker_container(recorded("docker/config_v2"), kMade[1].id).value();
  EXPECT_EQ(container.name, "liar");
  EXPECT_THAT(container.labels, ElementsAre(testing::Pair("mesh.id", "stranger")));
  EXPECT_EQ(container.image_file,
            "image/overlay2/imagedb/content/sha256/"
            "facef242b71f5d871aac679a74331471076a48009f1a1e097cf584b765818fe6");
  const auto image = parse_image_labels(recorded("docker/image")).value();
  EXPECT_THAT(image, ElementsAre(testing::Pair("mesh.id", "worker")));
  EXPECT_EQ(launchers_own(container.labels, image), container.labels);
  const auto text = recorded("docker/config_v2_of_image");
  const auto other = parse_docker_container(text, read_json(text)->text_at("ID")).value();
  EXPECT_EQ(other.labels, image);
  EXPECT_THAT(launchers_own(other.labels, image), IsEmpty()) << "nobody but the image said it";
}

TEST(RecordedTest, WhatTheLauncherChoseOfDocker) {
  for (const std::string name : {"docker/hostconfig", "docker/hostconfig_dns"}) {
    const auto config = parse_host_config(recorded(name)).value();
    EXPECT_EQ(config.runtime, "mesh");
    EXPECT_EQ(config.own_dns, name.ends_with("_dns"));
  }
}

TEST(RecordedTest, WhatPodmanKeepsOfAContainersImage) {
  for (const std::string folder : {"podman_none", "podman_bridge", "podman_image"}) {
    SCOPED_TRACE(folder);
    const auto state = recorded_state(folder + "/state");
    const auto text = recorded(folder + "/containers");
    const auto image = parse_store_image(text, state.id).value();
    const auto manifest = recorded(folder + "/manifest");
    EXPECT_EQ(read_json(manifest)->find("config")->text_at("digest"), "sha256:" + image);
    const auto own = launchers_own(state.annotations, parse_manifest_annotations(manifest).value());
    EXPECT_EQ(own.at("mesh.id"), state.annotations.at("mesh.id"));
    EXPECT_THAT(own, SizeIs(9)) << "what the image said is not among it";
    EXPECT_EQ(parse_store_image(text, "other").error().code, ErrorCode::kNotFound);
  }
  EXPECT_EQ(parse_manifest_annotations(recorded("podman_image/manifest"))->at("mesh.id"), "worker");
}

Variables environment_of(const std::string& text) {
  Variables environment;
  std::istringstream lines(text.substr(0, text.find("\n\n")));
  for (std::string line; std::getline(lines, line);) {
    environment.emplace(line.substr(0, line.find('=')), line.substr(line.find('=') + 1));
  }
  return environment;
}

std::pair<CniCall, CniNetwork> said(const std::string& name) {
  const auto text = recorded("cni/" + name);
  return {parse_call(environment_of(text)).value(),
          parse_network(text.substr(text.find("\n\n") + 2), {}).value()};
}

// Recording, command, version, network, how its namespace begins, ids, and our link in what the
// engine says was done before; -: nothing.
constexpr const char* kCalls = R"(
podman_add         ADD 1.0.0 mesh     /run/netns/netns-a528  worker,96a73b5eca8c   -
podman_del         DEL 1.0.0 mesh     /run/netns/netns-a528  worker,96a73b5eca8c   eth0
podman_old_add     ADD 0.4.0 mesh-old /run/netns/netns-f69c  worker,b3b3e3e6e26b   -
podman_old_del     DEL 0.4.0 mesh-old /run/netns/netns-f69c  worker,b3b3e3e6e26b   eth0
podman_chained_add ADD 1.0.0 own      /run/netns/netns-02ec  worker,9f303fd108ee   -
podman_chained_del DEL 1.0.0 own      /run/netns/netns-02ec  worker,9f303fd108ee   mesh0
ctr_add            ADD 1.0.0 mesh     /proc/197/ns/net       default-@2,@2         -
ctr_del            DEL 1.0.0 mesh     -                      default-@2,@2         eth0
ctr_undeclared_del DEL 1.0.0 mesh     -                      other-@3              -
cri_add            ADD 1.0.0 mesh     /var/run/netns/cni-6f9 worker-0,57eed81046ef -
cri_del            DEL 1.0.0 mesh     /var/run/netns/cni-6f9 worker-0,57eed81046ef eth0
cri_del_again      DEL 1.0.0 mesh     -                      worker-0,57eed81046ef -
cri_ports_add      ADD 1.0.0 mesh     /var/run/netns/cni-b36 db-0,6d30e6136492     -
)";

TEST(RecordedTest, CallsOfCniSayWhoItIsWhereAndWhatWasDone) {
  std::istringstream rows(with_id(kCalls, "zzzzz-dz642-00000000000000"));
  std::string name, command, version, mesh, netns, ids, link;
  while (rows >> name >> command >> version >> mesh >> netns >> ids >> link) {
    SCOPED_TRACE(name);
    const auto [call, network] = said(name);
    EXPECT_EQ(call.command, command);
    EXPECT_THAT(call.netns.empty() ? "-" : call.netns, StartsWith(netns));
    EXPECT_EQ(network.version, version);
    EXPECT_EQ(key_of(call, network), "cni:" + mesh + "/" + call.container + "/eth0");
    EXPECT_EQ(network.places.run_dir + network.places.state_dir, "/run/meshd/run/state");
    const auto launch = launch_of(call, network, "");
    EXPECT_EQ(fmt::to_string(fmt::join(ids_of(launch), ",")), ids);
    EXPECT_EQ(launch.labels.contains("mesh.id"), name.starts_with("cri"));
    const auto ours = our_link(network.previous.value_or(Json::object()));
    EXPECT_EQ(ours.name.empty() ? "-" : ours.name, link);
    EXPECT_THAT(ours.addresses, SizeIs(link == "-" ? 0 : 2));
    EXPECT_EQ(not_done(call, network).starts_with("portMappings"), name == "cri_ports_add");
  }
  EXPECT_EQ(name, "cri_ports_add") << "the last row was read";
}

TEST(RecordedTest, WhatIsAnsweredBehindOthersComesBackAtTheEnd) {
  for (const std::string chain : {"podman_", "podman_old_", "podman_chained_", "ctr_", "cri_"}) {
    const auto [call, network] = said(chain + "add");
    const auto after = said(chain + "del").second.previous.value();
    const auto result = read_json(render_result(call, network, true, mesh::v1::AttachReply()));
    EXPECT_EQ(result->text_at("cniVersion"), after.text_at("cniVersion"));
    const auto &mine = result->find("interfaces")->items, &theirs = after.find("interfaces")->items;
    ASSERT_EQ(mine.size(), theirs.size());
    for (std::size_t i = 0; i + 2 < mine.size(); ++i) EXPECT_EQ(render(mine[i]), render(theirs[i]));
    EXPECT_EQ(mine.back().text_at("sandbox"), theirs.back().text_at("sandbox"));
  }
}

TEST(RecordedTest, PodmanAsksForVersionsWithDummies) {
  const auto text = recorded("cni/podman_version");
  EXPECT_EQ(parse_call(environment_of(text)).value().command, "VERSION");
}

TEST(RecordedTest, EveryCallOfDockerdIsAnsweredAsItWas) {
  std::istringstream lines(recorded("docker_network/conversation"));
  std::vector<PluginCall> of_containers;
  int calls = 0;
  for (std::string path, body, answer; std::getline(lines, path); ++calls) {
    ASSERT_TRUE(std::getline(lines, body) && std::getline(lines, answer)) << path;
    const auto call = parse_plugin_call(path, body);
    ASSERT_TRUE(call) << path << ": " << call.error().what;
    EXPECT_EQ(call->reply, answer) << path;
    if (call->kind != PluginCall::Kind::kAnswered) of_containers.push_back(*call);
  }
  EXPECT_EQ(calls, 26);
  ASSERT_THAT(of_containers, SizeIs(4));
  const auto &db = of_containers[0], &worker = of_containers[1];
  EXPECT_THAT(worker.sandbox, StartsWith("/run/test/docker/exec/netns/"));
  EXPECT_EQ(of_containers[2].endpoint, worker.endpoint);
  EXPECT_EQ(of_containers[3].endpoint, db.endpoint);
  for (const auto& call : of_containers) EXPECT_EQ(call.network, db.network);

  // What it says of the worker when we ask, while that one starts and while it ends.
  const auto starts = parse_http_reply(recorded("docker_network/starts")).value();
  const auto ends = parse_http_reply(recorded("docker_network/ends")).value();
  const auto list = parse_http_reply(recorded("docker_network/containers")).value();
  const auto member = parse_member(starts, worker.endpoint).value();
  EXPECT_EQ(member.name + member.container, "worker") << "which is not there yet";
  EXPECT_EQ(parse_member(ends, worker.endpoint)->container, parse_container_id(list, "worker"));
  EXPECT_EQ(parse_member(starts, db.endpoint)->container.size(), kNumberBytes) << "it runs";
}

TEST(RecordedTest, HostsOfAContainerOnANetworkOfTheMeshGetItsAddress) {
  const auto hosts = recorded("docker_network/hosts");
  const auto after = with_addresses(hosts, {"10.213.0.5"}).value();
  EXPECT_EQ(after.substr(0, hosts.find(kDummyAddress)), hosts.substr(0, hosts.find(kDummyAddress)));
  EXPECT_THAT(after, testing::EndsWith("\n10.213.0.5\t12e0a10408d1\n"));
}

}  // namespace
}  // namespace meshd::engines
