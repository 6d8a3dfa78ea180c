// A plugin's whole conversation, with what runtimes have been seen to say.
#include "engines/cni.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/node.pb.h"

namespace meshd::engines {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const std::string kArvados = "zzzzz-dz642-000000000000001";

Variables podman() {
  return {{"CNI_COMMAND", "ADD"},
          {"CNI_CONTAINERID", std::string(64, 'a')},
          {"CNI_NETNS", "/run/netns/netns-1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"},
          {"CNI_IFNAME", "eth0"},
          {"CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=db"},
          {"CNI_PATH", "/usr/lib/cni"},
          {"HOME", "/root"}};
}

std::string network(std::string_view version, std::string_view more = "") {
  return "{\"cniVersion\":\"" + std::string(version) +
         "\",\"name\":\"mesh\",\"type\":\"mesh-cni\"" + std::string(more) + "}";
}

mesh::v1::AttachReply reply() {
  mesh::v1::AttachReply reply;
  reply.set_id("db");
  reply.set_ifname("eth0");
  reply.set_host_ifname("mesh5");
  reply.set_mac("02:00:0a:d5:00:05");
  reply.add_addresses("10.213.0.5");
  reply.add_addresses("fd00::5");
  reply.add_gateways("169.254.1.1");
  reply.add_gateways("fe80::1");
  reply.add_resolvers("169.254.1.1");
  reply.add_search("svc.mesh.internal");
  return reply;
}

TEST(CniTest, CallOfPodman) {
  const auto call = parse_call(podman()).value();
  EXPECT_EQ(call.command, "ADD");
  EXPECT_EQ(call.ifname, "eth0");
  EXPECT_EQ(call.arguments.at("K8S_POD_NAME"), "db");
  const auto mesh = parse_network(network("0.4.0"), {}).value();
  EXPECT_THAT(ids_of(launch_of(call, mesh, "")), ElementsAre("db", std::string(12, 'a')));
}

TEST(CniTest, DelNeedsNoNamespace) {
  auto environment = podman();
  environment["CNI_COMMAND"] = "DEL";
  environment["CNI_NETNS"] = "";
  EXPECT_TRUE(parse_call(environment));
  environment["CNI_COMMAND"] = "CHECK";
  EXPECT_EQ(parse_call(environment).error().code, CniError::kEnvironment);
}

TEST(CniTest, WhatIsNotUtf8NeverReachesAnAnswer) {
  auto environment = podman();
  environment["CNI_NETNS"] = "/run/\xff\xff";
  EXPECT_EQ(parse_call(environment).error().code, CniError::kEnvironment);
  environment["CNI_COMMAND"] = "DEL";
  EXPECT_TRUE(parse_call(environment));
  // Nor half a character, where a message is cut.
  for (std::size_t before = 590; before < 604; ++before) {
    for (const auto* more : {"\xc3\xa9\xc3\xa9", "\xf0\x9f\x98\x80!", "\xff\xe2\x82"}) {
      const auto error = render_error({7, std::string(before, 'x') + more}, "1.0.0");
      EXPECT_TRUE(read_json(error)) << before << more;
    }
  }
  const auto whole = read_json(render_error({7, "caf\xc3\xa9"}, "1.0.0")).value();
  EXPECT_EQ(whole.text_at("msg"), "caf\xc3\xa9");
}

TEST(CniTest, CtrPutsItsNamespaceInFront) {
  auto environment = podman();
  environment["CNI_ARGS"] = "";
  environment["CNI_CONTAINERID"] = "default-" + kArvados;
  environment["CNI_NETNS"] = "/proc/4711/ns/net";
  const auto mesh = parse_network(network("1.0.0"), {}).value();
  const auto launch = launch_of(parse_call(environment).value(), mesh, "");
  EXPECT_THAT(ids_of(launch), ElementsAre("default-" + kArvados, kArvados));
}

TEST(CniTest, PodOfCriHasAnnotationsUnderCapitalKeys) {
  auto environment = podman();
  environment["CNI_ARGS"] =
      "K8S_POD_INFRA_CONTAINER_ID=1;K8S_POD_NAME=pod1;IgnoreUnknown=1;K8S_POD_NAMESPACE=ns";
  const auto mesh = parse_network(network("1.0.0", R"(,"runtimeConfig":{
          "io.kubernetes.cri.pod-annotations":{"mesh.id":"db","x":"y"},
          "portMappings":[{"HostPort":80,"ContainerPort":80,"Protocol":"tcp","HostIP":""}],
          "dns":{"Servers":["10.0.0.1"],"Searches":["x"],"Options":null}})"),
                                  {})
                        .value();
  const auto launch = launch_of(parse_call(environment).value(), mesh, "");
  EXPECT_EQ(launch.labels.at("mesh.id"), "db");
  EXPECT_EQ(launch.names.front(), "pod1");
}

TEST(CniTest, WhatANetworkOfTheMeshDoesNotDoIsSaid) {
  const auto said = [](const std::string& arguments, const std::string& more) {
    auto environment = podman();
    environment["CNI_ARGS"] = arguments;
    return not_done(parse_call(environment).value(),
                    parse_network(network("1.0.0", more), {}).value());
  };
  const std::string ports = R"("runtimeConfig":{"PortMappings":[{"HostPort":80}]})";
  const std::string behind = R"("prevResult":{"cniVersion":"1.0.0"})";
  EXPECT_THAT(said("IP=10.0.0.9", ""), HasSubstr("CNI_ARGS: IP: meshd gives the addresses"));
  EXPECT_EQ(said("MAC=02:00:00:00:00:01;IP=", ""), "") << "podman says it at a reload";
  EXPECT_THAT(said("", "," + ports), HasSubstr("portMappings: "));
  EXPECT_EQ(said("IP=;MAC=", R"(,"runtimeConfig":{"portMappings":[]})"), "");
  EXPECT_EQ(said("IP=10.0.0.9", "," + ports + "," + behind), "") << "the others do it";
}

TEST(CniTest, SingularityHasAProcessNumberAndNothingElse) {
  const Variables environment = {{"CNI_COMMAND", "ADD"},
                                 {"CNI_CONTAINERID", "4711"},
                                 {"CNI_NETNS", "/var/run/singularity/ns/net"},
                                 {"CNI_IFNAME", "eth0"},
                                 {"CNI_PATH", "/usr/libexec/singularity/cni"},
                                 {"PATH", "/bin:/sbin:/usr/bin:/usr/sbin"}};
  const auto mesh = parse_network(network("0.4.0"), {}).value();
  const auto launch = launch_of(parse_call(environment).value(), mesh, kArvados);
  EXPECT_THAT(ids_of(launch), ElementsAre(kArvados, "4711"));
}

TEST(CniTest, CrunchRunIsStartedForAContainer) {
  using namespace std::string_literals;
  EXPECT_EQ(crunch_container("/usr/bin/crunch-run\0--stdin-config\0"s + kArvados + "\0"s),
            kArvados);
  EXPECT_EQ(crunch_container("crunch-run\0"s + kArvados), kArvados);
  EXPECT_EQ(crunch_container("bash\0-c\0crunch-run "s + kArvados), "");
  EXPECT_EQ(crunch_container("/bin/notcrunch-run\0"s + kArvados), "");
  EXPECT_EQ(crunch_container("crunch-run\0--list\0"s), "");
  EXPECT_EQ(crunch_container(""), "");
}

TEST(CniTest, IdsThatAreGivenCountInOrder) {
  auto environment = podman();
  environment["MESHD_UUID"] = "by-environment";
  const auto mesh = parse_network(network("1.0.0"), {}).value();
  auto launch = launch_of(parse_call(environment).value(), mesh, "");
  EXPECT_EQ(launch.labels.at("mesh.id"), "by-environment");
  environment["CNI_ARGS"] = "MESHD_UUID=by-args";
  launch = launch_of(parse_call(environment).value(), mesh, "");
  EXPECT_EQ(launch.labels.at("mesh.id"), "by-args");
  // A variable that a script has left empty says nothing, and takes nothing away.
  environment["CNI_ARGS"] = "MESHD_UUID=";
  launch = launch_of(parse_call(environment).value(), mesh, "");
  EXPECT_EQ(launch.labels.at("mesh.id"), "by-environment");
}

TEST(CniTest, EnvironmentsThatAreWrong) {
  for (const auto& [name, value] :
       Variables{{"CNI_COMMAND", "add"}, {"CNI_CONTAINERID", "../x"}, {"CNI_IFNAME", "a/b"}}) {
    auto environment = podman();
    environment[name] = value;
    EXPECT_EQ(parse_call(environment).error().code, CniError::kEnvironment) << name;
  }
  auto environment = podman();
  environment["CNI_IFNAME"] = "sixteen-letters-";
  EXPECT_FALSE(parse_call(environment));
  environment["CNI_IFNAME"] = "..";
  EXPECT_FALSE(parse_call(environment));
}

TEST(CniTest, NetworksThatAreWrong) {
  EXPECT_EQ(parse_network("", {}).error().code, CniError::kDecode);
  EXPECT_EQ(parse_network("[]", {}).error().code, CniError::kDecode);
  EXPECT_EQ(parse_network(network("0.2.0"), {}).error().code, CniError::kVersion);
  EXPECT_EQ(parse_network(R"({"name":"mesh"})", {}).error().code, CniError::kVersion);
  EXPECT_EQ(parse_network(R"({"cniVersion":"1.0.0"})", {}).error().code, CniError::kConfiguration);
  EXPECT_EQ(parse_network(network("1.0.0", R"(,"run_dir":"x")"), {}).error().code,
            CniError::kConfiguration);
  EXPECT_EQ(parse_network(network("1.1.0", R"(,"cni.dev/valid-attachments":{})"), {}).error().code,
            CniError::kConfiguration);
}

TEST(CniTest, PlacesStandInTheNetworkWhereTheEnvironmentIsCleared) {
  const auto mesh = parse_network(network("1.0.0", R"(,"run_dir":"/r","state_dir":"/s")"), {});
  EXPECT_EQ(mesh->places.run_dir, "/r");
  EXPECT_EQ(mesh->places.state_dir, "/s");
  EXPECT_EQ(parse_network(network("1.0.0"), {"/a", "/b"})->places.run_dir, "/a");
}

TEST(CniTest, AttachmentsOfANetworkHaveItsKey) {
  const auto mesh = parse_network(
      network("1.1.0", R"(,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}])"),
      {});
  auto environment = podman();
  environment["CNI_CONTAINERID"] = "c1";
  const auto key = key_of(parse_call(environment).value(), *mesh);
  EXPECT_EQ(key, "cni:mesh/c1/eth0");
  EXPECT_EQ(key.substr(key_prefix(*mesh).size()), mesh->valid->front());
}

TEST(CniTest, ResultHasMacAndOneInterface) {
  const auto call = parse_call(podman()).value();
  const auto mesh = parse_network(network("1.0.0"), {}).value();
  EXPECT_EQ(render_result(call, mesh, true, reply()),
            R"({"cniVersion":"1.0.0","interfaces":[{"name":"mesh5"},)"
            R"({"name":"eth0","mac":"02:00:0a:d5:00:05",)"
            R"("sandbox":"/run/netns/netns-1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"}],)"
            R"("ips":[{"interface":1,"address":"10.213.0.5/32","gateway":"169.254.1.1"},)"
            R"({"interface":1,"address":"fd00::5/128","gateway":"fe80::1"}],)"
            R"("routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::1"}],)"
            R"("dns":{"nameservers":["169.254.1.1"],"search":["svc.mesh.internal"]}})");
}

TEST(CniTest, OldVersionsSayTheFamily) {
  const auto call = parse_call(podman()).value();
  for (const auto* version : {"0.3.1", "0.4.0"}) {
    const auto text =
        render_result(call, parse_network(network(version), {}).value(), true, reply());
    EXPECT_THAT(text, HasSubstr(R"({"version":"4","interface":1,"address":"10.213.0.5/32")"));
    EXPECT_THAT(text, HasSubstr(R"({"version":"6","interface":1,"address":"fd00::5/128")"));
  }
  const auto text = render_result(call, parse_network(network("1.1.0"), {}).value(), true, reply());
  EXPECT_THAT(text, Not(HasSubstr(R"("version":"4")")));
}

TEST(CniTest, BehindOthersWhatTheyDidStands) {
  const auto call = parse_call(podman()).value();
  const auto chained = network("1.0.0", R"(,"prevResult":{"cniVersion":"1.0.0",
      "interfaces":[{"name":"cni0"},{"name":"veth1"},{"name":"eth0","sandbox":"/n"}],
      "ips":[{"interface":2,"address":"10.88.0.2/16","gateway":"10.88.0.1"}],
      "routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["192.0.2.53"]}})");
  const auto mesh = parse_network(chained, {}).value();
  auto second = reply();
  second.set_ifname("mesh0");
  const auto text = render_result(call, mesh, false, second);
  EXPECT_THAT(text, HasSubstr(R"("address":"10.88.0.2/16")"));
  EXPECT_THAT(text, HasSubstr(R"({"interface":4,"address":"10.213.0.5/32")"));
  EXPECT_THAT(text, HasSubstr(R"("routes":[{"dst":"0.0.0.0/0"}])"));
  EXPECT_THAT(text, Not(HasSubstr("192.0.2.53")));
  const auto ours = our_link(read_json(text).value());
  EXPECT_EQ(ours.name, "mesh0");
  EXPECT_THAT(ours.addresses, ElementsAre("10.213.0.5/32", "fd00::5/128"));
  // Nobody declared it: all is as it was.
  const auto left = read_json(render_result(call, mesh, true, std::nullopt)).value();
  EXPECT_EQ(render(left), render(*mesh.previous));
  EXPECT_EQ(our_link(left).name, "");
  const auto others =
      read_json(R"({"interfaces":[{"name":"meshbr0"},{"name":"eth0","sandbox":"/n"}]})").value();
  EXPECT_EQ(our_link(others).name, "");
}

TEST(CniTest, AloneAndUndeclaredThereIsNoInterface) {
  const auto call = parse_call(podman()).value();
  const auto mesh = parse_network(network("1.0.0"), {}).value();
  EXPECT_EQ(render_result(call, mesh, true, std::nullopt),
            R"({"cniVersion":"1.0.0","interfaces":[],"ips":[],"dns":{}})");
}

TEST(CniTest, ErrorsAndVersions) {
  EXPECT_EQ(render_error({CniError::kTryAgain, "a\nb", "c"}, "0.4.0"),
            R"({"cniVersion":"0.4.0","code":11,"msg":"a b","details":"c"})");
  EXPECT_THAT(render_error({CniError::kVersion, "x"}, "9"), HasSubstr(R"("cniVersion":"1.1.0")"));
  EXPECT_EQ(render_versions("1.0.0"),
            R"({"cniVersion":"1.0.0",)"
            R"("supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]})");
}

}  // namespace
}  // namespace meshd::engines
